/**
 * Decides, sector by sector, which segment of a dm-writeboost cache holds the newest content.
 *
 * Invariants: each sector is written from one segment at most, the newest that holds it; one that a lost segment above it
 * claims is lost, not written; clean copies are never written, but hide what is older.
 *
 * @module
 */

import { blockBytes, fullMask, sectorBytes, sectorsPerBlock } from "../units.ts";
import { type EntryTable, type Piece, PieceList } from "./dm_writeboost_entries.ts";
import type { Arrangement, Layer } from "./dm_writeboost_order.ts";

/** Bytes of the volume. */
export interface ByteRange {
  /** Where they begin. */
  offset: number;
  /** How many they are. */
  length: number;
}

/** Blocks of one page of masks. */
const pageBlocks = 4096;

/** A bit mask of sectors for each block; takes memory only where blocks are. */
export class SectorMasks {
  readonly #pages = new Map<number, Uint8Array>();
  #blocks = 0;

  get(block: number): number {
    return this.#pages.get(Math.floor(block / pageBlocks))?.[block % pageBlocks] ?? 0;
  }

  add(block: number, mask: number): void {
    if (mask === 0) return;
    const number = Math.floor(block / pageBlocks);
    let page = this.#pages.get(number);
    if (!page) this.#pages.set(number, page = new Uint8Array(pageBlocks));
    const old = page[block % pageBlocks]!;
    if (old === 0) this.#blocks++;
    page[block % pageBlocks] = old | mask;
  }

  /** How many blocks have a bit set. */
  get blocks(): number {
    return this.#blocks;
  }

  /** The sectors that are not set, of the first `sizeBytes` bytes, in order, merged. */
  gaps(sizeBytes: number): ByteRange[] {
    const gaps: ByteRange[] = [];
    let end = 0;
    for (const { offset, length } of this.ranges()) {
      // A damaged number may name a block far behind the device's end.
      if (offset >= sizeBytes) break;
      if (offset > end) gaps.push({ offset: end, length: offset - end });
      end = offset + length;
    }
    if (sizeBytes > end) gaps.push({ offset: end, length: sizeBytes - end });
    return gaps;
  }

  /** The sectors in order, merged. */
  ranges(): ByteRange[] {
    const ranges: ByteRange[] = [];
    for (const [number, page] of [...this.#pages].sort(([a], [b]) => a - b)) {
      for (let bit = 0; bit < pageBlocks * sectorsPerBlock; bit++) {
        if ((page[bit >> 3]! >> (bit & 7) & 1) === 0) continue;
        const offset = number * pageBlocks * blockBytes + bit * sectorBytes;
        const last = ranges.at(-1);
        if (last && last.offset + last.length === offset) last.length += sectorBytes;
        else ranges.push({ offset, length: sectorBytes });
      }
    }
    return ranges;
  }
}

/** What to do. */
export interface Plan {
  /** Newest content that the backing device lacks, as far as anybody can tell. */
  writes: PieceList;
  /** The newest that is left, below segments of which nobody knows what they held. */
  doubtful: PieceList;
  /** How many such segments there are. */
  unknown: number;
  /** The same, with those of which it is not certain. */
  unsure: number;
  /** The sectors that they cannot have held newer data of: newer segments hold those. */
  certain: SectorMasks;
  /** Should be on the backing device already. */
  settled: PieceList;
  /** Of these sectors nothing is left that could be the newest. */
  lost: SectorMasks;
  /** Sectors that lie behind the end of the backing device. */
  outside: SectorMasks;
}

/** Plans for a backing device of `backingBytes`; infinity when there is none to ask. */
export function planVersions(arrangement: Arrangement, table: EntryTable, backingBytes: number): Plan {
  const planner = new Planner(table, backingBytes);
  for (const layer of arrangement.layers) {
    if (layer.id <= arrangement.writtenBack) planner.settle(layer);
    else if (layer.role === "unknown") planner.miss();
    else if (layer.role === "lost") planner.lose(layer);
    else planner.apply(layer);
  }
  return planner.plan;
}

class Planner {
  readonly plan: Plan = {
    writes: new PieceList(),
    doubtful: new PieceList(),
    unknown: 0,
    unsure: 0,
    certain: new SectorMasks(),
    settled: new PieceList(),
    lost: new SectorMasks(),
    outside: new SectorMasks(),
  };
  readonly #covered = new SectorMasks();
  /** The backing device may hold what nobody knows of: that it differs from what is older says nothing. */
  #isBlind = false;
  readonly #table: EntryTable;
  readonly #backingBytes: number;

  constructor(table: EntryTable, backingBytes: number) {
    this.#table = table;
    this.#backingBytes = backingBytes;
  }

  miss(): void {
    this.plan.unknown++;
    this.plan.unsure++;
  }

  lose(layer: Layer): void {
    if (layer.isUnsure) this.plan.unsure++;
    this.#each(layer, (_entry, block, dirtyBits) => {
      this.plan.lost.add(block, this.#inside(block, this.#take(block, dirtyBits)));
    });
  }

  apply(layer: Layer): void {
    this.#each(layer, (entry, block, dirtyBits) => {
      const isCopy = dirtyBits === 0;
      const taken = this.#take(block, isCopy ? fullMask : dirtyBits);
      const mask = this.#inside(block, taken);
      if (!isCopy) {
        this.plan.outside.add(block, taken & ~mask);
        this.plan.lost.add(block, taken & ~mask);
      }
      if (mask === 0) return;
      const piece = { block, mask, slot: layer.slot, entry };
      // Below an unknown segment a difference says nothing about a copy.
      if (isCopy) this.#expect(piece);
      else if (this.plan.unknown > 0) this.plan.doubtful.add(piece);
      else this.plan.writes.add(piece);
    });
  }

  /** A segment that is on the backing device, whole or not. */
  settle(layer: Layer): void {
    if (layer.role === "unknown" || layer.isUnsure) this.#isBlind = true;
    this.#each(layer, (entry, block, dirtyBits) => {
      const mask = this.#inside(block, this.#take(block, dirtyBits === 0 ? fullMask : dirtyBits));
      if (mask !== 0 && layer.role === "apply") this.#expect({ block, mask, slot: layer.slot, entry });
    });
  }

  #each({ entries }: Layer, visit: (entry: number, block: number, dirtyBits: number) => void): void {
    const end = entries.first + entries.count;
    for (let entry = entries.first; entry < end; entry++) {
      visit(entry, this.#table.block(entry), this.#table.dirtyBits(entry));
    }
  }

  #expect(piece: Piece): void {
    if (this.plan.unknown === 0 && !this.#isBlind) this.plan.settled.add(piece);
  }

  /** The sectors of `mask` that no newer segment holds; they are taken now. */
  #take(block: number, mask: number): number {
    const rest = mask & ~this.#covered.get(block);
    this.#covered.add(block, rest);
    if (this.plan.unsure === 0) this.plan.certain.add(block, rest);
    return rest;
  }

  /** Those of `mask` that the backing device has. */
  #inside(block: number, mask: number): number {
    const sectors = (this.#backingBytes - block * blockBytes) / sectorBytes;
    return sectors >= sectorsPerBlock ? mask : sectors <= 0 ? 0 : mask & ((1 << sectors) - 1);
  }
}
