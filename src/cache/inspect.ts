/**
 * `inspect`: what is on a cache device, for people and for scripts, without changing anything.
 *
 * @module
 */

import type { BlockDevice } from "../device/block_device.ts";
import { decodeRecord, eachEntry, recordEntries } from "../log/codec.ts";
import { entryKind, recordFlagFlushPoint } from "../log/layout.ts";
import { readLegMark } from "../log/leg_mark.ts";
import { formatUuid } from "../log/superblock.ts";
import { blockBytes } from "../units.ts";
import { type InspectedSegment, listSegments } from "./inspect_segments.ts";
import { openTarget } from "./pair.ts";
import { type Scan, scanCache } from "./scan.ts";

/** What to look at. */
export interface InspectOptions {
  /** The cache device: a path, or a device of your own. */
  cache: string | BlockDevice;
  /** The other leg of a mirrored cache device, to tell what its mark says, too. */
  mirror?: string | BlockDevice;
  /** Also lists the records of the log. */
  records?: boolean;
  /** Also lists the segments of the log, with what each of their blocks is good for. */
  segments?: boolean;
  /** Progress of reading the log: segments read, and segments in all. */
  onProgress?: (done: number, total: number) => void;
}

/** A record, as its header tells. */
export interface InspectedRecord {
  /** Its number; each record's is one more than the one before it. */
  sequence: number;
  /** Bytes from the start of the cache device to its header. */
  offset: number;
  /** The number of the opening of the cache during which it was written. */
  epoch: number;
  /** When it was closed for writing: ISO 8601, UTC, by the clock of the machine that wrote it. */
  sealedAt: string;
  /** The highest sequence that was known to be durable when it was written. */
  durableMark: number;
  /** A flush ended with this record. */
  flushPoint: boolean;
  /** Blocks of 4096 bytes that it holds, whole or in part; they follow its header. */
  dataBlocks: number;
  /** Ranges that read as zeroes and stay allocated. */
  zeroRanges: number;
  /** Ranges that read as zeroes and may be given back to the backing device. */
  trimRanges: number;
  /** Ranges that are lost and read as EIO. */
  poisonedRanges: number;
  /** Copies of what the backing device holds, for reads. */
  cleanBlocks: number;
}

/** What one leg of a mirrored cache device says. */
export interface InspectedLeg {
  /** Its name: a path or a URI. */
  path: string;
  /** Both legs count; this one alone does; this one does not, as its copy was never completed. Null when its marks are damaged. */
  claim: "together" | "alone" | "copying" | null;
  /** Its random name: 16 hexadecimal digits. */
  self: string;
  /** The random name of the other leg. */
  other: string;
  /** When it says `alone`: the highest sequence that both had. */
  sinceSequence: number | null;
  /** When it says `alone`: since when, ISO 8601, UTC. */
  since: string | null;
}

/** What a cache device holds, as an opening now would find it. Blocks are 4096 bytes. */
export interface InspectReport {
  /** What sort of cache it is. */
  format: "nbdboost";
  /** The version of the format on the device. */
  version: number;
  /** Names this cache; made anew at each format. */
  uuid: string;
  /** It was closed in order: the end of the log is known and nothing after it counts. */
  clean: boolean;
  /** How often its superblocks were written. */
  generation: number;
  /** How often it was opened for writing. */
  epoch: number;
  /** When it was formatted: ISO 8601, UTC. */
  createdAt: string;
  /** When it was closed, null when it was not closed in order: ISO 8601, UTC. */
  closedAt: string | null;
  /** The size of the cache device in bytes, as formatted. */
  cacheBytes: number;
  /** Bytes of one segment of the log. */
  segmentBytes: number;
  /** Segments of the log. */
  segments: number;
  /** Bytes from the start of the cache device to the log. */
  logOffset: number;
  /** The backing device that it belongs to: its kind, its stable name and its size in bytes. */
  backing: { kind: string; id: string; sizeBytes: number };
  /** The sequence of the oldest record that is still needed. */
  tailSequence: number;
  /** The sequence that the next record gets. */
  headSequence: number;
  /** The highest sequence known to be durable; what follows it was written and never flushed. */
  durableMark: number;
  /** Records from the tail to the head. */
  records: number;
  /** Blocks whose newest content the backing device lacks. */
  dirtyBlocks: number;
  /** Blocks that read as zeroes, which the backing device does not know yet. */
  zeroBlocks: number;
  /** Blocks of which no good version is left: they read as EIO until they are written again. */
  lostBlocks: number;
  /** Records past the durable mark that are not whole, or follow one that is not: a torn end, which is no damage. */
  droppedRecords: number;
  /** Sentences about what is not as it should be; `check` tells more. */
  problems: string[];
  /** What the legs of a mirror say; empty when there is no mirror. */
  legs: InspectedLeg[];
  /** The records from tail to head, when they were asked for. */
  recordList?: InspectedRecord[];
  /** All segments in the order in which they lie on the device, when they were asked for. */
  segmentList?: InspectedSegment[];
}

