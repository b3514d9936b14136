/**
 * Kernels for one try after the other: making a memory costs more than all else of opening a small cache. Unlike those of
 * `tests/sim/kernel_pool.ts` they keep what the try before left wherever that must be filled before it is looked at, which
 * costs nothing and shows who looks.
 *
 * @module
 */

import { Kernels } from "../../src/wasm/kernels.ts";
import type { MemoryPlan } from "../../src/wasm/memory_map.ts";

/** Kernels of one size, by turns: what a life leaves unfinished may run on for some microtasks. */
const turns = 2;

/** See the head of this file. */
export class UsedKernels {
  readonly #bySize = new Map<string, Kernels[]>();
  #taken = 0;

  /** Kernels for `plan`, with an empty index and empty bitmaps. */
  readonly take = (plan: MemoryPlan): Kernels => {
    const key = Object.values(plan).join(" ");
    let ring = this.#bySize.get(key);
    if (!ring) this.#bySize.set(key, ring = []);
    const at = this.#taken++ % turns;
    const used = ring[at];
    if (!used) return ring[at] = Kernels.create(plan);
    for (const bitmap of [used.dirty, used.zeroDirty, used.written, used.syncing]) {
      bitmap.clearRange(0, bitmap.length);
    }
    used.bytes.fill(0, used.map.plan);
    used.indexClear();
    return used;
  };
}
