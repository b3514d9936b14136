/**
 * Makes durable, every `flushInterval` seconds, what no client asked to flush.
 *
 * @module
 */

import type { Clock } from "../clock.ts";
import type { Tunables } from "./tunables.ts";

/** The timer of one cache. */
export class FlushTimer {
  readonly #clock: Clock;
  readonly #tunables: Tunables;
  readonly #flush: () => Promise<void>;
  #stop: () => void = () => {};

  constructor(clock: Clock, tunables: Tunables, flush: () => Promise<void>) {
    this.#clock = clock;
    this.#tunables = tunables;
    this.#flush = flush;
    this.restart();
  }

  /** Waits for the interval as it is now: the timer under way may have an hour to go. */
  restart(): void {
    this.#stop();
    this.#stop = this.#clock.after(Math.max(1, this.#tunables.flushInterval) * 1000, () => {
      if (this.#tunables.flushInterval > 0) this.#flush().catch(() => {});
      this.restart();
    });
  }

  stop(): void {
    this.#stop();
  }
}
