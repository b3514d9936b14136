/**
 * A device over one array whose content is put back after each try, page by page: a million images of one cache cost no
 * copies of it. It knows which sectors were read.
 *
 * Invariant: after `restore` the bytes are what they were when the device was made.
 *
 * @module
 */

import type { BlockDevice, DeviceIdentity } from "../../src/device/block_device.ts";
import { assertRange } from "../../src/device/range.ts";
import { blockBytes, sectorBytes } from "../../src/units.ts";

/** A device whose content is a copy of `content`, and goes back to it. */
export class FlipDevice implements BlockDevice {
  readonly name: string;
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly readOnly = false;
  /** What it holds when nobody has changed it. */
  readonly pristine: Uint8Array<ArrayBuffer>;
  /** By sector: whether it was ever read. */
  readonly everRead: Uint8Array<ArrayBuffer>;
  /** By sector: whether it was read since this was filled with zeroes. */
  readonly readSince: Uint8Array<ArrayBuffer>;
  readonly #isChanged: Uint8Array;
  readonly #changed: number[] = [];
  /** How often it was put back. */
  lives = 0;

  constructor(name: string, content: Uint8Array<ArrayBuffer>) {
    this.name = name;
    this.pristine = content;
    this.bytes = content.slice();
    this.everRead = new Uint8Array(Math.ceil(content.length / sectorBytes));
    this.readSince = this.everRead.slice();
    this.#isChanged = new Uint8Array(Math.ceil(content.length / blockBytes));
  }

  get sizeBytes(): number {
    return this.bytes.length;
  }

  /** Turns one bit over, until the next `restore`; bits are numbered from the start of the device. */
  flip(bit: number): void {
    const byte = Math.floor(bit / 8);
    this.#change(byte, 1);
    this.bytes[byte]! ^= 1 << (bit % 8);
  }

  /** Turns over all bits that are set in `mask`, from byte `offset` on, until the next `restore`. */
  flipAll(offset: number, mask: Uint8Array): void {
    this.#change(offset, mask.length);
    for (let i = 0; i < mask.length; i++) this.bytes[offset + i]! ^= mask[i]!;
  }

  /** A handle until the next `restore`: what uses it then still, waits for ever. */
  handle(): BlockDevice {
    return new Handle(this);
  }

  /** Undoes all flips and writes. */
  restore(): void {
    this.lives++;
    for (const page of this.#changed) {
      const from = page * blockBytes;
      this.bytes.set(this.pristine.subarray(from, from + blockBytes), from);
      this.#isChanged[page] = 0;
    }
    this.#changed.length = 0;
  }

  identity(): Promise<DeviceIdentity> {
    return Promise.resolve({ kind: "memory", id: this.name, modifiedMs: 0 });
  }

  // deno-lint-ignore require-await -- async, so that what it throws is a rejection
  async read(offset: number, into: Uint8Array<ArrayBuffer>): Promise<void> {
    assertRange(this, offset, into.length);
    const [first, end] = [Math.floor(offset / sectorBytes), Math.ceil((offset + into.length) / sectorBytes)];
    this.everRead.fill(1, first, end);
    this.readSince.fill(1, first, end);
    into.set(this.bytes.subarray(offset, offset + into.length));
  }

  // deno-lint-ignore require-await -- async, so that what it throws is a rejection
  async write(offset: number, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    assertRange(this, offset, bytes.length);
    this.#change(offset, bytes.length);
    this.bytes.set(bytes, offset);
  }

  // deno-lint-ignore require-await -- async, so that what it throws is a rejection
  async zero(offset: number, length: number): Promise<void> {
    assertRange(this, offset, length);
    this.#change(offset, length);
    this.bytes.fill(0, offset, offset + length);
  }

  sync(): Promise<void> {
    return Promise.resolve();
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  #change(offset: number, length: number): void {
    for (let page = Math.floor(offset / blockBytes); page * blockBytes < offset + length; page++) {
      if (this.#isChanged[page] === 1) continue;
      this.#isChanged[page] = 1;
      this.#changed.push(page);
    }
  }
}

/** See `handle`. */
class Handle implements BlockDevice {
  readonly readOnly = false;
  readonly name: string;
  readonly sizeBytes: number;
  readonly #device: FlipDevice;
  readonly #life: number;

  constructor(device: FlipDevice) {
    this.#device = device;
    this.#life = device.lives;
    this.name = device.name;
    this.sizeBytes = device.sizeBytes;
  }

  get #isOver(): boolean {
    return this.#life !== this.#device.lives;
  }

  identity(): Promise<DeviceIdentity> {
    return this.#device.identity();
  }

  read(offset: number, into: Uint8Array<ArrayBuffer>): Promise<void> {
    return this.#isOver ? new Promise(() => {}) : this.#device.read(offset, into);
  }

  write(offset: number, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    return this.#isOver ? new Promise(() => {}) : this.#device.write(offset, bytes);
  }

  zero(offset: number, length: number): Promise<void> {
    return this.#isOver ? new Promise(() => {}) : this.#device.zero(offset, length);
  }

  sync(): Promise<void> {
    return this.#isOver ? new Promise(() => {}) : this.#device.sync();
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}
