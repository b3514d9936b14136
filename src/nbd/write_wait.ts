/**
 * WRITEs that wait where they are, in the memory that they came into, for log writes under way: no copy, no promise. Meanwhile
 * nothing else of their connection is looked at.
 *
 * @module
 */

import type { Volume } from "../cache/volume.ts";
import { kib } from "../units.ts";
import type { TransmissionContext } from "./operations.ts";

/** Smaller WRITEs become operations at once: a copy of those costs little, and a read behind them need not wait. */
const waitBytesMin = 32 * kib;
/** After so long it is an operation after all: a device that hangs must not keep the others of its connection waiting. */
const waitMsMax = 1000;

/** The wait of one connection. */
export class WriteWait {
  readonly #volume: Volume;
  readonly #context: TransmissionContext;
  /** Since when; 0 when the last WRITE was taken. */
  #sinceMs = 0;

  constructor(volume: Volume, context: TransmissionContext) {
    this.#volume = volume;
    this.#context = context;
  }

  /** Whether a WRITE of `length` bytes that was not taken is to be tried again, when `onRoom` is called. */
  may(length: number): boolean {
    const { clock, onRoom } = this.#context;
    if (length < waitBytesMin || this.#volume.whenWritable === undefined) return false;
    const nowMs = clock.monotonicMs();
    if (this.#sinceMs === 0) this.#sinceMs = nowMs;
    return nowMs - this.#sinceMs < waitMsMax && this.#volume.whenWritable(length, onRoom);
  }

  /** A WRITE was taken. */
  end(): void {
    this.#sinceMs = 0;
  }
}
