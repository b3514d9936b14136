/**
 * A set of blocks as a two-level bitmap in the memory of the kernels (wasm/bitmap.ts).
 *
 * Invariants: `count` is the number of set bits, kept up by every change; indices are below `length`; ranges are
 * [start, end) with end at most `length`.
 *
 * @module
 */

import { assert } from "../errors.ts";
import type { KernelExports } from "./instance.ts";
import type { BitmapPlace } from "./memory_map.ts";

/** A bitmap over `length` items. Make it over zeroed memory. */
export class Bitmap {
  /** Number of items. */
  readonly length: number;
  readonly #exports: KernelExports;
  readonly #bits: number;
  readonly #summary: number;
  #count = 0;

  constructor(exports: KernelExports, place: BitmapPlace) {
    this.#exports = exports;
    this.#bits = place.bits;
    this.#summary = place.summary;
    this.length = place.length;
  }

  /** How many bits are set. Maintained, so reading it costs nothing. */
  get count(): number {
    return this.#count;
  }

  /** Whether bit `index` is set. */
  test(index: number): boolean {
    return this.#exports.bitmapTest(this.#bits, index) !== 0;
  }

  /** Sets bit `index`; returns whether it was clear before. */
  set(index: number): boolean {
    assert(index < this.length, "bit index within the bitmap");
    const changed = this.#exports.bitmapSet(this.#bits, this.#summary, index);
    this.#count += changed;
    return changed !== 0;
  }

  /** Clears bit `index`; returns whether it was set before. */
  clear(index: number): boolean {
    assert(index < this.length, "bit index within the bitmap");
    const changed = this.#exports.bitmapClear(this.#bits, this.#summary, index);
    this.#count -= changed;
    return changed !== 0;
  }

  /** Sets [start, end); returns how many bits were clear before. */
  setRange(start: number, end: number): number {
    assert(end <= this.length, "bit range within the bitmap");
    const changed = this.#exports.bitmapSetRange(this.#bits, this.#summary, start, end) >>> 0;
    this.#count += changed;
    return changed;
  }

  /** Clears [start, end); returns how many bits were set before. */
  clearRange(start: number, end: number): number {
    assert(end <= this.length, "bit range within the bitmap");
    const changed = this.#exports.bitmapClearRange(this.#bits, this.#summary, start, end) >>> 0;
    this.#count -= changed;
    return changed;
  }

  /** The first set bit in [from, end), or -1. */
  next(from: number, end: number): number {
    if (this.#count === 0) return -1;
    return this.#found(this.#exports.bitmapNext(this.#bits, this.#summary, from, Math.min(end, this.length)));
  }

  /** The first clear bit in [from, end), or -1. */
  nextClear(from: number, end: number): number {
    return this.#found(this.#exports.bitmapNextClear(this.#bits, from, Math.min(end, this.length)));
  }

  /** How many bits of [start, end) are set. */
  countRange(start: number, end: number): number {
    if (this.#count === 0) return 0;
    return this.#exports.bitmapCountRange(this.#bits, this.#summary, start, Math.min(end, this.length)) >>> 0;
  }

  /** Whether any bit of [start, end) is set. */
  any(start: number, end: number): boolean {
    return this.next(start, end) !== -1;
  }

  /** Sets in `other` every bit that is set here. */
  orInto(other: Bitmap): void {
    assert(this.length === other.length && this !== other, "two bitmaps of one length");
    other.#count += this.#exports.bitmapOrInto(
      other.#bits,
      other.#summary,
      this.#bits,
      this.#summary,
      this.length,
    ) >>> 0;
  }

  /** Makes `other` what this bitmap is, and this one empty. */
  moveInto(other: Bitmap): void {
    assert(this.length === other.length && this !== other, "two bitmaps of one length");
    this.#exports.bitmapMoveInto(other.#bits, other.#summary, this.#bits, this.#summary, this.length);
    other.#count = this.#count;
    this.#count = 0;
  }

  /** 0xffffffff says none. */
  #found(index: number): number {
    return index === -1 ? -1 : index >>> 0;
  }
}
