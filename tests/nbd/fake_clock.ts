/**
 * A clock that a test moves by hand.
 *
 * @module
 */

import type { Clock } from "../../src/clock.ts";

export class FakeClock implements Clock {
  #nowMs = 0;
  readonly #timers = new Set<{ atMs: number; action: () => void }>();
  monotonicMs = (): number => this.#nowMs;
  wallMs = (): number => this.#nowMs;
  after = (delayMs: number, action: () => void): () => void => {
    const timer = { atMs: this.#nowMs + delayMs, action };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  };
  /** Timers that wait. */
  get pending(): number {
    return this.#timers.size;
  }
  /** Lets `milliseconds` pass; timers fire in order. */
  advance(milliseconds: number): void {
    const untilMs = this.#nowMs + milliseconds;
    for (;;) {
      const next = [...this.#timers].filter(({ atMs }) => atMs <= untilMs).sort((a, b) => a.atMs - b.atMs)[0];
      if (next === undefined) break;
      this.#timers.delete(next);
      this.#nowMs = next.atMs;
      next.action();
    }
    this.#nowMs = untilMs;
  }
}
