/**
 * The client's side of the handshake: fixed newstyle, TLS where it is asked for, structured replies where the server has them, and GO.
 *
 * Servers that are too old for GO are not supported: it has been in every server since 2017.
 *
 * @module
 */

import { DeviceError } from "../../errors.ts";
import {
  clientFlag,
  handshakeFlag,
  info,
  magic,
  option,
  optionReply,
  optionReplyHeaderBytes,
  payloadAdvertisedBytesMax,
} from "../../nbd/constants.ts";
import type { ByteStream } from "./byte_stream.ts";

/** Longest reply to an option that is looked at; what we ask for is answered with less. */
const replyBytesMax = 64 * 1024 - optionReplyHeaderBytes;
/** Replies to one option; a server sends four kinds of information at most. */
const repliesMax = 64;

const twoTo32 = 0x1_0000_0000;
const encoder = new TextEncoder();

/** What was agreed. */
export interface ExportFacts {
  /** The size of the export in bytes. */
  readonly sizeBytes: number;
  /** What it can do; see `transmissionFlag`. */
  readonly flags: number;
  /** READs are answered in chunks. */
  readonly structured: boolean;
  /** Requests must be multiples of it. */
  readonly blockBytesMin: number;
  /** The most that one request may carry. */
  readonly payloadBytesMax: number;
}

/** The server answers in a way that it must not, or says no. */
function refused(why: string): DeviceError {
  return new DeviceError("ENODEV", why);
}

/**
 * Negotiates until the transmission starts; with `startTls` nothing but the wish for TLS is said before that is on. Rejects with {@linkcode DeviceError} `ENODEV` and the server's own
 * words.
 */
export async function shakeHands(
  stream: ByteStream,
  exportName: string,
  startTls?: () => Promise<void>,
): Promise<ExportFacts> {
  const greeting = await stream.peek(18);
  const isNbd = greeting.getUint32(0) === magic.passwordHigh && greeting.getUint32(4) === magic.passwordLow;
  if (!isNbd) throw refused("what answers there is no NBD server");
  const isNewstyle = greeting.getUint32(8) === magic.optionHigh && greeting.getUint32(12) === magic.optionLow;
  const offered = greeting.getUint16(16);
  if (!isNewstyle || (offered & handshakeFlag.fixedNewstyle) === 0) {
    throw refused("the NBD server is too old: it does not offer the fixed newstyle handshake");
  }
  const flags = new Uint8Array(4);
  flags[3] = clientFlag.fixedNewstyle | (offered & handshakeFlag.noZeroes ? clientFlag.noZeroes : 0);
  await stream.send(flags);
  if (startTls !== undefined) await goSecret(stream, startTls);
  const structured = await offersStructured(stream);
  return { ...await go(stream, exportName), structured };
}

async function sendOption(stream: ByteStream, code: number, data: Uint8Array): Promise<void> {
  const message = new Uint8Array(16 + data.length);
  const view = new DataView(message.buffer);
  view.setUint32(0, magic.optionHigh);
  view.setUint32(4, magic.optionLow);
  view.setUint32(8, code);
  view.setUint32(12, data.length);
  message.set(data, 16);
  await stream.send(message);
}

/** The next reply; its data stay as they are until the next one. */
async function takeReply(stream: ByteStream, code: number): Promise<{ type: number; data: DataView }> {
  const head = await stream.peek(optionReplyHeaderBytes);
  const inSync = head.getUint32(0) === magic.optionReplyHigh && head.getUint32(4) === magic.optionReplyLow &&
    head.getUint32(8) === code;
  if (!inSync) throw refused("the server's answer does not follow the protocol");
  const type = head.getUint32(12);
  const dataBytes = head.getUint32(16);
  if (dataBytes > replyBytesMax) throw refused(`the server answered with ${dataBytes} bytes, far too many`);
  return { type, data: await stream.peek(dataBytes) };
}

async function goSecret(stream: ByteStream, startTls: () => Promise<void>): Promise<void> {
  await sendOption(stream, option.startTls, new Uint8Array(0));
  const { type, data } = await takeReply(stream, option.startTls);
  if (type !== optionReply.ack) {
    throw refused(`the server does not offer TLS${said(data)}; nbd:// would be without`);
  }
  // Whoever stands between could have put it there, to be taken for secret.
  if (stream.aheadBytes > 0) throw refused("the server sent plain text where TLS was to begin");
  try {
    await startTls();
  } catch (cause) {
    throw new DeviceError("ENODEV", `TLS failed: ${cause instanceof Error ? cause.message : String(cause)}`, {
      cause,
    });
  }
}

async function offersStructured(stream: ByteStream): Promise<boolean> {
  await sendOption(stream, option.structuredReply, new Uint8Array(0));
  const { type } = await takeReply(stream, option.structuredReply);
  return type === optionReply.ack;
}

async function go(stream: ByteStream, exportName: string): Promise<Omit<ExportFacts, "structured">> {
  const name = encoder.encode(exportName);
  const data = new Uint8Array(4 + name.length + 4);
  const view = new DataView(data.buffer);
  view.setUint32(0, name.length);
  data.set(name, 4);
  view.setUint16(4 + name.length, 1);
  view.setUint16(6 + name.length, info.blockSize);
  await sendOption(stream, option.go, data);
  let found: { sizeBytes: number; flags: number } | undefined;
  let blockBytesMin = 1;
  let payloadBytesMax: number = payloadAdvertisedBytesMax;
  for (let replies = 0; replies < repliesMax; replies++) {
    const { type, data } = await takeReply(stream, option.go);
    if (type === optionReply.ack) {
      if (found === undefined) throw refused("the server does not tell the size of the export");
      return { ...found, blockBytesMin, payloadBytesMax };
    }
    if (type >= optionReply.unsupported) throw refused(refusal(type, data, exportName));
    if (type !== optionReply.info || data.byteLength < 2) continue;
    const kind = data.getUint16(0);
    if (kind === info.export && data.byteLength >= 12) {
      found = { sizeBytes: data.getUint32(2) * twoTo32 + data.getUint32(6), flags: data.getUint16(10) };
    } else if (kind === info.blockSize && data.byteLength >= 14) {
      blockBytesMin = data.getUint32(2);
      payloadBytesMax = data.getUint32(10);
    }
  }
  throw refused("the server goes on answering without an end");
}

/** The server's own words. */
function said(data: DataView): string {
  const words = new TextDecoder().decode(data).replace(/[^\x20-\x7e]/g, "?").slice(0, 200);
  return words === "" ? "" : ` ("${words}")`;
}

function refusal(type: number, data: DataView, exportName: string): string {
  if (type === optionReply.unknown) return `the server has no export named "${exportName}"${said(data)}`;
  if (type === optionReply.tlsRequired) {
    return `the server wants TLS${said(data)}; use nbds:// instead of nbd://`;
  }
  if (type === optionReply.unsupported) {
    return `the server is too old: it does not know the option GO${said(data)}`;
  }
  return `the server refuses, with the answer 0x${type.toString(16)}${said(data)}`;
}
