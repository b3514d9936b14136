/**
 * A cache and a backing device whose content a test damages, whose calls it fails or delays, and whose state at any moment it
 * can open again, as after a crash; under a clock that only the test moves.
 *
 * Invariants: a device outlives the caches over it (`close` does nothing). A crash keeps every write that had completed; what
 * a test wants torn it puts back by itself. The clock moves only in {@linkcode World.drive}, so a cache that a "crash"
 * leaves behind does nothing more.
 *
 * @module
 */

import { formatDevices } from "../../src/cache/format.ts";
import { type Cache } from "../../src/cache/cache.ts";
import { type CacheOptions, openCache } from "../../src/cache/open.ts";
import type { DeviceIdentity, EventDevice } from "../../src/device/block_device.ts";
import { assertRange } from "../../src/device/range.ts";
import { DeviceError } from "../../src/errors.ts";
import { decodeRecord } from "../../src/log/codec.ts";
import { superblockBytes, superblockField, superblockOffsets } from "../../src/log/layout.ts";
import { SeededRandom } from "../../src/random.ts";
import { blockBytes, mib } from "../../src/units.ts";
import { FakeClock } from "../nbd/fake_clock.ts";

/** Where the log begins on the small cache devices of these tests. */
export const logOffset = mib;

/** What a hook does with a call: lets it pass, delays it, or throws. */
type Hook = (offset: number, length: number) => Promise<void> | void;

/** A device over one array, with a hook before each call. */
export class FaultyDevice implements EventDevice {
  readonly name: string;
  readonly readOnly = false;
  readonly bytes: Uint8Array<ArrayBuffer>;
  onRead: Hook = () => {};
  onWrite: Hook = () => {};
  onZero: Hook = () => {};
  onSync: () => Promise<void> | void = () => {};
  onClose: () => void = () => {};
  /** Called with the state of the device after each write. */
  onWritten: (offset: number, length: number) => void = () => {};
  writes: { offset: number; length: number }[] = [];
  /** Takes transfers that end in a call; else they take promises. */
  byEvents = false;

  constructor(name: string, content: number | Uint8Array) {
    this.name = name;
    this.bytes = typeof content === "number" ? new Uint8Array(content) : new Uint8Array(content);
  }
  get sizeBytes(): number {
    return this.bytes.length;
  }
  /** The same device as it is now, without hooks. */
  copy(): FaultyDevice {
    return new FaultyDevice(this.name, this.bytes);
  }
  /** Turns a bit of the byte at `offset` over. */
  flip(offset: number): void {
    this.bytes[offset]! ^= 1;
  }
  /** Puts [offset, offset + length) back to what `earlier` has there: a write that did not land. */
  putBack(earlier: FaultyDevice, offset: number, length: number): void {
    this.bytes.set(earlier.bytes.subarray(offset, offset + length), offset);
  }
  /** Lets everything pass again. */
  heal(): void {
    this.onRead = this.onWrite = this.onZero = () => {};
    this.onSync = () => {};
  }
  /** Writes to superblocks so far. */
  get superblockWrites(): number {
    return this.writes.filter(({ offset }) => offset < superblockOffsets[1] + superblockBytes).length;
  }
  /** Writes to the log so far. */
  get logWrites(): number {
    return this.writes.filter(({ offset }) => offset >= logOffset).length;
  }

  identity(): Promise<DeviceIdentity> {
    return Promise.resolve({ kind: "memory", id: this.name, modifiedMs: 0 });
  }
  async read(offset: number, into: Uint8Array<ArrayBuffer>): Promise<void> {
    assertRange(this, offset, into.length);
    await this.onRead(offset, into.length);
    into.set(this.bytes.subarray(offset, offset + into.length));
  }
  async write(offset: number, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    assertRange(this, offset, bytes.length);
    this.writes.push({ offset, length: bytes.length });
    await this.onWrite(offset, bytes.length);
    this.bytes.set(bytes, offset);
    this.onWritten(offset, bytes.length);
  }
  startRead(...[offset, memory, at, length, to, tag]: Parameters<EventDevice["startRead"]>): boolean {
    if (!this.byEvents) return false;
    const done = this.read(offset, memory.subarray(at, at + length));
    done.then(() => to.transferred(length, tag), () => to.transferred(-5, tag));
    return true;
  }
  startWrite(...[offset, memory, at, length, to, tag]: Parameters<EventDevice["startWrite"]>): boolean {
    if (!this.byEvents) return false;
    const done = this.write(offset, memory.subarray(at, at + length));
    done.then(() => to.transferred(length, tag), () => to.transferred(-5, tag));
    return true;
  }
  failure(operation: "read" | "write", offset: number, _length: number, result: number): DeviceError {
    return new DeviceError("EIO", `Cannot ${operation} at ${offset} of ${this.name}: errno ${-result}`);
  }
  async zero(offset: number, length: number): Promise<void> {
    assertRange(this, offset, length);
    await this.onZero(offset, length);
    this.bytes.fill(0, offset, offset + length);
  }
  async sync(): Promise<void> {
    await this.onSync();
  }
  close(): Promise<void> {
    this.onClose();
    return Promise.resolve();
  }
}

