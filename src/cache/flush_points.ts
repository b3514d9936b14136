/**
 * Flush points: the records at whose end a client had asked for a flush, and what changed between them.
 *
 * A flush that finds everything in records already, because the engine had synced by itself, adds none.
 *
 * @module
 */

import type { BlockDevice } from "../device/block_device.ts";
import { eachEntry, type EntryList, type RecordHeader } from "../log/codec.ts";
import { entryKind, recordFlagFlushPoint } from "../log/layout.ts";
import { LogReader } from "../log/reader.ts";
import { type RecoverySink, type Walk, walkLog } from "../log/recovery.ts";
import { formatUuid, type Superblock } from "../log/superblock.ts";
import { blockBytes, sectorBytes } from "../units.ts";
import { historyFloor } from "./history.ts";
import { openTarget, readSuperblocks } from "./pair.ts";

/** Flush points that are listed when nobody says how many. */
export const pointsStandard = 100;

/** A moment that can be looked at. Blocks are 4096 bytes. */
export interface FlushPoint {
  /** Its name: the sequence of the record that ends there. */
  sequence: number;
  /** When: ISO 8601, UTC, by the clock of the machine that wrote it. */
  flushedAt: string;
  /** Whether the volume can be had as it was then. */
  servable: boolean;
  /** Blocks written since the flush point before it, whole or in part; each as often as the log holds it. */
  blocks: number;
  /** Bytes of them that were written; sectors of 512 count as a whole. */
  bytes: number;
  /** Ranges trimmed or zeroed since then. */
  trims: number;
  /** Bytes in those ranges. */
  trimmedBytes: number;
}

/** What of the past a cache holds. */
export interface HistoryReport {
  /** The uuid of the cache. */
  uuid: string;
  /** Nothing is written back, so no flush point is lost but by a full log. */
  held: boolean;
  /** The oldest sequence of which an image can be had. */
  oldestSequence: number;
  /** The sequence of the oldest record in the log. */
  tailSequence: number;
  /** The sequence that the next record gets, or has. */
  headSequence: number;
  /** Flush points in the log that are older than those listed. */
  leftOut: number;
  /** A record of the log is lost, so what is listed may lack something. */
  damaged: boolean;
  /** The newest flush points, oldest first. */
  points: FlushPoint[];
}

/** Collects flush points on a walk of the log. */
export class FlushPointCollector implements RecoverySink {
  readonly #limit: number;
  #points: Omit<FlushPoint, "servable">[] = [];
  #count = 0;
  #flushedMs = -1;
  #blocks = 0;
  #bytes = 0;
  #trims = 0;
  #trimmedBytes = 0;

  /** `limit`: how many of the newest are kept; 0 for all. */
  constructor(limit: number) {
    this.#limit = limit === 0 ? Infinity : limit;
  }

  placed(): void {}
  lost(): void {}
  loseAll(): void {}

  header({ flags, sealedMs }: RecordHeader): void {
    this.#flushedMs = (flags & recordFlagFlushPoint) === 0 ? -1 : sealedMs;
  }

  apply(entries: EntryList, _slot: number, sequence: number, rebuilt: boolean): void {
    // Of a record whose header is lost nobody knows whether it ended with a flush.
    const flushedMs = rebuilt ? -1 : this.#flushedMs;
    for (const entry of eachEntry(entries)) {
      if (entry.kind === entryKind.data) {
        this.#blocks++;
        for (let mask = entry.mask; mask !== 0; mask &= mask - 1) this.#bytes += sectorBytes;
      } else if (entry.kind === entryKind.zero || entry.kind === entryKind.trim) {
        this.#trims++;
        this.#trimmedBytes += entry.count * blockBytes;
      }
    }
    if (flushedMs < 0) return;
    this.#points.push({
      sequence,
      flushedAt: new Date(Math.min(flushedMs, 8.64e15)).toISOString(),
      blocks: this.#blocks,
      bytes: this.#bytes,
      trims: this.#trims,
      trimmedBytes: this.#trimmedBytes,
    });
    this.#count++;
    this.#blocks =
      this.#bytes =
      this.#trims =
      this.#trimmedBytes =
        0;
    if (this.#points.length >= 2 * this.#limit) this.#points = this.#points.slice(-this.#limit);
  }

  /** The newest, oldest first. */
  points(floor: number): FlushPoint[] {
    const newest = this.#limit === Infinity ? this.#points : this.#points.slice(-this.#limit);
    return newest.map(({ sequence, flushedAt, ...changes }) => ({
      sequence,
      flushedAt,
      servable: sequence >= floor,
      ...changes,
    }));
  }

  /** How many there are in all. */
  get count(): number {
    return this.#count;
  }
}

