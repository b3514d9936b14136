/**
 * What requests that come next will look up, brought near: with a large log each lookup is two cache misses, one after the other,
 * which took as long as the checksum of the block (measured). Many of them at once take hardly longer than one.
 *
 * @module
 */

import { blockBytes } from "../units.ts";
import { aheadMax } from "../wasm/kernels.ts";
import type { Core } from "./core.ts";

/** See `Volume.announce`. Hot path. */
export function announce(core: Core, offsets: Float64Array, count: number): void {
  const { kernels, backing } = core;
  const { ahead } = kernels;
  let known = 0;
  for (let i = 0; i < count && known < aheadMax; i++) {
    const offset = offsets[i]!;
    if (offset >= 0 && offset < backing.sizeBytes) ahead[known++] = Math.floor(offset / blockBytes);
  }
  kernels.indexWarm(known);
}
