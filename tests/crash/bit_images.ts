/**
 * Small caches of every kind whose content is known, divided into regions: what is demanded of a flipped bit depends on the
 * region.
 *
 * What is demanded, by the place of the bit:
 * - **live** (both superblocks, the checkpoint of a clean cache, every record from the tail up to the durable mark): `check`
 *   names the range; each sector reads right or as EIO, the backing ends up right or as it was; where `check` says that
 *   nothing is lost, everything reads right and is written back.
 * - **past the mark** (crash images only): the record and all behind it are dropped, the open says so, and the volume is what
 *   it was before that record. The one exception is the newest record's own header: with it, nothing is left that tells of it.
 * - **dead**: nothing is said, everything reads right and is written back right. Dead are: the second half of a superblock's
 *   second block; the checkpoint of a cache that was not closed in order; slots behind the tail (superseded records, which
 *   are on the backing), torn ones beyond the head, and a segment's last block that a record does not fit into.
 * - **idle** (dead slots without a header in them: never written, or data of superseded records): the same. Nobody looks at
 *   such a slot but to see whether a header is there, and no single flipped bit makes the magic of one, which is asserted; so
 *   only some bits are tried.
 * - **unread** (all the rest of the first MiB): no byte of it is ever read, which is asserted, so no bit of it matters.
 *
 * @module
 */

import type { Cache } from "../../mod.ts";
import { scanCache } from "../../src/cache/scan.ts";
import { decodeRecord, eachEntry, recordEntries } from "../../src/log/codec.ts";
import { checkpointOffset, recordMagic, superblockBytes, superblockOffsets } from "../../src/log/layout.ts";
import { SeededRandom } from "../../src/random.ts";
import { blockBytes, sectorBytes } from "../../src/units.ts";
import { Machine } from "../sim/machine.ts";
import type { Medium } from "../sim/medium.ts";
import { FlipDevice } from "./flip_device.ts";

/** The last block is short, on purpose. */
const backingBytes = 8 * blockBytes + 3 * sectorBytes;
const segmentBlocks = 4;
const segmentCount = 8;
const half = blockBytes / 2;

/** What is demanded of the bits of a region; a number: the sequence of the record past the mark that it belongs to. */
export type Expectation = "live" | "dead" | "idle" | "unread" | number;

/** A part of a cache device. */
export interface Region {
  name: string;
  /** Bytes [from, to) of the cache device. */
  from: number;
  to: number;
  expect: Expectation;
}

/** What clients wrote. What was not flushed was written in whole blocks, each once. */
interface History {
  flushed: Uint8Array;
  newest: Uint8Array;
}

/** A cache image whose content is known. */
export interface Image {
  name: string;
  cache: FlipDevice;
  backing: FlipDevice;
  clean: boolean;
  /** The regions, in order, without gaps. */
  regions: Region[];
  history: History;
  /** What the volume shows. */
  content: Uint8Array;
  /** What it shows when the log ends before the record of that sequence. */
  contentBefore(sequence: number): Uint8Array;
  /** The newest record of the log. */
  lastSequence: number;
}

/** The volume as it should be, beside a machine that makes it so. */
class Author {
  readonly machine: Machine;
  readonly random: SeededRandom;
  readonly content = new Uint8Array(backingBytes);
  /** What it was at the last flush. */
  flushed = new Uint8Array(backingBytes);
  cache!: Cache;

  constructor(seed: number) {
    this.random = new SeededRandom(seed);
    this.machine = new Machine({ backingBytes, segmentBlocks, segmentCount, seed });
  }

  async begin(): Promise<void> {
    await this.machine.format();
    this.random.fill(this.content);
    this.machine.backingMedium.poke(0, this.content);
    await this.open();
  }

  async open(writeback: "on" | "off" = "off"): Promise<void> {
    this.cache = await this.machine.open({ tunables: { writeback, writebackBatch: 1 } });
  }

  get dirtyBlocks(): number {
    return this.cache.status().cache.dirtyBlocks;
  }

  async close(): Promise<void> {
    await this.machine.run(this.cache.close());
    this.flushed = this.content.slice();
  }

  /** Writes random sectors. */
  async write(sector: number, count: number): Promise<void> {
    const bytes = new Uint8Array(count * sectorBytes);
    this.random.fill(bytes);
    this.content.set(bytes, sector * sectorBytes);
    await this.machine.run(this.cache.write(sector * sectorBytes, bytes));
  }

  async blank(kind: "zero" | "trim", block: number, count: number): Promise<void> {
    const [offset, length] = [block * blockBytes, count * blockBytes];
    this.content.fill(0, offset, offset + length);
    await this.machine.run(this.cache[kind](offset, length));
  }

  async flush(): Promise<void> {
    await this.machine.run(this.cache.flush());
    this.flushed = this.content.slice();
  }

  async drain(): Promise<void> {
    await this.machine.run(this.cache.drain());
  }

  image(name: string): Promise<Image> {
    return describe(
      name,
      new FlipDevice("cache", bytesOf(this.machine.cacheMedium)),
      new FlipDevice("backing", bytesOf(this.machine.backingMedium)),
      { flushed: this.flushed, newest: this.content },
    );
  }
}

function bytesOf(medium: Medium): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(medium.sizeBytes);
  medium.peek(0, bytes);
  return bytes;
}

