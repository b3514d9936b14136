/**
 * Kernels for one life after the other: making a memory and an instance costs more than all else of opening a small cache.
 *
 * Invariants: what is taken is as empty as new. Code of a dead machine may run on for some microtask turns, so what was
 * taken comes round again only after {@linkcode restCount} others of its size.
 *
 * @module
 */

import { Kernels } from "../../src/wasm/kernels.ts";
import type { MemoryPlan } from "../../src/wasm/memory_map.ts";

/** Kernels of one size that rest before the first of them is used again. */
const restCount = 4;
/** Sizes that are kept; worlds draw from few. */
const sizesMax = 64;

/** A pool. Lives that go on side by side need one each. */
export class KernelPool {
  readonly #rings = new Map<string, { kernels: Kernels[]; next: number }>();

  /** Empty kernels for `plan`; a `makeKernels` of the engine. */
  readonly take = (plan: MemoryPlan): Kernels => {
    const key = Object.values(plan).join(" ");
    let ring = this.#rings.get(key);
    if (!ring) {
      if (this.#rings.size >= sizesMax) this.#rings.clear();
      this.#rings.set(key, ring = { kernels: [], next: 0 });
    }
    const at = ring.next++ % restCount;
    const used = ring.kernels[at];
    if (!used) return ring.kernels[at] = Kernels.create(plan);
    empty(used);
    return used;
  };
}

/** Makes used kernels what new ones are, but for places that are filled before they are looked at. */
function empty(kernels: Kernels): void {
  for (const bitmap of [kernels.dirty, kernels.zeroDirty, kernels.written, kernels.syncing]) {
    bitmap.clearRange(0, bitmap.length);
  }
  // By far the most is what reads and connections fill before they look at it: nobody may count on zeroes there.
  const { scratch, reads, plan } = kernels.map;
  kernels.bytes.fill(0, scratch, reads);
  kernels.bytes.fill(0, plan);
  kernels.indexClear();
}

/** The pool of worlds, of which one lives at a time. */
export const kernelPool = new KernelPool();
