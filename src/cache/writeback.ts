/**
 * Write-back: carries dirty blocks from the log to the backing device in address order, merged, and lets the tail follow.
 *
 * Invariants (log-rules.md 2, 3, 10, 15 and "Failed backing sync"):
 * - At most one backing operation is in flight on a block: batches do not overlap in time.
 * - Only sealed and durable records are written back, each block verified just before.
 * - A completed write cleans its block only if the index still holds that slot; the slot's segment is pinned meanwhile.
 * - A failed write leaves its blocks dirty; a failed sync makes everything dirty again that was written since the last
 *   good one.
 *
 * @module
 */

import { sleep } from "../clock.ts";
import { assert, NbdboostError } from "../errors.ts";
import type { LogWriter } from "../log/writer.ts";
import { noSlot } from "../wasm/kernels.ts";
import { type Batch, BatchLoader } from "./batch.ts";
import type { Core } from "./core.ts";
import { without } from "./extents.ts";
import type { Room } from "./room.ts";
import type { Tail } from "./tail.ts";

/** Backing requests in flight. */
const requestsInFlightMax = 32;
/** Blocks zeroed on the backing by one request. */
const zeroBlocksMax = 262144;
/** Zero requests of one pass. */
const zeroRequestsMax = 256;
/** No client request for so long means idle. */
const idleMs = 500;
/** A pass that achieved nothing while a writer waits for space is repeated so soon: durability may be all it lacked. */
const spaceMs = 10;
/** With `auto`, write-back does not wait for idleness once this share of the log is in use. */
const busyShare = 0.4;
/** First and longest wait after a failed backing operation. */
const retryMsMin = 100;
const retryMsMax = 30_000;
/** Passes of a drain, with a millisecond between them, for which the tail may stand still with nothing left to do. */
const idlePassesMax = 5000;
/** A failure that lasts is told of so often. */
const warnMs = 10_000;
/** A block that failed so often while others succeed is moved out of the tail's way. */
const failuresMax = 3;

/** What write-back tells status. */
export interface WriteBackState {
  active: boolean;
  lastError: string | undefined;
  /** Since when it has failed. */
  failingSinceMs: number | undefined;
  /** Milliseconds until the next try after a failure; 0 when there was none. */
  retryMs: number;
}

/** The write-back of a running cache. */
export class WriteBack {
  readonly state: WriteBackState = {
    active: false,
    lastError: undefined,
    failingSinceMs: undefined,
    retryMs: 0,
  };
  readonly #core: Core;
  readonly #writer: LogWriter;
  readonly #tail: Tail;
  readonly #room: Room;
  readonly #loader: BatchLoader;
  /** The tail stands still, for `proveBacking`: always, or while a quarter of the log is free and no writer waits. */
  holdTail: "no" | "while roomy" | "yes" = "no";
  /** Blocks that failed on the backing, and how often. */
  readonly #failures = new Map<number, number>();
  #warnAfterMs = 0;
  /** Zeroing failed so often in a row. */
  #zeroFailures = 0;
  #cursor = 0;
  #stopping = false;
  #draining = 0;
  #spaceNeeded = false;
  /** Whether the last backing sync failed. */
  #syncFailed = false;
  #wake: () => void = () => {};
  #loop: Promise<void> | undefined;
  #lastClientMs: number;
  #lastClientCount = 0;
  readonly #passWaiters: { resolve: () => void; reject: (error: unknown) => void }[] = [];

  constructor(core: Core, writer: LogWriter, tail: Tail, room: Room) {
    this.#core = core;
    this.#writer = writer;
    this.#tail = tail;
    this.#room = room;
    this.#loader = new BatchLoader(core, writer);
    this.#lastClientMs = core.clock.monotonicMs();
  }

  /** Starts the loop. */
  start(): void {
    this.#loop ??= this.#run();
  }

  /** Ends the loop after the batch under way. */
  async stop(): Promise<void> {
    this.#stopping = true;
    this.#wake();
    await this.#loop;
  }

  /** A writer waits for log space. */
  needSpace(): void {
    this.#spaceNeeded = true;
    this.#wake();
  }

  /** Blocks that the backing lacks. */
  get dirtyBlocks(): number {
    return this.#core.kernels.dirty.count + this.#core.kernels.zeroDirty.count;
  }

