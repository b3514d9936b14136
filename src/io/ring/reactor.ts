/**
 * What turns a ring: hands in submissions, waits, dispatches completions. In one of two ways:
 *
 * - **Dedicated** (`Reactor.run`, in a Worker): a loop that waits inside io_uring_enter, so that a turn costs one system
 *   call. Deno's event loop is reached only in between; timers come from the ring, and another thread wakes it up
 *   through an eventfd.
 * - **Shared** (`Reactor.shared`, anywhere): submissions of one turn leave together in a microtask, and a thread of Deno's
 *   pool waits while anything is in flight. Slower (a wait costs some 70 µs) and never in anybody's way.
 *
 * Invariants: completions are dispatched in the order of their coming; then all that follows from them is done (promises
 * included), then every `TurnEnd` that asked for it has its turn, and then one system call submits and waits.
 *
 * Promises cost the dedicated loop a visit to Deno's event loop, which runs them until none has anything to do. It makes
 * one only when it was told that promises are at work: by whoever settles one outside of a visit (`settled`), and by
 * whoever submits an operation that a promise waits for (`promised`), as such code may have others besides. What is
 * hot settles none, and a turn then is one system call and no allocation.
 *
 * @module
 */

import { assert } from "../../errors.ts";
import { RingClock } from "./clock.ts";
import { Libc } from "./libc.ts";
import { BouncePool } from "./memory.ts";
import { type Completion, prepareNop, Ring } from "./ring.ts";

/** Turns without a visit to Deno's event loop: what nobody announced (messages are, by a wake-up) waits for no more. */
const turnsBetweenVisitsMax = 4096;

/** Something that acts once at the end of a turn, whatever came in it. */
export interface TurnEnd {
  /** Called once for any number of calls of {@linkcode Reactor.atTurnEnd} before it. */
  turnEnded(): void;
}

const ignored: Completion = { completed() {} };

/** Turns a ring. */
export class Reactor {
  readonly libc: Libc;
  readonly ring: Ring;
  /** For files that bypass the page cache. */
  readonly bounces = new BouncePool();
  /** Timers that come from the ring; runs in the dedicated loop and in the shared one. */
  readonly clock: RingClock;
  readonly #dedicated: boolean;
  /** Who asked for this turn's end: the first `#turnEndCount`. Never cut, as an array that is cut gives its memory away. */
  #turnEnds: (TurnEnd | null)[] = [];
  #turnEndsSpare: (TurnEnd | null)[] = [];
  #turnEndCount = 0;
  /** Promises may have something to do. */
  #asynchronous = false;
  #visiting = false;
  #stopped = false;
  #users = 0;
  #onIdle: () => void = () => {};
  #flushScheduled = false;
  #waiting = false;

  /** Opens a ring. Throws `RingError`; `libc` is closed with the reactor. */
  constructor(libc: Libc, options: { dedicated: boolean }) {
    this.libc = libc;
    this.ring = new Ring(libc, options);
    this.#dedicated = options.dedicated;
    this.clock = new RingClock(this);
  }

  /** Tells that promises were settled, so that what follows from them has to be done before anything else. */
  settled(): void {
    this.#asynchronous = true;
  }

