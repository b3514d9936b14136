/**
 * Disks for exhaustive runs: each sector is the number of its content, so that states can be copied, compared and hashed by
 * the thousand, and all that a power cut could make of one can be listed.
 *
 * Invariants: content 0 is zeroes; equal contents have equal numbers. `live` is what reads see; `durable` is what survives
 * without luck. What is visible and was never written by this life is made durable by no sync of it.
 *
 * @module
 */

import type { BlockDevice, DeviceIdentity } from "../../src/device/block_device.ts";
import { assert } from "../../src/errors.ts";
import { sectorBytes } from "../../src/units.ts";
import type { SimClock } from "./sim_clock.ts";

/** Words of 32 bits in a sector. */
const wordsMax = sectorBytes / 4;

/** Numbers the contents of sectors. */
export class Contents {
  readonly #bytes: Uint8Array[] = [new Uint8Array(sectorBytes)];
  readonly #byHash = new Map<number, number[]>([[hashOf(new Uint32Array(wordsMax)), [0]]]);

  /** How many there are. */
  get count(): number {
    return this.#bytes.length;
  }

  /** Forgets all but the first `count`; nothing may hold the numbers of others any more. */
  forget(count: number): void {
    this.#bytes.length = count;
    for (const [hash, numbers] of this.#byHash) {
      const kept = numbers.filter((number) => number < count);
      if (kept.length > 0) this.#byHash.set(hash, kept);
      else this.#byHash.delete(hash);
    }
  }

