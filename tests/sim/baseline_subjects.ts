/**
 * Two caches that can be put through the same bad day on the same simulated devices: this project's engine, and a model of
 * dm-writeboost.
 *
 * @module
 */

import { type Cache, DeviceError, RefusedError } from "../../mod.ts";
import { formatDevices } from "../../src/cache/format.ts";
import { type EngineOptions, openCache } from "../../src/cache/open.ts";
import { scanCache } from "../../src/cache/scan.ts";
import {
  lastWritebackOffset,
  readHeader,
  segmentBytes,
  slotBytes,
  slotCountOf,
  slotOffset,
  slotsOffset,
} from "../../src/foreign/dm_writeboost_layout.ts";
import { superblockField, superblockOffsets } from "../../src/log/layout.ts";
import type { SeededRandom } from "../../src/random.ts";
import { blockBytes, mib } from "../../src/units.ts";
import { SimClock } from "./sim_clock.ts";
import { type CrashPolicy, Medium } from "./medium.ts";
import { type FaultHook, SimDisk } from "./sim_disk.ts";
import { KernelOops, WriteboostModel } from "./writeboost_model.ts";

/** Microtask turns after each event. */
const turns = 60;

/** After which the engine has written down what is durable; rot before that cannot be told from a tear. */
const idleMs = 20;

/** A log's unit with its own header: a record, or a segment. Bytes of the cache device. */
export interface Piece {
  offset: number;
  length: number;
}

/** Where a damage lies that both have in their own form. */
export interface Places {
  /** What tells that it is a cache at all. */
  magics: Piece[];
  /** A number that says how much of the log is not needed any more. */
  positions: Piece[];
}

/** What a cache does in a scenario. */
export abstract class Subject {
  readonly random: SeededRandom;
  cache: Medium;
  backing: Medium;
  fault: FaultHook = () => undefined;
  /** Warnings, refusals, and whatever else a user could see. */
  told = 0;
  clock = new SimClock(0);

  constructor(random: SeededRandom, cacheBytes: number, backingBytes: number) {
    this.random = random;
    this.cache = new Medium(cacheBytes, "cache");
    this.backing = new Medium(backingBytes, "backing");
  }

  /** Makes the cache medium a cache of the backing. */
  abstract format(): Promise<void>;
  /** Power on; false when it refuses to. */
  abstract open(): Promise<boolean>;
  abstract write(offset: number, bytes: Uint8Array<ArrayBuffer>): Promise<void>;
  abstract flush(): Promise<void>;
  /** False for an I/O error. */
  abstract read(offset: number, into: Uint8Array<ArrayBuffer>): Promise<boolean>;
  abstract drain(): Promise<void>;
  /** The live pieces of the log, oldest first. */
  abstract pieces(): Promise<Piece[]>;
  abstract readonly places: Places;
  /** Bytes by which a device must shrink or grow for the log to change. */
  abstract readonly step: number;

  /** Nothing is asked for, for a while. */
  async idle(): Promise<void> {
    await this.run(new Promise<void>((resolve) => this.clock.after(idleMs, resolve)));
  }

  /** The power goes. */
  powerCut(policy: CrashPolicy): void {
    this.clock.stop();
    for (const medium of [this.cache, this.backing]) medium.powerCut(policy, this.random);
  }

  /** The cache device is another size now; what is cut off is gone. */
  resize(bytes: number): void {
    const resized = new Medium(bytes, "cache");
    const content = new Uint8Array(Math.min(bytes, this.cache.sizeBytes));
    this.cache.peek(0, content);
    resized.poke(0, content);
    this.cache = resized;
  }

  protected restart(): void {
    this.clock.stop();
    this.clock = new SimClock(this.clock.monotonicMs() + 1);
  }

  protected disk(medium: Medium): SimDisk {
    const { random } = this;
    const disk = new SimDisk({
      medium,
      clock: this.clock,
      random,
      latencyMs: () => (1 + random.below(64)) / 64,
      onViolation: (message) => {
        throw new Error(message);
      },
    });
    disk.fault = (device, call) => this.fault(device, call);
    return disk;
  }

