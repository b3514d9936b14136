/**
 * Tells requests that go through the volume in one direction from all others, whatever connections they come by.
 *
 * Invariants: a handful of streams is followed, the one that was quiet for longest makes room for a new one. Requests of a
 * stream may come somewhat out of order, where that is allowed, but a stream that leaves gaps, or goes over the same place
 * again, is none. A request that is told of twice in a row counts once. Nothing is allocated.
 *
 * @module
 */

/** Streams that are followed at once. */
const streamsMax = 8;
/** How much less, or more, than its length a stream may have carried. */
const densityMargin = 1 / 8;

/** The streams of one kind of request. */
export class Streams {
  readonly #begin = new Float64Array(streamsMax);
  readonly #end = new Float64Array(streamsMax).fill(-Infinity);
  readonly #carried = new Float64Array(streamsMax);
  readonly #usedAt = new Float64Array(streamsMax);
  readonly #slackBytes: number;
  #clock = 0;
  #lastOffset = -1;
  #lastLength = -1;
  #lastRun = 0;

  /** `slackBytes`: how far from a stream's end its next request may begin. */
  constructor(slackBytes: number) {
    this.#slackBytes = slackBytes;
  }

  /** Notes a request; returns how many bytes its stream has carried by now, itself included. */
  note(offset: number, length: number): number {
    if (offset === this.#lastOffset && length === this.#lastLength) return this.#lastRun;
    this.#lastOffset = offset;
    this.#lastLength = length;
    return this.#lastRun = this.#run(offset, length);
  }

  #run(offset: number, length: number): number {
    let found = -1;
    let oldest = 0;
    let distance = this.#slackBytes + 1;
    for (let i = 0; i < streamsMax; i++) {
      const gap = Math.abs(offset - this.#end[i]!);
      if (gap < distance) {
        found = i;
        distance = gap;
      }
      if (this.#usedAt[i]! < this.#usedAt[oldest]!) oldest = i;
    }
    const end = offset + length;
    const at = found < 0 ? oldest : found;
    this.#usedAt[at] = ++this.#clock;
    if (found >= 0) {
      this.#end[at] = Math.max(this.#end[at]!, end);
      this.#begin[at] = Math.min(this.#begin[at]!, offset);
      const carried = this.#carried[at] = this.#carried[at]! + length;
      const run = this.#end[at]! - this.#begin[at]!;
      // What is still to come out of order is no gap yet.
      const margin = run * densityMargin;
      if (carried <= run + margin && carried >= run - Math.max(margin, this.#slackBytes)) return carried;
    }
    this.#begin[at] = offset;
    this.#end[at] = end;
    this.#carried[at] = length;
    return length;
  }
}