/** Closed in order: full, partial, superseded, zeroed, trimmed and short blocks, dirty and clean ones, a skipped slot. */
async function cleanImage(): Promise<Image> {
  const author = new Author(1);
  await author.begin();
  await author.write(56, 8);
  await author.write(3, 3);
  await author.flush();
  await author.blank("trim", 2, 2);
  await author.write(32, 8);
  await author.flush();
  await author.close();
  // Some is written back, the lowest block first; it stays in the log, clean, as block 7 keeps the tail where it is.
  await author.open("on");
  const before = author.dirtyBlocks;
  for (let i = 0; i < 1000 && author.dirtyBlocks === before; i++) await author.machine.steps(1);
  await author.close();
  await author.open();
  await author.write(32, 8);
  await author.write(64, 3);
  await author.flush();
  await author.blank("zero", 5, 1);
  await author.flush();
  await author.close();
  return await author.image("clean");
}

/** Closed in order after more than a lap, so that older records lie behind the tail. */
async function lappedImage(): Promise<Image> {
  const author = new Author(2);
  await author.begin();
  for (let lap = 0; lap < segmentCount + 2; lap++) {
    await author.write(8 * (lap % 4), 24);
    await author.flush();
    await author.drain();
  }
  await author.write(40, 8);
  await author.flush();
  await author.write(17, 2);
  await author.flush();
  await author.close();
  return await author.image("lapped");
}

/** Killed: the last records are whole, and past the mark. */
async function crashedImage(): Promise<Image> {
  const author = new Author(3);
  await author.begin();
  await author.write(0, 8);
  await author.write(19, 2);
  await author.flush();
  await author.blank("trim", 3, 1);
  await author.write(32, 8);
  await author.flush();
  await author.write(8, 8);
  await author.flush();
  // Enough for some records more, each ended by the end of its segment and none by a flush.
  for (const block of [1, 2, 3, 5, 6, 7, 0]) await author.write(8 * block, 8);
  await author.machine.steps(40);
  author.machine.powerCut("all");
  return await author.image("crashed");
}

/** The power went while the last record was being written. */
async function tornImage(): Promise<Image> {
  const whole = await crashedImage();
  const cache = whole.cache.pristine.slice();
  const last = whole.regions.findLast(({ expect }) => typeof expect === "number")!;
  cache.fill(0, last.to - sectorBytes, last.to);
  return await describe("torn", new FlipDevice("cache", cache), whole.backing, whole.history);
}

/** All images. */
export async function allImages(): Promise<Image[]> {
  return [await cleanImage(), await lappedImage(), await crashedImage(), await tornImage()];
}

/** Finds the regions of a cache, and what the volume shows. */
async function describe(
  name: string,
  cache: FlipDevice,
  backing: FlipDevice,
  history: History,
): Promise<Image> {
  const scan = await scanCache(cache);
  const { superblock, walk } = scan;
  const { geometry } = superblock;
  const regions: Region[] = [];
  for (const [copy, offset] of superblockOffsets.entries()) {
    const entriesEnd = offset + superblockBytes - half;
    regions.push({ name: `superblock ${copy}`, from: offset, to: entriesEnd, expect: "live" });
    regions.push({
      name: `behind superblock ${copy}`,
      from: entriesEnd,
      to: offset + superblockBytes,
      expect: "dead",
    });
  }
  regions.push({
    name: "checkpoint",
    from: checkpointOffset,
    to: checkpointOffset + geometry.checkpointBytes,
    expect: superblock.clean ? "live" : "unread",
  });
  const covered = new Set<number>();
  const contents = [history.flushed];
  for (const { slot, sequence, dataCount } of scan.records) {
    const from = geometry.logOffset + slot * blockBytes;
    regions.push({
      name: `record ${sequence}`,
      from,
      to: from + (1 + dataCount) * blockBytes,
      expect: sequence <= walk.mark ? "live" : sequence,
    });
    for (let i = 0; i <= dataCount; i++) covered.add(slot + i);
    if (sequence <= walk.mark) continue;
    const content = contents.at(-1)!.slice();
    const header = decodeRecord(cache.pristine.slice(from, from + blockBytes), slot, superblock.uuid)!;
    for (const { block } of eachEntry(recordEntries(header))) {
      const [start, end] = [block * blockBytes, (block + 1) * blockBytes];
      content.set(history.newest.subarray(start, end), start);
    }
    contents.push(content);
  }
  for (let slot = 0; slot < geometry.slotCount; slot++) {
    if (covered.has(slot)) continue;
    const from = geometry.logOffset + slot * blockBytes;
    const isHeader = distance(cache.pristine.subarray(from, from + recordMagic.length), recordMagic) <= 1;
    regions.push({
      name: isHeader ? "header of no use any more" : "slot of no use",
      from,
      to: from + blockBytes,
      expect: isHeader ? "dead" : "idle",
    });
  }
  return {
    name,
    cache,
    backing,
    clean: superblock.clean,
    regions: filled(regions, cache.sizeBytes),
    history,
    content: contents.at(-1)!,
    contentBefore: (sequence) => contents[sequence - walk.mark - 1]!,
    lastSequence: scan.records.at(-1)!.sequence,
  };
}

/** Bits in which `bytes` differ from `text`. */
function distance(bytes: Uint8Array, text: string): number {
  let bits = 0;
  for (const [i, byte] of bytes.entries()) {
    for (let rest = byte ^ text.charCodeAt(i); rest > 0; rest &= rest - 1) bits++;
  }
  return bits;
}

/** The same regions in order, with the gaps between them named. */
function filled(regions: Region[], sizeBytes: number): Region[] {
  const all: Region[] = [];
  let end = 0;
  const gap = (to: number) => {
    if (to > end) all.push({ name: `bytes ${end} to ${to}, reserved`, from: end, to, expect: "unread" });
  };
  for (const region of regions.toSorted((a, b) => a.from - b.from)) {
    gap(region.from);
    all.push(region);
    end = region.to;
  }
  gap(sizeBytes);
  return all;
}
