/**
 * The hot path in WebAssembly, typed: checksums, the index, bitmaps, the write-back plan's sort, record packing, all
 * over one linear memory that {@linkcode planMemory} lays out and that never grows, so no view is ever detached.
 *
 * Invariants: methods allocate nothing and return non-negative numbers, where nothing else is said; pointers are byte offsets into `bytes`.
 * The kernels check no bounds of theirs: callers give pointers of the map and slots below `slotCount`.
 *
 * @module
 */

import { assert } from "../errors.ts";
import { blockBytes } from "../units.ts";
import { Bitmap } from "./bitmap.ts";
import { crc32cThrough } from "./crc32c.ts";
import { type KernelExports, kernelsInstance, memoryPagesMin } from "./instance.ts";
import { knownMask, type MemoryMap, type MemoryPlan, pageBytes, planMemory } from "./memory_map.ts";

export { Bitmap } from "./bitmap.ts";

/** What the index answers for a block that it does not hold: a small integer, which V8 keeps without an object. */
export const noSlot = -1;

/** Most blocks that are looked up ahead at once. */
export const aheadMax = 64;

/** The kernels over the memory of one cache. */
export class Kernels {
  /** What lies where. */
  readonly map: MemoryMap;
  readonly memory: WebAssembly.Memory;
  /** The whole memory. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** The whole memory. */
  readonly view: DataView<ArrayBuffer>;
  /** Sector mask of each slot. */
  readonly masks: Uint8Array<ArrayBuffer>;
  /** CRC-32C of each slot. */
  readonly crcs: Uint32Array<ArrayBuffer>;
  /** Block of each slot; written by {@linkcode indexPut}, stale where the index no longer holds the slot. */
  readonly reverse: Uint32Array<ArrayBuffer>;
  /** The plan's sort keys, each as its low and its high u32. */
  readonly planWords: Uint32Array<ArrayBuffer>;
  /** Where the blocks for {@linkcode indexWarm} go: the scratch region, so they are good until anything else is called. */
  readonly ahead: Uint32Array<ArrayBuffer>;
  /** Blocks whose newest version is not on the backing device. */
  readonly dirty: Bitmap;
  /** Blocks that read as zero and are not yet so on the backing device. */
  readonly zeroDirty: Bitmap;
  /** Blocks written to the backing device since the last good sync was issued. */
  readonly written: Bitmap;
  /** Blocks that the sync under way covers. */
  readonly syncing: Bitmap;

  readonly #exports: KernelExports;
  readonly #buffer: ArrayBuffer;
  #count = 0;

