/**
 * Reads a cache without changing it: superblocks, log and checkpoint, replayed into a map of versions. What `check`,
 * `inspect` and `recover` stand on.
 *
 * @module
 */

import type { BlockDevice } from "../device/block_device.ts";
import { readCheckpoint } from "../log/checkpoint.ts";
import { eachEntry, type EntryList } from "../log/codec.ts";
import { backingBlocksOf } from "../log/geometry.ts";
import { carriesBlock } from "../log/layout.ts";
import { LogReader } from "../log/reader.ts";
import { type Walk, walkLog } from "../log/recovery.ts";
import { Segments } from "../log/segments.ts";
import type { Superblock, SuperblockProblem } from "../log/superblock.ts";
import { Kernels } from "../wasm/kernels.ts";
import type { MemoryPlan } from "../wasm/memory_map.ts";
import { readSuperblocks } from "./pair.ts";
import { Versions } from "./versions.ts";

/** A record of the log, as far as its header or a copy tells. */
export interface ScannedRecord {
  slot: number;
  sequence: number;
  dataCount: number;
  /** Its own header is lost. */
  rebuilt: boolean;
}

/** Everything that a read-only look at a cache tells. */
export interface Scan {
  superblock: Superblock;
  superblockProblems: SuperblockProblem[];
  checkpointProblem: string | undefined;
  walk: Walk;
  records: ScannedRecord[];
  versions: Versions;
  reader: LogReader;
}

/** Reads `device`. Throws `RefusedError` when it is no cache. */
export async function scanCache(
  device: BlockDevice,
  onProgress?: (done: number, total: number) => void,
  makeKernels: (plan: MemoryPlan) => Kernels = Kernels.create,
): Promise<Scan> {
  const { superblock, problems } = await readSuperblocks(device);
  const { geometry } = superblock;
  const segments = new Segments(geometry.segmentCount, geometry.segmentBlocks);
  const backingBlocks = backingBlocksOf(superblock.backingBytes);
  const kernels = makeKernels({
    slotCount: geometry.slotCount,
    backingBlocks,
    segmentBlocks: geometry.segmentBlocks,
    bufferCount: 1,
    stagingBlocks: 1,
  });
  const versions = new Versions(kernels, segments, backingBlocks);
  const checkpoint = await readCheckpoint(device, superblock);
  const isDirty = checkpoint.bits ? (slot: number) => checkpoint.bits!.has(slot) : () => true;
  const reader = new LogReader(device, geometry, superblock.uuid);
  // What cannot be read is told of, not a reason to tell nothing.
  reader.acceptUnreadable = true;
  const records: ScannedRecord[] = [];
  const walk = await walkLog(reader, superblock, {
    placed() {},
    lost() {},
    apply(entries, slot, sequence, rebuilt) {
      versions.replay(entries, slot, sequence, isDirty);
      records.push({ slot, sequence, dataCount: countData(entries), rebuilt });
    },
    loseAll: (sequence) => versions.loseAll(sequence),
    progress: (done) => onProgress?.(Math.min(done, geometry.segmentCount), geometry.segmentCount),
  });
  return {
    superblock,
    superblockProblems: problems,
    checkpointProblem: checkpoint.problem,
    walk,
    records,
    versions,
    reader,
  };
}

function countData(entries: EntryList): number {
  let count = 0;
  for (const entry of eachEntry(entries)) if (carriesBlock(entry.kind)) count++;
  return count;
}
