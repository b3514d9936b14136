/**
 * Compiles the kernels once a process and instantiates them over a memory. {@linkcode kernelsInstance} is the only
 * place that knows how the module is kept (base64) and what it imports (its memory).
 *
 * @module
 */

import { kernelsWasm } from "./kernels_wasm.ts";

/** The module's exports. Numbers in; numbers out are i32, so unsigned ones come back through `>>> 0`. */
export interface KernelExports {
  crc32c(pointer: number, length: number, previous: number): number;
  crc32cBlock(pointer: number): number;
  indexConfigure(table: number, tableLength: number, reverse: number): void;
  indexClear(): void;
  indexGet(block: number): number;
  indexPut(block: number, slot: number): number;
  indexRemove(block: number): number;
  indexWarm(blocks: number, count: number, bits: number): number;
  bitmapTest(bits: number, index: number): number;
  bitmapSet(bits: number, summary: number, index: number): number;
  bitmapClear(bits: number, summary: number, index: number): number;
  bitmapSetRange(bits: number, summary: number, start: number, end: number): number;
  bitmapClearRange(bits: number, summary: number, start: number, end: number): number;
  bitmapCountRange(bits: number, summary: number, start: number, end: number): number;
  bitmapNext(bits: number, summary: number, from: number, end: number): number;
  bitmapNextClear(bits: number, from: number, end: number): number;
  bitmapOrInto(
    targetBits: number,
    targetSummary: number,
    sourceBits: number,
    sourceSummary: number,
    length: number,
  ): number;
  bitmapMoveInto(
    targetBits: number,
    targetSummary: number,
    sourceBits: number,
    sourceSummary: number,
    length: number,
  ): void;
  sortPlan(keys: number, scratch: number, count: number): void;
  recordAddData(record: number, index: number, kind: number, block: number, mask: number): void;
  recordAddRange(
    record: number,
    index: number,
    kind: number,
    block: number,
    count: number,
    mask: number,
  ): void;
  recordTakeBlock(data: number, source: number, crc: number, known: number): void;
  recordSeal(record: number, firstSlot: number, crcs: number, known: number): number;
}

let compiled: WebAssembly.Module | undefined;

/** Fewest pages that the module accepts: its statics and the scratch region. */
export const memoryPagesMin = 2;

/** The kernels over `memory`, whose first 64 KiB become theirs. */
export function kernelsInstance(memory: WebAssembly.Memory): KernelExports {
  compiled ??= new WebAssembly.Module(Uint8Array.from(atob(kernelsWasm), (char) => char.charCodeAt(0)));
  const instance = new WebAssembly.Instance(compiled, { env: { memory } });
  return instance.exports as unknown as KernelExports;
}
