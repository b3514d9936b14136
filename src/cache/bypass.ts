/**
 * Large sequential streams go past the log, straight to the backing device: there they are as fast as the log could be
 * emptied, and the cache device is spared (log-rules.md 8).
 *
 * Invariants:
 * - A block goes past the log only if no record that a crash would replay touches it, by data or range, and no other backing
 *   operation on it is in flight. The caller holds the range lock until this one has ended.
 * - What went past the log is covered by no log sync: a flush syncs the backing, too, as long as something is outstanding.
 * - When a backing sync fails, what was outstanding may be gone, and nobody else has it: the log takes nothing any more, as
 *   after a failed log sync, and reads of those blocks are EIO rather than what was there before.
 *
 * @module
 */

import { DeviceError } from "../errors.ts";
import type { LogWriter } from "../log/writer.ts";
import { blockBytes, fullMask, kib, mib } from "../units.ts";
import { noSlot } from "../wasm/kernels.ts";
import type { Core } from "./core.ts";
import { Runs } from "./runs.ts";
import { Streams } from "./streams.ts";
import type { WriteBack } from "./writeback.ts";

/** Smaller requests take the log, even in a stream: a database's journal is one. Smaller limits lower it. */
const requestBytesMin = 64 * kib;
/** How far from a stream's end, in bytes, its next request may begin: a deep queue may come out of order. */
const slackBytes = mib;
/** So much may be outstanding before the engine syncs the backing by itself: often would hold up the stream. */
const outstandingBytesMax = 256 * mib;

/** What has gone past the log and is not synced: whom a sync covers, and what its failure means. */
export class Bypassed {
  readonly #core: Pick<Core, "kernels" | "versions" | "backing">;
  /** Completed since the last sync was issued, and covered by the one under way. */
  #fresh = new Runs();
  #syncing = new Runs();
  /** Backing syncs that failed: what was read from the backing meanwhile is not to be trusted. */
  failures = 0;
  /** Grows whenever a write past the log begins or ends. */
  changes = 0;
  inFlight = 0;

  constructor(core: Pick<Core, "kernels" | "versions" | "backing">) {
    this.#core = core;
  }

  /** Blocks that no good sync covers. */
  get outstanding(): number {
    return this.#fresh.count + this.#syncing.count;
  }

  /** Whether a sync under way would not do. */
  get needsSync(): boolean {
    return this.#fresh.count > 0;
  }

  /** Whether the engine should sync by itself. */
  get isMuch(): boolean {
    return this.outstanding * blockBytes >= outstandingBytesMax;
  }

  /** A write of [start, end) has ended well. */
  ended(start: number, end: number): void {
    this.#fresh.add(start, end);
  }

