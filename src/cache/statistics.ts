/**
 * Counters and latencies of a cache, cheap enough for the hot path.
 *
 * @module
 */

/** Buckets of a latency histogram: bucket i counts values below 2^(i/2) microseconds. */
const bucketCount = 64;

/** A histogram of microseconds with two buckets an octave. */
export class Latency {
  readonly #buckets = new Float64Array(bucketCount);
  #count = 0;
  #max = 0;

  /** Counts one value. */
  add(micros: number): void {
    const bucket = micros < 1 ? 0 : Math.min(bucketCount - 1, Math.ceil(2 * Math.log2(micros)));
    this.#buckets[bucket]!++;
    this.#count++;
    if (micros > this.#max) this.#max = micros;
  }

  /** The upper bound of the bucket in which the share `p` of all values ends; 0 without values. */
  quantile(p: number): number {
    let left = this.#count * p;
    if (left === 0) return 0;
    for (let bucket = 0; bucket < bucketCount; bucket++) {
      left -= this.#buckets[bucket]!;
      if (left <= 0) return Math.min(Math.round(2 ** (bucket / 2)), Math.round(this.#max));
    }
    return Math.round(this.#max);
  }

  /** The quantiles that status shows. */
  summary(): { p50: number; p99: number; max: number } {
    return { p50: this.quantile(0.5), p99: this.quantile(0.99), max: Math.round(this.#max) };
  }
}

/** What a cache counts. Plain fields, so that the hot path only adds. */
export class Statistics {
  readRequests = 0;
  writeRequests = 0;
  flushRequests = 0;
  trimRequests = 0;
  zeroRequests = 0;
  errors = 0;
  readBytes = 0;
  writtenBytes = 0;
  readHitBlocks = 0;
  readMissBlocks = 0;
  overwrittenBlocks = 0;
  writtenBackBlocks = 0;
  writebackBytes = 0;
  writebackRequests = 0;
  backingSyncs = 0;
  /** Losses that no record in the log tells of yet. */
  unrecordedLosses = 0;
  readonly flushLatency: Latency = new Latency();
}
