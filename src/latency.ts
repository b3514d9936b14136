/**
 * Histograms of latencies, cheap enough for the hot path: fixed log-linear buckets, eight to each doubling, so that a
 * quantile is at most an eighth too high and never too low.
 *
 * ```text
 *   bucket    0      1      ..  7      8       ..  15        16         17     ..
 *   micros  (0, 1] (1, 2]   .. (7, 8] (8, 9]   .. (15, 16] (16, 18]  (18, 20]  ..   up to 2^31
 * ```
 *
 * Invariant: every power of two from 1 µs on is the upper end of a bucket, hence the cumulated counts that Prometheus
 * wants are exact.
 *
 * @module
 */

/** Buckets to each doubling. */
const bucketsPerOctave = 8;
/** Longer ones, of more than half an hour, fall into the last bucket. */
const microsMax = 2 ** 31 - 1;
const bucketCount = (31 - 3 + 1) * bucketsPerOctave;

/** A histogram as plain data, which a message between threads can carry. */
export interface LatencyCounts {
  count: number;
  sumMicros: number;
  maxMicros: number;
  readonly buckets: Float64Array<ArrayBuffer>;
}

/** A latency in microseconds since the cache was opened; all 0 when nothing was measured. */
export interface LatencySummary {
  /** Half of all took at most so long, rounded up to the end of a bucket (eight buckets an octave). */
  p50: number;
  /** 99 of 100 took at most so long, rounded up likewise. */
  p99: number;
  /** The longest. */
  max: number;
}

/** The upper end of a bucket, which belongs to it. */
function bucketEndMicros(bucket: number): number {
  if (bucket < bucketsPerOctave) return bucket + 1;
  const unit = 2 ** ((bucket >>> 3) - 1);
  return (bucketsPerOctave + (bucket & 7) + 1) * unit;
}

/** A histogram that counts. */
export class Latency {
  readonly counts: LatencyCounts = {
    count: 0,
    sumMicros: 0,
    maxMicros: 0,
    buckets: new Float64Array(bucketCount),
  };

  // The hot path starts here.

  /** Counts `count` values of `micros` each. */
  add(micros: number, count = 1): void {
    const { counts } = this;
    const whole = Math.min(microsMax, Math.max(0, Math.ceil(micros) - 1));
    let bucket = whole;
    if (whole >= bucketsPerOctave) {
      const octave = 31 - Math.clz32(whole);
      bucket = ((octave - 2) << 3) + ((whole >>> (octave - 3)) & 7);
    }
    counts.buckets[bucket]! += count;
    counts.count += count;
    counts.sumMicros += micros * count;
    if (micros > counts.maxMicros) counts.maxMicros = micros;
  }

  // The hot path ends here.

  /** The quantiles that status shows. */
  summary(): LatencySummary {
    return latencySummary(this.counts);
  }
}

/** The end of the bucket in which the share `p` of all values ends, at most the longest; 0 without values. */
export function latencyQuantile(counts: LatencyCounts, p: number): number {
  const max = Math.round(counts.maxMicros);
  let left = counts.count * p;
  if (left === 0) return 0;
  for (let bucket = 0; bucket < counts.buckets.length; bucket++) {
    left -= counts.buckets[bucket]!;
    if (left <= 0) return Math.min(bucketEndMicros(bucket), max);
  }
  return max;
}

/** The quantiles that status shows. */
export function latencySummary(counts: LatencyCounts): LatencySummary {
  return {
    p50: latencyQuantile(counts, 0.5),
    p99: latencyQuantile(counts, 0.99),
    max: Math.round(counts.maxMicros),
  };
}

/** How many values were at most `micros`, which is a power of two. */
export function latencyAtMost(counts: LatencyCounts, micros: number): number {
  let sum = 0;
  for (let bucket = 0; bucket < counts.buckets.length && bucketEndMicros(bucket) <= micros; bucket++) {
    sum += counts.buckets[bucket]!;
  }
  return sum;
}
