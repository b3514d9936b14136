/**
 * What of the log is durable, and who waits for it: group commit.
 *
 * Invariants:
 * - `durable` is the largest sequence such that all records up to it had completed before a sync was issued that then
 *   succeeded (log-rules.md 9).
 * - One sync loop: requests that arrive while a write or sync is under way share the next one; a lone request waits for
 *   nobody.
 * - The first failed write or sync is final: every waiter and every later request fails, nothing is retried.
 *
 * @module
 */

import type { BlockDevice } from "../device/block_device.ts";
import { DeviceError } from "../errors.ts";
import { Stack } from "../stack.ts";

/** A log write under way. */
export interface Inflight {
  sequence: number;
  slot: number;
  /** Blocks of log appended up to and with this record. */
  appended: number;
  done: boolean;
  /** The one that began next. */
  next: Inflight | undefined;
}

interface Waiter {
  sequence: number;
  resolve: () => void;
  reject: (error: unknown) => void;
}

/** How far the log has come: the last record, and the blocks appended with it. */
interface Reach {
  sequence: number;
  slot: number;
  appended: number;
}

/** Completion and durability of log writes. */
export class Durability {
  /** Successful and failed device syncs. */
  syncs = 0;
  /** Requests that had to wait for a sync. */
  flushes = 0;
  /** Called when something happened that a waiting appender may want to know; tells whether there was one. */
  onProgress: () => boolean = () => false;
  /** Called once, with the first failure. */
  onFailure: (error: DeviceError) => void = () => {};

  readonly #device: BlockDevice;
  /** Seals the open record when a request covers it; returns the last sealed sequence. */
  readonly #seal: (wanted: number) => number;
  /** The log writes under way, in the order in which they began. */
  #first: Inflight | undefined;
  #last: Inflight | undefined;
  /** Ended ones, for the next. */
  readonly #spare = new Stack<Inflight>();
  readonly #waiters: Waiter[] = [];
  readonly #watchers: (() => void)[] = [];
  readonly #completed: Reach;
  #durable: Reach;
  #line: Promise<void> = Promise.resolve();
  #wanted = 0;
  #running = false;
  #failure: DeviceError | undefined;

  constructor(
    device: BlockDevice,
    start: { sequence: number; slot: number },
    seal: (wanted: number) => number,
  ) {
    this.#device = device;
    this.#seal = seal;
    this.#completed = { ...start, appended: 0 };
    this.#durable = { ...start, appended: 0 };
  }

  get failure(): DeviceError | undefined {
    return this.#failure;
  }
  get durable(): Readonly<Reach> {
    return this.#durable;
  }

  /** Whether a log write is under way, or a sync that somebody wants. */
  get isWriting(): boolean {
    return this.#running || this.#first !== undefined;
  }

  /** Notes that the write of a record begins; records begin in the order of their sequences. */
  begin(sequence: number, slot: number, appended: number): Inflight {
    const record = this.#spare.pop() ?? { sequence: 0, slot: 0, appended: 0, done: false, next: undefined };
    record.sequence = sequence;
    record.slot = slot;
    record.appended = appended;
    record.done = false;
    record.next = undefined;
    if (this.#last) this.#last.next = record;
    else this.#first = record;
    this.#last = record;
    return record;
  }

  /** Notes that it has ended well. Tells whether somebody waited for that. */
  complete(record: Inflight): boolean {
    record.done = true;
    for (let first = this.#first; first?.done; first = this.#first) {
      const completed = this.#completed;
      completed.sequence = first.sequence;
      completed.slot = first.slot;
      completed.appended = first.appended;
      this.#first = first.next;
      if (first.next === undefined) this.#last = undefined;
      this.#spare.push(first);
    }
    const woken = this.wake();
    return this.onProgress() || woken;
  }

  /** Wakes who waits for the end of log writes; tells whether there was anybody. */
  wake(): boolean {
    if (this.#watchers.length === 0) return false;
    for (const watcher of this.#watchers.splice(0)) watcher();
    return true;
  }

  /** Resolves when a log write has ended, or the log has failed. */
  nextEnd(): Promise<void> {
    return new Promise((resolve) => this.#watchers.push(resolve));
  }

  /** Ends the log: nothing more is accepted. `told`: what to tell, if it is not the cache device that failed. */
  fail(error: unknown, told?: DeviceError): void {
    if (!this.#failure) {
      const cause = error instanceof Error ? error.message : String(error);
      this.#failure = told ?? new DeviceError(
        "EIO",
        `The cache device ${this.#device.name} failed a log write or sync (${cause}): nothing more is accepted, reads ` +
          `go on, and what was flushed before is safe; restart to see what is really on the device`,
        { cause: error },
      );
      for (const waiter of this.#waiters.splice(0)) waiter.reject(this.#failure);
      this.onFailure(this.#failure);
    }
    this.wake();
    this.onProgress();
  }

  /** Resolves when every record up to `sequence` is durable. */
  request(sequence: number): Promise<void> {
    if (this.#failure) return Promise.reject(this.#failure);
    if (sequence <= this.#durable.sequence) return Promise.resolve();
    this.flushes++;
    return new Promise((resolve, reject) => {
      this.#waiters.push({ sequence, resolve, reject });
      this.start(sequence);
    });
  }

  /** The same, without telling when. */
  start(sequence: number): void {
    if (sequence > this.#wanted) this.#wanted = sequence;
    if (!this.#running && !this.#failure) void this.#run();
  }

  /** The same, for who wants some progress and not just this one: what is under way is enough. */
  startUnlessRunning(sequence: number): void {
    if (!this.#running) this.start(sequence);
  }

  async #run(): Promise<void> {
    this.#running = true;
    try {
      while (!this.#failure && this.#wanted > this.#durable.sequence) {
        const target = this.#wanted = Math.min(this.#wanted, this.#seal(this.#wanted));
        while (this.#completed.sequence < target && !this.#failure) await this.nextEnd();
        if (!this.#failure) await this.sync();
      }
    } catch (error) {
      this.fail(error);
    } finally {
      this.#running = false;
    }
  }

  /**
   * Syncs the device; what had completed before the call is durable afterwards. Syncs are one after the other: of two at
   * once the system may tell only one that data was lost.
   */
  sync(): Promise<void> {
    const done = this.#line.then(() => this.#syncNow());
    this.#line = done.catch(() => {});
    return done;
  }

  /** Resolves when no sync is under way. */
  syncsEnd(): Promise<void> {
    return this.#line;
  }

  async #syncNow(): Promise<void> {
    if (this.#failure) throw this.#failure;
    const reach = { ...this.#completed };
    this.syncs++;
    try {
      await this.#device.sync();
    } catch (error) {
      this.fail(error);
    }
    if (this.#failure) throw this.#failure;
    if (reach.sequence <= this.#durable.sequence) return;
    this.#durable = reach;
    for (let i = 0; i < this.#waiters.length;) {
      if (this.#waiters[i]!.sequence <= reach.sequence) this.#waiters.splice(i, 1)[0]!.resolve();
      else i++;
    }
    this.onProgress();
  }
}
