/**
 * The end of a drain while clients go on writing: when only little is left, they wait for a moment, so that there is an end.
 *
 * @module
 */

import type { Clock } from "../clock.ts";

/** A drain that has lasted so long, and lacks no more than so many blocks, lets clients wait for so long: else it might never end. */
const drainHoldAfterMs = 1000;
const drainHoldBlocksMax = 1024;
const drainHoldMsMax = 2000;
/** Between two such waits. */
const drainHoldPauseMs = 10_000;

/** Whether clients wait for the end of a drain. */
export class DrainHold {
  readonly #clock: Clock;
  #endMs = -drainHoldPauseMs;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Whether they wait now, if a drain is under way. */
  get holds(): boolean {
    return this.#clock.monotonicMs() < this.#endMs;
  }

  /** Lets them wait from now on, where the drain has lasted since `sinceMs` and lacks few enough blocks. */
  consider(sinceMs: number, dirtyBlocks: number): void {
    const now = this.#clock.monotonicMs();
    if (now - sinceMs < drainHoldAfterMs || now < this.#endMs + drainHoldPauseMs) return;
    if (dirtyBlocks <= drainHoldBlocksMax) this.#endMs = now + drainHoldMsMax;
  }
}
