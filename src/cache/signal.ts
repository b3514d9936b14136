/**
 * A bell: one part rings, whoever waits goes on and looks at the state for itself.
 *
 * Invariant: a ring wakes everybody who waits at that moment and is not remembered, so look at the state before waiting.
 *
 * @module
 */

import type { Clock } from "../clock.ts";

/** Something to wait for and to ring. */
export class Signal {
  readonly #clock: Clock;
  readonly #waiters = new Set<() => void>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Wakes everybody who waits. */
  ring(): void {
    if (this.#waiters.size === 0) return;
    const waiters = [...this.#waiters];
    this.#waiters.clear();
    for (const wake of waiters) wake();
  }

  /** Resolves at the next ring, or after `ms`. */
  wait(ms = Infinity): Promise<void> {
    return new Promise((resolve) => {
      let cancel = () => {};
      const wake = () => {
        cancel();
        resolve();
      };
      this.#waiters.add(wake);
      if (ms < Infinity) {
        cancel = this.#clock.after(ms, () => {
          this.#waiters.delete(wake);
          resolve();
        });
      }
    });
  }
}
