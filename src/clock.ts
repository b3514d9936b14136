/**
 * Time, as the engine gets to see it. The simulator brings its own clock, hence nothing else under `src/`
 * may ask the machine for the time.
 *
 * @module
 */

/** A source of time and of timers. */
export interface Clock {
  /** Milliseconds since some fixed moment; never goes back. */
  monotonicMs(): number;
  /**
   * The same in whole microseconds, as a signed 32-bit number that wraps: for differences of some minutes at most, taken with
   * `| 0`. Such a number takes no object, where a fraction often does; the hot path asks this. May be left out.
   */
  microsWrapped?(): number;
  /** Milliseconds since 1970, for what people read. */
  wallMs(): number;
  /** Calls `action` once, `delayMs` from now. Returns a function that cancels it. */
  after(delayMs: number, action: () => void): () => void;
}

/** The machine's clock. Its timers do not keep the process alive. */
export const systemClock: Clock = {
  monotonicMs: () => performance.now(),
  wallMs: () => Date.now(),
  after(delayMs, action) {
    const timer = setTimeout(action, delayMs);
    return () => clearTimeout(timer);
  },
};

/** See `Clock.microsWrapped`, of any clock. */
export function microsOf(clock: Clock): number {
  return clock.microsWrapped === undefined ? (clock.monotonicMs() * 1000) | 0 : clock.microsWrapped();
}

/** Resolves `delayMs` from now on `clock`. */
export function sleep(clock: Clock, delayMs: number): Promise<void> {
  return new Promise((resolve) => clock.after(delayMs, resolve));
}
