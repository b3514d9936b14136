/**
 * The idle mark: when a while has passed without a log write, the durable mark goes into a superblock, un-synced. Until a
 * mark that covers it is on the device, rot in the newest records looks like a torn end.
 *
 * A record that is being filled will soon carry the mark in its header, for nothing: it is waited for, two seconds at most.
 *
 * @module
 */

import type { Clock } from "../clock.ts";
import type { SuperblockStore } from "../log/superblock_store.ts";
import type { LogWriter } from "../log/writer.ts";

/** How long nothing must have been sealed. */
const idleMs = 10;
/** The same while the open record holds something. */
const fillingMs = 2000;

/** Watches for idleness. */
export class IdleMark {
  readonly #clock: Clock;
  readonly #writer: LogWriter;
  readonly #store: SuperblockStore;
  #cancel: (() => void) | undefined;
  /** What was sealed, and when that was seen. */
  #sealed = 0;
  #sealedMs = 0;
  #stopped = false;

  constructor(clock: Clock, writer: LogWriter, store: SuperblockStore) {
    this.#clock = clock;
    this.#writer = writer;
    this.#store = store;
  }

  /** Something became durable. Cheap: at most one timer is pending. */
  noteProgress(): void {
    if (this.#cancel || this.#stopped || this.#writer.durableSequence <= this.#store.current.durableMark) {
      return;
    }
    this.#sealed = this.#writer.sealedSequence;
    this.#sealedMs = this.#clock.monotonicMs();
    this.#cancel = this.#clock.after(idleMs, this.#look);
  }

  readonly #look = (): void => {
    this.#cancel = undefined;
    if (this.#stopped || this.#writer.failure) return;
    // A sync that takes long is not idleness: a client waits for it, and would for this write, too.
    if (this.#writer.sealedSequence !== this.#sealed || this.#writer.isWriting) return this.noteProgress();
    if (this.#writer.openHasEntries && this.#clock.monotonicMs() - this.#sealedMs < fillingMs) {
      this.#cancel = this.#clock.after(idleMs, this.#look);
    } else this.#store.writeMark().catch(() => {});
  };

  /** No mark is written afterwards, but for one under way. */
  stop(): void {
    this.#stopped = true;
    this.#cancel?.();
  }
}
