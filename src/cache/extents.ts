/**
 * What index and bitmaps say of ranges of the volume: allocation status, and what is dirty or cached, for clients.
 *
 * @module
 */

import { blockBytes } from "../units.ts";
import { noSlot } from "../wasm/kernels.ts";
import type { Core } from "./core.ts";
import type { Extent, MarkedExtent, MarkKind } from "./volume.ts";

/** Steps of one call, block by block where no bitmap can be asked, so that no client can keep the engine busy. */
const stepsMax = 65_536;

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

/** True when all of the range is known to be zero without asking any device. */
export function readsZeroNow(core: Core, offset: number, length: number): boolean {
  const { kernels, versions, backing } = core;
  if (versions.poison.any || !(length > 0 && offset >= 0 && offset + length <= backing.sizeBytes)) {
    return false;
  }
  const first = Math.floor(offset / blockBytes);
  const last = Math.ceil((offset + length) / blockBytes);
  return kernels.zeroDirty.test(first) && kernels.zeroDirty.nextClear(first, last) < 0;
}

/** Runs of [offset, offset + length) that are dirty, or cached, or not; less than all of it when that takes long. */
export function eachMark(
  core: Core,
  kind: MarkKind,
  offset: number,
  length: number,
  limit: number,
): MarkedExtent[] {
  const end = offset + length;
  const last = Math.ceil(end / blockBytes);
  const change = kind === "dirty" ? dirtyChange : cachedChange;
  const extents: MarkedExtent[] = [];
  const budget = { steps: stepsMax };
  for (let position = offset; position < end && extents.length < limit && budget.steps > 0;) {
    const { marked, next } = change(core, Math.floor(position / blockBytes), last, budget);
    const to = Math.min(next * blockBytes, end);
    const before = extents.at(-1);
    if (before?.marked === marked) before.length += to - position;
    else extents.push({ length: to - position, marked });
    position = to;
  }
  return extents;
}

/** Whether `block` is marked, and the first block after it, at most `last`, where that may be different. */
type Change = (
  core: Core,
  block: number,
  last: number,
  budget: { steps: number },
) => { marked: boolean; next: number };

const dirtyChange: Change = ({ kernels: { dirty, zeroDirty } }, block, last, budget) => {
  budget.steps--;
  const bitmap = dirty.test(block) ? dirty : zeroDirty.test(block) ? zeroDirty : undefined;
  if (bitmap !== undefined) return { marked: true, next: orLast(bitmap.nextClear(block, last), last) };
  return {
    marked: false,
    next: Math.min(orLast(dirty.next(block, last), last), orLast(zeroDirty.next(block, last), last)),
  };
};

const cachedChange: Change = ({ kernels }, block, last, budget) => {
  const marked = kernels.indexGet(block) !== noSlot;
  let next = block;
  do {
    next++;
    budget.steps--;
  } while (next < last && budget.steps > 0 && (kernels.indexGet(next) !== noSlot) === marked);
  return { marked, next };
};

function orLast(found: number, last: number): number {
  return found < 0 ? last : found;
}
