/**
 * The cache as a picture: what each part of the log holds, and where the backing device lacks something. Made for being
 * asked every second while the cache works.
 *
 * Invariants: what one call costs is bounded by the constants below, however large the devices are. Beyond them a call
 * looks at a part only and the next one goes on where it stopped, so that a very large map is some seconds old in places.
 * Only what is live and not dirty is estimated, from `liveProbes` slots in all; all else is counted.
 *
 * @module
 */

import type { Segments } from "../log/segments.ts";
import type { Superblock } from "../log/superblock.ts";
import type { Kernels } from "../wasm/kernels.ts";

/** Cells of the log's map; a cell is one segment, or several that follow each other. */
export const segmentCellsMax = 1024;
/** Cells of the backing's map; a cell is one block, or a range of them. */
export const backingCellsMax = 2048;
/** Segments that one call looks at. */
const segmentsPerCall = 1 << 18;
/** Blocks of the backing that one call looks at: 128 GiB, of which what is not dirty is skipped quickly. */
const blocksPerCall = 1 << 25;
/** Slots of the log whose index entry one call looks up. */
const liveProbes = 8192;
/** A share of 1, as a byte. */
const whole = 255;

/**
 * What `Cache.map()` returns. A map is one byte for each of its cells: the share of the cell that is in a state, from 0
 * (nothing) to 255 (all of it); what is more than nothing is never 0. A cell stands for `perCell` segments or blocks, the
 * last one for what is left.
 *
 * A call looks at one of a few parts at a time when a log has more than 262,144 segments, or a backing device more than
 * 128 GiB, so that its cost is bounded.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { formatCache, MemoryDevice, openCache } from "../../mod.ts";
 * const [fast, slow] = [new MemoryDevice(16 * 1024 * 1024), new MemoryDevice(64 * 1024 * 1024)];
 * await formatCache({ cache: fast, backing: slow });
 * const cache = await openCache({ cache: fast, backing: slow, tunables: { writeback: "off" } });
 * await cache.write(32 * 1024 * 1024, new Uint8Array(4096));
 *
 * const { segments, backing } = cache.map();
 * assert(segments.dirty[Math.floor(segments.head / segments.perCell)]! > 0);
 * assert(backing.dirty[Math.floor((32 * 256) / backing.perCell)]! > 0);
 * await cache.close();
 * ```
 */
export interface CacheMap {
  /** The log, in the order in which it lies on the cache device. */
  segments: {
    /** Segments of the log. */
    count: number;
    /** Blocks of 4096 bytes in a segment. */
    blocks: number;
    /** Segments in a cell. */
    perCell: number;
    /** The segment that is being filled. */
    head: number;
    /** The oldest one that is still needed. From here, upwards and around, to the head the log is in use; the rest is free. */
    tail: number;
    /** Blocks that the backing device lacks, or has and has not made durable yet. */
    dirty: Uint8Array<ArrayBuffer>;
    /** Newest versions of their blocks, which reads find here, dirty or not, in free segments too; estimated for a log of more than 32 MiB. */
    live: Uint8Array<ArrayBuffer>;
  };
  /** The backing device, in the order of its addresses. */
  backing: {
    /** Blocks of 4096 bytes. */
    blocks: number;
    /** Blocks in a cell. */
    perCell: number;
    /** Blocks that it lacks, zeroes included. */
    dirty: Uint8Array<ArrayBuffer>;
  };
}

/** What a map is made of. */
export interface MapSource {
  readonly kernels: Kernels;
  readonly segments: Segments;
}

/** How many of `count` things a cell stands for, so that there are at most `cellsMax`. */
export function perCellOf(count: number, cellsMax: number): number {
  return Math.ceil(count / cellsMax);
}

/** A share as a byte. */
function shareByte(part: number, all: number): number {
  return part === 0 ? 0 : Math.max(1, Math.round(Math.min(1, part / all) * whole));
}

/** Goes round a number of cells, some at each call. */
class Round {
  readonly #cells: number;
  readonly #perCall: number;
  #next = 0;

  constructor(cells: number, perCall: number) {
    this.#cells = cells;
    this.#perCall = Math.min(cells, Math.max(1, perCall));
  }

