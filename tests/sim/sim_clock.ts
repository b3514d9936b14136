/**
 * Time inside the simulator: it stands still while code runs and jumps to the next event when all is quiet.
 *
 * Invariants: events fire in the order of their time, equal times in the order in which they were made; a stopped clock
 * (its machine crashed) takes and fires nothing any more. Nothing here looks at the real clock, so a run repeats exactly.
 *
 * @module
 */

import type { Clock } from "../../src/clock.ts";

/** Added to virtual time for what people read: 2025-01-01. */
export const wallStartMs = 1_735_689_600_000;

interface Event {
  atMs: number;
  order: number;
  /** Undefined once cancelled. */
  action: (() => void) | undefined;
}

/** Virtual time for one life of a machine. */
export class SimClock implements Clock {
  #nowMs: number;
  #order = 0;
  #stopped = false;
  /** A binary heap, earliest first. */
  readonly #heap: Event[] = [];

  constructor(startMs: number) {
    this.#nowMs = startMs;
  }

  monotonicMs(): number {
    return this.#nowMs;
  }

  wallMs(): number {
    return wallStartMs + this.#nowMs;
  }

  after(delayMs: number, action: () => void): () => void {
    if (this.#stopped) return () => {};
    const event: Event = { atMs: this.#nowMs + delayMs, order: this.#order++, action };
    this.#push(event);
    return () => {
      event.action = undefined;
    };
  }

  /** The machine is gone: nothing that was planned happens. */
  stop(): void {
    this.#stopped = true;
    this.#heap.length = 0;
  }

  /** Whether {@linkcode stop} was called. */
  get stopped(): boolean {
    return this.#stopped;
  }

  /** Milliseconds until the next event; infinity when there is none. */
  get untilNextMs(): number {
    while (this.#heap.length > 0 && !this.#heap[0]!.action) this.#pop();
    return this.#heap.length === 0 ? Infinity : this.#heap[0]!.atMs - this.#nowMs;
  }

  /** Fires the next event. Returns false when there is none. */
  step(): boolean {
    for (;;) {
      const event = this.#pop();
      if (!event) return false;
      if (!event.action) continue;
      if (event.atMs > this.#nowMs) this.#nowMs = event.atMs;
      event.action();
      return true;
    }
  }

  #push(event: Event): void {
    const heap = this.#heap;
    let at = heap.length;
    heap.push(event);
    while (at > 0) {
      const parent = (at - 1) >>> 1;
      if (!isBefore(event, heap[parent]!)) break;
      heap[at] = heap[parent]!;
      at = parent;
    }
    heap[at] = event;
  }

  #pop(): Event | undefined {
    const heap = this.#heap;
    const top = heap[0];
    const last = heap.pop();
    if (!top || heap.length === 0) return top;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child++;
      if (!isBefore(heap[child]!, last!)) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = last!;
    return top;
  }
}

function isBefore(a: Event, b: Event): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);
}