  /** Lets time pass until `promise` has settled. */
  protected async run<T>(promise: Promise<T>): Promise<T> {
    let done = false;
    const mark = () => {
      done = true;
    };
    promise.then(mark, mark);
    for (;;) {
      for (let i = 0; i < turns && !done; i++) await null;
      if (done) return await promise;
      if (!this.clock.step()) throw new Error("nothing is left to happen, and the scenario still waits");
    }
  }
}

const segmentBlocks = 8;
const slots = 6;

/** This project's engine, unchanged. */
export class OurSubject extends Subject {
  #cache: Cache | undefined;
  readonly places: Places = {
    magics: superblockOffsets.map((offset) => ({ offset, length: 8 })),
    positions: superblockOffsets.map((offset) => ({
      offset: offset + superblockField.tailSequence,
      length: 8,
    })),
  };
  readonly step = segmentBlocks * blockBytes;

  constructor(random: SeededRandom, backingBytes: number) {
    super(random, mib + slots * segmentBlocks * blockBytes, backingBytes);
  }

  async format(): Promise<void> {
    await this.run(formatDevices(this.disk(this.cache), this.disk(this.backing), {
      segmentBlocks,
      clock: this.clock,
      random: this.random.fill,
    }));
  }

  async open(): Promise<boolean> {
    this.restart();
    const options: EngineOptions = {
      cache: this.disk(this.cache),
      backing: this.disk(this.backing),
      clock: this.clock,
      random: this.random.fill,
      acceptDamage: true,
      warn: () => this.told++,
    };
    try {
      this.#cache = await this.run(openCache(options));
    } catch (error) {
      if (!(error instanceof RefusedError)) throw error;
      this.told++;
      return false;
    }
    return true;
  }

  async write(offset: number, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    await this.run(this.#cache!.write(offset, bytes));
  }

  async flush(): Promise<void> {
    await this.run(this.#cache!.flush());
  }

  async read(offset: number, into: Uint8Array<ArrayBuffer>): Promise<boolean> {
    try {
      await this.run(this.#cache!.read(offset, into));
      return true;
    } catch (error) {
      if (!(error instanceof DeviceError)) throw error;
      this.told++;
      return false;
    }
  }

  async drain(): Promise<void> {
    await this.run(this.#cache!.drain());
  }

  async pieces(): Promise<Piece[]> {
    this.restart();
    const { records, superblock } = await this.run(scanCache(this.disk(this.cache)));
    return records.map(({ slot, dataCount }) => ({
      offset: superblock.geometry.logOffset + slot * blockBytes,
      length: (1 + dataCount) * blockBytes,
    }));
  }
}

/** The model of dm-writeboost. */
export class WriteboostSubject extends Subject {
  #model: WriteboostModel | undefined;
  readonly places: Places = {
    magics: [{ offset: 0, length: 4 }],
    positions: [{ offset: lastWritebackOffset, length: 8 }],
  };
  readonly step = slotBytes;

  constructor(random: SeededRandom, backingBytes: number) {
    super(random, slotsOffset + slots * slotBytes, backingBytes);
  }

  async format(): Promise<void> {
    await this.run(WriteboostModel.format(this.disk(this.cache)));
  }

  async open(): Promise<boolean> {
    this.restart();
    try {
      this.#model = await this.run(WriteboostModel.resume(this.disk(this.cache), this.disk(this.backing)));
    } catch (error) {
      if (!(error instanceof KernelOops)) throw error;
      this.told++;
      return false;
    }
    return true;
  }

  async write(offset: number, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    await this.run(this.#model!.write(offset, bytes));
  }

  async flush(): Promise<void> {
    await this.run(this.#model!.flush());
  }

  async read(offset: number, into: Uint8Array<ArrayBuffer>): Promise<boolean> {
    await this.run(this.#model!.read(offset, into));
    return true;
  }

  async drain(): Promise<void> {
    await this.run(this.#model!.drain());
  }

  // deno-lint-ignore require-await -- a promise, as the other's is
  async pieces(): Promise<Piece[]> {
    const found: (Piece & { id: number })[] = [];
    for (let slot = 0; slot < slotCountOf(this.cache.sizeBytes); slot++) {
      const header = new Uint8Array(blockBytes);
      this.cache.peek(slotOffset(slot), header);
      const { id, length } = readHeader(header);
      if (id > 0) found.push({ id, offset: slotOffset(slot), length: segmentBytes(length) });
    }
    return found.sort((a, b) => a.id - b.id);
  }
}
