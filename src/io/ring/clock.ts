/**
 * Timers that come from the ring, for a thread that waits in the ring and not in Deno's event loop.
 *
 * Invariants: while a timer is set, the kernel has a timeout that fires no later than it is due; actions run in the order
 * in which they are due, never within `after`.
 *
 * @module
 */

import { type Clock, systemClock } from "../../clock.ts";
import { operation, sqe } from "./abi.ts";
import { addressOf } from "./memory.ts";
import type { Reactor } from "./reactor.ts";
import type { Completion } from "./ring.ts";

interface Timer {
  dueMs: number;
  /** Null when cancelled or done. */
  action: (() => void) | null;
}

/** <linux/time.h> */
const clockMonotonic = 1;
/** How far ahead a timeout looks at most; a later timer takes more than one. */
const timeoutMsMax = 3_600_000;

/** The clock of a reactor. */
export class RingClock implements Clock, Completion {
  readonly #reactor: Reactor;
  /** A binary heap by due time. */
  readonly #timers: Timer[] = [];
  /** Due times of the kernel's timeouts, of which the earliest is the last. */
  readonly #armed: number[] = [];
  /** Timespecs (two 64-bit numbers each) of the kernel's timeouts, by tag, and those that are free. */
  readonly #timespecs: { words: Int32Array<ArrayBuffer>; bytes: Uint8Array<ArrayBuffer> }[] = [];
  readonly #freeTags: number[] = [];
  #cancelled = 0;
  /** A timespec (two 64-bit numbers) for the present moment. */
  readonly #now = new Int32Array(4);
  #lastMicros = 0;

  constructor(reactor: Reactor) {
    this.#reactor = reactor;
  }

  monotonicMs(): number {
    return systemClock.monotonicMs();
  }

  microsWrapped(): number {
    const now = this.#now;
    const { libc, isClosed } = this.#reactor;
    // The library is closed with the reactor, whom somebody may still ask for the time.
    if (isClosed || libc.call.clockGettime(clockMonotonic, now) !== 0) return this.#lastMicros;
    return this.#lastMicros = (Math.imul(now[0]!, 1_000_000) + now[2]! / 1000) | 0;
  }

  wallMs(): number {
    return systemClock.wallMs();
  }

  after(delayMs: number, action: () => void): () => void {
    const timer: Timer = { dueMs: this.monotonicMs() + Math.max(0, delayMs), action };
    push(this.#timers, timer);
    this.#arm();
    return () => {
      if (timer.action === null) return;
      timer.action = null;
      this.#cancelled++;
      // A timer that is set and cancelled for every request must not pile up.
      if (this.#cancelled > 64 && this.#cancelled > this.#timers.length >>> 1) this.#sweep();
    };
  }

  /** Timers that are set. */
  get pending(): number {
    return this.#timers.length - this.#cancelled;
  }

  /** The ring's part; not to be called. */
  completed(_result: number, tag: number): void {
    this.#armed.pop();
    this.#freeTags.push(tag);
    this.#reactor.settled();
    const now = this.monotonicMs();
    while (this.#timers.length > 0 && this.#timers[0]!.dueMs <= now) {
      const { action } = takeFirst(this.#timers);
      this.#firing(action);
    }
    this.#arm();
  }

  #firing(action: (() => void) | null): void {
    if (action === null) {
      this.#cancelled--;
      return;
    }
    // One by one in microtasks of their own, as Deno's timers do: what one throws does not concern the next.
    queueMicrotask(action);
  }

  #arm(): void {
    while (this.#timers.length > 0 && this.#timers[0]!.action === null) {
      takeFirst(this.#timers);
      this.#cancelled--;
    }
    const first = this.#timers[0];
    if (first === undefined) return;
    const now = this.monotonicMs();
    const dueMs = Math.min(first.dueMs, now + timeoutMsMax);
    const earliest = this.#armed[this.#armed.length - 1];
    if (earliest !== undefined && earliest <= dueMs) return;
    this.#armed.push(dueMs);
    const delayMs = Math.max(0, dueMs - now);
    const seconds = Math.floor(delayMs / 1000);
    const tag = this.#freeTags.pop() ?? this.#timespecs.length;
    const { words, bytes } = this.#timespecs[tag] ??= newTimespec();
    words[0] = seconds;
    // Rounded up, so that it never fires before its time.
    words[2] = Math.min(999_999_999, Math.ceil((delayMs - seconds * 1000) * 1e6));
    const { ring } = this.#reactor;
    const at = this.#reactor.prepare(operation.timeout, -1, this, tag, bytes);
    ring.putWide(at + sqe.addressLow, addressOf(bytes));
    ring.sqes[at + sqe.length] = 1;
  }

  #sweep(): void {
    const alive = this.#timers.filter(({ action }) => action !== null);
    this.#timers.length = 0;
    for (const timer of alive) push(this.#timers, timer);
    this.#cancelled = 0;
  }
}

function newTimespec(): { words: Int32Array<ArrayBuffer>; bytes: Uint8Array<ArrayBuffer> } {
  const words = new Int32Array(4);
  return { words, bytes: new Uint8Array(words.buffer) };
}

function push(heap: Timer[], timer: Timer): void {
  let at = heap.length;
  heap.push(timer);
  while (at > 0) {
    const parent = (at - 1) >>> 1;
    if (heap[parent]!.dueMs <= timer.dueMs) break;
    heap[at] = heap[parent]!;
    at = parent;
  }
  heap[at] = timer;
}

function takeFirst(heap: Timer[]): Timer {
  const first = heap[0]!;
  const last = heap.pop()!;
  if (heap.length === 0) return first;
  let at = 0;
  for (;;) {
    let child = at * 2 + 1;
    if (child >= heap.length) break;
    if (child + 1 < heap.length && heap[child + 1]!.dueMs < heap[child]!.dueMs) child++;
    if (heap[child]!.dueMs >= last.dueMs) break;
    heap[at] = heap[child]!;
    at = child;
  }
  heap[at] = last;
  return first;
}
