/**
 * `inspect`: what is on a cache device, for people and for scripts, without changing anything.
 *
 * @module
 */

import type { BlockDevice } from "../device/block_device.ts";
import { decodeRecord, eachEntry, recordEntries } from "../log/codec.ts";
import { entryKind, recordFlagFlushPoint } from "../log/layout.ts";
import { formatUuid } from "../log/superblock.ts";
import { blockBytes } from "../units.ts";
import { openTarget } from "./pair.ts";
import { type Scan, scanCache } from "./scan.ts";

/** What to look at. */
export interface InspectOptions {
  /** The cache device: a path, or a device of your own. */
  cache: string | BlockDevice;
  /** Also lists the records of the log. */
  records?: boolean;
}

/** A record, as its header tells. */
export interface InspectedRecord {
  sequence: number;
  /** Byte offset on the cache device. */
  offset: number;
  epoch: number;
  sealedAt: string;
  durableMark: number;
  /** A flush ended with this record. */
  flushPoint: boolean;
  dataBlocks: number;
  zeroRanges: number;
  trimRanges: number;
  poisonedRanges: number;
}

/** What a cache device holds. */
export interface InspectReport {
  format: "nbdboost";
  version: number;
  uuid: string;
  clean: boolean;
  generation: number;
  epoch: number;
  createdAt: string;
  closedAt: string | null;
  cacheBytes: number;
  segmentBytes: number;
  segments: number;
  logOffset: number;
  backing: { kind: string; id: string; sizeBytes: number };
  tailSequence: number;
  headSequence: number;
  durableMark: number;
  records: number;
  dirtyBlocks: number;
  zeroBlocks: number;
  lostBlocks: number;
  droppedRecords: number;
  /** Sentences about what is not as it should be; `check` tells more. */
  problems: string[];
  recordList?: InspectedRecord[];
}

/** Looks at a cache device. Throws `RefusedError` when it is none. */
export async function inspectCache(options: InspectOptions): Promise<InspectReport> {
  const device = await openTarget(options.cache, false);
  try {
    const scan = await scanCache(device);
    const report = describe(scan);
    if (options.records) report.recordList = await listRecords(scan);
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
  };
}

async function listRecords(scan: Scan): Promise<InspectedRecord[]> {
  const list: InspectedRecord[] = [];
  for (const { slot } of scan.records) {
    const header = decodeRecord(await scan.reader.blocks(slot, 1), slot, scan.superblock.uuid);
    if (!header) continue;
    const counts = [0, 0, 0, 0, 0];
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
    });
  }
  return list;
}