/** A hook that fails what touches one of the ranges. */
export function failing(...ranges: { offset: number; length: number }[]): Hook {
  return (offset, length) => {
    if (ranges.some((range) => offset < range.offset + range.length && range.offset < offset + length)) {
      throw new DeviceError("EIO", "the test fails this call");
    }
  };
}

/** A hook that never answers. */
export function hanging(): Promise<void> {
  return new Promise(() => {});
}

/** Where a slot of the log lies on the cache device. */
export function slotRange(slot: number, blocks = 1): { offset: number; length: number } {
  return { offset: logOffset + slot * blockBytes, length: blocks * blockBytes };
}

/** A byte in the first half of the header at a slot: turned over, the header is lost. */
export function headerByte(slot: number): number {
  return logOffset + slot * blockBytes + 30;
}

/** One machine: two devices and a clock. */
export class World {
  readonly cache: FaultyDevice;
  readonly backing: FaultyDevice;
  readonly clock = new FakeClock();
  readonly warnings: string[] = [];

  private constructor(cache: FaultyDevice, backing: FaultyDevice) {
    this.cache = cache;
    this.backing = backing;
  }

  /** A formatted pair with small segments. */
  static async make(sizes: { cacheBytes?: number; backingBytes?: number } = {}): Promise<World> {
    const cache = new FaultyDevice("cache", sizes.cacheBytes ?? 2 * mib);
    const world = new World(cache, new FaultyDevice("backing", sizes.backingBytes ?? 4 * mib));
    const random = new SeededRandom(3).fill;
    await formatDevices(cache, world.backing, { segmentBlocks: 32, random, clock: world.clock });
    return world;
  }

  /** Another machine with the devices as they are now: what is left after a crash. */
  crash(): World {
    return new World(this.cache.copy(), this.backing.copy());
  }

  /** Opens the pair. Nothing is written back or flushed that the test does not ask for. */
  open(options: Partial<CacheOptions> = {}): Promise<Cache> {
    const { cache, backing, clock, warnings } = this;
    return this.drive(openCache({
      ...{ cache, backing, clock, random: new SeededRandom(cache.bytes[superblockField.epoch]!).fill },
      warn: (message) => warnings.push(message),
      ...options,
      tunables: { writeback: "off", fullTimeout: 3, ...options.tunables },
    }));
  }

  /** Lets time pass until `promise` settles. Fails when an hour does not suffice: nothing may hang. */
  async drive<T>(promise: Promise<T>): Promise<T> {
    let settled = false;
    const settle = () => settled = true;
    promise.then(settle, settle);
    for (let ms = 0; !settled; ms += 50) {
      await turn();
      if (settled) break;
      if (ms > 3_600_000) throw new Error("This hangs: an hour passed and the promise has not settled");
      this.clock.advance(50);
    }
    return await promise;
  }

  /** Lets so much time pass, and everything that follows from it happen. */
  async pass(milliseconds: number): Promise<void> {
    await turn();
    this.clock.advance(milliseconds);
    await turn();
  }

  /** The sequence of the record whose header is at `slot`; undefined when there is no good one. */
  sequenceAt(slot: number): number | undefined {
    const { offset } = slotRange(slot);
    const bytes = this.cache.bytes.slice(offset, offset + blockBytes);
    const uuid = this.cache.bytes.subarray(superblockField.uuid, superblockField.uuid + 16);
    return decodeRecord(bytes, slot, uuid)?.sequence;
  }
}

/** Everything that is ready to happen has happened; no time has passed for the cache. */
export function turn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0));
}

/** A block, or more bytes, of one value. */
export function filled(value: number, length = blockBytes): Uint8Array {
  return new Uint8Array(length).fill(value);
}

/** Writes `count` blocks from `block` on, one call each. */
export async function writeBlocks(
  cache: Cache,
  block: number,
  count: number,
  value: (block: number) => number,
): Promise<void> {
  for (let i = block; i < block + count; i++) await cache.write(i * blockBytes, filled(value(i)));
}

/** What reading a block gives: its byte where all are the same, "mixed", or "EIO". */
export async function readBlock(
  volume: { read(offset: number, into: Uint8Array): Promise<void> },
  block: number,
): Promise<number | "mixed" | "EIO"> {
  const bytes = new Uint8Array(blockBytes);
  try {
    await volume.read(block * blockBytes, bytes);
  } catch (error) {
    if (error instanceof DeviceError && error.code === "EIO") return "EIO";
    throw error;
  }
  return bytes.every((byte) => byte === bytes[0]) ? bytes[0]! : "mixed";
}

/** The same for several blocks. */
export async function readBlocks(
  volume: { read(offset: number, into: Uint8Array): Promise<void> },
  ...blocks: number[]
): Promise<(number | "mixed" | "EIO")[]> {
  const found: (number | "mixed" | "EIO")[] = [];
  for (const block of blocks) found.push(await readBlock(volume, block));
  return found;
}
