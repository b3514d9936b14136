/**
 * A set of blocks that come in runs: as large as there are runs, not as the volume.
 *
 * @module
 */

/** More runs than this are not told apart: then every block counts as a member. */
const runsMax = 65_536;

/** Sorted runs [start, end) that neither overlap nor meet. */
export class Runs {
  readonly #starts: number[] = [];
  readonly #ends: number[] = [];
  /** Members. */
  count = 0;

  /** The first run that ends at or after `block`. */
  #at(block: number): number {
    let low = 0;
    let high = this.#ends.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#ends[middle]! < block) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Adds the blocks [start, end). */
  add(start: number, end: number): void {
    const first = this.#at(start);
    let last = first;
    let before = 0;
    while (last < this.#starts.length && this.#starts[last]! <= end) {
      before += this.#ends[last]! - this.#starts[last]!;
      last++;
    }
    const from = last > first ? Math.min(start, this.#starts[first]!) : start;
    const to = last > first ? Math.max(end, this.#ends[last - 1]!) : end;
    this.#starts.splice(first, last - first, from);
    this.#ends.splice(first, last - first, to);
    this.count += to - from - before;
    if (this.#starts.length <= runsMax) return;
    this.#starts.splice(0, this.#starts.length, 0);
    this.#ends.splice(0, this.#ends.length, Infinity);
    this.count = Infinity;
  }

  /** Whether a block of [start, end) is a member. */
  any(start: number, end: number): boolean {
    const at = this.#at(start + 1);
    return at < this.#starts.length && this.#starts[at]! < end;
  }

  /** The runs, in order. */
  *[Symbol.iterator](): Generator<{ start: number; end: number }, void, void> {
    for (let i = 0; i < this.#starts.length; i++) yield { start: this.#starts[i]!, end: this.#ends[i]! };
  }
}