  /** Writes back until nothing is dirty, and moves the tail to the head. */
  async drain(onProgress?: (done: number, total: number) => void): Promise<void> {
    const { kernels, versions, clock } = this.#core;
    const total = this.dirtyBlocks;
    this.#draining++;
    try {
      for (let idlePasses = 0;;) {
        onProgress?.(Math.max(0, total - this.dirtyBlocks), total);
        if (this.#writer.failure) throw this.#writer.failure;
        if (this.dirtyBlocks === 0 && kernels.written.count === 0 && kernels.syncing.count === 0) {
          if (this.#holds()) return;
          if (!this.#writer.openHasEntries && this.#tail.sequence > this.#writer.sealedSequence) return;
          // What is lost must stay in the log, so the tail cannot come to the head.
          if (versions.poison.any) return;
          if (++idlePasses > idlePassesMax) {
            throw new NbdboostError(
              "Cannot empty the log: nothing is left to write back, and the tail does not move",
            );
          }
          // Only log reads under way, or clients that write, keep the tail from the head now.
          if (idlePasses > 1) await sleep(clock, 1);
        } else idlePasses = 0;
        await this.#nextPass();
      }
    } finally {
      this.#draining--;
    }
  }

  /** Resolves after one more pass of the loop; rejects when that pass failed. */
  #nextPass(): Promise<void> {
    if (!this.#loop || this.#stopping) {
      return Promise.reject(new NbdboostError("Cannot drain: the cache is closing"));
    }
    return new Promise((resolve, reject) => {
      this.#passWaiters.push({ resolve, reject });
      this.#wake();
    });
  }

  async #run(): Promise<void> {
    while (!this.#stopping) {
      if (!this.#wanted()) {
        // Nothing is wanted from a failed log; who waits for a pass must hear of it.
        const { failure } = this.#writer;
        if (failure) { for (const waiter of this.#passWaiters.splice(0)) waiter.reject(failure); }
        await this.#rest(idleMs);
        continue;
      }
      const waiters = this.#passWaiters.splice(0);
      this.state.active = true;
      try {
        const worked = await this.pass(this.#draining > 0 || this.#spaceNeeded);
        this.state.retryMs = 0;
        this.#recovered();
        for (const waiter of waiters) waiter.resolve();
        // Whoever asked during the pass found nobody to wake.
        const asked = this.#stopping || this.#passWaiters.length > 0;
        if (!worked && !asked) await this.#rest(this.#spaceNeeded ? spaceMs : idleMs);
      } catch (error) {
        if (!(error instanceof NbdboostError)) this.#writer.fail(error);
        this.#failed(error);
        for (const waiter of waiters) waiter.reject(error);
        if (!this.#stopping) await this.#rest(this.state.retryMs);
      } finally {
        this.state.active = false;
      }
    }
    for (const waiter of this.#passWaiters.splice(0)) {
      waiter.reject(new NbdboostError("Cannot drain: the cache is closing"));
    }
  }

  #failed(error: unknown): void {
    const message = error instanceof Error ? error.message : String(error);
    const now = this.#core.clock.monotonicMs();
    if (now >= this.#warnAfterMs) {
      const waiting = `${this.dirtyBlocks} blocks wait in the cache, none is lost`;
      this.#core.warn(`Write-back failed and will be tried again: ${message}; ${waiting}`);
      this.#warnAfterMs = now + warnMs;
    }
    this.state.lastError = message;
    this.state.failingSinceMs ??= now;
    this.state.retryMs = Math.min(retryMsMax, Math.max(retryMsMin, this.state.retryMs * 2));
  }

  /** Forgets the last failure once nothing that failed is left to be done. */
  #recovered(): void {
    if (this.state.lastError === undefined) return;
    const { dirty, zeroDirty } = this.#core.kernels;
    for (const block of this.#failures.keys()) if (!dirty.test(block)) this.#failures.delete(block);
    if (this.#failures.size > 0 || this.#syncFailed || (this.#zeroFailures > 0 && zeroDirty.count > 0)) {
      return;
    }
    this.state.lastError = this.state.failingSinceMs = undefined;
  }

  async #rest(ms: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const cancel = this.#core.clock.after(ms, resolve);
      this.#wake = () => {
        cancel();
        resolve();
      };
    });
    this.#wake = () => {};
  }