  /** The number of the content at `bytes[at…]`. */
  numberOf(bytes: Uint8Array, at: number): number {
    const words = wordsOf(bytes, at);
    const hash = hashOf(words);
    let candidates = this.#byHash.get(hash);
    if (!candidates) this.#byHash.set(hash, candidates = []);
    for (const candidate of candidates) {
      if (isSame(wordsOf(this.#bytes[candidate]!, 0), words)) return candidate;
    }
    this.#bytes.push(bytes.slice(at, at + sectorBytes));
    candidates.push(this.#bytes.length - 1);
    return this.#bytes.length - 1;
  }

  /** The content with this number. */
  bytesOf(number: number): Uint8Array {
    return this.#bytes[number]!;
  }
}

/** A sector as words, copied where they are not aligned. */
function wordsOf(bytes: Uint8Array, at: number): Uint32Array {
  const start = bytes.byteOffset + at;
  if ((start & 3) === 0) return new Uint32Array(bytes.buffer, start, wordsMax);
  return new Uint32Array(bytes.slice(at, at + sectorBytes).buffer);
}

function isSame(a: Uint32Array, b: Uint32Array): boolean {
  for (let i = 0; i < wordsMax; i++) if (a[i] !== b[i]) return false;
  return true;
}

/** FNV-1a over words. */
function hashOf(words: Uint32Array): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < wordsMax; i++) hash = Math.imul(hash ^ words[i]!, 0x01000193);
  return hash;
}

/** A write of some sectors, un-synced. */
export interface Change {
  sector: number;
  numbers: number[];
  done: boolean;
  /** Place among all writes to all devices of a machine. */
  order: number;
}

/** What a power cut may make of one sector. */
export interface Choice {
  sector: number;
  /** The durable content first, then what was written to it and not synced, in order; no number twice. */
  numbers: number[];
  /** When each was written; 0 for the durable one. */
  orders: number[];
}

/** What a device holds. */
export class TinyMedium {
  readonly durable: Int32Array;
  readonly live: Int32Array;
  /** Counts up with every change. */
  version = 0;
  #pending: Change[] = [];

  constructor(durable: Int32Array, live: Int32Array = durable) {
    this.durable = durable.slice();
    this.live = live.slice();
  }

  begin(sector: number, numbers: number[], order: number): Change {
    const change = { sector, numbers, done: false, order };
    this.#pending.push(change);
    this.version++;
    return change;
  }

  complete(change: Change): void {
    change.done = true;
    this.version++;
    this.live.set(change.numbers, change.sector);
  }

  /** What a sync that is issued now covers. */
  get completed(): Change[] {
    return this.#pending.filter((change) => change.done);
  }

  settle(covered: Change[]): void {
    for (const change of covered) this.durable.set(change.numbers, change.sector);
    if (covered.length > 0) this.version++;
    const gone = new Set(covered);
    this.#pending = this.#pending.filter((change) => !gone.has(change));
  }

  /** By sector: what was written to it and is not synced, in order. */
  pending(): Map<number, number[]> {
    const bySector = new Map<number, number[]>();
    for (const change of this.#pending) {
      for (const [i, number] of change.numbers.entries()) {
        const numbers = bySector.get(change.sector + i);
        if (numbers) numbers.push(number);
        else bySector.set(change.sector + i, [number]);
      }
    }
    return bySector;
  }

  /** Everything that a power cut may decide, for sectors of which it can make any difference. `done`: of what had completed. */
  choices(done = false): Choice[] {
    const bySector = new Map<number, Choice>();
    for (const change of this.#pending) {
      const { sector, numbers, order } = change;
      if (done && !change.done) continue;
      for (const [i, number] of numbers.entries()) {
        let choice = bySector.get(sector + i);
        if (!choice) {
          choice = { sector: sector + i, numbers: [this.durable[sector + i]!], orders: [0] };
          bySector.set(sector + i, choice);
        }
        if (choice.numbers.includes(number)) continue;
        choice.numbers.push(number);
        choice.orders.push(order);
      }
    }
    return [...bySector.values()].filter(({ numbers }) => numbers.length > 1);
  }

  /** What reads would see if everything under way were done as well. */
  allDone(): Int32Array {
    const all = this.live.slice();
    for (const { sector, numbers, done } of this.#pending) if (!done) all.set(numbers, sector);
    return all;
  }
}

/** Decides when calls are done: one after the other, in the order of their issue, each when all code waits. */
export class Stepper {
  readonly #queue: (() => void)[] = [];
  #watchers: (() => void)[] = [];
  #dead = false;

  /** Does `action` when its turn has come. */
  schedule(action: () => void): Promise<void> {
    if (this.#dead) return new Promise(() => {});
    return new Promise((resolve) =>
      this.#queue.push(() => {
        action();
        resolve();
      })
    );
  }

  /** Whether calls are under way. */
  get busy(): boolean {
    return this.#queue.length > 0;
  }

  /** Ends the first call under way. */
  step(): void {
    this.#queue.shift()!();
    for (const watcher of this.#watchers.splice(0)) watcher();
  }

  /** Resolves when a call has ended. */
  nextEnd(): Promise<void> {
    return new Promise((resolve) => this.#watchers.push(resolve));
  }

  /** The machine is gone: nothing is done any more, and nobody hears of it. */
  stop(): void {
    this.#dead = true;
    this.#queue.length = 0;
    this.#watchers = [];
  }
}

/** Learns what a life does with a device, at the moment at which it is done. `numbers`: what reads see before. */
export interface Watcher {
  read(sector: number, count: number, numbers: Int32Array): void;
  changed(sector: number, count: number, numbers: Int32Array): void;
  settled(changes: readonly Change[]): void;
}

/** A machine's handle on a medium. Without a stepper every call is done at once. */
export class TinyDisk implements BlockDevice {
  readonly sizeBytes: number;
  readonly name: string;
  readonly readOnly = false;
  readonly medium: TinyMedium;
  readonly #contents: Contents;
  readonly #stepper: Stepper | undefined;
  readonly #clock: SimClock;
  readonly #nextOrder: () => number;
  /** Called when a sync is issued, before it makes anything durable. */
  onSync: () => void = () => {};
  watcher: Watcher | undefined;

  constructor(options: {
    name: string;
    medium: TinyMedium;
    contents: Contents;
    clock: SimClock;
    nextOrder: () => number;
    stepper?: Stepper | undefined;
  }) {
    this.name = options.name;
    this.medium = options.medium;
    this.sizeBytes = options.medium.durable.length * sectorBytes;
    this.#contents = options.contents;
    this.#clock = options.clock;
    this.#stepper = options.stepper;
    this.#nextOrder = options.nextOrder;
  }

  identity(): Promise<DeviceIdentity> {
    return Promise.resolve({ kind: "memory", id: this.name, modifiedMs: 0 });
  }

  #call(action: () => void): Promise<void> {
    if (this.#clock.stopped) return new Promise(() => {});
    if (this.#stepper) return this.#stepper.schedule(action);
    action();
    return Promise.resolve();
  }

  read(offset: number, into: Uint8Array<ArrayBuffer>): Promise<void> {
    return this.#call(() => {
      const { live } = this.medium;
      this.watcher?.read(offset / sectorBytes, into.length / sectorBytes, live);
      for (let at = 0; at < into.length; at += sectorBytes) {
        const number = live[(offset + at) / sectorBytes]!;
        if (number === 0) into.fill(0, at, at + sectorBytes);
        else into.set(this.#contents.bytesOf(number), at);
      }
    });
  }

  write(offset: number, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    if (this.#clock.stopped) return new Promise(() => {});
    const numbers: number[] = [];
    for (let at = 0; at < bytes.length; at += sectorBytes) numbers.push(this.#contents.numberOf(bytes, at));
    return this.#change(offset, numbers);
  }

  zero(offset: number, length: number, _options: { keepAllocated: boolean }): Promise<void> {
    return this.#change(offset, new Array(length / sectorBytes).fill(0));
  }

  #change(offset: number, numbers: number[]): Promise<void> {
    assert(offset % sectorBytes === 0 && offset / sectorBytes + numbers.length <= this.medium.live.length);
    if (this.#clock.stopped) return new Promise(() => {});
    this.watcher?.changed(offset / sectorBytes, numbers.length, this.medium.live);
    const change = this.medium.begin(offset / sectorBytes, numbers, this.#nextOrder());
    return this.#call(() => this.medium.complete(change));
  }

  sync(): Promise<void> {
    if (this.#clock.stopped) return new Promise(() => {});
    this.onSync();
    const covered = this.medium.completed;
    return this.#call(() => {
      this.medium.settle(covered);
      this.watcher?.settled(covered);
    });
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}
