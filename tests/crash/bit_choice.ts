/**
 * Which bits of a region are tried, alone and in groups, and how it is counted what became of them. Why not all of an idle
 * slot's bits are tried alone is said in `every_bit.ts`.
 *
 * @module
 */

import { SeededRandom } from "../../src/random.ts";
import { blockBytes } from "../../src/units.ts";
import type { Region } from "./bit_regions.ts";

/** Of the bits of idle slots, one in so many is tried alone. */
export const idleThinning = 61;
/** Groups of bits of an idle slot: two for each bit of a bit's number, then drawn ones. */
export const idleGroups = 62;
/** Bits of the magic that makes a header. */
const magicBits = 64;

/** How many images ended in which way. */
export interface Tally {
  /** Noticed, and nothing was lost by it. */
  corrected: number;
  /** Noticed, and some of the volume is EIO. */
  lost: number;
  /** Records past the mark were dropped, and it was said. */
  dropped: number;
  /** The newest record past the mark vanished without a trace, as nothing but itself told of it. */
  untold: number;
  /** Dead space: nothing was said, and nothing was wrong. */
  dead: number;
  /** The same, with half of a slot flipped at once. */
  groups: number;
}

/** A tally of nothing. */
export const emptyTally = (): Tally => ({
  corrected: 0,
  lost: 0,
  dropped: 0,
  untold: 0,
  dead: 0,
  groups: 0,
});

/** The bits that are tried one by one of a region: each `stride`-th from the `first` on. */
export function* bitsOf(region: Region, first: number, stride: number): Generator<number> {
  const { from, to, expect, thinning } = region;
  if (expect === "unread") return;
  const [start, end] = [from * 8, to * 8];
  const isIdle = expect === "idle";
  const singlesEnd = isIdle ? start + magicBits : end;
  for (let bit = start + first; bit < singlesEnd; bit += stride * thinning) yield bit;
  const step = idleThinning * stride;
  if (isIdle) { for (let bit = singlesEnd + first; bit < end; bit += step) yield bit; }
}

/** The groups that are tried of a region. */
export function* groupsOf({ expect }: Region, first: number, stride: number): Generator<number> {
  if (expect === "idle") { for (let group = first; group < idleGroups; group += stride) yield group; }
}

/** The bits of one group, as a mask of a slot. */
export function groupMask(group: number): Uint8Array {
  const mask = new Uint8Array(blockBytes);
  const indexBits = Math.log2(blockBytes * 8);
  if (group >= 2 * indexBits) new SeededRandom(group).fill(mask);
  else {
    for (let bit = 0; bit < blockBytes * 8; bit++) {
      if (((bit >>> (group >>> 1)) & 1) === (group & 1)) mask[bit >>> 3]! |= 1 << (bit & 7);
    }
  }
  return mask.fill(0, 0, magicBits / 8);
}