/** What to list. */
export interface HistoryOptions {
  /** How many of the newest flush points; 0 for all. By default 100. */
  limit?: number;
}

/** Lists the flush points of a log that nobody changes, or, with `until`, up to a record that is durable. */
export async function listPoints(
  reader: LogReader,
  superblock: Superblock,
  options: HistoryOptions,
  until?: number,
): Promise<{ collector: FlushPointCollector; walk: Walk }> {
  const collector = new FlushPointCollector(options.limit ?? pointsStandard);
  const walk = await walkLog(reader, superblock, collector, until);
  return { collector, walk };
}

/** Puts a report together. */
export function historyReport(
  superblock: Superblock,
  collector: FlushPointCollector,
  walk: Walk,
  facts: { held: boolean; floor: number; head: number },
): HistoryReport {
  const points = collector.points(facts.floor);
  return {
    uuid: formatUuid(superblock.uuid),
    held: facts.held,
    oldestSequence: facts.floor,
    tailSequence: superblock.tail.sequence,
    headSequence: facts.head,
    leftOut: collector.count - points.length,
    damaged: walk.gaps.some(({ lost }) => lost),
    points,
  };
}

/**
 * Lists the flush points of a cache that is not being served, and changes nothing. It reads superblocks and record headers.
 *
 * A path is opened, which waits for nobody; a device of your own stays open.
 *
 * @throws {RefusedError} when it is no cache of nbdboost, of a newer format, or in use
 * @throws {UsageError} when there is no such file or device
 * @throws {DeviceError} when the device cannot be read
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { formatCache, listHistory, openCache } from "../../mod.ts";
 * const directory = await Deno.makeTempDir();
 * const pair = { cache: `${directory}/cache.nbb`, backing: `${directory}/disk.img` };
 * await Deno.writeFile(pair.backing, new Uint8Array(1024 * 1024));
 * await formatCache({ ...pair, cacheSize: 8 * 1024 * 1024 });
 * const cache = await openCache(pair);
 * await cache.history.hold();
 * await cache.write(0, new Uint8Array(4096).fill(1), { fua: true });
 * await cache.write(0, new Uint8Array(4096).fill(2), { fua: true });
 * await cache.close();
 *
 * const { held, points: [first, second] } = await listHistory({ cache: pair.cache });
 * assert(held && first!.servable && first!.blocks === 1 && second!.sequence > first!.sequence);
 * const past = await openCache({ ...pair, readOnly: true, at: first!.sequence });
 * const bytes = new Uint8Array(4096);
 * await past.read(0, bytes);
 * assert(bytes[0] === 1);
 * await past.close();
 * await Deno.remove(directory, { recursive: true });
 * ```
 */
export async function listHistory(
  options: HistoryOptions & {
    /** The cache device: a path, or a device of your own. */
    cache: string | BlockDevice;
  },
): Promise<HistoryReport> {
  const device = await openTarget(options.cache, false);
  try {
    const { superblock } = await readSuperblocks(device);
    const reader = new LogReader(device, superblock.geometry, superblock.uuid);
    // What cannot be read is told of, not a reason to tell nothing.
    reader.acceptUnreadable = true;
    const { collector, walk } = await listPoints(reader, superblock, options);
    const head = walk.head.sequence;
    return historyReport(superblock, collector, walk, {
      held: superblock.history.held,
      floor: historyFloor(superblock, head, false),
      head,
    });
  } finally {
    if (typeof options.cache === "string") await device.close();
  }
}
