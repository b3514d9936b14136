/**
 * Writes to a small cache, and keeps what its volume must show beside it.
 *
 * @module
 */

import { type Cache, DeviceError, openCache } from "../../mod.ts";
import { formatDevices } from "../../src/cache/format.ts";
import { scanCache } from "../../src/cache/scan.ts";
import type { Tunables } from "../../src/cache/tunables.ts";
import type { Clock } from "../../src/clock.ts";
import { SeededRandom } from "../../src/random.ts";
import { blockBytes, mib, sectorBytes } from "../../src/units.ts";
import { assert } from "../assert.ts";
import { FlipDevice } from "./flip_device.ts";

/** The last block is short, on purpose. */
export const backingBytes = 8 * blockBytes + 3 * sectorBytes;
const segmentBlocks = 4;
/** The fewest that the format allows: what is not used only costs time. */
const segmentCountMin = 6;
/** Microtask turns in which all that is under way ends, as these devices never wait. */
const turns = 1000;

/** Nothing happens by itself, and it is always the same moment. */
export const stoppedClock: Clock = {
  monotonicMs: () => 0,
  wallMs: () => 1_735_689_600_000,
  after: () => () => {},
};

/** The volume as it was at a flush point. */
export interface PastPoint {
  sequence: number;
  content: Uint8Array<ArrayBuffer>;
}

/** What an author's cache is made of. */
export interface AuthorOptions {
  mirrored?: boolean;
  segmentCount?: number;
}

/** The volume as it should be, beside a cache that makes it so. */
export class Author {
  readonly legs: FlipDevice[];
  readonly backing: FlipDevice;
  readonly content = new Uint8Array(backingBytes);
  /** What it was at the last flush. */
  flushed = new Uint8Array(backingBytes);
  /** Flush points since history is held. */
  readonly past: PastPoint[] = [];
  /** Sectors that are lost for good. */
  readonly lost = new Set<number>();
  readonly #random: SeededRandom;
  cache!: Cache;

  private constructor(seed: number, { mirrored = false, segmentCount = segmentCountMin }: AuthorOptions) {
    this.#random = new SeededRandom(seed);
    const cacheBytes = mib + segmentBlocks * segmentCount * blockBytes;
    this.legs = ["cache", "mirror"].slice(0, mirrored ? 2 : 1)
      .map((name) => new FlipDevice(name, new Uint8Array(cacheBytes)));
    this.#random.fill(this.content);
    this.backing = new FlipDevice("backing", this.content.slice());
  }

  /** Formats a cache and opens it. */
  static async begin(seed: number, options: AuthorOptions = {}): Promise<Author> {
    const author = new Author(seed, options);
    const [cache, mirror] = author.legs;
    const random = (into: Uint8Array) => author.#random.fill(into);
    await formatDevices(cache!, author.backing, {
      segmentBlocks,
      clock: stoppedClock,
      random,
      ...(mirror ? { mirror } : {}),
    });
    await author.open();
    return author;
  }

  async open(tunables: Partial<Tunables> = {}): Promise<void> {
    const [cache, mirror] = this.legs;
    this.cache = await openCache({
      cache: cache!,
      ...(mirror ? { mirror } : {}),
      backing: this.backing,
      clock: stoppedClock,
      random: (into) => this.#random.fill(into),
      tunables: { writeback: "off", ...tunables },
    });
  }

  async close(): Promise<void> {
    await this.cache.close();
    this.flushed = this.content.slice();
  }

  /** Closes, and opens again. */
  async reopen(tunables: Partial<Tunables> = {}): Promise<void> {
    await this.close();
    await this.open(tunables);
  }

  /** Writes random sectors. */
  async write(sector: number, count: number): Promise<void> {
    const bytes = new Uint8Array(count * sectorBytes);
    this.#random.fill(bytes);
    this.content.set(bytes, sector * sectorBytes);
    await this.cache.write(sector * sectorBytes, bytes);
  }

  async blank(kind: "zero" | "trim", block: number, count: number): Promise<void> {
    const [offset, length] = [block * blockBytes, count * blockBytes];
    this.content.fill(0, offset, offset + length);
    await this.cache[kind](offset, length);
  }

  async flush(): Promise<void> {
    await this.cache.flush();
    this.flushed = this.content.slice();
    if (!this.cache.status().history.held) return;
    this.past.push({ sequence: this.cache.status().cache.durableSequence, content: this.flushed });
  }

  /** Lets what is under way end. */
  async settle(): Promise<void> {
    for (let i = 0; i < turns; i++) await null;
  }

  /** Rots the only copy of a block by two bits, so that no one bit heals it, which the newest record holds alone, and lets the cache write down that it is lost. */
  async lose(block: number): Promise<void> {
    await this.close();
    const { records, superblock } = await scanCache(this.legs[0]!);
    const at = superblock.geometry.logOffset + (records.at(-1)!.slot + 1) * blockBytes;
    for (const leg of this.legs) leg.bytes[at + 77]! ^= 0x14;
    await this.open();
    const from = block * blockBytes;
    const failure = await this.cache.read(from, new Uint8Array(blockBytes)).catch((error) => error);
    assert(failure instanceof DeviceError && failure.code === "EIO", "the block is lost");
    for (let i = 0; i < blockBytes / sectorBytes; i++) this.lost.add(from / sectorBytes + i);
    // Where nothing can be read, the backing keeps what it has.
    this.content.set(this.backing.bytes.subarray(from, from + blockBytes), from);
    await this.flush();
  }
}
