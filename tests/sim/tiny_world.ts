/**
 * Workloads of a machine so small that all short ones can be gone through: a volume of two blocks, a log of six segments of
 * four blocks, and fifteen operations.
 *
 * @module
 */

import type { Tunables } from "../../src/cache/tunables.ts";
import { sectorBytes, sectorsPerBlock } from "../../src/units.ts";
import { KernelPool } from "./kernel_pool.ts";
import { TinyMedium } from "./tiny_disk.ts";
import { cacheSectors, type Media, TinyLife } from "./tiny_life.ts";
import { checkAllowed, numberOf, TinyOracle, usedSectors, volumeSectors } from "./tiny_oracle.ts";

/** Longer than the engine waits before it calls itself idle, twice. */
const idleMs = 1100;

/** What a workload is made of. */
export const operations = {
  w0: "write block 0",
  w1: "write block 1",
  p0: "write one sector of block 0",
  t0: "trim block 0",
  z: "zero both blocks",
  u1: "write block 1, FUA",
  b: "write block 0 and block 1 by turns, FUA, twice: two segments of log",
  m: "write and zero both blocks by turns, so that two records are full and nobody asked for a sync",
  f: "flush",
  g: "flush, and while that is under way write block 0, FUA",
  d: "drain",
  i: "let time pass: the idle mark, write-back",
  c: "close in order and open",
  k: "power cut, nothing un-synced survives; open",
  j: "power cut, all un-synced survives but the first sector that was written; open",
} as const;
/** See {@linkcode operations}. */
export type Operation = keyof typeof operations;

/** Where workloads begin. */
export interface Start {
  prelude: Operation[];
  tunables: Partial<Tunables>;
}

/** Where workloads begin, by name. */
export const starts = {
  /** Just formatted. */
  fresh: { prelude: [], tunables: { writeback: "auto" } },
  /** Records of an earlier lap lie ahead, and a segment is about to end. */
  lapped: { prelude: lap(), tunables: { writeback: "auto" } },
  /** The log takes one more record before it needs space, and all of it is dirty. */
  full: {
    prelude: ["w0", "f", "u1", "w0", "f", "u1", "w0", "f", "u1", "w0", "f"],
    tunables: { writeback: "off" },
  },
} satisfies Record<string, Start>;
/** See {@linkcode starts}. */
export type StartName = keyof typeof starts;

function lap(): Operation[] {
  const round: Operation[] = ["u1", "w0", "f", "u1", "w0", "f", "d"];
  return [...round, ...round, ...round, "w0", "f", "d"];
}

/** A machine that is off, in order. */
export interface Prepared {
  cache: Int32Array;
  backing: Int32Array;
  newest: readonly number[];
  version: number;
  lives: number;
  tunables: Partial<Tunables>;
}

/** Formats a machine and goes through the prelude. */
export async function prepare({ prelude, tunables }: Start): Promise<Prepared> {
  const newest = Array.from({ length: volumeSectors }, (_, sector) => numberOf(1, sector));
  const blank = { cache: new Int32Array(cacheSectors), backing: Int32Array.from(newest) };
  const media = { cache: new TinyMedium(blank.cache), backing: new TinyMedium(blank.backing) };
  const pool = new KernelPool();
  const life = new TinyLife(media, { life: 1, stepped: false, pool, tunables });
  await life.format();
  const prepared = { ...blank, cache: media.cache.durable, newest, version: 1, lives: 1, tunables };
  const world = await TinyWorld.begin(prepared, pool);
  for (const operation of prelude) await world.do(operation, () => {}, true);
  return await world.end();
}

/** Runs one workload, one operation after the other, and tells each moment at which the power may go. */
export class TinyWorld {
  readonly oracle: TinyOracle;
  readonly #pool: KernelPool;
  readonly #tunables: Partial<Tunables>;
  #media: Media;
  #life: TinyLife;
  #lives: number;

  private constructor(prepared: Prepared, pool: KernelPool) {
    const { cache, backing, newest, version, lives, tunables } = prepared;
    this.oracle = new TinyOracle(newest, version);
    this.#pool = pool;
    this.#tunables = tunables;
    this.#media = { cache: new TinyMedium(cache), backing: new TinyMedium(backing) };
    this.#lives = lives;
    this.#life = this.#newLife();
  }

  /** Powers on a machine and opens its cache. */
  static async begin(prepared: Prepared, pool: KernelPool): Promise<TinyWorld> {
    const world = new TinyWorld(prepared, pool);
    await world.#life.run(world.#life.open(), () => {}, true);
    return world;
  }

  /** Closes it again, in order. */
  async end(): Promise<Prepared> {
    await this.#life.run(this.#life.cache.close().then(this.oracle.askFlush()), () => {}, true);
    this.#life.stop();
    const { cache, backing } = this.#media;
    return {
      cache: cache.durable,
      backing: backing.durable,
      newest: this.oracle.newest,
      version: this.oracle.version,
      lives: this.#lives,
      tunables: this.#tunables,
    };
  }

