/**
 * A set of blocks that is nearly always empty and may suddenly be nearly full: poisoned blocks, blocks that must stay
 * provisioned. The bitmap is made at the first addition, outside the hot path's memory.
 *
 * @module
 */

/** A bitmap over the backing's blocks that costs nothing while empty. */
export class BlockSet {
  readonly #length: number;
  #words: Uint32Array | undefined;
  /** Members. */
  count = 0;

  constructor(length: number) {
    this.#length = length;
  }

  has(block: number): boolean {
    return this.count > 0 && ((this.#words![block >>> 5]! >>> (block & 31)) & 1) === 1;
  }

  add(block: number): boolean {
    this.#words ??= new Uint32Array(Math.ceil(this.#length / 32));
    const bit = (1 << (block & 31)) >>> 0;
    const word = this.#words[block >>> 5]!;
    if (word & bit) return false;
    this.#words[block >>> 5] = word | bit;
    this.count++;
    return true;
  }

  delete(block: number): boolean {
    if (!this.has(block)) return false;
    this.#words![block >>> 5]! &= ~(1 << (block & 31));
    this.count--;
    return true;
  }

  addRange(start: number, end: number): void {
    for (let block = start; block < end;) {
      if ((block & 31) === 0 && block + 32 <= end) {
        this.#words ??= new Uint32Array(Math.ceil(this.#length / 32));
        this.count += 32 - popcount(this.#words[block >>> 5]!);
        this.#words[block >>> 5] = 0xffff_ffff;
        block += 32;
      } else this.add(block++);
    }
  }

  deleteRange(start: number, end: number): void {
    if (this.count === 0) return;
    for (let block = this.next(start, end); block >= 0; block = this.next(block + 1, end)) this.delete(block);
  }

  /** The first member in [from, end), or -1. */
  next(from: number, end: number): number {
    if (this.count === 0) return -1;
    const words = this.#words!;
    for (let block = from; block < end;) {
      const word = words[block >>> 5]! >>> (block & 31);
      if (word === 0) {
        block = ((block >>> 5) + 1) * 32;
        continue;
      }
      block += 31 - Math.clz32(word & -word);
      return block < end ? block : -1;
    }
    return -1;
  }

  /** The first non-member in [from, end), or `end`. */
  nextAbsent(from: number, end: number): number {
    let block = from;
    while (block < end && this.has(block)) block++;
    return block;
  }
}

function popcount(word: number): number {
  let value = word - ((word >>> 1) & 0x5555_5555);
  value = (value & 0x3333_3333) + ((value >>> 2) & 0x3333_3333);
  return Math.imul((value + (value >>> 4)) & 0x0f0f_0f0f, 0x0101_0101) >>> 24;
}
