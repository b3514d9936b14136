/**
 * What write-back tells status, and how it tells people of a failure that lasts.
 *
 * @module
 */

import type { Core } from "./core.ts";

/** First and longest wait after a failed backing operation. */
const retryMsMin = 100;
const retryMsMax = 30_000;
/** A failure that lasts is told of so often. */
const warnMs = 10_000;

/** How write-back is. */
export class WriteBackState {
  active = false;
  lastError: string | undefined;
  /** Since when it has failed. */
  failingSinceMs: number | undefined;
  /** Milliseconds until the next try after a failure; 0 when there was none. */
  retryMs = 0;
  readonly #core: Core;
  #warnAfterMs = 0;

  constructor(core: Core) {
    this.#core = core;
  }

  /** Something failed; `dirtyBlocks` wait. */
  failed(error: unknown, dirtyBlocks: number): void {
    const message = error instanceof Error ? error.message : String(error);
    const now = this.#core.clock.monotonicMs();
    if (now >= this.#warnAfterMs) {
      const waiting = `${dirtyBlocks} blocks wait in the cache, none is lost`;
      this.#core.warn(`Write-back failed and will be tried again: ${message}; ${waiting}`);
      this.#warnAfterMs = now + warnMs;
    }
    this.lastError = message;
    this.failingSinceMs ??= now;
    this.retryMs = Math.min(retryMsMax, Math.max(retryMsMin, this.retryMs * 2));
  }

  /** Nothing that failed is left to be done. */
  recovered(): void {
    this.lastError = this.failingSinceMs = undefined;
  }
}
