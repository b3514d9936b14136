/**
 * What the log says of ranges of the volume: allocation status for clients, and the runs that the backing lacks.
 *
 * @module
 */

import { blockBytes } from "../units.ts";
import type { Core } from "./core.ts";
import type { Extent } from "./volume.ts";

/** A run of blocks that the backing lacks. */
export interface LoggedExtent {
  /** Where it begins in the volume, in bytes; a multiple of 4096. */
  offset: number;
  /** Bytes. */
  length: number;
  /** Reads as zeroes. */
  zero: boolean;
}

/** Allocation status of [offset, offset + length): zero-dirty runs are holes, all else is data. */
export function eachExtent(core: Core, offset: number, length: number, limit: number): Extent[] {
  const { zeroDirty } = core.kernels;
  const { provisioned } = core.versions;
  const extents: Extent[] = [];
  const end = offset + length;
  for (let position = offset; position < end && extents.length < limit;) {
    const block = Math.floor(position / blockBytes);
    const last = Math.ceil(end / blockBytes);
    const zero = zeroDirty.test(block);
    let next: number;
    if (zero) next = zeroDirty.nextClear(block, last);
    else next = zeroDirty.next(block, last);
    if (next < 0) next = last;
    const hole = zero && !provisioned.has(block);
    if (zero) {
      const change = hole ? provisioned.next(block, next) : provisioned.nextAbsent(block, next);
      if (change >= 0) next = change;
    }
    const to = Math.min(next * blockBytes, end);
    extents.push({ length: to - position, zero, hole });
    position = to;
  }
  return extents;
}

/** Runs of blocks with a dirty version, and of zero-dirty ones, in address order. Lost sectors are left out of neither. */
export function* loggedExtents(core: Core): Generator<LoggedExtent> {
  const { dirty, zeroDirty } = core.kernels;
  const count = core.versions.backingBlocks;
  const size = core.backing.sizeBytes;
  let block = 0;
  while (block < count) {
    const nextDirty = dirty.next(block, count);
    const nextZero = zeroDirty.next(block, count);
    if (nextDirty < 0 && nextZero < 0) return;
    const zero = nextDirty < 0 || (nextZero >= 0 && nextZero < nextDirty);
    const start = zero ? nextZero : nextDirty;
    let end = (zero ? zeroDirty : dirty).nextClear(start, count);
    if (end < 0) end = count;
    yield { offset: start * blockBytes, length: Math.min(end * blockBytes, size) - start * blockBytes, zero };
    block = end;
  }
}
