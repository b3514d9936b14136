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

/** Most blocks that may be written and not synced. */
export const unsyncedBlocksMax = 16384;
/**
 * Most and fewest requests that may be, and as many to begin with: what a slow disk does in half a second or so. A request
 * counts for one more per so many blocks of it.
 */
const unsyncedRequestsMax = 16384;
const unsyncedRequestsMin = 16;
const unsyncedRequestsFirst = 128;
const blocksAsRequest = 128;
/** After a sync that took longer there may be as many as take half of it; one of many that took much less doubles them. */
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
   * Requests since the last sync, and how many there may be before the next. A backing behind a page cache takes writes at
   * once and lets the sync wait for all of them: without this bound the tail, and so a full log's writers, would wait for
   * minutes.
   */
  #requests = 0;
  #requestsMax = unsyncedRequestsFirst;
  /** Called when a sync is issued, and when it has ended. */
  onIssue: () => void = () => {};
  onEnd: (ok: boolean) => void = () => {};
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
    this.onIssue();
    statistics.backingSyncs++;
    const requests = this.#requests;
    this.#requests = 0;
    const startMs = clock.monotonicMs();
    try {
      await backing.sync();
    } catch (error) {
      this.failed = true;
      this.failures++;
      this.#unclean();
      this.onEnd(false);
      const lost = bypassed.syncFailed(error);
      if (lost) this.#core.writer?.fail(lost, lost);
      throw error;
    }
    this.failed = false;
    bypassed.synced();
    this.#adapt(clock.monotonicMs() - startMs, requests);
    this.#settle();
    this.onEnd(true);
  }

  /** A request to write so many blocks has ended. */
  noteRequest(blocks: number): void {
    this.#requests += 1 + Math.floor(blocks / blocksAsRequest);
  }

  /** Whether nothing more should be written before a sync. */
  get isDue(): boolean {
    return this.#requests >= this.#requestsMax || this.#core.kernels.written.count >= unsyncedBlocksMax;
  }

  #adapt(ms: number, requests: number): void {
    if (ms > slowSyncMs) {
      const most = Math.floor(Math.min(this.#requestsMax, requests) * fastSyncMs / ms);
      this.#requestsMax = Math.max(unsyncedRequestsMin, most);
    } else if (ms < fastSyncMs && requests * 2 >= this.#requestsMax) {
      // A sync of few says nothing about many.
      this.#requestsMax = Math.min(unsyncedRequestsMax, this.#requestsMax * 2);
    }
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
