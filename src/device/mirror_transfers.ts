/**
 * Transfers of a mirror that end in a call: a write goes to both legs at once, a read to one.
 *
 * Invariants: `to.transferred` is called once, when the last leg is done; nothing is allocated for a transfer once as many
 * have been in flight before.
 *
 * @module
 */

import { assert } from "../errors.ts";
import type { TransferEnd } from "../io/io.ts";
import type { Leg } from "./leg.ts";

/** What a failed transfer ends with; the error itself is the mirror's to tell. */
export const transferFailed = -5;

/** Writes under way whose ends are waited for together. */
export interface Turn {
  writes: number;
  onEnd: () => void;
}

/** What the mirror does with the end of a write on one leg. */
export interface MirrorWrites {
  /** A leg failed. False when nothing is left that could have what was written. */
  drop(leg: Leg, error: unknown): boolean;
  /** The turn that a write which begins now belongs to. */
  readonly turn: Turn;
}

/** The transfers of one mirror. */
export class MirrorTransfers implements TransferEnd {
  readonly #mirror: MirrorWrites;
  /** By transfer. */
  readonly #to: (TransferEnd | null)[] = [];
  readonly #tags: number[] = [];
  readonly #offsets: number[] = [];
  readonly #lengths: number[] = [];
  readonly #left: number[] = [];
  readonly #results: number[] = [];
  readonly #turns: (Turn | null)[] = [];
  readonly #legs: [(Leg | null)[], (Leg | null)[]] = [[], []];
  readonly #free: number[] = [];
  /** Errors of writes that were promises, by the tag of the part. */
  readonly #thrown = new Map<number, unknown>();

  constructor(mirror: MirrorWrites) {
    this.#mirror = mirror;
  }

  // ---- hot path ----

  /** Starts to read from `leg`; see `TransferStarter`. */
  read(
    leg: Leg,
    offset: number,
    memory: Uint8Array<ArrayBuffer>,
    at: number,
    length: number,
    to: TransferEnd,
    tag: number,
  ): boolean {
    const number = this.#free.pop() ?? this.#to.length;
    this.#fill(number, offset, length, to, tag, null);
    this.#legs[0][number] = leg;
    this.#left[number] = 1;
    leg.begin();
    if (leg.events!.startRead(offset, memory, at, length, this, 2 * number)) return true;
    leg.end();
    this.#empty(number);
    return false;
  }

  /** Starts to write to both; see `TransferStarter`. `second` is null while there is one leg. */
  write(
    first: Leg,
    second: Leg | null,
    offset: number,
    memory: Uint8Array<ArrayBuffer>,
    at: number,
    length: number,
    to: TransferEnd,
    tag: number,
  ): boolean {
    const number = this.#free.pop() ?? this.#to.length;
    const { turn } = this.#mirror;
    this.#fill(number, offset, length, to, tag, turn);
    this.#legs[0][number] = first;
    this.#legs[1][number] = second;
    this.#left[number] = second === null ? 1 : 2;
    first.begin();
    if (!first.events!.startWrite(offset, memory, at, length, this, 2 * number)) {
      first.end();
      this.#empty(number);
      return false;
    }
    turn.writes++;
    if (second === null) return true;
    second.begin();
    if (!second.events!.startWrite(offset, memory, at, length, this, 2 * number + 1)) {
      this.#promise(second, offset, memory.subarray(at, at + length), 2 * number + 1);
    }
    return true;
  }

  /** The legs' part; not to be called. */
  transferred(result: number, tag: number): boolean {
    const number = tag >>> 1;
    const leg = this.#legs[(tag & 1) as 0 | 1][number]!;
    leg.end();
    let settled = false;
    const turn = this.#turns[number]!;
    if (turn === null) this.#results[number] = result;
    else if (result !== this.#lengths[number]) {
      settled = true;
      if (!this.#mirror.drop(leg, this.#error(leg, number, tag, result))) {
        this.#results[number] = transferFailed;
      }
    }
    if (--this.#left[number]! > 0) return settled;
    const to = this.#to[number]!;
    const outcome = this.#results[number]!;
    const given = this.#tags[number]!;
    this.#empty(number);
    if (turn !== null && --turn.writes === 0) turn.onEnd();
    return to.transferred(outcome, given) || settled;
  }

  #fill(
    number: number,
    offset: number,
    length: number,
    to: TransferEnd,
    tag: number,
    turn: Turn | null,
  ): void {
    this.#to[number] = to;
    this.#tags[number] = tag;
    this.#offsets[number] = offset;
    this.#lengths[number] = length;
    this.#results[number] = length;
    this.#turns[number] = turn;
  }

  #empty(number: number): void {
    assert(this.#to[number] !== null, "a transfer ends once");
    this.#to[number] = this.#turns[number] = null;
    this.#legs[0][number] = this.#legs[1][number] = null;
    this.#free.push(number);
  }
  // ---- end of the hot path ----

  #error(leg: Leg, number: number, tag: number, result: number): unknown {
    const thrown = this.#thrown.get(tag);
    this.#thrown.delete(tag);
    return thrown ?? leg.events!.failure("write", this.#offsets[number]!, this.#lengths[number]!, result);
  }

  /** A leg that takes this write as a promise only. */
  #promise(leg: Leg, offset: number, bytes: Uint8Array<ArrayBuffer>, tag: number): void {
    leg.device.write(offset, bytes).then(
      () => this.transferred(bytes.length, tag),
      (error) => {
        this.#thrown.set(tag, error);
        this.transferred(transferFailed, tag);
      },
    );
  }
}
