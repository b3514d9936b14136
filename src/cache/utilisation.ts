/**
 * How busy others keep the backing device, as the kernel counts it: clients' reads, and whoever else uses the same disk.
 *
 * Invariant: it is measured while write-back is at rest, and what it wrote has been synced; else it would see itself.
 *
 * @module
 */

import type { Clock } from "../clock.ts";
import type { BlockDevice } from "../device/block_device.ts";
import type { Signal } from "./signal.ts";

/** So long it is looked at, and a look that was cut shorter than the second says nothing. */
const lookMs = 250;
const lookMsMin = 100;
/** Between two looks while others leave room, and while they do not. */
const restMs = 5000;
const busyRestMs = 1000;

/** The share of the time for which the backing device is busy. */
export class Utilisation {
  readonly #backing: BlockDevice;
  readonly #clock: Clock;
  #lookedAtMs = -Infinity;
  #percent = 0;

  constructor(backing: BlockDevice, clock: Clock) {
    this.#backing = backing;
    this.#clock = clock;
  }

  /** In percent, at the last look; 0 where nobody counts. */
  get percent(): number {
    return this.#percent;
  }

  /** Whether the last look is too old to decide by. */
  isDue(threshold: number): boolean {
    if (this.#backing.busyMs === undefined) return false;
    const age = this.#clock.monotonicMs() - this.#lookedAtMs;
    return age >= (this.#percent > threshold ? busyRestMs : restMs);
  }

  /** Looks for a while, less when `changed` rings. Nothing of ours may be under way. */
  async look(changed: Signal): Promise<void> {
    const startMs = this.#clock.monotonicMs();
    const before = await this.#backing.busyMs?.();
    await changed.wait(lookMs);
    const after = await this.#backing.busyMs?.();
    const now = this.#clock.monotonicMs();
    this.#lookedAtMs = now;
    if (before === undefined || after === undefined) this.#percent = 0;
    else if (now - startMs >= lookMsMin) {
      this.#percent = Math.min(100, (after - before) / (now - startMs) * 100);
    }
  }
}
