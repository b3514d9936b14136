/**
 * CRC-32C for those who have no cache memory: codecs, tools, tests. The instance behind it has 128 KiB and is made
 * when it is first used.
 *
 * @module
 */

import { assert } from "../errors.ts";
import { type KernelExports, kernelsInstance, memoryPagesMin } from "./instance.ts";
import { pageBytes, reservedBytes, scratchBytes } from "./memory_map.ts";

/**
 * Takes `bytes` through a piece of wasm memory into the checksum.
 *
 * @param exports the kernels
 * @param memory the whole memory of those kernels
 * @param scratch where the piece starts; it has `scratchBytes`
 */
export function crc32cThrough(
  exports: KernelExports,
  memory: Uint8Array<ArrayBuffer>,
  scratch: number,
  bytes: Uint8Array,
  previous: number,
): number {
  if (bytes.length <= scratchBytes) {
    memory.set(bytes, scratch);
    return exports.crc32c(scratch, bytes.length, previous) >>> 0;
  }
  let crc = previous;
  for (let start = 0; start < bytes.length; start += scratchBytes) {
    const piece = bytes.subarray(start, start + scratchBytes);
    memory.set(piece, scratch);
    crc = exports.crc32c(scratch, piece.length, crc);
  }
  return crc >>> 0;
}

let own: { exports: KernelExports; memory: Uint8Array<ArrayBuffer> } | undefined;

function ownInstance(): NonNullable<typeof own> {
  const memory = new WebAssembly.Memory({ initial: memoryPagesMin, maximum: memoryPagesMin });
  return { exports: kernelsInstance(memory), memory: new Uint8Array(memory.buffer as ArrayBuffer) };
}

/**
 * The CRC-32C (Castagnoli, RFC 3720) of `bytes`, as a u32.
 *
 * @param previous the checksum of what comes before `bytes`, to go on from there; 0 at the start
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { crc32c } from "./crc32c.ts";
 * assert(crc32c(new TextEncoder().encode("123456789")) === 0xe3069283);
 * ```
 */
export function crc32c(bytes: Uint8Array, previous = 0): number {
  own ??= ownInstance();
  return crc32cThrough(own.exports, own.memory, reservedBytes, bytes, previous);
}

assert(reservedBytes + scratchBytes <= memoryPagesMin * pageBytes, "the scratch fits the least memory");
