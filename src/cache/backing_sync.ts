/**
 * The backing's syncs: which blocks one covers, and what becomes of them when it fails (log-rules.md 15 and "Failed backing
 * sync").
 *
 * Invariants: one sync at a time. What completed before it was issued is settled when it succeeds; when it fails, everything
 * written since the last good one is dirty again, writes that were under way meanwhile included (see `failures`).
 *
 * @module
 */

import { assert } from "../errors.ts";
import { noSlot } from "../wasm/kernels.ts";
import type { Core } from "./core.ts";

/** Most and fewest blocks that may be written and not synced. */
export const unsyncedBlocksMax = 16384;
const unsyncedBlocksMin = 64;
/** As many to begin with. */
const unsyncedBlocksFirst = 1024;
/** A sync that takes longer halves that number, one that takes much less doubles it. */
const slowSyncMs = 500;
const fastSyncMs = 250;

/** Syncs of the backing device. */
export class BackingSync {
  readonly #core: Core;
  /** Failed syncs so far. A write that was issued before one and ends after it is not to be trusted. */
  failures = 0;
  /** Whether the last sync failed. */
  failed = false;
  /**
   * Blocks that may be written before the next sync. A backing behind a page cache takes writes at once and lets the sync wait
   * for all of them: without this bound the tail, and so a full log's writers, would wait for minutes.
   */
  unsyncedMax: number = unsyncedBlocksFirst;
  /** The sync under way, and the one that waits for its turn. */
  #line: Promise<void> = Promise.resolve();
  #next: Promise<void> | undefined;

  constructor(core: Core) {
    this.#core = core;
  }

  /** Whether the backing holds something that no good sync covers. */
  get wanted(): boolean {
    return this.#core.kernels.written.count > 0 || this.#core.bypassed.outstanding > 0;
  }

  /** Syncs the backing and settles what that covers: all that has completed. Calls that wait for their turn share one. */
  run(): Promise<void> {
    if (this.#next) return this.#next;
    const next = this.#next = this.#line.then(() => {
      this.#next = undefined;
      return this.#now();
    });
    this.#line = next.catch(() => {});
    return next;
  }

  /** Makes durable what has gone past the log. */
  async coverBypassed(): Promise<void> {
    if (this.#core.bypassed.needsSync) await this.run();
    else await this.#line;
  }

  async #now(): Promise<void> {
    const { kernels, backing, bypassed, statistics, clock } = this.#core;
    const { written, syncing } = kernels;
    assert(syncing.count === 0, "one backing sync at a time");
    written.moveInto(syncing);
    bypassed.syncBegins();
    statistics.backingSyncs++;
    const count = syncing.count;
    const startMs = clock.monotonicMs();
    try {
      await backing.sync();
    } catch (error) {
      this.failed = true;
      this.failures++;
      this.#unclean();
      const lost = bypassed.syncFailed(error);
      if (lost) this.#core.writer?.fail(lost, lost);
      throw error;
    }
    this.failed = false;
    bypassed.synced();
    this.#adapt(clock.monotonicMs() - startMs, count);
    this.#settle();
  }

  #adapt(ms: number, blocks: number): void {
    if (ms > slowSyncMs) {
      this.unsyncedMax = Math.max(unsyncedBlocksMin, Math.min(this.unsyncedMax, blocks) >>> 1);
    } else if (ms < fastSyncMs) this.unsyncedMax = Math.min(unsyncedBlocksMax, this.unsyncedMax * 2);
  }

  #unclean(): void {
    const { kernels, versions } = this.#core;
    const { dirty, zeroDirty, written, syncing } = kernels;
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
  }

  #settle(): void {
    const { kernels, segments } = this.#core;
    const { dirty, written, syncing } = kernels;
    for (
      let block = syncing.next(0, syncing.length);
      block >= 0;
      block = syncing.next(block + 1, syncing.length)
    ) {
      // A newer version, or a write that ended after the sync was issued, keeps it live.
      if (dirty.test(block) || written.test(block)) continue;
      const slot = kernels.indexGet(block);
      if (slot !== noSlot) segments.live[segments.of(slot)]!--;
    }
    syncing.clearRange(0, syncing.length);
  }
}
