/**
 * `writeback_order=prefix` in the simulator: random lives of one cache whose backing device is compared, durably and all of
 * it, with the image of the point that the cache states. Whenever an event has happened, so at every moment.
 *
 * Invariants held against the engine:
 * - Between two steps what the backing durably holds is the volume as it was at the point, byte by byte.
 * - Within a step every sector is that of the point before or of the next one.
 * - After an opening, until the first step is done, every sector is one that the volume had at some point, or has now.
 * - Whatever is flushed is there after every crash; a drain, and an end in order, leave the backing at a point.
 *
 * One request at a time, so that the image of each moment is known; the power goes in the middle of anything.
 *
 * @module
 */

import type { Cache } from "../../src/cache/cache.ts";
import type { PointStatus } from "../../src/cache/point_order.ts";
import { SeededRandom } from "../../src/random.ts";
import { DeviceError } from "../../src/errors.ts";
import { blockBytes, sectorBytes } from "../../src/units.ts";
import { kernelPool } from "./kernel_pool.ts";
import { Machine } from "./machine.ts";
import { crashPolicies } from "./medium.ts";

const livesMax = 6;
const stepsMax = 70;
/** The longest that a slow backing takes for a write. */
const slowMsMax = 400;
/** Images before a point that may still be on their way; more than a life has. */
const sinceMax = 3 * stepsMax;
/** Events without an end that count as a hang. */
const eventsMax = 100_000;

/** What came up in worlds, so that a test can see that it did. */
export interface PrefixCounts {
  crashes: number;
  points: number;
  steps: number;
  comparedBetween: number;
  comparedWithin: number;
  crashesWithin: number;
  failedSyncs: number;
  drains: number;
  changedOrders: number;
}

/** No counts yet. */
export function noCounts(): PrefixCounts {
  return {
    crashes: 0,
    points: 0,
    steps: 0,
    comparedBetween: 0,
    comparedWithin: 0,
    crashesWithin: 0,
    failedSyncs: 0,
    drains: 0,
    changedOrders: 0,
  };
}

/** Lives through one world; throws at the first thing that is wrong. */
export async function livePrefix(seed: number, counts: PrefixCounts): Promise<void> {
  await new PrefixWorld(seed, counts).run();
}

/** Bytes of the volume, and which of them may be either of two. */
interface Image {
  bytes: Uint8Array<ArrayBuffer>;
  /** What a request under way would make of it. */
  next: Uint8Array<ArrayBuffer> | undefined;
}

class PrefixWorld {
  readonly #random: SeededRandom;
  readonly #machine: Machine;
  readonly #counts: PrefixCounts;
  readonly #sizeBytes: number;
  #cache!: Cache;
  /** What the volume is, and what is being made of it. */
  #image: Uint8Array<ArrayBuffer>;
  #next: Uint8Array<ArrayBuffer> | undefined;
  /** Images of the points of this life. */
  #points = new Map<number, Image>();
  /** All that the volume has been since the last point that the backing was known to be at: it is of these. */
  #since: Uint8Array<ArrayBuffer>[] = [];
  #said: PointStatus | null = null;
  #failing = false;
  /** In this life a sync has failed; the close may meet the last one. */
  #hasFailed = false;
  /** The backing is slow, and clients write the same blocks again and again. */
  readonly #isSlow: boolean;
  /** The last sequence of which the image is known. */
  #known = 0;

