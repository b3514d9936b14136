/**
 * The elevator: carries dirty blocks to the backing in address order, upward over all that is dirty and from the start
 * again. Batches overlap: while one is being written the next is read from the log.
 *
 * Invariants (log-rules.md 2, 10):
 * - At most one backing operation is in flight on a block: what is under way is not taken again, and there is none under way
 *   after {@linkcode Sweep.quiesce}.
 * - Only sealed and durable records are written back, each block verified before.
 * - A completed write cleans its block only if the index still holds that slot in that lap of the log, and if no backing
 *   sync failed while it was under way.
 * - A block that failed stays dirty and is not tried again in the same round.
 *
 * @module
 */

import type { LogWriter } from "../log/writer.ts";
import { type BackingRequest, type Batch, batchesMax, BatchLoader, type Unreadable } from "./batch.ts";
import type { BackingSync } from "./backing_sync.ts";
import type { Core } from "./core.ts";
import { requestsInFlightMax } from "./foreground.ts";
import type { Signal } from "./signal.ts";
import type { Step } from "./step.ts";

/** Of the log, in parts: once so much is not durable, and so cannot be written back, a sweep asks for a sync. */
const unsyncedParts = 16;

/** The sweep over the dirty blocks. */
export class Sweep {
  readonly #core: Core;
  readonly #writer: LogWriter;
  readonly #sync: BackingSync;
  readonly #free: BatchLoader[];
  readonly #queue: BackingRequest[] = [];
  readonly #underWay = new Set<number>();
  /** Blocks that failed in this round. */
  readonly #failedNow = new Set<number>();
  #cursor = 0;
  #enabled = false;
  #loading = 0;
  #inFlight = 0;
  /** Nothing more was found to write. */
  #dry = true;
  #broken = false;

  /** In prefix order, what is to be written: null for nothing just now. Undefined in address order. */
  step: Step | null | undefined;
  /** Rings when a request has ended. */
  readonly changed: Signal;
  /** Requests in flight at most. */
  depth: () => number = () => requestsInFlightMax;
  /** Blocks that the backing refused, and how often in a row. */
  readonly failures: Map<number, number> = new Map();
  /** Blocks that the cache device could not read. */
  readonly unreadable: Map<number, Unreadable> = new Map();
  /** The first failure since {@linkcode takeRound}, and the blocks written since. */
  failure: unknown;
  writtenInRound = 0;
  /** Times that the sweep has begun at the start of the volume. */
  #laps = 0;
  /** Called with the number of blocks that were written. */
  onWritten: (blocks: number) => void = () => {};

