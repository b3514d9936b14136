/**
 * Counters and latencies of a cache, cheap enough for the hot path.
 *
 * @module
 */

import { Latency } from "../latency.ts";

/** The rate is smoothed over about this time. */
const rateWindowMs = 10_000;
/** It is measured over intervals of at least this length. */
const rateIntervalMsMin = 100;
/** After a pause of this length it starts anew: what was before says nothing about now. */
const ratePauseMs = 30_000;

/** How fast a counter has grown of late: smoothed, and falling by itself while nothing is noted. */
export class Rate {
  #perSecond = 0;
  #total = 0;
  #atMs = -Infinity;

  /** The counter stands at `total` now. */
  note(total: number, nowMs: number): void {
    const elapsedMs = nowMs - this.#atMs;
    if (elapsedMs < rateIntervalMsMin) return;
    if (elapsedMs >= ratePauseMs) this.#perSecond = 0;
    else {
      const latest = (total - this.#total) / (elapsedMs / 1000);
      // What came before the first interval is not known; it counts as if it had been so all along.
      const weight = this.#perSecond === 0 ? 1 : 1 - Math.exp(-elapsedMs / rateWindowMs);
      this.#perSecond += (latest - this.#perSecond) * weight;
    }
    this.#atMs = nowMs;
    this.#total = total;
  }

  /** Per second, at `nowMs`. */
  at(nowMs: number): number {
    const silentMs = Math.max(0, nowMs - this.#atMs - rateWindowMs);
    const rate = this.#perSecond * Math.exp(-silentMs / rateWindowMs);
    return rate < 1 ? 0 : rate;
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
  /** Blocks copied from the log's tail to its head. */
  copiedBlocks = 0;
  /** Blocks that went past the log. */
  bypassedBlocks = 0;
  /** Blocks that the read cache kept, and those that a prefetch read for it. */
  keptBlocks = 0;
  prefetchedBlocks = 0;
  /** Losses that no record in the log tells of yet. */
  unrecordedLosses = 0;
  readonly flushLatency: Latency = new Latency();
  /** Bytes per second to the backing device. */
  readonly writebackRate: Rate = new Rate();
}
