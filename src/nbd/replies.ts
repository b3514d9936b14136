/**
 * Replies of the transmission phase, written into an {@linkcode OutputBuffer}. A cookie is carried as its two
 * 32-bit halves, read and written as signed integers, which V8 keeps unboxed.
 *
 * There are three forms, by what was negotiated: simple replies (16 bytes, and the data of a READ), structured chunks (20
 * bytes each), and extended chunks (32 bytes each), which repeat the request's offset.
 *
 * @module
 */

import {
  chunk,
  chunkDone,
  chunkHeaderBytes,
  extendedChunkHeaderBytes,
  magic,
  simpleReplyHeaderBytes,
  wireError,
} from "./constants.ts";
import type { StatusRun } from "./contexts.ts";
import type { OutputBuffer } from "./output_buffer.ts";
import { wireErrorText } from "./wire_errors.ts";

const twoTo32 = 0x1_0000_0000;

/** The forms of replies. */
export const replyForm = { simple: 0, structured: 1, extended: 2 } as const;
/** One of {@linkcode replyForm}. */
export type ReplyForm = (typeof replyForm)[keyof typeof replyForm];

/** The bytes of a chunk's header. */
export function chunkHeaderBytesOf(form: ReplyForm): number {
  return form === replyForm.extended ? extendedChunkHeaderBytes : chunkHeaderBytes;
}

/** The bytes that precede the data of a READ. */
export function dataHeaderBytesOf(form: ReplyForm): number {
  return form === replyForm.simple ? simpleReplyHeaderBytes : chunkHeaderBytesOf(form) + 8;
}

function putU64(view: DataView, at: number, value: number): void {
  view.setUint32(at, Math.floor(value / twoTo32));
  view.setUint32(at + 4, value % twoTo32);
}