  each(visit: (cell: number) => void): void {
    for (let left = this.#perCall; left > 0; left--) {
      visit(this.#next);
      this.#next = this.#next + 1 === this.#cells ? 0 : this.#next + 1;
    }
  }
}

/** Draws the maps of one cache, again and again. */
export class MapMaker {
  readonly #source: MapSource;
  readonly #segmentsPerCell: number;
  readonly #blocksPerCell: number;
  readonly #probesPerCell: number;
  readonly #dirtySegments: Uint8Array<ArrayBuffer>;
  readonly #liveSegments: Uint8Array<ArrayBuffer>;
  readonly #dirtyBlocks: Uint8Array<ArrayBuffer>;
  readonly #segmentRound: Round;
  readonly #blockRound: Round;

  constructor(source: MapSource) {
    this.#source = source;
    const { count } = source.segments;
    this.#segmentsPerCell = perCellOf(count, segmentCellsMax);
    this.#blocksPerCell = perCellOf(source.kernels.dirty.length, backingCellsMax);
    const segmentCells = Math.ceil(count / this.#segmentsPerCell);
    const blockCells = Math.ceil(source.kernels.dirty.length / this.#blocksPerCell);
    this.#probesPerCell = Math.max(1, Math.floor(liveProbes / segmentCells));
    this.#dirtySegments = new Uint8Array(segmentCells);
    this.#liveSegments = new Uint8Array(segmentCells);
    this.#dirtyBlocks = new Uint8Array(blockCells);
    this.#segmentRound = new Round(segmentCells, Math.floor(segmentsPerCall / this.#segmentsPerCell));
    this.#blockRound = new Round(blockCells, Math.floor(blocksPerCall / this.#blocksPerCell));
  }

  /** The maps as they are now; the superblock tells of head and tail where nothing is written. */
  make(head: number | undefined, tail: number | undefined, superblock: Superblock): CacheMap {
    const { segments, kernels } = this.#source;
    this.#segmentRound.each((cell) => this.#lookAtSegments(cell));
    this.#blockRound.each((cell) => this.#lookAtBlocks(cell));
    return {
      segments: {
        count: segments.count,
        blocks: segments.blocks,
        perCell: this.#segmentsPerCell,
        head: head ?? this.#newest(superblock),
        tail: tail ?? segments.of(superblock.tail.slot),
        dirty: this.#dirtySegments.slice(),
        live: this.#liveSegments.slice(),
      },
      backing: {
        blocks: kernels.dirty.length,
        perCell: this.#blocksPerCell,
        dirty: this.#dirtyBlocks.slice(),
      },
    };
  }

  /** The segment that ends the log, where only the replay tells: what a crash left is not in the superblock. */
  #newest(superblock: Superblock): number {
    const { segments } = this.#source;
    let newest = segments.of(superblock.head.slot) % segments.count;
    for (let segment = 0; segment < segments.count; segment++) {
      if (segments.lastSequence[segment]! > segments.lastSequence[newest]!) newest = segment;
    }
    return newest;
  }

  #lookAtSegments(cell: number): void {
    const { segments, kernels } = this.#source;
    const first = cell * this.#segmentsPerCell;
    const end = Math.min(first + this.#segmentsPerCell, segments.count);
    let needed = 0;
    for (let segment = first; segment < end; segment++) needed += segments.live[segment]!;
    const slots = (end - first) * segments.blocks;
    const probes = Math.min(slots, this.#probesPerCell);
    let clean = 0;
    for (let i = 0; i < probes; i++) {
      const slot = first * segments.blocks + Math.floor((i + 0.5) * slots / probes);
      const block = kernels.reverse[slot]!;
      if (kernels.indexGet(block) === slot && !this.#isNeeded(block)) clean++;
    }
    this.#dirtySegments[cell] = shareByte(needed, slots);
    this.#liveSegments[cell] = Math.min(whole, this.#dirtySegments[cell]! + shareByte(clean, probes));
  }

  /** Whether a block counts among the segment's live slots. */
  #isNeeded(block: number): boolean {
    const { dirty, written, syncing } = this.#source.kernels;
    return dirty.test(block) || written.test(block) || syncing.test(block);
  }

  #lookAtBlocks(cell: number): void {
    const { dirty, zeroDirty } = this.#source.kernels;
    const start = cell * this.#blocksPerCell;
    const end = Math.min(start + this.#blocksPerCell, dirty.length);
    const count = dirty.countRange(start, end) + zeroDirty.countRange(start, end);
    this.#dirtyBlocks[cell] = shareByte(count, end - start);
  }
}
