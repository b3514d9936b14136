/**
 * One life of a tiny machine: the real engine over tiny disks, from power-on to power-off.
 *
 * @module
 */

import type { Cache } from "../../src/cache/cache.ts";
import { formatDevices } from "../../src/cache/format.ts";
import { type EngineOptions, openCache } from "../../src/cache/open.ts";
import type { Tunables } from "../../src/cache/tunables.ts";
import { SeededRandom } from "../../src/random.ts";
import { blockBytes, mib, sectorBytes } from "../../src/units.ts";
import type { KernelPool } from "./kernel_pool.ts";
import { Violation } from "./oracle.ts";
import { settled } from "./settled.ts";
import { SimClock, wallStartMs } from "./sim_clock.ts";
import { Stepper, TinyDisk, type TinyMedium } from "./tiny_disk.ts";
import { contents, volumeSectors } from "./tiny_oracle.ts";

/** Blocks of a segment of the log. */
export const segmentBlocks = 4;
const segmentCount = 6;
/** Sectors of the cache device. */
export const cacheSectors = (mib + segmentBlocks * segmentCount * blockBytes) / sectorBytes;

/** Microtask turns after which code is taken to wait for a device, and for time. */
const turnsMax = 64;
const longTurnsMax = 2000;
/** Steps of one operation after which it counts as hung. */
const stepsMax = 20_000;
/**
 * People's time stands still: it stands in records and superblocks, where no recovery decides anything by it, and would make
 * equal states differ.
 */
class StillClock extends SimClock {
  override wallMs(): number {
    return wallStartMs;
  }
}

/** What the devices of a machine hold. */
export interface Media {
  cache: TinyMedium;
  backing: TinyMedium;
}

/** One life of a tiny machine. */
export class TinyLife {
  readonly clock: SimClock;
  readonly stepper: Stepper | undefined;
  readonly cacheDisk: TinyDisk;
  readonly backingDisk: TinyDisk;
  readonly media: Media;
  #cache: Cache | undefined;
  readonly #random: SeededRandom;
  readonly #pool: KernelPool;
  readonly #tunables: Partial<Tunables>;
  #order = 0;

  /** `life` makes the time and the random values of each life differ. With `stepped`, calls end one at a time. */
  constructor(
    media: Media,
    options: { life: number; stepped: boolean; pool: KernelPool; tunables: Partial<Tunables> },
  ) {
    this.media = media;
    this.clock = new StillClock(options.life * 1_000_000);
    this.stepper = options.stepped ? new Stepper() : undefined;
    this.#random = new SeededRandom(options.life);
    this.#pool = options.pool;
    this.#tunables = options.tunables;
    const { clock, stepper } = this;
    const nextOrder = () => ++this.#order;
    this.cacheDisk = new TinyDisk({
      name: "cache",
      medium: media.cache,
      contents,
      clock,
      stepper,
      nextOrder,
    });
    this.backingDisk = new TinyDisk({
      name: "backing",
      medium: media.backing,
      contents,
      clock,
      stepper,
      nextOrder,
    });
  }

  /** The open cache. */
  get cache(): Cache {
    return this.#cache!;
  }

  async format(): Promise<void> {
    await formatDevices(this.cacheDisk, this.backingDisk, {
      segmentBlocks,
      clock: this.clock,
      random: this.#random.fill,
    });
  }

  /** Opens the cache; fails when an undamaged one is called damaged. */
  async open(): Promise<void> {
    const options: EngineOptions = {
      cache: this.cacheDisk,
      backing: this.backingDisk,
      clock: this.clock,
      random: this.#random.fill,
      tunables: this.#tunables,
      bufferCount: 2,
      unsyncedBlocks: 2 * segmentBlocks,
      makeKernels: this.#pool.take,
    };
    const cache = this.#cache = await openCache(options);
    const { gaps, lostBlocks, damaged } = cache.recovery;
    if (gaps.length > 0 || lostBlocks > 0 || damaged || cache.readOnly) {
      throw new Violation(`an undamaged log is called damaged: ${JSON.stringify(cache.recovery)}`);
    }
  }

  /** Contents of all of the volume, by sector. */
  async read(): Promise<number[]> {
    const bytes = new Uint8Array(volumeSectors * sectorBytes);
    await this.cache.read(0, bytes);
    return Array.from(
      { length: volumeSectors },
      (_, sector) => contents.numberOf(bytes, sector * sectorBytes),
    );
  }

  /** Lets things happen until `action` is done; `onPoint` is called whenever all code waits. */
  async run(action: Promise<unknown>, onPoint: () => void, settle: boolean): Promise<void> {
    const state = settled(action);
    for (let step = 0; step < stepsMax; step++) {
      for (let turn = 0; turn < turnsMax || !(this.#busy || state.settled) && turn < longTurnsMax; turn++) {
        if (state.settled && !this.stepper) break;
        await null;
      }
      if (state.error) throw state.error;
      onPoint();
      if (state.settled && !(this.#busy && settle)) return;
      if (this.#busy) this.stepper!.step();
      else if (!this.clock.step()) {
        throw new Violation("nothing is left to happen, and an operation still waits");
      }
    }
    throw new Violation(`an operation is not done after ${stepsMax} steps`);
  }

  get #busy(): boolean {
    return this.stepper?.busy ?? false;
  }

  /** The machine is gone. */
  stop(): void {
    this.clock.stop();
    this.stepper?.stop();
  }
}