  /** Whether there is something to do, and now is the time. */
  #wanted(): boolean {
    if (this.#writer.failure) return false;
    if (this.#draining > 0 || this.#spaceNeeded) return true;
    const { kernels, tunables, clock, statistics, geometry } = this.#core;
    if (this.dirtyBlocks === 0 && kernels.written.count === 0) return false;
    if (tunables.writeback === "off") return false;
    if (tunables.writeback === "on") return true;
    const count = statistics.writeRequests + statistics.readRequests + statistics.flushRequests;
    const now = clock.monotonicMs();
    if (count !== this.#lastClientCount) this.#lastClientMs = now;
    this.#lastClientCount = count;
    const used = 1 - this.#writer.freeSegments / geometry.segmentCount;
    return used > busyShare || now - this.#lastClientMs >= idleMs;
  }

  /**
   * One batch: load, verify, write, sync, move the tail. Returns false when there was nothing to do. `eager`: segments are
   * wanted, so the tail moves even by a little.
   */
  async pass(eager: boolean): Promise<boolean> {
    const { kernels } = this.#core;
    if (eager) await this.#makeWritable();
    const limit = this.#core.tunables.writebackBatch;
    let batch = this.#loader.collect(this.#cursor, limit, this.#failures);
    if (batch.count === 0 && kernels.dirty.count > 0) {
      await this.#makeWritable();
      batch = this.#loader.collect(this.#cursor, limit, this.#failures);
    }
    let worked = batch.count > 0;
    // A backing that refuses something is told of at the end: what it took is synced, and the tail moves, all the same.
    let failure: unknown;
    const note = (error: unknown) => failure ??= error;
    try {
      if (worked) {
        this.#cursor = batch.blocks[batch.count - 1]! + 1;
        if (this.#cursor >= this.#core.versions.backingBlocks) this.#cursor = 0;
        await this.#loader.load(batch);
        await this.#writeBatch(batch).catch(note);
      } else this.#cursor = 0;
    } finally {
      this.#loader.release(batch);
    }
    worked = (await this.#zeroPass().catch(note)) === true || worked;
    if (kernels.written.count > 0) await this.#syncBacking();
    if (eager) await this.#relocateFailed();
    const idle = this.dirtyBlocks === 0;
    const passable = this.#tail.passable();
    const wanted = eager || idle || passable >= Math.max(2, this.#core.geometry.segmentCount >>> 4);
    if (wanted && !this.#holds()) {
      if (await this.#tail.advance(idle)) {
        worked = true;
        this.#spaceNeeded = false;
        this.#room.wake();
      }
    }
    if (failure !== undefined) throw failure;
    return worked;
  }

  #holds(): boolean {
    if (this.holdTail !== "while roomy") return this.holdTail === "yes";
    return !this.#spaceNeeded && this.#writer.freeSegments * 4 > this.#core.geometry.segmentCount;
  }

  /** What is still in the open record, or not durable, cannot be written back: seals and syncs if nothing else is left. */
  async #makeWritable(): Promise<void> {
    const writer = this.#writer;
    if (writer.lastPutSequence > writer.durableSequence) await writer.makeDurable(writer.lastPutSequence);
  }

  async #writeBatch(batch: Batch): Promise<void> {
    const { backing, kernels, statistics, clock } = this.#core;
    let failure: unknown;
    const queue = this.#loader.requests(batch);
    const work = async () => {
      for (const request of queue) {
        try {
          await backing.write(request.offset, request.bytes);
          statistics.writebackRequests++;
          statistics.writebackBytes += request.bytes.length;
          statistics.writebackRate.note(statistics.writebackBytes, clock.monotonicMs());
        } catch (error) {
          failure ??= error;
          for (let i = request.first; i <= request.last; i++) batch.failed[i] = 1;
        }
      }
    };
    await Promise.all(Array.from({ length: requestsInFlightMax }, work));
    let written = 0;
    for (let i = 0; i < batch.count; i++) {
      const block = batch.blocks[i]!;
      if (batch.skipped[i]) continue;
      if (batch.failed[i]) {
        // A merged request that failed is taken apart next time, so that only the bad block counts up.
        this.#failures.set(block, (this.#failures.get(block) ?? 0) + 1);
        // What it did write must be forgotten by no sync.
        kernels.written.set(block);
        continue;
      }
      written++;
      this.#failures.delete(block);
      kernels.written.set(block);
      if (kernels.indexGet(block) === batch.slots[i]) kernels.dirty.clear(block);
    }
    statistics.writtenBackBlocks += written;
    if (written > 0) this.#noteProgress();
    if (failure !== undefined && written === 0) throw failure;
    if (failure !== undefined) this.#failed(failure);
  }

  /** The backing takes what it gets. That is no progress while its syncs fail: all of it will be written again. */
  #noteProgress(): void {
    if (!this.#syncFailed) this.#room.progressMs = this.#core.clock.monotonicMs();
  }

  /** Applies zero-dirty runs to the backing. */
  async #zeroPass(): Promise<boolean> {
    const { kernels, versions, backing } = this.#core;
    let from = 0;
    let done = 0;
    while (done < zeroRequestsMax && kernels.zeroDirty.count > 0) {
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
      await this.#zeroRun(backing.sizeBytes, start, end, keepAllocated);
      from = end;
      done++;
    }
    return done > 0;
  }

  async #zeroRun(sizeBytes: number, start: number, end: number, keepAllocated: boolean): Promise<void> {
    const { kernels, versions, backing, statistics } = this.#core;
    const offset = start * 4096;
    const length = Math.min(end * 4096, sizeBytes) - offset;
    this.#zeroFailures++;
    const newRanges: { start: number; end: number }[] = versions.newRanges = [];
    try {
      await backing.zero(offset, length, { keepAllocated });
    } finally {
      versions.newRanges = undefined;
      // Even a failed call may have zeroed something.
      kernels.written.setRange(start, end);
    }
    this.#zeroFailures = 0;
    statistics.writebackRequests++;
    this.#noteProgress();
    // A newer version of a block has cleared its bit meanwhile, and a newer range must be applied by itself; the others are
    // zero on the backing now.
    for (const run of without(start, end, newRanges)) {
      kernels.zeroDirty.clearRange(run.start, run.end);
      versions.provisioned.deleteRange(run.start, run.end);
    }
  }

