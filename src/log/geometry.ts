/**
 * How a cache device is divided: superblocks, checkpoint, then a ring of equal segments.
 *
 * Invariants: all parts lie inside the device, do not overlap, and the log starts on a MiB.
 *
 * @module
 */

import { UsageError } from "../errors.ts";
import { blockBytes, formatSize, mib, roundUp, sectorBytes } from "../units.ts";
import {
  backingBlocksMax,
  checkpointOffset,
  segmentBlocksMax,
  segmentBlocksMin,
  segmentCountMin,
} from "./layout.ts";

/** Where things lie on a cache device, in bytes, and in blocks ("slots") inside the log. */
export interface Geometry {
  segmentBlocks: number;
  segmentCount: number;
  /** segmentBlocks x segmentCount: blocks of the log. */
  slotCount: number;
  logOffset: number;
  checkpointBytes: number;
}

/** Divides a cache device of `cacheBytes`. Throws `UsageError` when nothing useful fits. */
export function planGeometry(cacheBytes: number, segmentBlocks: number): Geometry {
  let logOffset = mib;
  for (;;) {
    const segmentCount = Math.floor((cacheBytes - logOffset) / (segmentBlocks * blockBytes));
    const slotCount = Math.max(0, segmentCount) * segmentBlocks;
    const checkpointBytes = blockBytes + roundUp(Math.ceil(slotCount / 8), blockBytes);
    if (checkpointOffset + checkpointBytes <= logOffset) {
      if (segmentCount < segmentCountMin) {
        throw new UsageError(
          `Cannot make a cache of ${formatSize(cacheBytes)} (${cacheBytes} bytes): with segments of ` +
            `${formatSize(segmentBlocks * blockBytes)} at least ` +
            `${formatSize(logOffset + segmentCountMin * segmentBlocks * blockBytes)} are needed; ` +
            `use a larger cache device or smaller segments`,
        );
      }
      return { segmentBlocks, segmentCount, slotCount, logOffset, checkpointBytes };
    }
    logOffset = roundUp(checkpointOffset + checkpointBytes, mib);
  }
}

/** Checks a segment size in bytes and returns it in blocks. */
export function segmentBlocksOf(segmentBytes: number): number {
  const blocks = segmentBytes / blockBytes;
  const powerOfTwo = Number.isInteger(blocks) && (blocks & (blocks - 1)) === 0;
  if (!powerOfTwo || blocks < segmentBlocksMin || blocks > segmentBlocksMax) {
    throw new UsageError(
      `Cannot use a segment size of ${segmentBytes} bytes: expected a power of two from ` +
        `${formatSize(segmentBlocksMin * blockBytes)} to ${formatSize(segmentBlocksMax * blockBytes)}`,
    );
  }
  return blocks;
}

/** Blocks of a backing device; the last may be short. Throws `UsageError` beyond the engine's u32 blocks. */
export function backingBlocksOf(backingBytes: number): number {
  const blocks = Math.ceil(backingBytes / blockBytes);
  if (backingBytes <= 0 || backingBytes % sectorBytes !== 0) {
    throw new UsageError(
      `Cannot cache a backing device of ${backingBytes} bytes: expected a multiple of ${sectorBytes} above 0`,
    );
  }
  if (blocks > backingBlocksMax) {
    throw new UsageError(
      `Cannot cache a backing device of ${formatSize(backingBytes)}: this version can address ` +
        `${formatSize(backingBlocksMax * blockBytes)}; use a smaller device`,
    );
  }
  return blocks;
}