  constructor(core: Core, writer: LogWriter, sync: BackingSync, changed: Signal) {
    this.#core = core;
    this.#writer = writer;
    this.#sync = sync;
    this.changed = changed;
    this.#free = Array.from(
      { length: batchesMax - 1 },
      (_, i) => new BatchLoader(core, writer, i, this.failures, this.unreadable),
    );
  }

  /** The block that the sweep has come to, counted on over all laps. */
  get position(): number {
    return this.#laps * this.#core.versions.backingBlocks + this.#cursor;
  }

  /** True when nothing is under way and nothing more was found. */
  get idle(): boolean {
    return this.#broken ||
      (this.#underWay.size === 0 && this.#loading === 0 && (this.#dry || !this.#enabled));
  }

  /** Whether a write of a block of [start, end) is under way, or about to be. */
  isUnderWay(start: number, end: number): boolean {
    for (const block of this.#underWay) if (block >= start && block < end) return true;
    return false;
  }

  /** Goes on, with a clean slate of failures; what is under way stays so. */
  beginRound(): void {
    this.#failedNow.clear();
    this.#enabled = true;
    this.#dry = false;
    this.pump();
  }

  /** Whether nothing more is issued before the backing is synced. */
  get needsSync(): boolean {
    return this.#sync.isDue;
  }

  /** What came of the round so far; it is counted from zero again. */
  takeRound(): { failure: unknown; written: number } {
    const { failure, writtenInRound: written } = this;
    this.failure = undefined;
    this.writtenInRound = 0;
    return { failure, written };
  }

  /** Starts nothing more; what has been read but not issued is dropped. */
  stop(): void {
    this.#enabled = false;
    for (const request of this.#queue.splice(0)) this.#end(request, "dropped");
  }

  /** As {@linkcode stop}; resolves when nothing is under way. */
  async quiesce(): Promise<void> {
    this.stop();
    while (!this.idle) await this.changed.wait();
  }

  /** Issues what may be issued and reads ahead. */
  pump(): void {
    if (!this.#enabled || this.#broken) return;
    const depth = this.depth();
    while (this.#inFlight < depth && this.#queue.length > 0 && !this.needsSync) {
      this.#issue(this.#queue.shift()!);
    }
    // The next batch is read while this one is written, and no earlier than needed: newer versions may come.
    while (
      !this.#dry && this.#free.length > 0 && this.#loading === 0 && this.#queue.length < requestsInFlightMax
    ) {
      this.#collect();
    }
  }

  #collect(): void {
    const { tunables, versions, geometry } = this.#core;
    const loader = this.#free.at(-1)!;
    if (this.#writer.unsyncedBlocks > geometry.slotCount / unsyncedParts) this.#writer.syncSoon();
    const isTaken = (block: number) => this.#underWay.has(block) || this.#failedNow.has(block);
    const limit = tunables.writebackBatch;
    if (this.step === null) {
      this.#dry = true;
      return;
    }
    let batch = this.step
      ? loader.collectStep(this.step, limit, isTaken)
      : loader.collect(this.#cursor, versions.backingBlocks, limit, isTaken);
    if (batch.count === 0 && this.step) this.step.cursor = 0;
    else if (batch.count === 0) {
      batch = loader.collect(0, this.#cursor, limit, isTaken);
      this.#laps++;
    }
    if (batch.count === 0) {
      this.#cursor = 0;
      this.#dry = true;
      return;
    }
    this.#free.pop();
    this.#cursor = batch.blocks[batch.count - 1]! + 1;
    for (let i = 0; i < batch.count; i++) this.#underWay.add(batch.blocks[i]!);
    this.#loading++;
    loader.load(batch).then(() => this.#loaded(batch)).catch((error) => this.#break(error));
  }

  #loaded(batch: Batch): void {
    this.#loading--;
    batch.syncFailures = this.#sync.failures;
    this.failure ??= batch.failure;
    for (let i = 0; i < batch.count; i++) {
      if (!batch.skipped[i]) continue;
      if (batch.skipped[i] === 2) batch.step?.giveUp(batch.entries[i]!);
      this.#underWay.delete(batch.blocks[i]!);
      this.#failedNow.add(batch.blocks[i]!);
    }
    for (const request of batch.loader.requests(batch)) {
      this.#queue.push(request);
      batch.pending++;
      for (let i = request.first; i <= request.last; i++) batch.parts[i]!++;
    }
    if (batch.pending === 0) this.#free.push(batch.loader);
    if (!this.#enabled) this.stop();
    this.pump();
    this.changed.ring();
  }

  #issue(request: BackingRequest): void {
    const { backing, statistics, clock } = this.#core;
    const { batch, first, last } = request;
    const isStale = !batch.step && first === last && batch.parts[first] === 1 && !batch.failed[first] &&
      !batch.loader.isCurrent(first);
    if (isStale) {
      this.#end(request, "dropped");
      return;
    }
    this.#inFlight++;
    this.#core.history.reached(batch.reach);
    backing.write(request.offset, request.bytes).then(() => {
      statistics.writebackRequests++;
      this.#sync.noteRequest(last - first + 1);
      statistics.writebackBytes += request.bytes.length;
      statistics.writebackRate.note(statistics.writebackBytes, clock.monotonicMs());
      return true;
    }, (error) => {
      this.failure ??= error;
      return false;
    }).then((isWritten) => {
      this.#inFlight--;
      // Counted from the batch on: another request of the same block may have been dropped by the failed sync. And looked at
      // no sooner than the block is accounted for: a sync that fails in between would know nothing of it.
      const isSure = batch.syncFailures === this.#sync.failures;
      this.#end(request, !isWritten ? "failed" : isSure ? "written" : "doubtful");
      this.pump();
      this.changed.ring();
    }).catch((error) => this.#break(error));
  }

  /** A mistake of ours: nothing more is accepted, and nobody waits for what may never end. */
  #break(error: unknown): void {
    this.#broken = true;
    this.#writer.fail(error);
    this.changed.ring();
  }

  /** A request has ended; `doubtful`: a backing sync failed meanwhile, and may have dropped it. */
  #end(request: BackingRequest, outcome: "written" | "failed" | "doubtful" | "dropped"): void {
    const { kernels, statistics } = this.#core;
    const { batch } = request;
    let written = 0;
    for (let i = request.first; i <= request.last; i++) {
      const block = batch.blocks[i]!;
      if (outcome !== "written") batch.failed[i] = 1;
      // What it did write must be forgotten by no sync.
      if (outcome !== "dropped") kernels.written.set(block);
      if (outcome === "failed") this.#failedNow.add(block);
      if (--batch.parts[i]! > 0) continue;
      this.#underWay.delete(block);
      if (batch.failed[i]) {
        // A merged request that failed is taken apart next time, so that only the bad block counts up.
        if (this.#failedNow.has(block)) this.failures.set(block, (this.failures.get(block) ?? 0) + 1);
        continue;
      }
      written++;
      this.failures.delete(block);
      batch.step?.noteWritten(batch.entries[i]!);
      if (batch.loader.isCurrent(i)) kernels.dirty.clear(block);
    }
    if (written > 0) {
      statistics.writtenBackBlocks += written;
      this.writtenInRound += written;
      this.onWritten(written);
    }
    if (--batch.pending === 0) this.#free.push(batch.loader);
  }
}
