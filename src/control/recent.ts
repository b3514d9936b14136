/**
 * What happened since the last look: latencies of that interval alone, from histograms that count since the start. For
 * those who draw them over time.
 *
 * @module
 */

import type { EngineStatus } from "../host/served.ts";
import { type LatencyCounts, latencyQuantile } from "../latency.ts";
import { timedKinds } from "./status.ts";

/** After a longer pause nothing is told of it: it would look like now. */
const intervalMsMax = 5000;

/** One kind of request in an interval. */
export interface RecentLatency {
  /** How many were answered. */
  count: number;
  /** Half of them took at most so long, and 99 of 100, in microseconds; 0 without any. */
  p50: number;
  p99: number;
}

/** What an interval saw. */
export interface Recent {
  /** Its length. */
  seconds: number;
  latencyMicros: Record<typeof timedKinds[number], RecentLatency>;
}

function difference(now: LatencyCounts, before: LatencyCounts): LatencyCounts {
  return {
    count: now.count - before.count,
    sumMicros: now.sumMicros - before.sumMicros,
    maxMicros: now.maxMicros,
    buckets: now.buckets.map((count, i) => count - before.buckets[i]!),
  };
}

/** Compares each look with the one before. */
export class RecentLatencies {
  #latencies: EngineStatus["latencies"] | undefined;
  #atMs = 0;

  /** What the interval that ends now saw; null at the first look, and after a pause. */
  since(latencies: EngineStatus["latencies"], nowMs: number): Recent | null {
    const before = this.#latencies;
    const intervalMs = nowMs - this.#atMs;
    // A copy: in the engine's own thread they are the ones that it counts in.
    this.#latencies = structuredClone(latencies);
    this.#atMs = nowMs;
    if (before === undefined || intervalMs > intervalMsMax || intervalMs <= 0) return null;
    const kinds = timedKinds.map((kind) => {
      const counts = difference(latencies[kind], before[kind]);
      const p50 = latencyQuantile(counts, 0.5);
      return [kind, { count: counts.count, p50, p99: latencyQuantile(counts, 0.99) }] as const;
    });
    return {
      seconds: intervalMs / 1000,
      latencyMicros: Object.fromEntries(kinds) as Recent["latencyMicros"],
    };
  }
}
