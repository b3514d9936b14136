/**
 * Promises, looked at from outside while simulated time passes.
 *
 * @module
 */

/** A promise that is watched. */
export interface Settled<T> {
  settled: boolean;
  value: T | undefined;
  error: unknown;
}

/** Watches a promise. */
export function settled<T>(promise: Promise<T>): Settled<T> {
  const result: Settled<T> = { settled: false, value: undefined, error: undefined };
  promise.then((value) => {
    result.value = value;
    result.settled = true;
  }, (error) => {
    result.error = error ?? new Error("rejected with nothing");
    result.settled = true;
  });
  return result;
}

/** A world ends early, and nothing is wrong. */
export class WorldEnd extends Error {}