/**
 * Tells what is on a cache device, and changes nothing. It reads superblocks and record headers, and data only past the
 * durable mark: {@linkcode checkCache} verifies everything.
 *
 * A path is opened, which waits for nobody: a cache that is being served is refused. A device of your own must not be
 * in use by a cache meanwhile; it stays open.
 *
 * @throws {RefusedError} when it is no cache of nbdboost, of a newer format, or in use
 * @throws {UsageError} when there is no such file or device
 * @throws {DeviceError} when the device cannot be read
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { formatCache, inspectCache, MemoryDevice } from "../../mod.ts";
 * const [fast, slow] = [new MemoryDevice(16 * 1024 * 1024), new MemoryDevice(64 * 1024 * 1024)];
 * const { uuid } = await formatCache({ cache: fast, backing: slow });
 *
 * const found = await inspectCache({ cache: fast, records: true });
 * assert(found.uuid === uuid && found.clean && found.dirtyBlocks === 0);
 * assert(found.backing.sizeBytes === slow.sizeBytes && found.recordList?.length === 0);
 * ```
 */
export async function inspectCache(options: InspectOptions): Promise<InspectReport> {
  const device = await openTarget(options.cache, false);
  try {
    const scan = await scanCache(device, options.onProgress);
    const report = describe(scan);
    if (scan.superblock.mirrored) report.legs.push(await inspectLeg(device));
    if (options.mirror !== undefined) {
      const other = await openTarget(options.mirror, false);
      report.legs.push(await inspectLeg(other));
      if (typeof options.mirror === "string") await other.close();
    }
    if (options.records) report.recordList = await listRecords(scan);
    if (options.segments) report.segmentList = listSegments(scan);
    return report;
  } finally {
    if (typeof options.cache === "string") await device.close();
  }
}

function describe(scan: Scan): InspectReport {
  const { superblock, walk, versions } = scan;
  const { geometry } = superblock;
  const problems = scan.superblockProblems.map((problem) => problem.message);
  if (scan.checkpointProblem) problems.push(scan.checkpointProblem);
  for (const gap of walk.gaps) {
    problems.push(`records ${gap.firstSequence} to ${gap.lastSequence} are unreadable`);
  }
  return {
    format: "nbdboost",
    version: 1,
    uuid: formatUuid(superblock.uuid),
    clean: superblock.clean,
    generation: superblock.generation,
    epoch: superblock.epoch.number,
    createdAt: new Date(superblock.createdMs).toISOString(),
    closedAt: superblock.clean ? new Date(superblock.closedMs).toISOString() : null,
    cacheBytes: superblock.cacheBytes,
    segmentBytes: geometry.segmentBlocks * blockBytes,
    segments: geometry.segmentCount,
    logOffset: geometry.logOffset,
    backing: { kind: superblock.backing.kind, id: superblock.backing.id, sizeBytes: superblock.backingBytes },
    tailSequence: superblock.tail.sequence,
    headSequence: walk.head.sequence,
    durableMark: walk.mark,
    records: walk.records,
    dirtyBlocks: versions.kernels.dirty.count,
    zeroBlocks: versions.kernels.zeroDirty.count,
    lostBlocks: versions.poison.blocks,
    droppedRecords: walk.dropped,
    problems,
    legs: [],
  };
}

async function inspectLeg(device: BlockDevice): Promise<InspectedLeg> {
  const mark = await readLegMark(device);
  const isAlone = mark?.claim === "alone";
  return {
    path: device.name,
    claim: mark?.claim ?? null,
    self: mark?.self ?? "",
    other: mark?.other ?? "",
    sinceSequence: isAlone ? mark.sinceSequence : null,
    since: isAlone ? new Date(mark.sinceMs).toISOString() : null,
  };
}

async function listRecords(scan: Scan): Promise<InspectedRecord[]> {
  const list: InspectedRecord[] = [];
  for (const { slot } of scan.records) {
    const header = decodeRecord(await scan.reader.blocks(slot, 1), slot, scan.superblock.uuid);
    if (!header) continue;
    const counts = [0, 0, 0, 0, 0, 0];
    for (const entry of eachEntry(recordEntries(header))) counts[entry.kind]!++;
    list.push({
      sequence: header.sequence,
      offset: scan.superblock.geometry.logOffset + slot * blockBytes,
      epoch: header.epoch.number,
      sealedAt: new Date(header.sealedMs).toISOString(),
      durableMark: header.durableMark,
      flushPoint: (header.flags & recordFlagFlushPoint) !== 0,
      dataBlocks: counts[entryKind.data]!,
      zeroRanges: counts[entryKind.zero]!,
      trimRanges: counts[entryKind.trim]!,
      poisonedRanges: counts[entryKind.poisoned]!,
      cleanBlocks: counts[entryKind.clean]!,
    });
  }
  return list;
}
