/**
 * Buffers in the memory of the kernels for whoever hands bytes to a cache and takes them from it: within one memory bytes
 * are copied without an object for each copy.
 *
 * Invariant: a buffer is lent to one borrower at a time.
 *
 * @module
 */

import { assert } from "../errors.ts";
import type { Kernels } from "../wasm/kernels.ts";
import { lentBufferBytes } from "./volume.ts";

/** Buffers that can be lent at once: two or three for each of some 64 connections. */
export const lentBuffersMax = 192;

/** The buffers of one cache. */
export class LentBuffers {
  readonly #kernels: Kernels;
  readonly #free: Uint8Array<ArrayBuffer>[] = [];
  readonly #lent = new Set<Uint8Array<ArrayBuffer>>();
  #made = 0;

  constructor(kernels: Kernels) {
    this.#kernels = kernels;
  }

  /** See `Volume.lendBuffer`. */
  lend(): Uint8Array<ArrayBuffer> | null {
    const buffer = this.#free.pop() ?? this.#make();
    if (buffer !== null) this.#lent.add(buffer);
    return buffer;
  }

  #make(): Uint8Array<ArrayBuffer> | null {
    if (this.#made === lentBuffersMax) return null;
    const { memory, map } = this.#kernels;
    const start = map.lent + this.#made++ * lentBufferBytes;
    return new Uint8Array(memory.buffer as ArrayBuffer, start, lentBufferBytes);
  }

  /** See `Volume.returnBuffer`. */
  takeBack(buffer: Uint8Array<ArrayBuffer>): void {
    assert(this.#lent.delete(buffer), "a buffer is given back once, by whom it was lent to");
    this.#free.push(buffer);
  }
}
