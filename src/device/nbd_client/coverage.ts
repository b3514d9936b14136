/**
 * Which parts of a READ have come: chunks may come in any order, but together they must cover the range once. Anything
 * else would let old bytes of the caller's buffer pass for data.
 *
 * @module
 */

/** The parts of one range that have come. */
export class Coverage {
  readonly #length: number;
  /** Ends by starts, in order, neighbours merged. */
  readonly #runs: { start: number; end: number }[] = [];

  constructor(length: number) {
    this.#length = length;
  }

  /** Adds [start, end); false when it leaves the range or overlaps with what has come. */
  add(start: number, end: number): boolean {
    if (start < 0 || start >= end || end > this.#length) return false;
    const runs = this.#runs;
    let at = runs.length;
    while (at > 0 && runs[at - 1]!.start > start) at--;
    const before = runs[at - 1];
    const after = runs[at];
    if ((before !== undefined && before.end > start) || (after !== undefined && after.start < end)) {
      return false;
    }
    if (before?.end === start) {
      before.end = end;
      if (after?.start === end) {
        before.end = after.end;
        runs.splice(at, 1);
      }
    } else if (after?.start === end) after.start = start;
    else runs.splice(at, 0, { start, end });
    return true;
  }

  /** True when all of the range has come. */
  get isWhole(): boolean {
    const first = this.#runs[0];
    return this.#length === 0 || (first !== undefined && first.end - first.start === this.#length);
  }
}
