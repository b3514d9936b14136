/**
 * The reply to a READ that waits for the volume: pieces of memory, headers filled in, that together cover the range once.
 *
 * @module
 */

import type { Extent } from "../cache/volume.ts";
import { chunkDone, holeBytesMin, payloadAdvertisedBytesMax } from "./constants.ts";
import {
  dataHeaderBytesOf,
  holeChunkBytesOf,
  putDataHeader,
  putHoleChunk,
  type ReplyForm,
  replyForm,
} from "./replies.ts";

/** A piece of a READ's reply in memory of its own. */
export interface ReadPiece {
  /** All of the piece, as it is sent. */
  readonly reply: Uint8Array<ArrayBuffer>;
  /** Where the data goes; empty for a hole. */
  readonly data: Uint8Array<ArrayBuffer>;
  /** The offset that the data has on the volume. */
  readonly offset: number;
}

/** A part of the range, as one chunk carries it. */
interface Part {
  offset: number;
  length: number;
  hole: boolean;
}

/**
 * Makes the memory for the reply. A simple reply is one piece; chunks are never longer than the advertised payload, and
 * what `extents` calls zero becomes a hole; what they do not reach is data.
 */
export function readPieces(
  form: ReplyForm,
  cookieHigh: number,
  cookieLow: number,
  offset: number,
  length: number,
  extents: readonly Extent[],
): ReadPiece[] {
  const parts = form === replyForm.simple
    ? [{ offset, length, hole: false }]
    : split(offset, length, extents);
  return parts.map((part, index) => {
    const flags = index === parts.length - 1 ? chunkDone : 0;
    const headerBytes = part.hole ? holeChunkBytesOf(form) : dataHeaderBytesOf(form);
    const reply = new Uint8Array(headerBytes + (part.hole ? 0 : part.length));
    const view = new DataView(reply.buffer);
    const put = part.hole ? putHoleChunk : putDataHeader;
    put(view, 0, form, flags, cookieHigh, cookieLow, offset, part.offset, part.length);
    return { reply, data: reply.subarray(headerBytes), offset: part.offset };
  });
}

function split(offset: number, length: number, extents: readonly Extent[]): Part[] {
  const parts: Part[] = [];
  const add = (from: number, to: number, hole: boolean) => {
    const before = parts.at(-1);
    if (before !== undefined && before.hole === hole) before.length += to - from;
    else if (from < to) parts.push({ offset: from, length: to - from, hole });
  };
  const end = offset + length;
  let at = offset;
  for (const extent of extents) {
    const to = Math.min(at + extent.length, end);
    add(at, to, extent.zero && to - at >= holeBytesMin);
    at = to;
  }
  add(at, end, false);
  return parts.flatMap((part) => part.hole ? [part] : cut(part));
}

function cut(part: Part): Part[] {
  const parts: Part[] = [];
  const end = part.offset + part.length;
  for (let at = part.offset; at < end; at += payloadAdvertisedBytesMax) {
    parts.push({ offset: at, length: Math.min(payloadAdvertisedBytesMax, end - at), hole: false });
  }
  return parts;
}
