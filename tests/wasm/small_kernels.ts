/**
 * A small memory for tests of the kernels.
 *
 * @module
 */

import { Kernels } from "../../src/wasm/kernels.ts";
import type { MemoryPlan } from "../../src/wasm/memory_map.ts";

/** Kernels over a small cache; `plan` changes what a test is about. */
export function smallKernels(plan: Partial<MemoryPlan> = {}): Kernels {
  return Kernels.create({
    slotCount: 64,
    backingBlocks: 1000,
    segmentBlocks: 128,
    bufferCount: 2,
    stagingBlocks: 256,
    ...plan,
  });
}