  constructor(seed: number, counts: PrefixCounts) {
    this.#random = new SeededRandom(seed);
    for (let i = 0; i < 8; i++) this.#random.next();
    this.#counts = counts;
    this.#sizeBytes = (24 + this.#random.below(80)) * blockBytes - this.#random.below(8) * sectorBytes;
    this.#image = new Uint8Array(this.#sizeBytes);
    this.#machine = new Machine({
      backingBytes: this.#sizeBytes,
      segmentBlocks: [4, 8, 16][this.#random.below(3)]!,
      segmentCount: 12 + this.#random.below(40),
      seed,
    });
    this.#isSlow = this.#random.chance(0.5);
    this.#machine.fault = (device, { kind }) => {
      // So that much happens within a step.
      if (this.#isSlow && device.name === "backing" && (kind === "write" || kind === "zero")) {
        return { slowMs: this.#random.below(slowMsMax) };
      }
      if (!this.#failing || device.name !== "backing" || kind !== "sync" || !this.#random.chance(0.5)) return;
      this.#counts.failedSyncs++;
      this.#hasFailed = true;
      return { error: new DeviceError("EIO", "the sync failed, as planned"), drop: this.#random.chance(0.5) };
    };
  }

  async run(): Promise<void> {
    await this.#machine.format();
    for (let life = 0; life < livesMax; life++) {
      this.#said = null;
      this.#hasFailed = false;
      this.#points.clear();
      this.#known = Infinity;
      const isPrefix = this.#random.chance(0.9);
      this.#cache = await this.#machine.open({
        makeKernels: kernelPool.take,
        tunables: {
          writebackOrder: isPrefix ? "prefix" : "elevator",
          writeback: (["auto", "on", "on", "off"] as const)[this.#random.below(4)]!,
          writebackStep: (16 << this.#random.below(4)) * blockBytes,
          writebackBatch: [1, 4, 256][this.#random.below(3)]!,
          copyForward: this.#random.chance(0.3) ? 0 : 60,
          readCacheThreshold: this.#random.chance(0.3) ? 64 : 0,
        },
      });
      // What was flushed is there, and what is there is durable from now on.
      const { headSequence } = this.#cache.status().cache;
      const now = await this.#whole();
      this.#checkRecovered(now);
      this.#since.push(now);
      this.#image = now;
      this.#next = undefined;
      this.#known = headSequence - 2;
      this.#look();
      for (let step = this.#random.below(stepsMax * (this.#isSlow ? 2 : 1)); step > 0; step--) {
        await this.#step();
      }
      await this.#end();
      if (this.#machine.violations.length > 0) throw new Error(this.#machine.violations.join("\n"));
    }
  }

  /** Until the last flush nothing may have gone; the sim of all crashes looks at that more closely. */
  #flushed: Uint8Array<ArrayBuffer> | undefined;

  #checkRecovered(now: Uint8Array): void {
    const flushed = this.#flushed;
    if (!flushed) return;
    const different = sectorsThatDiffer(now, flushed);
    for (const sector of different) {
      if (this.#touched.has(sector)) continue;
      throw new Error(`sector ${sector} was flushed, and is another after the crash`);
    }
  }

  /** Sectors that were written since the last flush. */
  readonly #touched = new Set<number>();

  async #whole(): Promise<Uint8Array<ArrayBuffer>> {
    const bytes = new Uint8Array(this.#sizeBytes);
    await this.#machine.run(this.#cache.read(0, bytes));
    return bytes;
  }

  /** Lets one thing happen after the other until `promise` settles, and looks at the backing each time. */
  async #until<T>(promise: Promise<T>): Promise<T> {
    let done = false;
    const mark = () => {
      done = true;
    };
    promise.then(mark, mark);
    for (let events = 0; !done; events++) {
      if (events > eventsMax) throw new Error("nothing comes of it");
      await this.#machine.steps(1);
      this.#look();
    }
    return await promise;
  }

  async #events(count: number): Promise<void> {
    for (let i = 0; i < count; i++) {
      await this.#machine.steps(1);
      this.#look();
    }
  }

  /** What the cache says, and what the backing durably is. */
  #look(): void {
    const { point } = this.#cache.status().writeback;
    const said = this.#said;
    this.#said = point;
    this.#remember();
    if (!point) return;
    if (point.toSequence !== null && point.toSequence !== said?.toSequence) this.#counts.steps++;
    const isNew = point.sequence !== said?.sequence || point.toSequence !== said?.toSequence;
    // Looking costs more than the event did.
    if (isNew || this.#random.chance(0.1)) this.#compare(point, isNew);
  }

  /** Points are taken at the end of a record: what is sealed last was the volume a moment ago. */
  #remember(): void {
    for (let sequence = this.#cache.status().cache.headSequence - 1; sequence > this.#known; sequence--) {
      this.#points.set(sequence, { bytes: this.#image, next: this.#next });
      this.#counts.points++;
    }
    this.#known = Math.max(this.#known, this.#cache.status().cache.headSequence - 1);
  }

  #compare(point: PointStatus, isNew: boolean): void {
    const durable = new Uint8Array(this.#sizeBytes);
    // What is there now, and what a power cut would leave.
    if (this.#random.chance(0.5)) this.#machine.backingMedium.peek(0, durable);
    else this.#machine.backingMedium.peekDurable(0, durable);
    if (point.lackingBlocks > 0) throw new Error("blocks lack on good devices");
    const to = point.toSequence === null ? [] : this.#imagesOf(point.toSequence);
    if (point.sequence === null) {
      this.#assertOf(durable, [...this.#since, ...to], "before the first step");
      return;
    }
    if (point.toSequence === null) {
      this.#counts.comparedBetween++;
      if (isNew) this.#since = [...this.#imagesOf(point.sequence), ...this.#since.slice(-sinceMax)];
      this.#assertOf(durable, this.#imagesOf(point.sequence), `at ${point.sequence}`);
      return;
    }
    this.#counts.comparedWithin++;
    this.#assertOf(
      durable,
      [...this.#imagesOf(point.sequence), ...to],
      `from ${point.sequence} to ${point.toSequence}`,
    );
  }

  #imagesOf(sequence: number): Uint8Array<ArrayBuffer>[] {
    const image = this.#points.get(sequence);
    if (!image) throw new Error(`nobody knows the volume at ${sequence}`);
    return image.next ? [image.bytes, image.next] : [image.bytes];
  }