  /** Syncs the backing and settles what that covers. */
  async #syncBacking(): Promise<void> {
    const { kernels, segments, versions, backing, statistics } = this.#core;
    const { dirty, zeroDirty, written, syncing } = kernels;
    assert(syncing.count === 0, "one backing sync at a time");
    written.moveInto(syncing);
    statistics.backingSyncs++;
    try {
      await backing.sync();
      this.#syncFailed = false;
    } catch (error) {
      this.#syncFailed = true;
      written.orInto(syncing);
      for (
        let block = syncing.next(0, syncing.length);
        block >= 0;
        block = syncing.next(block + 1, syncing.length)
      ) {
        if (kernels.indexGet(block) !== noSlot) dirty.set(block);
        else if (versions.poison.mask(block) === 0) zeroDirty.set(block);
      }
      written.clearRange(0, written.length);
      syncing.clearRange(0, syncing.length);
      throw error;
    }
    for (
      let block = syncing.next(0, syncing.length);
      block >= 0;
      block = syncing.next(block + 1, syncing.length)
    ) {
      if (dirty.test(block) || written.test(block)) continue;
      const slot = kernels.indexGet(block);
      if (slot !== noSlot) segments.live[segments.of(slot)]!--;
    }
    syncing.clearRange(0, syncing.length);
  }

  /** Moves what the backing refuses out of the tail's way (log-rules.md 12), as long as it is little. */
  async #relocateFailed(): Promise<void> {
    if (this.#failures.size > 0 && this.#failures.size <= this.#core.geometry.segmentBlocks) {
      for (const block of [...this.#tail.dirtyInTail()]) {
        if ((this.#failures.get(block) ?? 0) >= failuresMax) await this.#tail.relocate(block);
      }
    }
    if (this.#zeroFailures >= failuresMax) await this.#tail.relocateRanges();
  }

  /** The last backing sync before a clean close. */
  async settle(): Promise<void> {
    if (this.#core.kernels.written.count > 0) await this.#syncBacking();
  }
}

function firstProvisioned(found: number, end: number): number {
  return found < 0 ? end : found;
}
