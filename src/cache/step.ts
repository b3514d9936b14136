/**
 * A step of write-back in prefix order: all that takes the backing device from one point to the next, in the versions of
 * that next point.
 *
 * Invariants:
 * - What is in a step was chosen at one moment, its point, and does not change: a newer version belongs to a later step.
 * - Each block is in it once. Entries, as pairs of slot and block, are in ascending order of their blocks.
 * - An entry is settled only by a sync of the backing that was issued after its write had completed, and succeeded. Until
 *   then its segment is kept (`Segments.planned`): a failed sync lets all that it covered be written again.
 *
 * @module
 */

import { assert } from "../errors.ts";
import type { Segments } from "../log/segments.ts";

/** A moment of the volume: the end of a record, at which all that had been acknowledged, and nothing later, was in the log. */
export interface Point {
  /** The sequence of that record. */
  readonly sequence: number;
  /** When it was taken, in milliseconds of wall-clock time. */
  readonly wallMs: number;
}

/** What is to read as zeroes at the point, and does not on the backing. */
export interface ZeroRun {
  readonly start: number;
  readonly end: number;
  readonly keepAllocated: boolean;
}

const todo = 0;
const written = 1;
const settled = 2;

/** What is left to do of one step. */
export class Step implements Point {
  readonly sequence: number;
  readonly wallMs: number;
  /** It holds all that was dirty, however much, because nobody knew what the backing had. */
  readonly isWhole: boolean;
  /** Slot and block of each entry. */
  readonly words: Uint32Array;
  readonly zeroes: readonly ZeroRun[];
  /** How many ranges had been put before the point, of those that the order remembers. */
  readonly rangesBefore: number;
  /** Blocks of log from the point before to this one. */
  readonly spanBlocks: number;
  readonly #segments: Segments;
  /** Of the entries, and behind them of the zero runs. */
  readonly #states: Uint8Array;
  #unwritten: number;
  #unsettled: number;
  /** Written since a sync was issued, and covered by the one under way. */
  #fresh: number[] = [];
  #syncing: number[] = [];
  /** The entry at which the sweep goes on. */
  cursor = 0;
  /** Something of it has been issued. */
  begun = false;
  /** Blocks whose version could not be read. */
  readonly givenUp: number[] = [];

  constructor(
    segments: Segments,
    facts: Point & {
      isWhole: boolean;
      words: Uint32Array;
      zeroes: ZeroRun[];
      rangesBefore: number;
      spanBlocks: number;
    },
  ) {
    this.#segments = segments;
    this.sequence = facts.sequence;
    this.wallMs = facts.wallMs;
    this.isWhole = facts.isWhole;
    this.words = facts.words;
    this.zeroes = facts.zeroes;
    this.rangesBefore = facts.rangesBefore;
    this.spanBlocks = facts.spanBlocks;
    this.#unwritten = this.#unsettled = this.count + this.zeroes.length;
    this.#states = new Uint8Array(this.#unsettled);
    for (let i = 0; i < this.count; i++) segments.planned[segments.of(this.slot(i))]!++;
  }

  /** Entries. */
  get count(): number {
    return this.words.length / 2;
  }

  slot(i: number): number {
    return this.words[2 * i]!;
  }

  block(i: number): number {
    return this.words[2 * i + 1]!;
  }

  /** Entries and zero runs that are not written. */
  get unwritten(): number {
    return this.#unwritten;
  }

  /** Whether the backing durably has all of it. */
  get isDone(): boolean {
    return this.#unsettled === 0;
  }

  /** Whether an entry is to be written. */
  isTodo(i: number): boolean {
    return this.#states[i] === todo;
  }

  /** Zero runs that are to be applied, as numbers for {@linkcode noteZeroed}. */
  *zeroesTodo(): Generator<number> {
    for (let i = 0; i < this.zeroes.length; i++) if (this.isTodo(this.count + i)) yield i;
  }

  /** An entry was written to the backing. */
  noteWritten(i: number): void {
    assert(this.isTodo(i), "an entry of a step is written once between two syncs");
    this.#states[i] = written;
    this.#unwritten--;
    this.#fresh.push(i);
  }

  /** A zero run was applied. */
  noteZeroed(i: number): void {
    this.noteWritten(this.count + i);
  }

  /** The version cannot be read any more: the backing gets none of this step. */
  giveUp(i: number): void {
    this.givenUp.push(this.block(i));
    this.#unwritten--;
    this.#settle(i);
  }

  /** A sync of the backing is issued. */
  syncBegins(): void {
    assert(this.#syncing.length === 0, "one sync at a time");
    [this.#syncing, this.#fresh] = [this.#fresh, []];
  }

  /** It has ended. */
  syncEnded(ok: boolean): void {
    if (ok) { for (const i of this.#syncing) this.#settle(i); }
    else {
      for (const i of [...this.#syncing, ...this.#fresh]) this.#states[i] = todo;
      this.#unwritten += this.#syncing.length + this.#fresh.length;
      this.#fresh = [];
    }
    this.#syncing = [];
  }

  #settle(i: number): void {
    this.#states[i] = settled;
    this.#unsettled--;
    if (i < this.count) this.#segments.planned[this.#segments.of(this.slot(i))]!--;
  }

  /** Nobody wants it any more. */
  drop(): void {
    for (let i = 0; i < this.count; i++) if (this.#states[i] !== settled) this.#settle(i);
  }
}