  /** Tells that promises are at work, which may have something to do in this turn. */
  promised(): void {
    // A visit ends when none of them has.
    if (!this.#visiting) this.#asynchronous = true;
  }

  /** Calls `end.turnEnded` at the end of this turn. Each of them asks at most once a turn. */
  atTurnEnd(end: TurnEnd): void {
    this.#turnEnds[this.#turnEndCount++] = end;
    if (!this.#dedicated) this.#schedule();
  }

  /** Begins a submission; see {@linkcode Ring.prepare}. */
  prepare(
    code: number,
    descriptor: number,
    completion: Completion,
    tag: number,
    held: object | null,
  ): number {
    if (!this.#dedicated) this.#schedule();
    return this.ring.prepare(code, descriptor, completion, tag, held);
  }

  /** Makes sure that there is a completion soon, so that whoever waits for one wakes up. */
  nop(): void {
    prepareNop(this.ring, ignored);
    if (!this.#dedicated) this.#schedule();
  }

  #endTurn(): void {
    const count = this.#turnEndCount;
    if (count === 0) return;
    const ends = this.#turnEnds;
    this.#turnEnds = this.#turnEndsSpare;
    this.#turnEndCount = 0;
    for (let i = 0; i < count; i++) {
      const end = ends[i]!;
      ends[i] = null;
      end.turnEnded();
    }
    this.#turnEndsSpare = ends;
  }

  // ---- dedicated ----

  /** Turns until `stop`, then closes the ring. */
  async run(): Promise<void> {
    assert(this.#dedicated, "only a dedicated reactor has a loop of its own");
    // Not at once: the module that calls this has to end first.
    await new Promise<void>((resolve, reject) => {
      const visit = () => {
        try {
          if (this.#turnUntilPromises()) immediately(visit);
          else resolve();
        } catch (error) {
          reject(error);
        }
      };
      immediately(visit);
    });
    this.#close();
  }

  /**
   * Turns until promises have something to do, which is done in the visit to Deno's event loop that follows: it runs them
   * before it calls this again. False at the end.
   */
  #turnUntilPromises(): boolean {
    const { ring } = this;
    this.#visiting = false;
    for (let turns = 0; !this.#stopped; turns++) {
      this.#endTurn();
      if (this.#asynchronous || turns === turnsBetweenVisitsMax) {
        this.#asynchronous = false;
        this.#visiting = true;
        return true;
      }
      ring.enter(ring.ready || this.#turnEndCount > 0 ? 0 : 1);
      ring.reap();
    }
    return false;
  }

  /** Does not wait in the ring before `condition` holds, which Deno's event loop is to bring about. */
  visitUntil(condition: () => boolean): void {
    if (condition()) return;
    this.#asynchronous = true;
    immediately(() => this.visitUntil(condition));
  }

  /** Ends `run` at the end of this turn. */
  stop(): void {
    this.#stopped = true;
    this.nop();
  }

  // ---- shared ----

  /** Counts a user; the last one to leave closes the ring. */
  acquire(): void {
    this.#users++;
  }

  /** Ends a use. */
  release(): void {
    if (--this.#users === 0 && !this.#dedicated) this.#schedule();
  }

  /** Called when a shared reactor was closed because nobody used it any more. */
  set onIdle(action: () => void) {
    this.#onIdle = action;
  }

  /** Whether the ring is closed. */
  get isClosed(): boolean {
    return this.#stopped;
  }

  #schedule(): void {
    if (this.#flushScheduled || this.#stopped) return;
    this.#flushScheduled = true;
    queueMicrotask(() => {
      this.#flushScheduled = false;
      if (!this.#stopped) this.#turnShared();
    });
  }

  #turnShared(): void {
    const { ring } = this;
    this.#endTurn();
    if (ring.unsubmitted > 0) ring.enter(0);
    ring.reap();
    if (this.#flushScheduled) return;
    if (this.#waiting) {
      // What it waits for may have been reaped just now. This is left in the queue, so that it ends even if it has not
      // begun yet.
      if (ring.inFlight === 0) {
        prepareNop(ring, ignored);
        ring.enter(0);
      }
      return;
    }
    if (ring.inFlight === 0 && this.#users === 0) {
      this.#stopped = true;
      this.#onIdle();
      return this.#close();
    }
    if (ring.inFlight > 0) this.#wait();
  }

  #wait(): void {
    this.#waiting = true;
    this.ring.waitElsewhere().then(() => {
      this.#waiting = false;
      this.#turnShared();
    });
  }

  #close(): void {
    this.#stopped = true;
    this.ring.close();
    this.libc.close();
  }
}

// Measured: 1.5 µs a visit; a MessageChannel takes 3 to 4, a timer 2 ms.
const immediately = (globalThis as unknown as { setImmediate: (action: () => void) => void }).setImmediate;