function putSimpleHeader(
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

/** Writes a chunk's header at `at`. `offset` is the request's, which an extended one repeats. */
export function putChunkHeader(
  view: DataView,
  at: number,
  form: ReplyForm,
  flags: number,
  type: number,
  cookieHigh: number,
  cookieLow: number,
  offset: number,
  payloadBytes: number,
): void {
  const extended = form === replyForm.extended;
  view.setUint32(at, extended ? magic.extendedReply : magic.structuredReply);
  view.setUint16(at + 4, flags);
  view.setUint16(at + 6, type);
  view.setInt32(at + 8, cookieHigh);
  view.setInt32(at + 12, cookieLow);
  if (!extended) return view.setUint32(at + 16, payloadBytes);
  putU64(view, at + 16, offset);
  putU64(view, at + 24, payloadBytes);
}

/**
 * Writes at `at` what precedes the data of a READ at `offset`: {@linkcode dataHeaderBytesOf} bytes. The data are those
 * of `dataOffset`; a simple reply has all of them.
 */
export function putDataHeader(
  view: DataView,
  at: number,
  form: ReplyForm,
  flags: number,
  cookieHigh: number,
  cookieLow: number,
  offset: number,
  dataOffset: number,
  dataBytes: number,
): void {
  if (form === replyForm.simple) return putSimpleHeader(view, at, cookieHigh, cookieLow, wireError.none);
  putChunkHeader(view, at, form, flags, chunk.offsetData, cookieHigh, cookieLow, offset, 8 + dataBytes);
  putU64(view, at + chunkHeaderBytesOf(form), dataOffset);
}

/** Writes at `at` a chunk that says that `holeBytes` from `holeOffset` on are zeroes; {@linkcode holeChunkBytesOf} bytes. */
export function putHoleChunk(
  view: DataView,
  at: number,
  form: ReplyForm,
  flags: number,
  cookieHigh: number,
  cookieLow: number,
  offset: number,
  holeOffset: number,
  holeBytes: number,
): void {
  putChunkHeader(view, at, form, flags, chunk.offsetHole, cookieHigh, cookieLow, offset, 12);
  const payload = at + chunkHeaderBytesOf(form);
  putU64(view, payload, holeOffset);
  view.setUint32(payload + 8, holeBytes);
}

/** The bytes of a hole chunk. */
export function holeChunkBytesOf(form: ReplyForm): number {
  return chunkHeaderBytesOf(form) + 12;
}

/** Queues the whole reply to a READ of nothing but zeroes. */
export function holeReply(
  out: OutputBuffer,
  form: ReplyForm,
  cookieHigh: number,
  cookieLow: number,
  offset: number,
  length: number,
): void {
  const bytes = holeChunkBytesOf(form);
  const at = out.reserve(bytes);
  putHoleChunk(out.view, at, form, chunkDone, cookieHigh, cookieLow, offset, offset, length);
  out.commit(bytes);
}

/** Queues the success of a command without data, in the shortest form that the client takes. */
export function successReply(
  out: OutputBuffer,
  form: ReplyForm,
  cookieHigh: number,
  cookieLow: number,
  offset: number,
): void {
  if (form === replyForm.extended) return doneReply(out, form, cookieHigh, cookieLow, offset);
  const at = out.reserve(simpleReplyHeaderBytes);
  putSimpleHeader(out.view, at, cookieHigh, cookieLow, wireError.none);
  out.commit(simpleReplyHeaderBytes);
}

/** Queues the success of a command, after or without chunks of content. */
export function doneReply(
  out: OutputBuffer,
  form: ReplyForm,
  cookieHigh: number,
  cookieLow: number,
  offset: number,
): void {
  if (form === replyForm.simple) return successReply(out, form, cookieHigh, cookieLow, offset);
  const bytes = chunkHeaderBytesOf(form);
  const at = out.reserve(bytes);
  putChunkHeader(out.view, at, form, chunkDone, chunk.none, cookieHigh, cookieLow, offset, 0);
  out.commit(bytes);
}

/**
 * Queues a failure, with words for people where the client takes chunks, and, when it is known, the first byte of the
 * volume that failed. Returns where its header lies in `out.bytes`.
 */
export function errorReply(
  out: OutputBuffer,
  form: ReplyForm,
  cookieHigh: number,
  cookieLow: number,
  offset: number,
  error: number,
  failedOffset?: number,
): number {
  if (form === replyForm.simple) {
    const at = out.reserve(simpleReplyHeaderBytes);
    putSimpleHeader(out.view, at, cookieHigh, cookieLow, error);
    out.commit(simpleReplyHeaderBytes);
    return at;
  }
  const message = wireErrorText(error);
  const headerBytes = chunkHeaderBytesOf(form);
  const payloadBytes = 6 + message.length + (failedOffset === undefined ? 0 : 8);
  const at = out.reserve(headerBytes + payloadBytes);
  const type = failedOffset === undefined ? chunk.error : chunk.errorOffset;
  const { view } = out;
  putChunkHeader(view, at, form, chunkDone, type, cookieHigh, cookieLow, offset, payloadBytes);
  const payload = at + headerBytes;
  view.setUint32(payload, error);
  view.setUint16(payload + 4, message.length);
  out.bytes.set(message, payload + 6);
  if (failedOffset !== undefined) putU64(view, payload + 6 + message.length, failedOffset);
  out.commit(headerBytes + payloadBytes);
  return at;
}

/**
 * Queues what one context says of a range: descriptors of `runs`, equal neighbours merged, cut to `length` bytes. `last`
 * when no other context follows.
 */
export function blockStatusReply(
  out: OutputBuffer,
  form: ReplyForm,
  cookieHigh: number,
  cookieLow: number,
  offset: number,
  context: number,
  runs: readonly StatusRun[],
  length: number,
  last: boolean,
): void {
  const merged = mergeRuns(runs, length);
  const extended = form === replyForm.extended;
  const payloadBytes = extended ? 8 + 16 * merged.length : 4 + 8 * merged.length;
  const headerBytes = chunkHeaderBytesOf(form);
  const at = out.reserve(headerBytes + payloadBytes);
  const { view } = out;
  const type = extended ? chunk.blockStatusExtended : chunk.blockStatus;
  putChunkHeader(view, at, form, last ? chunkDone : 0, type, cookieHigh, cookieLow, offset, payloadBytes);
  let next = at + headerBytes;
  view.setUint32(next, context);
  next += 4;
  if (extended) {
    view.setUint32(next, merged.length);
    next += 4;
  }
  for (const { length, flags } of merged) {
    if (extended) {
      putU64(view, next, length);
      putU64(view, next + 8, flags);
      next += 16;
    } else {
      view.setUint32(next, length);
      view.setUint32(next + 4, flags);
      next += 8;
    }
  }
  out.commit(headerBytes + payloadBytes);
}

function mergeRuns(runs: readonly StatusRun[], length: number): StatusRun[] {
  const merged: StatusRun[] = [];
  let covered = 0;
  for (const run of runs) {
    if (covered === length) break;
    const bytes = Math.min(run.length, length - covered);
    covered += bytes;
    const before = merged.at(-1);
    if (before?.flags === run.flags) before.length += bytes;
    else merged.push({ length: bytes, flags: run.flags });
  }
  return merged;
}
