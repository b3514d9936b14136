/**
 * What the log says of ranges of the volume: the allocation status for clients.
 *
 * @module
 */

import { blockBytes } from "../units.ts";
import type { Core } from "./core.ts";
import type { Extent } from "./volume.ts";

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

/** What is left of [start, end) without the given ranges. */
export function without(
  start: number,
  end: number,
  ranges: { start: number; end: number }[],
): { start: number; end: number }[] {
  let left = [{ start, end }];
  for (const range of ranges) {
    left = left.flatMap((run) => [
      { start: run.start, end: Math.min(run.end, range.start) },
      { start: Math.max(run.start, range.end), end: run.end },
    ]).filter((run) => run.start < run.end);
  }
  return left;
}
