/**
 * Blocks that records of the log touch without an entry in the index: by a zero, trim or poisoned range, or by a version that
 * was found rotten. A crash replays those records, so nothing may go past the log there (log-rules.md 8).
 *
 * Invariant: a block that was added with a sequence is a member until the tail has passed that sequence; some stay for one
 * more lap, which costs nothing but a detour through the log.
 *
 * @module
 */

import { Runs } from "./runs.ts";

/** See the head of this file. */
export class Touched {
  /** Two generations: the older one goes as a whole when the tail has passed all of it. */
  #old = new Runs();
  #young = new Runs();
  /** The highest sequence that added to each. */
  #oldSequence = 0;
  #youngSequence = 0;

  /** The record `sequence` touches [start, end). */
  add(start: number, end: number, sequence: number): void {
    this.#young.add(start, end);
    this.#youngSequence = Math.max(this.#youngSequence, sequence);
  }

  /** Whether a record that a crash may replay touches a block of [start, end). */
  any(start: number, end: number): boolean {
    return this.#old.any(start, end) || this.#young.any(start, end);
  }

  /** Both superblocks durably name a tail whose first record is `sequence`. */
  passed(sequence: number): void {
    if (this.#oldSequence >= sequence) return;
    const isYoungPassed = this.#youngSequence < sequence;
    this.#old = isYoungPassed ? new Runs() : this.#young;
    this.#oldSequence = isYoungPassed ? 0 : this.#youngSequence;
    this.#young = new Runs();
    this.#youngSequence = 0;
  }
}
