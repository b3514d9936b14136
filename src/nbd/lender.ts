/**
 * The memory of the volume that one connection has on loan.
 *
 * Invariant: what is not given back by then goes back with `returnAll`, when neither the kernel nor a request can touch it.
 *
 * @module
 */

import type { Volume } from "../cache/volume.ts";

/** The loans of one connection. */
export class Lender {
  readonly #volume: Volume | undefined;
  readonly #lent = new Set<Uint8Array<ArrayBuffer>>();

  /** Nothing is lent without a volume: for drivers that do not tell when memory is theirs no more. */
  constructor(volume: Volume | undefined) {
    this.#volume = volume;
  }

  /** A buffer of `lentBufferBytes`, or null when there is none. */
  lend(): Uint8Array<ArrayBuffer> | null {
    const buffer = this.#volume?.lendBuffer?.() ?? null;
    if (buffer !== null) this.#lent.add(buffer);
    return buffer;
  }

  /** Gives one back. */
  giveBack(buffer: Uint8Array<ArrayBuffer>): void {
    this.#lent.delete(buffer);
    this.#volume!.returnBuffer!(buffer);
  }

  /** Gives back all that is left. */
  returnAll(): void {
    for (const buffer of this.#lent) this.giveBack(buffer);
  }
}
