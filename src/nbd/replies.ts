/**
 * Replies of the transmission phase, written into an {@linkcode OutputBuffer}. A cookie is carried as its two
 * 32-bit halves, read and written as signed integers, which V8 keeps unboxed.
 *
 * @module
 */

import type { Extent } from "../cache/volume.ts";
import {
  allocation,
  allocationContextId,
  chunk,
  chunkDone,
  chunkHeaderBytes,
  dataChunkHeaderBytes,
  magic,
  payloadAdvertisedBytesMax,
  simpleReplyHeaderBytes,
  wireError,
} from "./constants.ts";
import type { OutputBuffer } from "./output_buffer.ts";
import { wireErrorText } from "./wire_errors.ts";

const twoTo32 = 0x1_0000_0000;

/** Writes the 16 bytes of a simple reply's header at `at`. */
export function putSimpleHeader(
  view: DataView,
  at: number,
  cookieHigh: number,
  cookieLow: number,
  error: number,
): void {
  view.setUint32(at, magic.simpleReply);
  view.setUint32(at + 4, error);
  view.setInt32(at + 8, cookieHigh);
  view.setInt32(at + 12, cookieLow);
}

/** Writes the 20 bytes of a structured reply chunk's header at `at`. */
export function putChunkHeader(
  view: DataView,
  at: number,
  flags: number,
  type: number,
  cookieHigh: number,
  cookieLow: number,
  payloadBytes: number,
): void {
  view.setUint32(at, magic.structuredReply);
  view.setUint16(at + 4, flags);
  view.setUint16(at + 6, type);
  view.setInt32(at + 8, cookieHigh);
  view.setInt32(at + 12, cookieLow);
  view.setUint32(at + 16, payloadBytes);
}

/** Writes the 28 bytes that precede the data of a structured READ chunk at `at`. */
export function putDataChunkHeader(
  view: DataView,
  at: number,
  flags: number,
  cookieHigh: number,
  cookieLow: number,
  offset: number,
  dataBytes: number,
): void {
  putChunkHeader(view, at, flags, chunk.offsetData, cookieHigh, cookieLow, 8 + dataBytes);
  view.setUint32(at + chunkHeaderBytes, Math.floor(offset / twoTo32));
  view.setUint32(at + chunkHeaderBytes + 4, offset % twoTo32);
}

/** Queues a simple reply without data: success (`error` 0) or failure. */
export function simpleReply(out: OutputBuffer, cookieHigh: number, cookieLow: number, error: number): void {
  const at = out.reserve(simpleReplyHeaderBytes);
  putSimpleHeader(out.view, at, cookieHigh, cookieLow, error);
  out.commit(simpleReplyHeaderBytes);
}

/** Queues the structured success of a command without data. */
export function doneReply(out: OutputBuffer, cookieHigh: number, cookieLow: number): void {
  const at = out.reserve(chunkHeaderBytes);
  putChunkHeader(out.view, at, chunkDone, chunk.none, cookieHigh, cookieLow, 0);
  out.commit(chunkHeaderBytes);
}

/** Queues a failure, with words for people where the client takes structured replies. */
export function errorReply(
  out: OutputBuffer,
  structured: boolean,
  cookieHigh: number,
  cookieLow: number,
  error: number,
): void {
  if (!structured) return simpleReply(out, cookieHigh, cookieLow, error);
  const message = wireErrorText(error);
  const payloadBytes = 6 + message.length;
  const at = out.reserve(chunkHeaderBytes + payloadBytes);
  const { view } = out;
  putChunkHeader(view, at, chunkDone, chunk.error, cookieHigh, cookieLow, payloadBytes);
  view.setUint32(at + chunkHeaderBytes, error);
  view.setUint16(at + chunkHeaderBytes + 4, message.length);
  out.bytes.set(message, at + chunkHeaderBytes + 6);
  out.commit(chunkHeaderBytes + payloadBytes);
}

/** A piece of a READ's reply in memory of its own: `reply` is header and data, `data` the part to be filled. */
export interface ReadPiece {
  /** All of the piece, as it is sent. */
  reply: Uint8Array<ArrayBuffer>;
  /** Where the data goes. */
  data: Uint8Array<ArrayBuffer>;
  /** The offset that the data has on the volume. */
  offset: number;
}

/**
 * Makes the memory for the reply to a READ, headers filled in. One piece, or, structured and longer than the
 * advertised payload, several.
 */
export function readPieces(
  structured: boolean,
  cookieHigh: number,
  cookieLow: number,
  offset: number,
  length: number,
): ReadPiece[] {
  const pieces: ReadPiece[] = [];
  for (let done = 0; done < length;) {
    const dataBytes = structured ? Math.min(length - done, payloadAdvertisedBytesMax) : length;
    const headerBytes = structured ? dataChunkHeaderBytes : simpleReplyHeaderBytes;
    const reply = new Uint8Array(headerBytes + dataBytes);
    const view = new DataView(reply.buffer);
    const flags = done + dataBytes === length ? chunkDone : 0;
    if (structured) putDataChunkHeader(view, 0, flags, cookieHigh, cookieLow, offset + done, dataBytes);
    else putSimpleHeader(view, 0, cookieHigh, cookieLow, wireError.none);
    pieces.push({ reply, data: reply.subarray(headerBytes), offset: offset + done });
    done += dataBytes;
  }
  return pieces;
}

/**
 * Queues the allocation status of a range: descriptors of `extents`, equal neighbours merged, cut to `length` bytes.
 */
export function blockStatusReply(
  out: OutputBuffer,
  cookieHigh: number,
  cookieLow: number,
  extents: readonly Extent[],
  length: number,
): void {
  const at = out.reserve(chunkHeaderBytes + 4 + 8 * extents.length);
  const { view } = out;
  const first = at + chunkHeaderBytes + 4;
  let next = first;
  let covered = 0;
  for (const extent of extents) {
    if (covered === length) break;
    const bytes = Math.min(extent.length, length - covered);
    const flags = (extent.hole ? allocation.hole : 0) | (extent.zero ? allocation.zero : 0);
    covered += bytes;
    if (next > first && view.getUint32(next - 4) === flags) {
      view.setUint32(next - 8, view.getUint32(next - 8) + bytes);
    } else {
      view.setUint32(next, bytes);
      view.setUint32(next + 4, flags);
      next += 8;
    }
  }
  const payloadBytes = 4 + next - first;
  putChunkHeader(view, at, chunkDone, chunk.blockStatus, cookieHigh, cookieLow, payloadBytes);
  view.setUint32(at + chunkHeaderBytes, allocationContextId);
  out.commit(chunkHeaderBytes + payloadBytes);
}
