/**
 * Copies from the leg in service to one that is to become as good, piece by piece, while both are written to.
 *
 * Invariant: while a piece is copied, writes to it reach the target only afterwards, and those that were under way before
 * have ended: so the target never gets older bytes over newer ones.
 *
 * @module
 */

import { DeviceError } from "../errors.ts";
import { touchesLegMark } from "../log/leg_mark.ts";
import { legMarkOffsets } from "../log/layout.ts";
import { sectorBytes } from "../units.ts";
import type { Leg } from "./leg.ts";

/** Bytes of a piece: what a client's flush may have to wait for, and all the memory that copying takes. */
export const pieceBytesMax = 512 * 1024;

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
  /** Keeps writes to a range away from the target; returns how to let them go on. */
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
  const buffer = new Uint8Array(Math.max(sectorBytes, ...pieces.map(({ length }) => length)));
  for (const piece of pieces) {
    const release = await lock(piece);
    try {
      if (isOver()) throw target.failure ?? new DeviceError("ESHUTDOWN", "the cache is being closed");
      const bytes = buffer.subarray(0, piece.length);
      await source.read(piece.offset, bytes).catch((error) => {
        throw new DeviceError(
          "EIO",
          `${source.name} cannot be read where it has the only copy (${error.message}); drain the cache, then try again`,
          { cause: error },
        );
      });
      await target.write(piece.offset, bytes);
    } finally {
      release();
    }
    progress.copiedBytes += piece.length;
    onProgress({ ...progress });
  }
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
