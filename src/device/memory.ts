/**
 * A device that lives in RAM, for tests, for the demo and for programs that embed the cache. It takes memory only for
 * what was written, so it may be declared large.
 *
 * Invariant: a chunk that is absent reads as zeroes.
 *
 * @module
 */

import { DeviceError, UsageError } from "../errors.ts";
import { sectorBytes } from "../units.ts";
import type { BlockDevice, DeviceIdentity } from "./block_device.ts";
import { assertRange } from "./range.ts";

/** The unit in which memory is taken and given back. */
const chunkBytes = 256 * 1024;

let unnamedCount = 0;

/**
 * A device in RAM: for tests, for trying things out, and as a cache device that need not survive. It reads as zeroes where
 * nothing was written, and takes RAM only where something was. Offsets and lengths are multiples of 512 bytes.
 *
 * `sync` has nothing to do, as no content outlives the process; `close` frees it.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { MemoryDevice } from "../../mod.ts";
 * const device = new MemoryDevice(1024 * 1024);
 * await device.write(4096, new Uint8Array(512).fill(7));
 * const bytes = new Uint8Array(512);
 * await device.read(4096, bytes);
 * assert(bytes[0] === 7);
 * await device.close();
 * ```
 */
export class MemoryDevice implements BlockDevice {
  /** The size in bytes. */
  readonly sizeBytes: number;
  /** What people call it, and its identity. */
  readonly name: string;
  /** Always false: it can be written. */
  readonly readOnly: boolean = false;
  #chunks = new Map<number, Uint8Array<ArrayBuffer>>();
  #closed = false;

  /**
   * Makes a device that reads as zeroes.
   *
   * @param sizeBytes a multiple of 512, more than 0
   * @param name what people call it, and its identity; unique in this process when left out
   * @throws {UsageError} for another size
   */
  constructor(sizeBytes: number, name?: string) {
    if (!Number.isSafeInteger(sizeBytes) || sizeBytes <= 0 || sizeBytes % sectorBytes !== 0) {
      throw new UsageError(
        `Cannot make a memory device of ${sizeBytes} bytes: expected a multiple of ${sectorBytes} above 0`,
      );
    }
    this.sizeBytes = sizeBytes;
    this.name = name ?? `memory-${++unnamedCount}`;
  }

  /** Bytes of RAM that hold content. */
  get allocatedBytes(): number {
    return this.#chunks.size * chunkBytes;
  }

  /** Its kind and its name. */
  identity(): Promise<DeviceIdentity> {
    return Promise.resolve({ kind: "memory", id: this.name, modifiedMs: 0 });
  }

  /** Fills `into` from `offset`. */
  // deno-lint-ignore require-await -- async, so that what it throws is a rejection
  async read(offset: number, into: Uint8Array<ArrayBuffer>): Promise<void> {
    this.#check(offset, into.length);
    eachChunk(offset, into.length, (index, start, at, length) => {
      const chunk = this.#chunks.get(index);
      if (chunk) into.set(chunk.subarray(start, start + length), at);
      else into.fill(0, at, at + length);
    });
  }

  /** Copies `bytes` to `offset`. */
  // deno-lint-ignore require-await -- async, so that what it throws is a rejection
  async write(offset: number, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    this.#check(offset, bytes.length);
    eachChunk(offset, bytes.length, (index, start, at, length) => {
      let chunk = this.#chunks.get(index);
      if (!chunk) this.#chunks.set(index, chunk = new Uint8Array(chunkBytes));
      chunk.set(bytes.subarray(at, at + length), start);
    });
  }

  /** Does nothing: there is nothing that would survive longer. */
  // deno-lint-ignore require-await -- async, so that what it throws is a rejection
  async sync(): Promise<void> {
    this.#check(0, 0);
  }

  /** Makes the range read as zeroes and frees the RAM of its whole chunks of 256 KiB. */
  // deno-lint-ignore require-await -- async, so that what it throws is a rejection
  async zero(offset: number, length: number, _options?: { keepAllocated: boolean }): Promise<void> {
    this.#check(offset, length);
    const end = offset + length;
    const chunkCount = Math.ceil(length / chunkBytes);
    // A large range over few chunks, such as a trim of all of a large device, costs what there is to drop.
    if (chunkCount > this.#chunks.size) {
      for (const [index, chunk] of this.#chunks) {
        const first = index * chunkBytes;
        const from = Math.max(offset, first);
        const to = Math.min(end, first + chunkBytes);
        if (to - from === chunkBytes) this.#chunks.delete(index);
        else if (to > from) chunk.fill(0, from - first, to - first);
      }
      return;
    }
    eachChunk(offset, length, (index, start, _at, bytes) => {
      if (bytes === chunkBytes) this.#chunks.delete(index);
      else this.#chunks.get(index)?.fill(0, start, start + bytes);
    });
  }

  /** Frees its content; later calls reject with `ESHUTDOWN`. */
  close(): Promise<void> {
    this.#closed = true;
    this.#chunks.clear();
    return Promise.resolve();
  }

  #check(offset: number, length: number): void {
    if (this.#closed) throw new DeviceError("ESHUTDOWN", `Cannot use ${this.name}: it is closed`);
    assertRange(this, offset, length);
  }
}

/** Calls `part(chunk index, start in the chunk, position in the range, length)` for each chunk of a range. */
function eachChunk(
  offset: number,
  length: number,
  part: (index: number, start: number, at: number, length: number) => void,
): void {
  for (let at = 0; at < length;) {
    const index = Math.floor((offset + at) / chunkBytes);
    const start = (offset + at) % chunkBytes;
    const bytes = Math.min(chunkBytes - start, length - at);
    part(index, start, at, bytes);
    at += bytes;
  }
}
