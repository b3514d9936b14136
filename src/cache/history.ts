/**
 * How much of the past the log still holds: because it is a log, every flush point between what the backing has and now is
 * an image that can be shown.
 *
 * Invariants:
 * - The volume as it was at the end of record s, for each s from `floor` on, is the backing with the log up to s applied:
 *   nothing newer than the floor has reached the backing, and nothing that a newer record superseded has left the log.
 * - The floor rises before, never after, what makes it rise is issued to the backing or the segment is given up: whoever has
 *   read something, and finds the floor where it was, has read the past.
 * - While history is held, the floor does not rise. Write-back, zeroes for the backing, and the tail stand still.
 *
 * @module
 */

import type { Epoch } from "../log/codec.ts";
import type { HistoryState, Superblock } from "../log/superblock.ts";

/** Somebody who looks at the past. */
export interface PastView {
  /** The flush point that it shows. */
  readonly sequence: number;
  /** The floor has risen above it: what it would show is gone. */
  ended(): void;
  /** The tail has passed this segment: what is in it is on the backing, or was superseded before the flush point. */
  forgetSegment(segment: number): void;
}

/** What of the past can be had. */
export class History {
  /** Who looks at it just now. */
  readonly views: Set<PastView> = new Set();
  #floor: number;
  #held: boolean;
  #unlogged: number;

  constructor(floor: number, held: boolean, unlogged: number) {
    this.#floor = floor;
    this.#held = held;
    this.#unlogged = unlogged;
  }

  /** The oldest sequence of which an image can be had. */
  get floor(): number {
    return this.#floor;
  }

  /** Whether nothing more may reach the backing. */
  get held(): boolean {
    return this.#held;
  }

  /** Of what changed after an earlier sequence than this, the log may not tell all, or may tell it of another past. */
  get unlogged(): number {
    return this.#unlogged;
  }

  /** Holds, or lets go. What is under way may still raise the floor: the caller waits for its end. */
  hold(held: boolean): void {
    this.#held = held;
  }

  // ---- hot path ----

  /**
   * Content of records up to `sequence` is about to be issued to the backing, or what they superseded to be given up.
   * Everybody who writes to the backing calls this before, however the write may end.
   */
  reached(sequence: number): void {
    if (sequence > this.#floor) this.#raise(sequence);
  }
  // ---- end of the hot path ----

  /** Content that is in no record is about to be issued to the backing, while the open record is `sequence`. */
  bypassed(sequence: number): void {
    if (sequence > this.#unlogged) this.#unlogged = sequence;
    this.reached(sequence);
  }

  /** Sequences before `head` were given to records that are void now. */
  rewound(head: number): void {
    if (head > this.#unlogged) this.#unlogged = head;
  }

  #raise(sequence: number): void {
    this.#floor = sequence;
    for (const view of this.views) {
      if (view.sequence >= sequence) continue;
      this.views.delete(view);
      view.ended();
    }
  }

  /** The tail has passed a segment, durably. */
  forgetSegment(segment: number): void {
    for (const view of this.views) view.forgetSegment(segment);
  }
}

/** What a superblock lets an opening believe of the past, of a log that ends before the record `head`. */
export function historyOf(superblock: Superblock, head: number, backingMayDiffer: boolean): History {
  const { held, unlogged } = superblock.history;
  const floor = historyFloor(superblock, head, backingMayDiffer);
  return new History(floor, held, isKnown(superblock, backingMayDiffer) ? unlogged : head);
}

function isKnown(superblock: Superblock, backingMayDiffer: boolean): boolean {
  return superblock.history.floor !== undefined && (superblock.clean || superblock.history.held) &&
    !backingMayDiffer;
}

/** The oldest sequence of which an image can be had then. */
export function historyFloor(superblock: Superblock, head: number, backingMayDiffer: boolean): number {
  // What went past the log may be newer than the newest record, so the present is no flush point either.
  return isKnown(superblock, backingMayDiffer) ? superblock.history.floor! : head;
}

/** What a superblock says while the cache is open. */
export function openHistory(before: Readonly<HistoryState>, history: History): HistoryState {
  const { held, floor, unlogged } = history;
  return { ...before, held, unlogged, floor: held ? floor : undefined };
}

/** What a superblock says once `epoch` begins with a past record. */
export function rewoundHistory(before: Readonly<HistoryState>, epoch: Epoch): HistoryState {
  return { ...before, rewind: { epoch: epoch.number, to: epoch.firstSequence - 1 } };
}

/** What a superblock says after a clean close. */
export function closedHistory(before: Readonly<HistoryState>, history: History): HistoryState {
  const { held, floor, unlogged } = history;
  return { ...before, held, floor, unlogged };
}
