/**
 * The data of options, decoded; and replies to options, encoded. Decoders return undefined for data that is not
 * well-formed: a length past the end, trailing bytes, a string that is too long, holds a NUL or is not UTF-8.
 *
 * @module
 */

import { magic, optionReplyHeaderBytes, stringBytesMax } from "./constants.ts";
import type { OutputBuffer } from "./output_buffer.ts";

const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const encoder = new TextEncoder();

/** Decodes a string of the protocol. */
export function decodeString(bytes: Uint8Array): string | undefined {
  if (bytes.length > stringBytesMax || bytes.includes(0)) return undefined;
  try {
    return decoder.decode(bytes);
  } catch {
    return undefined;
  }
}

/** Walks option data; every step returns undefined when the data ends too early. */
class Reader {
  readonly #data: Uint8Array;
  readonly #view: DataView;
  #at = 0;
  constructor(data: Uint8Array) {
    this.#data = data;
    this.#view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  }
  get restBytes(): number {
    return this.#data.length - this.#at;
  }
  u16(): number | undefined {
    if (this.restBytes < 2) return undefined;
    this.#at += 2;
    return this.#view.getUint16(this.#at - 2);
  }
  u32(): number | undefined {
    if (this.restBytes < 4) return undefined;
    this.#at += 4;
    return this.#view.getUint32(this.#at - 4);
  }
  /** A u32 length and as many bytes. */
  string(): string | undefined {
    const length = this.u32();
    if (length === undefined || length > this.restBytes) return undefined;
    this.#at += length;
    return decodeString(this.#data.subarray(this.#at - length, this.#at));
  }
}

/** The data of INFO and GO. */
export interface InfoRequest {
  /** The export's name. */
  name: string;
  /** The kinds of information asked for; unknown ones and duplicates included. */
  kinds: number[];
}

/** Decodes the data of INFO and GO. */
export function decodeInfoRequest(data: Uint8Array): InfoRequest | undefined {
  const reader = new Reader(data);
  const name = reader.string();
  const count = reader.u16();
  if (name === undefined || count === undefined || reader.restBytes !== 2 * count) return undefined;
  const kinds: number[] = [];
  for (let i = 0; i < count; i++) kinds.push(reader.u16()!);
  return { name, kinds };
}

/** The data of LIST_META_CONTEXT and SET_META_CONTEXT. */
export interface MetaContextRequest {
  /** The export's name. */
  name: string;
  /** What is asked for: `namespace:leaf`, or `namespace:` for all of a namespace. */
  queries: string[];
}

/** Decodes the data of LIST_META_CONTEXT and SET_META_CONTEXT. */
export function decodeMetaContextRequest(data: Uint8Array): MetaContextRequest | undefined {
  const reader = new Reader(data);
  const name = reader.string();
  const count = reader.u32();
  // Each query takes four bytes at least, so a large count cannot make us loop for long.
  if (name === undefined || count === undefined || count > reader.restBytes / 4) return undefined;
  const queries: string[] = [];
  for (let i = 0; i < count; i++) {
    const query = reader.string();
    if (query === undefined) return undefined;
    queries.push(query);
  }
  return reader.restBytes === 0 ? { name, queries } : undefined;
}

/** Queues one reply to an option; see {@linkcode encodeOptionReply}. */
export function putOptionReply(
  out: OutputBuffer,
  option: number,
  type: number,
  ...parts: (number | string | Uint8Array)[]
): void {
  out.push(encodeOptionReply(option, type, ...parts));
}

/** One reply to an option, whose data is `parts` one after another: a number is a u32, a string UTF-8. */
export function encodeOptionReply(
  option: number,
  type: number,
  ...parts: (number | string | Uint8Array)[]
): Uint8Array<ArrayBuffer> {
  const encoded = parts.map((part) => {
    if (typeof part === "string") return encoder.encode(part);
    if (typeof part !== "number") return part;
    return new Uint8Array([part >>> 24, part >>> 16, part >>> 8, part]);
  });
  const dataBytes = encoded.reduce((sum, part) => sum + part.length, 0);
  const reply = new Uint8Array(optionReplyHeaderBytes + dataBytes);
  const view = new DataView(reply.buffer);
  view.setUint32(0, magic.optionReplyHigh);
  view.setUint32(4, magic.optionReplyLow);
  view.setUint32(8, option);
  view.setUint32(12, type);
  view.setUint32(16, dataBytes);
  let at = optionReplyHeaderBytes;
  for (const part of encoded) {
    reply.set(part, at);
    at += part.length;
  }
  return reply;
}

/** A number as two big-endian bytes. */
export function u16(value: number): Uint8Array {
  return new Uint8Array([value >>> 8, value]);
}

/** A safe integer as eight big-endian bytes. */
export function u64(value: number): Uint8Array {
  const bytes = new Uint8Array(8);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, Math.floor(value / 0x1_0000_0000));
  view.setUint32(4, value % 0x1_0000_0000);
  return bytes;
}

/** Bytes that a string takes on the wire. */
export function stringBytes(value: string): number {
  return encoder.encode(value).length;
}
