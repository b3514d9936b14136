/**
 * Counts what the simulated worlds went through, so that a run that tests nothing is seen.
 *
 * @module
 */

import type { RecoveryReport } from "../../src/cache/open.ts";
import type { CacheStatus } from "../../src/cache/status.ts";

/** Counters by name. */
export class Coverage {
  readonly counts = new Map<string, number>();
  crashes = 0;

  /** Adds to a counter. */
  count(name: string, by = 1): void {
    this.counts.set(name, (this.counts.get(name) ?? 0) + by);
  }

  /** Takes note of what opening found. */
  recovery({ clean, dropped, kept, gaps, lostBlocks, damaged }: RecoveryReport): void {
    this.count("opened");
    if (clean) this.count("opened clean");
    if (dropped > 0) this.count("opened with dropped records");
    if (kept > 0) this.count("opened with kept records");
    if (gaps.some((gap) => gap.lost)) this.count("opened with lost records");
    if (gaps.some((gap) => !gap.lost)) this.count("opened with rebuilt records");
    if (lostBlocks > 0) this.count("opened with lost blocks");
    if (damaged) this.count("opened damaged");
  }

  /** Takes note of how a life ended. */
  life(status: CacheStatus): void {
    const { cache, bytes, log, blocks, requests } = status;
    this.count("laps", Math.floor(bytes.log / (cache.segmentBytes * cache.segments)));
    this.count("records", log.records);
    this.count("log syncs", log.syncs);
    this.count("requests", requests.read + requests.write + requests.flush + requests.trim + requests.zero);
    this.count("blocks written back", blocks.writtenBack);
    this.count("blocks overwritten in place", blocks.overwritten);
    this.count("blocks past the log", blocks.bypassed);
    this.count("clean copies kept", blocks.kept);
    this.count("blocks fetched ahead", blocks.prefetched);
    if (cache.freeSegments <= 2) this.count("lives ended with a full log");
  }

  /** Adds another's counters. */
  add(other: Coverage): void {
    this.crashes += other.crashes;
    for (const [name, count] of other.counts) this.count(name, count);
  }

  /** All counters, by name. */
  toString(): string {
    return [...this.counts].sort(([a], [b]) => a < b ? -1 : 1).map(([name, count]) => `${name} ${count}`)
      .join(", ");
  }
}
