/**
 * The bytes that all connections of a server may hold together, shared out in the order in which they were asked for.
 *
 * Invariants: `usedBytes` is the sum of what the shares hold; a share that holds no more than `assuredBytes` never waits;
 * who waits is asked again, the longest waiting first, when something is given back. While somebody waits, a share that
 * holds more than that, and whose client neither takes its replies nor goes on sending for `stallMs`, is ended.
 *
 * @module
 */

import type { Clock } from "../clock.ts";
import { assert } from "../errors.ts";
import { assuredBytes } from "./limits.ts";

/** What a share belongs to. */
export interface ShareOwner {
  /** There may be room now: ask again. */
  roomCame(): void;
  /** True while it is the client who has to do something: take replies, or go on with a payload. */
  waitsForClient(): boolean;
  /** The client has done nothing for too long, while others wait. */
  stalled(): void;
}

/** One connection's part of a {@linkcode Budget}. */
export class Share {
  /** Counts what the socket moved; the hot path only adds to it. */
  moves = 0;
  #held = 0;
  /** Something was given back of which those that wait have not heard. */
  #lowered = false;
  #movesSeen = -1;
  readonly #budget: Budget;
  readonly #owner: ShareOwner;

  /** Use {@linkcode Budget.share}. */
  constructor(budget: Budget, owner: ShareOwner) {
    this.#budget = budget;
    this.#owner = owner;
  }

  /** Bytes that it holds. */
  get held(): number {
    return this.#held;
  }

  /** Takes note of what is held, and, if there is room for it, of `bytes` more. False when that has to wait. */
  admits(held: number, bytes: number): boolean {
    this.#note(held);
    if (held + bytes > assuredBytes && !this.#budget.hasRoom(this, bytes)) return false;
    this.#note(held + bytes);
    return true;
  }

  /** Takes note of what is held, after some of it was given back. */
  settle(held: number): void {
    this.#note(held);
    if (!this.#lowered) return;
    this.#lowered = false;
    this.#budget.gaveBack();
  }

  /** Gives everything back, and waits for nothing any more. */
  end(held: number): void {
    this.#budget.leave(this);
    this.#note(held);
    // Though it may have held nothing: those behind it in the line may fit where it did not.
    this.#budget.gaveBack();
  }

  /** See {@linkcode ShareOwner}; the budget's part. */
  roomCame(): void {
    this.#owner.roomCame();
  }

  /** Whether the client has done nothing since the last time this was asked, though it should have; the budget's part. */
  isStalled(): boolean {
    const stalled = this.#movesSeen === this.moves && this.#held > assuredBytes &&
      this.#owner.waitsForClient();
    this.#movesSeen = this.moves;
    return stalled;
  }

  /** Begins to look whether the client does something; the budget's part. */
  beginWatch(): void {
    this.#movesSeen = this.moves;
  }

  /** See {@linkcode ShareOwner}; the budget's part. */
  stalled(): void {
    this.#owner.stalled();
  }

  #note(held: number): void {
    if (held < this.#held) this.#lowered = true;
    this.#budget.usedBytes += held - this.#held;
    this.#held = held;
  }
}

/** What the connections of one server share. */
export class Budget {
  /** Bytes held by all shares. */
  usedBytes = 0;
  readonly #totalBytes: number;
  readonly #stallMs: number;
  readonly #clock: Clock;
  readonly #shares = new Set<Share>();
  /** Those that wait, the longest waiting first. */
  readonly #waiting: Share[] = [];
  /** The one that is being asked again. */
  #asked: Share | undefined;
  #cancelWatch: (() => void) | undefined;

  constructor(totalBytes: number, stallMs: number, clock: Clock) {
    assert(totalBytes >= assuredBytes);
    this.#totalBytes = totalBytes;
    this.#stallMs = stallMs;
    this.#clock = clock;
  }

  /** Connections that wait. */
  get waiting(): number {
    return this.#waiting.length;
  }

  /** A share for `owner`, which holds nothing yet. */
  share(owner: ShareOwner): Share {
    const share = new Share(this, owner);
    this.#shares.add(share);
    return share;
  }

  /** Whether `share` may hold `bytes` more; if not, it waits in the queue. */
  hasRoom(share: Share, bytes: number): boolean {
    const first = this.#waiting[0];
    const itsTurn = first === undefined || first === share || this.#asked === share;
    if (itsTurn && this.usedBytes + bytes <= this.#totalBytes) {
      if (first === share) this.#waiting.shift();
      return true;
    }
    if (!this.#waiting.includes(share)) this.#waiting.push(share);
    this.#watch();
    return false;
  }

  /** Asks those that wait, until one has to go on waiting. */
  gaveBack(): void {
    while (this.#asked === undefined && this.#waiting.length > 0) {
      const share = this.#waiting.shift()!;
      this.#asked = share;
      try {
        share.roomCame();
      } finally {
        this.#asked = undefined;
      }
      const at = this.#waiting.indexOf(share);
      if (at < 0) continue;
      this.#waiting.splice(at, 1);
      this.#waiting.unshift(share);
      return;
    }
  }

  /** The share is no more. */
  leave(share: Share): void {
    this.#shares.delete(share);
    const at = this.#waiting.indexOf(share);
    if (at >= 0) this.#waiting.splice(at, 1);
  }

  /** Ends whoever keeps others waiting. */
  #watch(): void {
    if (this.#cancelWatch !== undefined) return;
    for (const share of this.#shares) share.beginWatch();
    this.#cancelWatch = this.#clock.after(this.#stallMs, () => {
      this.#cancelWatch = undefined;
      if (this.#waiting.length === 0) return;
      for (const share of [...this.#shares].filter((each) => each.isStalled())) share.stalled();
      if (this.#waiting.length > 0) this.#watch();
    });
  }

  /** Stops looking; the server is closed. */
  close(): void {
    this.#cancelWatch?.();
    this.#cancelWatch = undefined;
  }
}