  /** A backing sync is issued. */
  syncBegins(): void {
    if (this.#fresh.count === 0) return;
    this.#syncing = this.#fresh;
    this.#fresh = new Runs();
  }

  /** It succeeded. */
  synced(): void {
    if (this.#syncing.count > 0) this.#syncing = new Runs();
  }

  /** It failed. Tells what that means, if anything is lost by it. */
  syncFailed(cause: unknown): DeviceError | undefined {
    this.failures++;
    if (this.outstanding === 0) return undefined;
    const { kernels, versions, backing } = this.#core;
    const lost = this.outstanding;
    for (const { start, end } of [...this.#syncing, ...this.#fresh]) {
      for (let block = start; block < end; block++) {
        const slot = kernels.indexGet(block);
        const held = slot === noSlot ? kernels.zeroDirty.test(block) ? fullMask : 0 : kernels.masks[slot]!;
        if (held !== fullMask) versions.poison.add(block, fullMask & ~held);
      }
    }
    this.#fresh = new Runs();
    this.#syncing = new Runs();
    return new DeviceError(
      "EIO",
      `The backing device ${backing.name} failed a sync (${
        cause instanceof Error ? cause.message : cause
      }) that ` +
        `${lost} blocks written past the log needed: nothing more is accepted, reads go on, and what was flushed ` +
        "before is safe; restart to see what is really there",
      { cause },
    );
  }
}

/** The way past the log. */
export class Bypass {
  readonly #core: Core;
  readonly #writer: LogWriter;
  readonly #backing: WriteBack["backing"];
  readonly #streams = new Streams(slackBytes);

  constructor(core: Core, writer: LogWriter, backing: WriteBack["backing"]) {
    this.#core = core;
    this.#writer = writer;
    this.#backing = backing;
  }

  /** Whether a request belongs to a stream that may go past the log, and the log has nothing of it. Allocates nothing. */
  wants(offset: number, length: number): boolean {
    const { tunables, backing } = this.#core;
    const streamBytes = tunables.bypassSequential;
    if (streamBytes === 0 || length < Math.min(requestBytesMin, streamBytes)) return false;
    if (this.#streams.note(offset, length) < streamBytes || backing.away?.() !== undefined) return false;
    const start = this.#firstWhole(offset);
    const end = this.#lastWhole(offset + length);
    return start < end && this.#mayPass(start, end);
  }

  #firstWhole(offset: number): number {
    return Math.ceil(offset / blockBytes);
  }

  /** The block after the last that a request up to byte `end` covers. */
  #lastWhole(end: number): number {
    return end === this.#core.backing.sizeBytes ? Math.ceil(end / blockBytes) : Math.floor(end / blockBytes);
  }

  /** Log-rules.md 8, for blocks [start, end). */
  #mayPass(start: number, end: number): boolean {
    const { kernels, versions, segments, copies, history } = this.#core;
    // It would change the past that is held.
    if (history.held) return false;
    if (this.#writer.failure || versions.touched.any(start, end)) return false;
    if (versions.poison.any || kernels.zeroDirty.any(start, end)) return false;
    for (let block = start; block < end; block++) {
      const slot = kernels.indexGet(block);
      if (slot === noSlot || copies.holds(slot)) continue;
      if (this.#writer.isInUse(segments.of(slot))) return false;
    }
    return !this.#backing.isUnderWay(start, end);
  }

  /**
   * Writes what of the request is whole blocks past the log, and the rest by `byLog`. REQUIRES: its blocks are locked.
   *
   * @returns false, with nothing acknowledged, when all of it has to go through the log after all
   */
  async write(
    offset: number,
    bytes: Uint8Array,
    byLog: (offset: number, bytes: Uint8Array) => Promise<void>,
  ): Promise<boolean> {
    const { backing, bypassed, kernels, statistics, history } = this.#core;
    const start = this.#firstWhole(offset);
    const end = this.#lastWhole(offset + bytes.length);
    if (!this.#mayPass(start, end)) return false;
    const from = start * blockBytes;
    const to = Math.min(end * blockBytes, backing.sizeBytes);
    const { failures } = bypassed;
    // Clean copies, and what the tail has passed: a crash would forget them, and reads must from here on.
    for (let block = start; block < end; block++) kernels.indexRemove(block);
    bypassed.changes++;
    bypassed.inFlight++;
    history.bypassed(this.#writer.openSequence);
    try {
      await backing.write(from, bytes.subarray(from - offset, to - offset) as Uint8Array<ArrayBuffer>);
    } catch {
      // The log takes it, and write-back deals with a backing that refuses.
      return false;
    } finally {
      // Records that were sealed meanwhile do not tell of it either.
      history.bypassed(this.#writer.openSequence);
      bypassed.inFlight--;
      bypassed.changes++;
    }
    // Any sync that failed meanwhile, write-back's too, may have dropped this, and no later one would say so.
    if (this.#writer.failure) throw this.#writer.failure;
    if (bypassed.failures !== failures) return false;
    bypassed.ended(start, end);
    statistics.bypassedBlocks += end - start;
    if (bypassed.isMuch) void this.durable().catch(() => {});
    if (from > offset) await byLog(offset, bytes.subarray(0, from - offset));
    if (to < offset + bytes.length) await byLog(to, bytes.subarray(to - offset));
    return true;
  }

  /** Makes durable what has gone past the log so far. */
  async durable(): Promise<void> {
    if (this.#core.bypassed.outstanding === 0) return;
    try {
      await this.#backing.sync.coverBypassed();
    } catch (error) {
      throw this.#writer.failure ?? error;
    }
    if (this.#writer.failure) throw this.#writer.failure;
  }
}