  /** The settings. */
  get tunables(): Partial<Tunables> {
    return this.#tunables;
  }

  /** What the devices hold at this moment. */
  get media(): Media {
    return this.#media;
  }

  /** Lives so far. */
  get lives(): number {
    return this.#lives;
  }

  #newLife(): TinyLife {
    const options = { life: ++this.#lives, stepped: true, pool: this.#pool, tunables: this.#tunables };
    return new TinyLife(this.#media, options);
  }

  /** Called when the machine is off and about to be switched on: all that comes is a function of the world as it is then. */
  onOff: () => void = () => {};

  /** Does one operation. `settle`: until no call to a device is under way any more. */
  async do(operation: Operation, onPoint: () => void, settle: boolean): Promise<void> {
    if (operation === "k" || operation === "j") this.#powerCut(operation === "j");
    if (operation !== "c") {
      await this.#life.run(this.#start(operation), onPoint, settle);
      return;
    }
    const covers = this.oracle.askFlush();
    await this.#life.run(this.#life.cache.close().then(covers), onPoint, true);
    this.#life.stop();
    this.#off();
    await this.#life.run(this.#life.open(), onPoint, settle);
  }

  #start(operation: Exclude<Operation, "c">): Promise<void> {
    const { cache } = this.#life;
    switch (operation) {
      case "w0":
        return this.#write(0, sectorsPerBlock);
      case "w1":
        return this.#write(sectorsPerBlock, volumeSectors);
      case "p0":
        return this.#write(usedSectors[1], usedSectors[1] + 1);
      case "u1":
        return this.#write(sectorsPerBlock, volumeSectors, true);
      case "t0":
        return this.#zero(sectorsPerBlock, (length) => cache.trim(0, length));
      case "z":
        return this.#zero(volumeSectors, (length) => cache.zero(0, length, { keepAllocated: true }));
      case "b":
        return this.#burst();
      case "m":
        return this.#fill();
      case "f":
        return cache.flush().then(this.oracle.askFlush());
      case "g":
        return this.#flushAndWrite();
      case "d":
        return cache.drain().then(this.oracle.askFlush());
      case "i":
        return new Promise((resolve) => this.#life.clock.after(idleMs, resolve));
      case "k":
      case "j":
        return this.#openAgain();
    }
  }

  async #write(first: number, end: number, fua = false): Promise<void> {
    const { bytes, answer } = this.oracle.ask(first, end, false);
    await this.#life.cache.write(first * sectorBytes, bytes, { fua });
    answer(fua);
  }

  async #zero(end: number, zero: (length: number) => Promise<void>): Promise<void> {
    const { answer } = this.oracle.ask(0, end, true);
    await zero(end * sectorBytes);
    answer(false);
  }

  async #flushAndWrite(): Promise<void> {
    const covers = this.oracle.askFlush();
    const flushing = this.#life.cache.flush().then(covers);
    if (this.#life.stepper!.busy) await this.#life.stepper!.nextEnd();
    await Promise.all([flushing, this.#write(0, sectorsPerBlock, true)]);
  }

  async #burst(): Promise<void> {
    for (let i = 0; i < 2; i++) {
      await this.#write(0, sectorsPerBlock, true);
      await this.#write(sectorsPerBlock, volumeSectors, true);
    }
  }

  /** A record holds three blocks, and a zeroing keeps the next write from going over the one before. */
  async #fill(): Promise<void> {
    for (let i = 0; i < 3; i++) {
      await this.#write(0, sectorsPerBlock);
      await this.#write(sectorsPerBlock, volumeSectors);
      const length = volumeSectors * sectorBytes;
      await this.#zero(volumeSectors, () => this.#life.cache.zero(0, length, { keepAllocated: true }));
    }
    await this.#write(0, sectorsPerBlock);
  }

  #powerCut(most: boolean): void {
    this.#life.stop();
    const survivors = Object.entries(this.#media).map(([name, medium]) =>
      [name, medium, medium.choices()] as const
    );
    let first = Infinity;
    for (const [, , choices] of survivors) {
      for (const { orders } of choices) first = Math.min(first, orders[1]!);
    }
    let skipped = false;
    const after = survivors.map(([name, medium, choices]) => {
      const durable = medium.durable.slice();
      for (const { sector, numbers, orders } of most ? choices : []) {
        if (!skipped && orders[1] === first) skipped = true;
        else durable[sector] = numbers.at(-1)!;
      }
      return [name, new TinyMedium(durable)];
    });
    this.#media = Object.fromEntries(after) as Media;
    this.#off();
  }

  #off(): void {
    const { cache, backing } = this.#media;
    this.oracle.renumber([cache.durable, backing.durable]);
    this.onOff();
    this.#life = this.#newLife();
  }

  async #openAgain(): Promise<void> {
    const { allowed } = this.oracle;
    await this.#life.open();
    const numbers = await this.#life.read();
    checkAllowed(() => "after a power cut:", numbers, allowed);
    this.oracle.recovered(numbers);
  }

  /** The machine is not needed any more. */
  stop(): void {
    this.#life.stop();
  }
}
