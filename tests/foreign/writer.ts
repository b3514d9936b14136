/**
 * Writes caches as dm-writeboost does, from the facts alone, and knows what they hold. A sector's content is its tag, a number
 * that grows with every write; 0 is what the backing device held at first.
 *
 * @module
 */

import {
  lastWritebackOffset,
  magic,
  type Metablock,
  slotOf,
  slotOffset,
} from "../../src/foreign/dm_writeboost_layout.ts";
import type { SeededRandom } from "../../src/random.ts";
import { blockBytes, fullMask, sectorBytes, sectorsPerBlock } from "../../src/units.ts";
import { encodeSegment } from "../sim/writeboost_format.ts";

/** Blocks of the backing device. */
export const blocks = 24;
/** Most blocks of a segment. */
const segmentBlocksMax = 6;

/** A segment as it was written. */
export interface Written {
  id: number;
  bytes: Uint8Array<ArrayBuffer>;
  metablocks: Metablock[];
  /** The tags of its blocks, eight each. */
  tags: number[][];
}

/** The content of a sector with this tag. */
export function sectorOf(sector: number, tag: number): Uint8Array {
  const words = new Uint32Array(sectorBytes / 4);
  for (let i = 0; i < words.length; i += 2) {
    words[i] = sector;
    words[i + 1] = tag;
  }
  return new Uint8Array(words.buffer);
}

/** The content of a device with these tags. */
export function imageOf(tags: readonly number[]): Uint8Array<ArrayBuffer> {
  const image = new Uint8Array(tags.length * sectorBytes);
  for (const [sector, tag] of tags.entries()) image.set(sectorOf(sector, tag), sector * sectorBytes);
  return image;
}

/** The tags of a device's content; -1 where a sector is nothing that was ever written. */
export function tagsOf(image: Uint8Array): number[] {
  return Array.from({ length: image.length / sectorBytes }, (_, sector) => {
    const bytes = image.subarray(sector * sectorBytes, (sector + 1) * sectorBytes);
    const tag = new DataView(bytes.buffer, bytes.byteOffset).getUint32(4, true);
    return sectorOf(sector, tag).every((byte, i) => byte === bytes[i]) ? tag : -1;
  });
}

/** A cache with its backing device, written by rules that the module follows. */
export class CacheWriter {
  readonly slotCount: number;
  readonly random: SeededRandom;
  readonly backing: number[] = new Array(blocks * sectorsPerBlock).fill(0);
  readonly content: number[] = new Array(blocks * sectorsPerBlock).fill(0);
  /** The content before the newest segment. */
  contentBefore: number[] = [];
  readonly segments: Written[] = [];
  /** All segments up to this one are on the backing device. */
  writtenBack = 0;
  readonly image: Uint8Array<ArrayBuffer>;
  #tag = 0;

  constructor(slotCount: number, random: SeededRandom) {
    this.slotCount = slotCount;
    this.random = random;
    this.image = new Uint8Array(slotOffset(slotCount));
    new DataView(this.image.buffer).setUint32(0, magic, true);
  }

  get newest(): number {
    return this.segments.length;
  }

  /** The segments that are in the log, oldest first. */
  get live(): Written[] {
    return this.segments.slice(-this.slotCount);
  }

  /** Makes the next segment, without putting it anywhere. */
  make(): Written {
    const { random } = this;
    const count = random.below(segmentBlocksMax + 1);
    const chosen = new Set<number>();
    while (chosen.size < count) chosen.add(random.below(blocks));
    const written: Written = { id: this.newest + 1, bytes: new Uint8Array(), metablocks: [], tags: [] };
    for (const block of chosen) {
      const isCached = this.live.some(({ metablocks }) => metablocks.some((one) => one.block === block));
      const isCopy = !isCached && random.chance(0.3);
      const dirtyBits = isCopy ? 0 : random.chance(0.5) ? fullMask : 1 + random.below(255);
      const from = block * sectorsPerBlock;
      // Sectors that do not count hold stale bytes.
      const tags = Array.from(
        { length: sectorsPerBlock },
        (_, i) =>
          isCopy ? this.content[from + i]! : dirtyBits >> i & 1 ? ++this.#tag : random.below(this.#tag + 1),
      );
      written.metablocks.push({ block, dirtyBits });
      written.tags.push(tags);
    }
    const data = written.tags.map((tags, i) => {
      const from = written.metablocks[i]!.block * sectorsPerBlock;
      const bytes = new Uint8Array(blockBytes);
      for (const [j, tag] of tags.entries()) bytes.set(sectorOf(from + j, tag), j * sectorBytes);
      return bytes;
    });
    return { ...written, bytes: encodeSegment(written.id, written.metablocks, data) };
  }

  /** What must happen before a segment may be written. */
  makeRoom(): void {
    this.writeBack(this.newest + 1 - this.slotCount);
  }

  /** Writes a segment. */
  append(): void {
    this.makeRoom();
    const written = this.make();
    this.contentBefore = [...this.content];
    for (const [i, { block, dirtyBits }] of written.metablocks.entries()) {
      // The module never merges two versions in the log: what the new one lacks of the old goes to the backing device.
      if (dirtyBits !== 0 && dirtyBits !== fullMask) this.#writeBackBlock(block);
      eachSector(block, dirtyBits, (sector, j) => this.content[sector] = written.tags[i]![j]!);
    }
    this.segments.push(written);
    this.put(written);
  }

  /** Puts a segment's bytes into its slot, whatever was there. */
  put(written: Written): void {
    this.image.set(written.bytes, slotOffset(slotOf(written.id, this.slotCount)));
  }

  #writeBackBlock(block: number): void {
    for (const { id, metablocks, tags } of this.live) {
      if (id <= this.writtenBack) continue;
      for (const [i, one] of metablocks.entries()) {
        if (one.block !== block) continue;
        eachSector(block, one.dirtyBits, (sector, j) => this.backing[sector] = tags[i]![j]!);
      }
    }
  }

  /** Writes back all segments up to `id`. */
  writeBack(id: number): void {
    for (; this.writtenBack < id; this.writtenBack++) {
      const { metablocks, tags } = this.segments[this.writtenBack]!;
      for (const [i, { block, dirtyBits }] of metablocks.entries()) {
        eachSector(block, dirtyBits, (sector, j) => {
          this.backing[sector] = Math.max(this.backing[sector]!, tags[i]![j]!);
        });
      }
    }
  }

  /** Notes up to which segment all is written back. */
  record(id: number): void {
    new DataView(this.image.buffer).setBigUint64(lastWritebackOffset, BigInt(id), true);
  }
}

function eachSector(block: number, mask: number, action: (sector: number, index: number) => void): void {
  for (let i = 0; i < sectorsPerBlock; i++) if (mask >> i & 1) action(block * sectorsPerBlock + i, i);
}
