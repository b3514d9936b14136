/**
 * A device over one array that outlives it, so that a test can keep images, damage them and look at what became of them.
 *
 * @module
 */

import type { BlockDevice, DeviceIdentity } from "../../src/device/block_device.ts";
import { assertRange } from "../../src/device/range.ts";

/** A device whose content is `bytes`. */
export class ImageDevice implements BlockDevice {
  readonly name: string;
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly readOnly = false;
  /** Calls that changed something. */
  changes = 0;

  constructor(name: string, content: number | Uint8Array) {
    this.name = name;
    this.bytes = typeof content === "number" ? new Uint8Array(content) : new Uint8Array(content);
  }

  get sizeBytes(): number {
    return this.bytes.length;
  }

  /** The same device, with a copy of what it holds now. */
  copy(): ImageDevice {
    return new ImageDevice(this.name, this.bytes);
  }

  /** Turns one bit over. */
  flip(offset: number, bit: number): void {
    this.bytes[offset]! ^= 1 << bit;
  }

  identity(): Promise<DeviceIdentity> {
    return Promise.resolve({ kind: "memory", id: this.name, modifiedMs: 0 });
  }

  // deno-lint-ignore require-await -- async, so that what it throws is a rejection
  async read(offset: number, into: Uint8Array<ArrayBuffer>): Promise<void> {
    assertRange(this, offset, into.length);
    into.set(this.bytes.subarray(offset, offset + into.length));
  }

  // deno-lint-ignore require-await -- async, so that what it throws is a rejection
  async write(offset: number, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    assertRange(this, offset, bytes.length);
    this.changes++;
    this.bytes.set(bytes, offset);
  }

  sync(): Promise<void> {
    return Promise.resolve();
  }

  // deno-lint-ignore require-await -- async, so that what it throws is a rejection
  async zero(offset: number, length: number): Promise<void> {
    assertRange(this, offset, length);
    this.changes++;
    this.bytes.fill(0, offset, offset + length);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}
