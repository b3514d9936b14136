/**
 * How long requests took, by their kind: an {@linkcode Observer} that only counts.
 *
 * @module
 */

import { Latency, type LatencyCounts } from "../latency.ts";
import type { Observer, RequestKind } from "./statistics.ts";

/** A histogram for each kind. */
export class RequestLatencies implements Observer {
  readonly #kinds: Readonly<Record<RequestKind, Latency>> = {
    read: new Latency(),
    write: new Latency(),
    flush: new Latency(),
    trim: new Latency(),
    zero: new Latency(),
    cache: new Latency(),
    status: new Latency(),
  };

  /** See {@linkcode Observer}. */
  answered(kind: RequestKind, micros: number, count: number): void {
    this.#kinds[kind].add(micros, count);
  }

  /** The counts so far; they go on changing. */
  counts(): Record<RequestKind, LatencyCounts> {
    const { read, write, flush, trim, zero, cache, status } = this.#kinds;
    return {
      read: read.counts,
      write: write.counts,
      flush: flush.counts,
      trim: trim.counts,
      zero: zero.counts,
      cache: cache.counts,
      status: status.counts,
    };
  }
}
