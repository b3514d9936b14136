/**
 * A simulated machine for tests that say themselves what happens: two media, a clock, one cache, one thing at a time.
 *
 * @module
 */

import type { Cache } from "../../src/cache/cache.ts";
import { formatDevices } from "../../src/cache/format.ts";
import { type EngineOptions, openCache } from "../../src/cache/open.ts";
import type { BlockDevice } from "../../src/device/block_device.ts";
import { SeededRandom } from "../../src/random.ts";
import { blockBytes, mib } from "../../src/units.ts";
import { SimClock } from "./sim_clock.ts";
import { EventDisk } from "./event_disk.ts";
import { type CrashPolicy, Medium } from "./medium.ts";
import { type FaultHook, type SimDisk } from "./sim_disk.ts";

/** Microtask turns after each event. */
const turns = 200;

/** What a machine is made of. */
export interface MachineOptions {
  backingBytes: number;
  segmentBlocks?: number;
  segmentCount?: number;
  seed?: number;
  /** The cache device has two legs. */
  mirrored?: boolean;
}

/** What a machine has for those who open its cache. */
export type MachineDevices =
  & Pick<EngineOptions, "backing" | "clock" | "random" | "warn">
  & Pick<EngineOptions, "mirror" | "acceptMissingMirror" | "resyncMirror">
  & { cache: BlockDevice };

/** How a machine opens its cache. */
export interface MachineOpenOptions extends Partial<EngineOptions> {
  /** What the kernel says of the backing device; by default nobody counts. */
  busyMs?: BlockDevice["busyMs"];
}

/** Two media and whatever runs on them. */
export class Machine {
  readonly cacheMedium: Medium;
  /** The legs that the next life is given, in this order; one of a plain cache. */
  legs: Medium[];
  /** All legs that there are. */
  allLegs: Medium[];
  readonly backingMedium: Medium;
  readonly random: SeededRandom;
  readonly segmentBlocks: number;
  /** What the engine warned of in this life. */
  warnings: string[] = [];
  /** What must not happen: calls against the device's contract. */
  violations: string[] = [];
  /** Faults of the devices of this life. */
  fault: FaultHook = () => undefined;
  #clock = new SimClock(0);

  constructor(options: MachineOptions) {
    const { backingBytes, segmentBlocks = 4, segmentCount = 8, seed = 1 } = options;
    this.segmentBlocks = segmentBlocks;
    const cacheBytes = mib + segmentBlocks * segmentCount * blockBytes;
    this.cacheMedium = new Medium(cacheBytes, "cache");
    this.allLegs = [this.cacheMedium];
    if (options.mirrored) this.allLegs.push(new Medium(cacheBytes, "mirror"));
    this.legs = this.allLegs;
    this.backingMedium = new Medium(backingBytes, "backing");
    this.random = new SeededRandom(seed);
  }

  get clock(): SimClock {
    return this.#clock;
  }

  /** Formats the cache medium. */
  async format(): Promise<void> {
    const { segmentBlocks, random } = this;
    const [cache, mirror] = this.allLegs.map((leg) => this.disk(leg));
    await this.run(formatDevices(cache!, this.disk(this.backingMedium), {
      ...(mirror ? { mirror } : {}),
      segmentBlocks,
      clock: this.#clock,
      random: random.fill,
    }));
  }

  /** Powers on and opens the cache. */
  async open({ busyMs, ...options }: MachineOpenOptions = {}): Promise<Cache> {
    return await this.run(this.begin((machine) => openCache({ ...machine, ...options }), busyMs));
  }

  /** Powers on and begins something with both devices; time does not pass yet. */
  begin<T>(
    action: (machine: MachineDevices) => Promise<T>,
    busyMs?: BlockDevice["busyMs"],
  ): Promise<T> {
    this.#clock.stop();
    this.#clock = new SimClock(this.#clock.monotonicMs() + 1);
    this.warnings = [];
    const backing: BlockDevice = this.disk(this.backingMedium);
    if (busyMs) backing.busyMs = busyMs;
    const [cache, mirror] = this.legs.map((leg) => this.disk(leg));
    return action({
      cache: cache!,
      ...(mirror ? { mirror, resyncMirror: true } : {}),
      acceptMissingMirror: true,
      backing,
      clock: this.#clock,
      random: this.random.fill,
      warn: (message) => this.warnings.push(message),
    });
  }

  /** Powers on, and gives the cache device alone, or one leg of it. */
  cacheDisk(medium = this.cacheMedium): SimDisk {
    this.#clock.stop();
    this.#clock = new SimClock(this.#clock.monotonicMs() + 1);
    return this.disk(medium);
  }

  /** A handle on a medium for this life. */
  disk(medium: Medium): SimDisk {
    const disk = new EventDisk({
      medium,
      clock: this.#clock,
      random: this.random,
      latencyMs: () => 0.1,
      onViolation: (message) => this.violations.push(message),
    });
    disk.fault = (device, call) => this.fault(device, call);
    return disk;
  }

  /** Lets time pass until `promise` has settled, and returns what it gave. */
  async run<T>(promise: Promise<T>): Promise<T> {
    let done = false;
    const mark = () => {
      done = true;
    };
    promise.then(mark, mark);
    for (;;) {
      for (let i = 0; i < turns && !done; i++) await null;
      if (done) return await promise;
      if (!this.#clock.step()) throw new Error("nothing is left to happen, and the test still waits");
    }
  }

  /** Lets `ms` pass. */
  async pass(ms: number): Promise<void> {
    await this.run(new Promise<void>((resolve) => this.#clock.after(ms, resolve)));
  }

  /** Handles one thing after the other until `count` events have happened. */
  async steps(count: number): Promise<void> {
    for (let i = 0; i < count; i++) {
      for (let turn = 0; turn < turns; turn++) await null;
      if (!this.#clock.step()) return;
    }
  }

  /** The power goes, on both devices. */
  powerCut(policy: CrashPolicy): void {
    this.#clock.stop();
    for (const leg of this.allLegs) leg.powerCut(policy, this.random);
    this.backingMedium.powerCut(policy, this.random);
  }

  /** The process is killed. */
  kill(): void {
    this.#clock.stop();
    for (const leg of this.allLegs) leg.kill(this.random);
    this.backingMedium.kill(this.random);
  }

  /** Bytes of the log's block `slot`, as a running machine sees them. */
  slot(slot: number): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(blockBytes);
    this.cacheMedium.peek(mib + slot * blockBytes, bytes);
    return bytes;
  }

  /** Flips a bit of the cache medium, durably. */
  flip(offset: number, bit = 0): void {
    const bytes = new Uint8Array(1);
    this.cacheMedium.peek(offset, bytes);
    bytes[0]! ^= 1 << bit;
    this.cacheMedium.poke(offset, bytes);
  }

  /** The backing's content. */
  backing(offset: number, length: number): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(length);
    this.backingMedium.peek(offset, bytes);
    return bytes;
  }
}
