/**
 * Plain twin of the index kernels: a Map from block to slot.
 *
 * @module
 */

import { noSlot } from "../../../src/wasm/kernels.ts";

/** What the index should answer. */
export class IndexTwin {
  readonly slots = new Map<number, number>();
  get count(): number {
    return this.slots.size;
  }
  get(block: number): number {
    return this.slots.get(block) ?? noSlot;
  }
  put(block: number, slot: number): number {
    const previous = this.get(block);
    this.slots.set(block, slot);
    return previous;
  }
  remove(block: number): number {
    const slot = this.get(block);
    this.slots.delete(block);
    return slot;
  }
  clear(): void {
    this.slots.clear();
  }
}
