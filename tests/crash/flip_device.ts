/**
 * A device over one array whose content is put back after each try, page by page: a million images of one cache cost no
 * copies of it.
 *
 * Invariant: after `restore` the bytes are what they were when the device was made.
 *
 * @module
 */

import type { BlockDevice, DeviceIdentity } from "../../src/device/block_device.ts";
import { assertRange } from "../../src/device/range.ts";
import { blockBytes } from "../../src/units.ts";

/** A device whose content is a copy of `content`, and goes back to it. */
export class FlipDevice implements BlockDevice {
  readonly name: string;
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly readOnly = false;
  /** What it holds when nobody has changed it. */
  readonly pristine: Uint8Array<ArrayBuffer>;
  /** Pages that were read since this was cleared. */
  readonly pagesRead = new Set<number>();
  readonly #changed = new Set<number>();

  constructor(name: string, content: Uint8Array<ArrayBuffer>) {
    this.name = name;
    this.pristine = content;
    this.bytes = content.slice();
  }

  get sizeBytes(): number {
    return this.bytes.length;
  }

  /** Turns one bit over, until the next `restore`; bits are numbered from the start of the device. */
  flip(bit: number): void {
    const byte = Math.floor(bit / 8);
    this.#changed.add(Math.floor(byte / blockBytes));
    this.bytes[byte]! ^= 1 << (bit % 8);
  }

  /** Undoes all flips and writes. */
  restore(): void {
    for (const page of this.#changed) {
      const from = page * blockBytes;
      this.bytes.set(this.pristine.subarray(from, from + blockBytes), from);
    }
    this.#changed.clear();
  }

  identity(): Promise<DeviceIdentity> {
    return Promise.resolve({ kind: "memory", id: this.name, modifiedMs: 0 });
  }

  // deno-lint-ignore require-await -- async, so that what it throws is a rejection
  async read(offset: number, into: Uint8Array<ArrayBuffer>): Promise<void> {
    assertRange(this, offset, into.length);
    this.#eachPage(offset, into.length, this.pagesRead);
    into.set(this.bytes.subarray(offset, offset + into.length));
  }

  // deno-lint-ignore require-await -- async, so that what it throws is a rejection
  async write(offset: number, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    assertRange(this, offset, bytes.length);
    this.#eachPage(offset, bytes.length, this.#changed);
    this.bytes.set(bytes, offset);
  }

  // deno-lint-ignore require-await -- async, so that what it throws is a rejection
  async zero(offset: number, length: number): Promise<void> {
    assertRange(this, offset, length);
    this.#eachPage(offset, length, this.#changed);
    this.bytes.fill(0, offset, offset + length);
  }

  sync(): Promise<void> {
    return Promise.resolve();
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  #eachPage(offset: number, length: number, pages: Set<number>): void {
    for (let page = Math.floor(offset / blockBytes); page * blockBytes < offset + length; page++) {
      pages.add(page);
    }
  }
}
