/**
 * The map of a cache's linear memory: which region lies where. Sized once, when the cache is opened; the memory
 * never grows afterwards, because growing detaches the views that I/O is using.
 *
 * ```text
 * 0          statics of the kernels (tables)      reservedBytes
 * scratch    64 KiB, for checksums of foreign bytes
 * entries    previous record's entry list         4 KiB
 * known      256 bytes, by slot in the open record: whether its checksum is in crcs
 * buffers    bufferCount segments of RAM          the open record lives in one of these
 * staging    stagingBlocks blocks                 write-back
 * reads      readSlots blocks                     reads under way
 * lent       lentBytes                            what connections receive and send
 * plan       2 x planEntries u64                  sort keys and their scratch
 * table      open-addressing table                4 bytes an entry, load <= 0.85
 * reverse    slot -> block                        4 bytes a slot
 * crcs       slot -> CRC-32C                      4 bytes a slot
 * masks      slot -> sector mask                  1 byte a slot
 * bitmaps    dirty, zeroDirty, written, syncing   two-level, over the backing's blocks
 * ```
 *
 * @module
 */

import { UsageError } from "../errors.ts";
import { blockBytes, gib, roundUp } from "../units.ts";

/** What the memory must hold. */
export interface MemoryPlan {
  /** Blocks of the log region; slots of the index. */
  slotCount: number;
  /** Blocks of the backing device. */
  backingBlocks: number;
  /** Blocks of a segment. */
  segmentBlocks: number;
  /** Segments that are held in RAM. */
  bufferCount: number;
  /** Blocks of the write-back staging area; also the most entries of a plan. */
  stagingBlocks: number;
  /** Blocks that may be read at once without a promise. */
  readSlots?: number;
  /** Bytes of buffers for connections. */
  lentBytes?: number;
}

/** A two-level bitmap's place: one bit an item, and one summary bit for each 64 of them. */
export interface BitmapPlace {
  bits: number;
  summary: number;
  length: number;
}

/** Byte offsets into the memory. */
export interface MemoryMap {
  scratch: number;
  entries: number;
  known: number;
  buffers: number;
  staging: number;
  reads: number;
  lent: number;
  plan: number;
  planScratch: number;
  table: number;
  tableLength: number;
  reverse: number;
  crcs: number;
  masks: number;
  dirty: BitmapPlace;
  zeroDirty: BitmapPlace;
  written: BitmapPlace;
  syncing: BitmapPlace;
  totalBytes: number;
}

/** Bytes at the start of the memory that belong to the kernels themselves (`--memoryBase` and tables). */
export const reservedBytes = 65536;
/** Bytes of the scratch region. */
export const scratchBytes = 65536;
/** Which bits of a slot choose its byte of the `known` region: more blocks than a record has. */
export const knownMask = 255;
/** Bytes of a WebAssembly page. */
export const pageBytes = 65536;
/** Most memory that 32-bit WebAssembly can address, less a page so that no end of a region wraps to 0. */
export const memoryBytesMax = 4 * gib - pageBytes;
/** The table is at most this full: beyond it linear probing gets long. */
export const tableLoadMax = 0.85;

/** Lays out the memory. Throws `UsageError` when it would not fit into 4 GiB. */
export function planMemory(plan: MemoryPlan): MemoryMap {
  let next = 0;
  const take = (bytes: number, align = 64): number => {
    const start = roundUp(next, align);
    next = start + bytes;
    return start;
  };
  const bitmap = (length: number): BitmapPlace => {
    const words = Math.ceil(length / 64);
    return { bits: take(words * 8), summary: take(Math.ceil(words / 64) * 8), length };
  };
  take(reservedBytes);
  const tableLength = Math.ceil(plan.slotCount / tableLoadMax) + 8;
  const map: MemoryMap = {
    scratch: take(scratchBytes, blockBytes),
    entries: take(blockBytes, blockBytes),
    known: take(knownMask + 1),
    buffers: take(plan.bufferCount * plan.segmentBlocks * blockBytes, blockBytes),
    staging: take(plan.stagingBlocks * blockBytes, blockBytes),
    reads: take((plan.readSlots ?? 0) * blockBytes, blockBytes),
    lent: take(plan.lentBytes ?? 0, blockBytes),
    plan: take(plan.stagingBlocks * 8),
    planScratch: take(plan.stagingBlocks * 8),
    table: take(tableLength * 4),
    tableLength,
    reverse: take(plan.slotCount * 4),
    crcs: take(plan.slotCount * 4),
    masks: take(plan.slotCount),
    dirty: bitmap(plan.backingBlocks),
    zeroDirty: bitmap(plan.backingBlocks),
    written: bitmap(plan.backingBlocks),
    syncing: bitmap(plan.backingBlocks),
    totalBytes: 0,
  };
  map.totalBytes = roundUp(next, pageBytes);
  if (map.totalBytes > memoryBytesMax) {
    throw new UsageError(
      `Cannot index ${plan.slotCount} log blocks over ${plan.backingBlocks} backing blocks: the index would take ` +
        `${map.totalBytes} bytes, and at most ${memoryBytesMax} can be addressed; use a smaller cache or backing device`,
    );
  }
  return map;
}