  #assertOf(durable: Uint8Array<ArrayBuffer>, images: Uint8Array<ArrayBuffer>[], when: string): void {
    let left = [...sectorsThatDiffer(durable, images[0]!)];
    for (const image of images.slice(1)) left = left.filter((sector) => !isSector(durable, image, sector));
    if (left.length === 0) return;
    throw new Error(
      `${when} the backing has something else in ${left.length} sectors, the first is ${left[0]} (block ${
        Math.floor(left[0]! / 8)
      })`,
    );
  }

  async #step(): Promise<void> {
    const random = this.#random;
    const kind = random.below(40);
    if (kind < (this.#isSlow && random.chance(0.5) ? 34 : 18)) return await this.#write();
    if (kind < 21) return await this.#zero();
    if (kind < 28) return await this.#flush();
    if (kind < 31) return await this.#events(random.below(60));
    if (kind < 34) return await this.#until(this.#machine.pass(random.below(3000)));
    if (kind < 36) return await this.#drain();
    if (kind < 37) {
      const bytes = new Uint8Array(blockBytes * 2);
      return await this.#until(
        this.#cache.read(random.below(this.#sizeBytes - bytes.length), bytes),
      );
    }
    if (kind < 38) {
      this.#failing = true;
      await this.#events(random.below(40));
      this.#failing = false;
      return;
    }
    if (kind < 39) {
      this.#counts.changedOrders++;
      const { writebackOrder } = this.#cache.tunables;
      this.#cache.tune({ writebackOrder: writebackOrder === "prefix" ? "elevator" : "prefix" });
      await this.#drain();
      return;
    }
    this.#cache.tune({ writebackStep: (16 << random.below(4)) * blockBytes });
  }

  #range(): { offset: number; length: number } {
    const random = this.#random;
    const unit = [sectorBytes, blockBytes, blockBytes][random.below(3)]!;
    const places = Math.ceil(this.#sizeBytes / unit);
    const offset = random.below(this.#isSlow ? Math.ceil(places / 3) : places) * unit;
    return { offset, length: Math.min((1 + random.below(12)) * unit, this.#sizeBytes - offset) };
  }

  async #change(change: () => Promise<void>, offset: number, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    const next = this.#image.slice();
    next.set(bytes, offset);
    this.#next = next;
    this.#since.push(next);
    for (let at = offset; at < offset + bytes.length; at += sectorBytes) {
      this.#touched.add(Math.floor(at / sectorBytes));
    }
    const done = change();
    this.#look();
    await this.#until(done);
    this.#image = next;
    this.#next = undefined;
    // What has been sealed by now has all of it, or is known already.
    this.#look();
  }

  async #write(): Promise<void> {
    const { offset, length } = this.#range();
    const bytes = new Uint8Array(length);
    this.#random.fill(bytes);
    await this.#change(() => this.#cache.write(offset, bytes), offset, bytes);
  }

  async #zero(): Promise<void> {
    const { offset, length } = this.#random.chance(0.1)
      ? { offset: 0, length: this.#sizeBytes }
      : this.#range();
    const trims = this.#random.chance(0.5);
    await this.#change(
      () => trims ? this.#cache.trim(offset, length) : this.#cache.zero(offset, length),
      offset,
      new Uint8Array(length),
    );
  }

  async #flush(): Promise<void> {
    await this.#until(this.#cache.flush());
    this.#flushed = this.#image;
    this.#touched.clear();
  }

  async #drain(): Promise<void> {
    await this.#until(this.#cache.drain());
    this.#counts.drains++;
    const durable = new Uint8Array(this.#sizeBytes);
    this.#machine.backingMedium.peekDurable(0, durable);
    this.#assertOf(durable, [this.#image], "after a drain");
    const { point } = this.#cache.status().writeback;
    if (point && (point.behindSeconds !== 0 || point.toSequence !== null)) {
      throw new Error(`a drain ends at the newest point, and this one says ${JSON.stringify(point)}`);
    }
    this.#flushed = this.#image;
    this.#touched.clear();
  }

  async #end(): Promise<void> {
    const way = this.#random.below(4);
    if (way === 0) {
      const isKnown = typeof this.#cache.status().writeback.point?.sequence === "number";
      await this.#until(this.#cache.close());
      this.#flushed = this.#image;
      this.#touched.clear();
      const { point } = this.#cache.status().writeback;
      if (point && isKnown && point.toSequence !== null && !this.#hasFailed) {
        throw new Error("a close ends in the middle of a step");
      }
    } else {
      if (way === 1) {
        void this.#cache.flush().catch(() => {});
        await this.#events(this.#random.below(30));
      }
      this.#counts.crashes++;
      if (this.#said?.toSequence) this.#counts.crashesWithin++;
      if (this.#random.chance(0.3)) this.#machine.kill();
      else this.#machine.powerCut(crashPolicies[this.#random.below(crashPolicies.length)]!);
    }
  }
}

function isSector(a: Uint8Array, b: Uint8Array, sector: number): boolean {
  const end = Math.min((sector + 1) * sectorBytes, a.length);
  for (let i = sector * sectorBytes; i < end; i++) if (a[i] !== b[i]) return false;
  return true;
}

function* sectorsThatDiffer(a: Uint8Array, b: Uint8Array): Generator<number> {
  for (let sector = 0; sector * sectorBytes < a.length; sector++) if (!isSector(a, b, sector)) yield sector;
}
