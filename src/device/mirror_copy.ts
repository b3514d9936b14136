/**
 * Copies from the leg in service to one that is to become as good, piece by piece, while both are written to.
 *
 * Invariants:
 * - While a piece is copied nobody writes to it, on either leg: writes that were under way before have ended, and others begin
 *   afterwards. So the target never gets older bytes over newer ones.
 * - A piece is written as two reads in a row gave it: a bit that flips on the way would stand on the only copy one day.
 *
 * @module
 */

import { DeviceError } from "../errors.ts";
import { touchesLegMark } from "../log/leg_mark.ts";
import { legMarkOffsets } from "../log/layout.ts";
import { sectorBytes } from "../units.ts";
import type { Leg } from "./leg.ts";

/** Bytes of a piece: what a client's flush may have to wait for, and half of the memory that copying takes. */
export const pieceBytesMax = 512 * 1024;

/** Reads of a piece until two in a row are the same: a device that gives something else each time cannot be read. */
const pieceReadsMax = 8;

/** Bytes of a device. */
export interface Range {
  offset: number;
  length: number;
}

/** How far a copy has come. */
export interface CopyProgress {
  copiedBytes: number;
  totalBytes: number;
}

/** What is copied, and how. */
export interface CopyOptions {
  source: Leg;
  target: Leg;
  ranges: () => Range[];
  /** Keeps writes to a range away from both legs; returns how to let them go on. */
  lock(range: Range): Promise<() => void>;
  onProgress(progress: CopyProgress): void;
  /** The target was dropped, or all is being closed. */
  isOver(): boolean;
}

/** Copies what counts. Rejects when something cannot be read or written. */
export async function copyToLeg(options: CopyOptions): Promise<void> {
  const { source, target, lock, onProgress, isOver } = options;
  // Writes that were under way before the target got any have to end first: they are not on it.
  (await lock({ offset: 0, length: 0 }))();
  const pieces = options.ranges().flatMap(split);
  const progress = { copiedBytes: 0, totalBytes: pieces.reduce((sum, { length }) => sum + length, 0) };
  onProgress({ ...progress });
  const bytesMax = Math.max(sectorBytes, ...pieces.map(({ length }) => length));
  const buffers = [new Uint8Array(bytesMax), new Uint8Array(bytesMax)] as const;
  for (const piece of pieces) {
    const release = await lock(piece);
    try {
      if (isOver()) throw target.failure ?? new DeviceError("ESHUTDOWN", "the cache is being closed");
      await target.write(piece.offset, await readAlike(source, piece, buffers));
    } finally {
      release();
    }
    progress.copiedBytes += piece.length;
    onProgress({ ...progress });
  }
}

/** Reads a piece until two reads in a row give the same. */
async function readAlike(
  source: Leg,
  { offset, length }: Range,
  buffers: readonly [Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>],
): Promise<Uint8Array<ArrayBuffer>> {
  let [bytes, before] = [buffers[0].subarray(0, length), buffers[1].subarray(0, length)];
  try {
    for (let reads = 1; reads <= pieceReadsMax; reads++) {
      await source.read(offset, bytes);
      if (reads > 1 && isSame(bytes, before)) return bytes;
      [bytes, before] = [before, bytes];
    }
    throw new DeviceError("EIO", `its ${length} bytes at ${offset} are others each time that they are read`);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new DeviceError(
      "EIO",
      `${source.name} cannot be read where it has the only copy (${why}); drain the cache, then try again`,
      { cause: error },
    );
  }
}

function isSame(a: Uint8Array<ArrayBuffer>, b: Uint8Array<ArrayBuffer>): boolean {
  const rest = a.length % 8;
  const words = (bytes: Uint8Array<ArrayBuffer>) =>
    new BigUint64Array(bytes.buffer, bytes.byteOffset, (bytes.length - rest) / 8);
  const [x, y] = [words(a), words(b)];
  for (let i = 0; i < x.length; i++) if (x[i] !== y[i]) return false;
  for (let i = a.length - rest; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

/** Divides a range into pieces, leaving out the marks, which are each leg's own. */
function split({ offset, length }: Range): Range[] {
  const pieces: Range[] = [];
  const end = offset + length;
  for (let at = offset; at < end;) {
    let next = Math.min(at + pieceBytesMax, end);
    for (const mark of legMarkOffsets) if (mark > at && mark < next) next = mark;
    if (touchesLegMark(at, sectorBytes)) next = at + sectorBytes;
    else pieces.push({ offset: at, length: next - at });
    at = next;
  }
  return pieces;
}
