/**
 * Which sectors are lost: their last version was dirty and cannot be read or verified any more. Reading them is EIO;
 * they are never written back; a newer write heals them (log-rules.md 12).
 *
 * @module
 */

import { fullMask } from "../units.ts";
import { BlockSet } from "./block_set.ts";

/** Lost sectors, by block and mask. */
export class Poison {
  readonly #whole: BlockSet;
  readonly #part = new Map<number, number>();

  constructor(backingBlocks: number) {
    this.#whole = new BlockSet(backingBlocks);
  }

  /** True when anything at all is lost; the hot path asks this first. */
  get any(): boolean {
    return this.#whole.count > 0 || this.#part.size > 0;
  }

  /** Blocks with at least one lost sector. */
  get blocks(): number {
    return this.#whole.count + this.#part.size;
  }

  /** The lost sectors of a block. */
  mask(block: number): number {
    return this.#whole.has(block) ? fullMask : this.#part.get(block) ?? 0;
  }

  /** Marks the sectors of `mask` lost. */
  add(block: number, mask: number): void {
    const all = this.mask(block) | mask;
    if (all === fullMask) {
      this.#part.delete(block);
      this.#whole.add(block);
    } else this.#part.set(block, all);
  }

  /** Marks whole blocks lost. */
  addRange(start: number, end: number): void {
    for (const block of this.#part.keys()) if (block >= start && block < end) this.#part.delete(block);
    this.#whole.addRange(start, end);
  }

  /** Heals the sectors of `mask`; tells whether any of them had been lost. */
  heal(block: number, mask: number): boolean {
    const lost = this.mask(block);
    if ((lost & mask) === 0) return false;
    this.#whole.delete(block);
    const left = lost & ~mask;
    if (left === 0) this.#part.delete(block);
    else this.#part.set(block, left);
    return true;
  }

  /** Heals whole blocks; tells whether any had been lost. */
  healRange(start: number, end: number): boolean {
    const before = this.blocks;
    this.#whole.deleteRange(start, end);
    for (const block of this.#part.keys()) if (block >= start && block < end) this.#part.delete(block);
    return this.blocks !== before;
  }

  /** Whether anything in [start, end) is lost. */
  anyIn(start: number, end: number): boolean {
    if (this.#whole.next(start, end) >= 0) return true;
    for (const block of this.#part.keys()) if (block >= start && block < end) return true;
    return false;
  }

  /** The lost ranges inside [start, end): whole blocks merged, partial ones one by one, in no given order. */
  *ranges(start: number, end: number): Generator<{ start: number; end: number; mask: number }> {
    for (let from = this.#whole.next(start, end); from >= 0;) {
      const to = this.#whole.nextAbsent(from, end);
      yield { start: from, end: to, mask: fullMask };
      from = this.#whole.next(to, end);
    }
    for (const [block, mask] of [...this.#part]) {
      if (block >= start && block < end) yield { start: block, end: block + 1, mask };
    }
  }
}