  private constructor(plan: MemoryPlan) {
    const map = planMemory(plan);
    const pages = map.totalBytes / pageBytes;
    assert(Number.isInteger(pages) && pages >= memoryPagesMin, "whole pages, and room for the kernels");
    this.map = map;
    this.memory = new WebAssembly.Memory({ initial: pages, maximum: pages });
    const buffer = this.memory.buffer as ArrayBuffer;
    this.#buffer = buffer;
    this.bytes = new Uint8Array(buffer);
    this.view = new DataView(buffer);
    this.masks = new Uint8Array(buffer, map.masks, plan.slotCount);
    this.crcs = new Uint32Array(buffer, map.crcs, plan.slotCount);
    this.reverse = new Uint32Array(buffer, map.reverse, plan.slotCount);
    this.planWords = new Uint32Array(buffer, map.plan, plan.stagingBlocks * 2);
    this.ahead = new Uint32Array(buffer, map.scratch, aheadMax);
    this.#exports = kernelsInstance(this.memory);
    this.#exports.indexConfigure(map.table, map.tableLength, map.reverse);
    this.#exports.indexClear();
    this.dirty = new Bitmap(this.#exports, map.dirty);
    this.zeroDirty = new Bitmap(this.#exports, map.zeroDirty);
    this.written = new Bitmap(this.#exports, map.written);
    this.syncing = new Bitmap(this.#exports, map.syncing);
  }

  /**
   * Makes a memory for `plan` and the kernels over it, with an empty index and empty bitmaps. Synchronous.
   * Throws `UsageError` when the plan does not fit into 4 GiB.
   */
  static create(plan: MemoryPlan): Kernels {
    return new Kernels(plan);
  }

  // The hot path starts here: nothing below allocates, but for crc32cOf on more than 64 KiB of foreign bytes.

  /** The CRC-32C of `length` bytes at `pointer`, going on from `previous`. */
  crc32c(pointer: number, length: number, previous = 0): number {
    return this.#exports.crc32c(pointer, length, previous) >>> 0;
  }

  /** The CRC-32C of the 4096 bytes at `pointer`, which may be unaligned. */
  crc32cBlock(pointer: number): number {
    return this.#exports.crc32cBlock(pointer) >>> 0;
  }

  /** The CRC-32C of `bytes`: where they lie if in this memory, else copied through the scratch region. */
  crc32cOf(bytes: Uint8Array, previous = 0): number {
    if (bytes.buffer === this.bytes.buffer) return this.crc32c(bytes.byteOffset, bytes.length, previous);
    return crc32cThrough(this.#exports, this.bytes, this.map.scratch, bytes, previous);
  }

  /** Copies `source[at, at + length)` to `pointer`; allocates only when `source` lies in another memory. */
  copyIn(pointer: number, source: Uint8Array, at: number, length: number): void {
    if (source.buffer === this.#buffer) {
      const start = source.byteOffset + at;
      this.bytes.copyWithin(pointer, start, start + length);
    } else this.bytes.set(source.subarray(at, at + length), pointer);
  }

  /** Copies `length` bytes at `pointer` to `target[at]` and on; allocates only when `target` lies in another memory. */
  copyOut(pointer: number, length: number, target: Uint8Array, at: number): void {
    if (target.buffer === this.#buffer) {
      this.bytes.copyWithin(target.byteOffset + at, pointer, pointer + length);
    } else target.set(this.bytes.subarray(pointer, pointer + length), at);
  }

  /** Copies `length` bytes within the memory. */
  copyWithin(target: number, source: number, length: number): void {
    this.bytes.copyWithin(target, source, source + length);
  }

  /** How many blocks the index holds. */
  get count(): number {
    return this.#count;
  }

  /** The slot of `block`, or {@linkcode noSlot}. */
  indexGet(block: number): number {
    return this.#exports.indexGet(block) | 0;
  }

  /**
   * Makes `slot` the slot of `block`; returns the slot before it, or {@linkcode noSlot}.
   * REQUIRES: no other block holds `slot`; remove that one first.
   */
  indexPut(block: number, slot: number): number {
    assert(slot < this.reverse.length, "slot within the log");
    const previous = this.#exports.indexPut(block, slot) | 0;
    if (previous === noSlot) this.#count++;
    return previous;
  }

  /** Takes `block` out of the index; returns its slot, or {@linkcode noSlot}. */
  indexRemove(block: number): number {
    const slot = this.#exports.indexRemove(block) | 0;
    if (slot !== noSlot) this.#count--;
    return slot;
  }

  /** Brings near what looking up the first `count` of {@linkcode ahead} will load, all at once. Changes nothing. */
  indexWarm(count: number): void {
    this.#exports.indexWarm(this.map.scratch, count, this.map.dirty.bits);
  }

  /** Empties the index. */
  indexClear(): void {
    this.#exports.indexClear();
    this.#count = 0;
  }

  /** Sorts the first `count` u64 keys of the plan region upward, stable. */
  sortPlan(count: number): void {
    assert(count * 2 <= this.planWords.length, "keys within the plan region");
    this.#exports.sortPlan(this.map.plan, this.map.planScratch, count);
  }

  /** Begins a record at `record`: a header of zeroes, and no checksum known. There is one open record at a time. */
  recordBegin(record: number): void {
    this.bytes.fill(0, record, record + blockBytes);
    this.bytes.fill(0, this.map.known, this.map.known + knownMask + 1);
  }

  /** Writes entry `index` of the record at `record`: data or a clean copy. Its checksum follows at the seal. */
  recordAddData(record: number, index: number, kind: number, block: number, mask: number): void {
    this.#exports.recordAddData(record, index, kind, block, mask);
  }

  /** Writes entry `index` of the record at `record`: a range of `count` blocks. */
  recordAddRange(
    record: number,
    index: number,
    kind: number,
    block: number,
    count: number,
    mask: number,
  ): void {
    this.#exports.recordAddRange(record, index, kind, block, count, mask);
  }

  /**
   * Copies the block `source[at, at + 4096)` to `pointer`, where the open record has `slot`; where `source` lies in this memory its checksum
   * is computed on the way, in less time than both take one after the other. {@linkcode changeBlock} is to be called before the block is changed.
   */
  takeBlock(pointer: number, slot: number, source: Uint8Array, at: number): void {
    if (source.buffer !== this.#buffer) return this.copyIn(pointer, source, at, blockBytes);
    const { crcs, known } = this.map;
    this.#exports.recordTakeBlock(
      pointer,
      source.byteOffset + at,
      crcs + 4 * slot,
      known + (slot & knownMask),
    );
  }

  /** Notes that the block of `slot`, in the open record, does not stay as it was taken: the seal computes its checksum. */
  changeBlock(slot: number): void {
    this.bytes[this.map.known + (slot & knownMask)] = 0;
  }

  /**
   * Computes the checksums of the record at `record`, whose data begins at `firstSlot`: of each data block that has not got one yet,
   * into its entry and into {@linkcode crcs}; of the second half of the header; of the first half, which is returned, as a signed number.
   * REQUIRES: all other fields are final, entryCount above all.
   */
  recordSeal(record: number, firstSlot: number): number {
    const { crcs, known } = this.map;
    return this.#exports.recordSeal(record, firstSlot, crcs, known) | 0;
  }

  // The hot path ends here.
}
