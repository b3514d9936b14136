/**
 * Parts of the tiny devices whose content is noticed as one, and what the engine notices of each.
 *
 * A recovery does the same again when it notices the same. Most of what it reads it notices in full; but a header, a superblock
 * or a block of a record past the mark that fails its checksum is a bad one, and no byte of it matters any more. Whether it
 * fails is asked of the engine's own decoders, so that a fault planted into them is not hidden by this.
 *
 * Invariants: units do not overlap and cover both devices. Two contents of a unit with the same observation lead to the same
 * course; `deno task exhaust --unreduced` tries that against every single content.
 *
 * @module
 */

import { assert } from "../../src/errors.ts";
import { decodePrevious, decodeRecord, eachEntry, recordEntries } from "../../src/log/codec.ts";
import { carriesBlock, superblockBytes, superblockOffsets } from "../../src/log/layout.ts";
import { decodeSuperblock } from "../../src/log/superblock.ts";
import { blockBytes, mib, sectorBytes, sectorsPerBlock } from "../../src/units.ts";
import { crc32c } from "../../src/wasm/crc32c.ts";
import type { Contents } from "./tiny_disk.ts";
import { cacheSectors } from "./tiny_life.ts";
import { volumeSectors } from "./tiny_oracle.ts";

/** The device on which something lies. */
export type DeviceName = "cache" | "backing";

/** The first unit of the log: a unit is a block there. */
export const logUnit = mib / blockBytes;
/** The first unit of the backing device: a unit is a sector there. */
const backingUnit = cacheSectors / sectorsPerBlock;
/** Units of both devices; those in the middle of a superblock stay unused. */
export const unitCount = backingUnit + volumeSectors;
const superblockUnits = superblockOffsets.map((offset) => offset / blockBytes);
const superblockSectors = superblockBytes / sectorBytes;

/** The unit in which a sector lies. */
export function unitOf(device: DeviceName, sector: number): number {
  if (device === "backing") return backingUnit + sector;
  for (const unit of superblockUnits) {
    const first = unit * sectorsPerBlock;
    if (sector >= first && sector < first + superblockSectors) return unit;
  }
  return Math.floor(sector / sectorsPerBlock);
}

/** Where a unit lies. */
export interface Span {
  device: DeviceName;
  sector: number;
  count: number;
}

/** By unit. */
const spans: readonly Span[] = Array.from({ length: unitCount }, (_, unit) => {
  if (unit >= backingUnit) return { device: "backing", sector: unit - backingUnit, count: 1 };
  const count = superblockUnits.includes(unit) ? superblockSectors : sectorsPerBlock;
  return { device: "cache", sector: unit * sectorsPerBlock, count };
});

/** Where `unit` lies. */
export function spanOf(unit: number): Span {
  return spans[unit]!;
}

/** What is noticed of a unit that is read. */
export enum Look {
  /** All of it. */
  whole,
  /** The first half of a header if it is one; nothing of anything else. */
  header,
  /** All of a header if its second half is good; nothing of that if not. */
  second,
  superblock,
  /** All of it if it has the checksum that was expected. */
  data,
}

/** The observation of what counts for nothing. */
export const nothing = -1;

/** One content of one unit. */
export interface Content {
  /** The observation of all of it: two contents of a unit have the same exactly when they are the same. */
  readonly id: number;
  readonly unit: number;
  /** By sector. */
  readonly numbers: readonly number[];
  /** Observations, once they are known. */
  header: number | undefined;
  second: number | undefined;
  superblock: number | undefined;
  crc: number | undefined;
  /** Checksums of the blocks that it announces, if it is a header. */
  announces: number[] | undefined;
}

/** All contents that units were seen with. */
export class Units {
  readonly #contents: Contents;
  readonly #uuid: Uint8Array;
  readonly #known = new Map<string, Content>();
  /** First halves of headers. */
  readonly #halves = new Map<string, number>();

  constructor(contents: Contents, uuid: Uint8Array) {
    this.#contents = contents;
    this.#uuid = uuid;
  }

  /** Forgets all; nothing that was handed out may be used any more. */
  clear(): void {
    this.#known.clear();
    this.#halves.clear();
  }

  /** What a unit holds when its sectors hold `numbers`. */
  of(unit: number, numbers: readonly number[]): Content {
    const key = `${unit}:${numbers.join()}`;
    let content = this.#known.get(key);
    if (!content) {
      content = {
        id: this.#known.size,
        unit,
        numbers,
        header: undefined,
        second: undefined,
        superblock: undefined,
        crc: undefined,
        announces: undefined,
      };
      this.#known.set(key, content);
    }
    return content;
  }

  /** What a unit holds on a device that holds `numbers`. */
  on(unit: number, numbers: Int32Array): Content {
    const { sector, count } = spans[unit]!;
    return this.of(unit, Array.from(numbers.subarray(sector, sector + count)));
  }

  /** What is noticed of `content`; `crc` is what `Look.data` expects. */
  observe(content: Content, look: Look, crc: number): number {
    switch (look) {
      case Look.whole:
        return content.id;
      case Look.header:
        return content.header ??= this.#header(content);
      case Look.second:
        return content.second ??= decodePrevious(this.#bytesOf(content)) ? content.id : nothing;
      case Look.superblock:
        return content.superblock ??= this.#superblock(content);
      case Look.data:
        return (content.crc ??= crc32c(this.#bytesOf(content))) === crc ? content.id : nothing;
    }
  }

  #bytesOf({ numbers }: Content): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(numbers.length * sectorBytes);
    for (const [i, number] of numbers.entries()) bytes.set(this.#contents.bytesOf(number), i * sectorBytes);
    return bytes;
  }

  #header(content: Content): number {
    const header = decodeRecord(this.#bytesOf(content), content.unit - logUnit, this.#uuid);
    if (!header) return nothing;
    content.announces = [];
    for (const { kind, crc } of eachEntry(recordEntries(header))) {
      if (carriesBlock(kind)) content.announces.push(crc);
    }
    const half = `${content.unit}:${content.numbers.slice(0, sectorsPerBlock / 2).join()}`;
    let place = this.#halves.get(half);
    if (place === undefined) this.#halves.set(half, place = this.#halves.size);
    return nothing - 1 - place;
  }

  #superblock(content: Content): number {
    const copy = superblockUnits.indexOf(content.unit);
    assert(copy >= 0);
    const decoded = decodeSuperblock(this.#bytesOf(content), copy);
    if (!("problem" in decoded)) return content.id;
    // People are told of every damage in its own words, and that is all that differs.
    return decoded.problem === "torn" ? nothing : content.id;
  }
}
