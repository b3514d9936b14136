/**
 * Carries zero and trim ranges to the backing device (log-rules.md 3).
 *
 * Invariants: only durable ranges are applied, and of each only blocks that are zero-dirty at that moment. No write to the
 * backing is under way meanwhile: the caller has seen to that (log-rules.md 10).
 *
 * @module
 */

import type { LogWriter } from "../log/writer.ts";
import { blockBytes } from "../units.ts";
import type { BackingSync } from "./backing_sync.ts";
import type { Core } from "./core.ts";
import { without } from "./extents.ts";
import type { ZeroRun } from "./step.ts";

/** Blocks zeroed on the backing by one request. */
export const zeroBlocksMax = 262144;
/** Zero requests of one pass. */
const zeroRequestsMax = 256;

/** Zeroes on their way to the backing. */
export class Zeroing {
  readonly #core: Core;
  readonly #writer: LogWriter;
  readonly #sync: BackingSync;
  /** What is being zeroed. */
  #start = 0;
  #end = 0;
  /** Failures in a row. */
  failures = 0;
  /** Called when a range has arrived. */
  onProgress: () => void = () => {};

  constructor(core: Core, writer: LogWriter, sync: BackingSync) {
    this.#core = core;
    this.#writer = writer;
    this.#sync = sync;
  }

  /** Whether a block of [start, end) is being zeroed. */
  isUnderWay(start: number, end: number): boolean {
    return this.#start < end && start < this.#end;
  }

  /** Applies zero-dirty runs, as many as one pass may; tells whether there were any. */
  async pass(): Promise<boolean> {
    const { kernels, versions, backing } = this.#core;
    let from = 0;
    let done = 0;
    while (done < zeroRequestsMax && kernels.zeroDirty.count > 0 && !this.#core.history.held) {
      // Ranges, like data, go to the backing only once they are durable. No wait lies between this and the choice.
      while (versions.lastRangeSequence > this.#writer.durableSequence) {
        await this.#writer.makeDurable(versions.lastRangeSequence);
      }
      const start = kernels.zeroDirty.next(from, versions.backingBlocks);
      if (start < 0) break;
      const limit = Math.min(start + zeroBlocksMax, versions.backingBlocks);
      let end = kernels.zeroDirty.nextClear(start, limit);
      if (end < 0) end = limit;
      const keepAllocated = versions.provisioned.has(start);
      end = keepAllocated
        ? versions.provisioned.nextAbsent(start, end)
        : firstProvisioned(versions.provisioned.next(start, end), end);
      this.#core.history.reached(versions.lastRangeSequence);
      await this.#run(backing.sizeBytes, start, end, keepAllocated);
      from = end;
      done++;
    }
    return done > 0;
  }

  /**
   * Applies one run, whatever has become of its blocks since. `newer`: the ranges put since it was chosen, whose blocks stay
   * zero-dirty. REQUIRES: it is no longer than {@linkcode zeroBlocksMax}, what it comes from is durable, and history was
   * told. False when a sync failed meanwhile.
   */
  async run(
    { start, end, keepAllocated }: ZeroRun,
    newer: () => { start: number; end: number }[],
  ): Promise<boolean> {
    return await this.#run(this.#core.backing.sizeBytes, start, end, keepAllocated, newer);
  }

  async #run(
    sizeBytes: number,
    start: number,
    end: number,
    keepAllocated: boolean,
    newer?: () => { start: number; end: number }[],
  ): Promise<boolean> {
    const { kernels, versions, backing, statistics } = this.#core;
    const offset = start * blockBytes;
    const length = Math.min(end * blockBytes, sizeBytes) - offset;
    this.failures++;
    const newRanges: { start: number; end: number }[] = versions.newRanges = [];
    const syncFailures = this.#sync.failures;
    this.#start = start;
    this.#end = end;
    try {
      await backing.zero(offset, length, { keepAllocated });
    } finally {
      this.#end = 0;
      versions.newRanges = undefined;
      // Even a failed call may have zeroed something.
      kernels.written.setRange(start, end);
    }
    this.failures = 0;
    statistics.writebackRequests++;
    // A client's flush may sync beside this; what that dropped is zeroed again.
    if (this.#sync.failures !== syncFailures) return false;
    this.onProgress();
    // A newer version of a block has cleared its bit meanwhile, and a newer range must be applied by itself; the others are
    // zero on the backing now.
    for (const run of without(start, end, newer?.() ?? newRanges)) {
      kernels.zeroDirty.clearRange(run.start, run.end);
      versions.provisioned.deleteRange(run.start, run.end);
    }
    return true;
  }
}

function firstProvisioned(found: number, end: number): number {
  return found < 0 ? end : found;
}
