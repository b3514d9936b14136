/**
 * What clients suffer from write-back: their reads of the backing device, timed; and how many requests write-back may have
 * in flight because of it.
 *
 * Additive increase, multiplicative decrease, looked at whenever a client's read ends, at most once in a tick: slower than
 * twice what such reads take at best halves the depth, else it grows by one. Without such reads for a while, write-back has the
 * device for itself. The fuller the log the higher the floor: somebody pays, and a full log makes every writer wait.
 *
 * @module
 */

import type { Clock } from "../clock.ts";
import type { BlockDevice } from "../device/block_device.ts";

/** Requests of write-back in flight. */
export const requestsInFlightMax = 32;
/** At most one decision in so long. */
const tickMs = 25;
/** No read of a client for so long: nobody suffers. */
const quietMs = 500;
/** A read that takes so many times the best is too slow, but not below so many milliseconds. */
const slowFactor = 2;
const slowMsMin = 1;
/** How fast the best is forgotten, per read: a device may become slower for good. */
const forgetPerRead = 1.002;
/** From this share of what may be dirty on, the floor rises. */
const floorFromShare = 0.5;
/** Over about so long the busy share is averaged. */
const busyWindowMs = 1000;

/** The clients' reads of the backing device. */
export class Foreground {
  readonly #backing: BlockDevice;
  readonly #clock: Clock;
  #depth = requestsInFlightMax;
  #reading = 0;
  #lastEndMs = -Infinity;
  #bestMs = Infinity;
  #tickEndMs = -Infinity;
  #tickSumMs = 0;
  #tickCount = 0;
  #busyShare = 0;
  #busyAtMs: number;

  constructor(backing: BlockDevice, clock: Clock) {
    this.#backing = backing;
    this.#clock = clock;
    this.#busyAtMs = clock.monotonicMs();
  }

  /** A client's read of the backing. */
  async read(offset: number, into: Uint8Array<ArrayBuffer>): Promise<void> {
    const startMs = this.begin();
    try {
      await this.#backing.read(offset, into);
    } finally {
      this.end(startMs);
    }
  }

  /** A client's read begins that ends in a call; returns what `end` takes. */
  begin(): number {
    const now = this.#clock.monotonicMs();
    this.#account(now);
    this.#reading++;
    return now;
  }

  /** It has ended. */
  end(startMs: number): void {
    const now = this.#clock.monotonicMs();
    this.#account(now);
    this.#reading--;
    this.#lastEndMs = now;
    this.#note(now - startMs, now);
  }

  /** How many requests write-back may have in flight, when so much of what may be dirty is. */
  depth(dirtyShare: number): number {
    if (this.#reading === 0 && this.#clock.monotonicMs() - this.#lastEndMs >= quietMs) {
      this.#depth = requestsInFlightMax;
    }
    const rise = Math.min(1, Math.max(0, (dirtyShare - floorFromShare) / (1 - floorFromShare)));
    return Math.max(this.#depth, 1 + Math.floor(rise * (requestsInFlightMax - 1)));
  }

  /** In percent: for how much of the last second or so a client's read was under way. */
  get busyPercent(): number {
    this.#account(this.#clock.monotonicMs());
    return this.#busyShare * 100;
  }

  #account(now: number): void {
    const weight = 1 - Math.exp(-(now - this.#busyAtMs) / busyWindowMs);
    this.#busyShare += ((this.#reading > 0 ? 1 : 0) - this.#busyShare) * weight;
    this.#busyAtMs = now;
  }

  #note(ms: number, now: number): void {
    this.#bestMs = Math.min(ms, this.#bestMs * forgetPerRead);
    this.#tickSumMs += ms;
    this.#tickCount++;
    if (now < this.#tickEndMs) return;
    const mean = this.#tickSumMs / this.#tickCount;
    const isSlow = mean > Math.max(slowMsMin, slowFactor * this.#bestMs);
    this.#depth = isSlow ? Math.max(1, this.#depth >>> 1) : Math.min(requestsInFlightMax, this.#depth + 1);
    this.#tickEndMs = now + tickMs;
    this.#tickSumMs = this.#tickCount = 0;
  }
}
