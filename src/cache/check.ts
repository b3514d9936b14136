/**
 * `check`: verifies every checksum that a cache device holds, and the pairing, without changing anything.
 *
 * @module
 */

import type { BlockDevice } from "../device/block_device.ts";
import { DeviceError } from "../errors.ts";
import { decodePrevious, decodeRecord, type RecordHeader } from "../log/codec.ts";
import { halfBytes, superblockBytes, superblockOffsets, superblockPreviousOffset } from "../log/layout.ts";
import { recordIsWhole, repeatsPredecessorOf } from "../log/recovery.ts";
import { formatUuid, type SuperblockProblem } from "../log/superblock.ts";
import { blockBytes } from "../units.ts";
import { crc32c } from "../wasm/crc32c.ts";
import type { Kernels } from "../wasm/kernels.ts";
import type { MemoryPlan } from "../wasm/memory_map.ts";
import { checkMirror, noteLeg } from "./check_mirror.ts";
import { checkPair, openTarget } from "./pair.ts";
import { type Scan, scanCache, type ScannedRecord } from "./scan.ts";

/** What to check. */
export interface CheckOptions {
  /** The cache device: a path, or a device of your own. */
  cache: string | BlockDevice;
  /** The other leg of a mirrored cache device: verified as well, and whether the two agree. */
  mirror?: string | BlockDevice;
  /** Also verifies that this is its backing device. */
  backing?: string | BlockDevice;
  /** Goes on although the backing device is another one, or changed since the cache was closed; a wrong size is refused. */
  acceptChangedBacking?: boolean;
  /** Gets what is done and what is to be done: of `reading` segments, then of `verifying` records. */
  onProgress?: (done: number, total: number, phase: "reading" | "verifying") => void;
}

/** What only tests set. */
export interface EngineCheckOptions extends CheckOptions {
  /** As that of opening. */
  makeKernels?: (plan: MemoryPlan) => Kernels;
}

/** One thing that is wrong. */
export interface Problem {
  /** `loss`: data that exists nowhere else; `damage`: something that is not needed, or that a copy replaces. */
  severity: "loss" | "damage";
  /** One sentence for people. */
  what: string;
  /** The leg of a mirror that it concerns, by its name. */
  leg?: string;
  /** Where the damaged bytes of the cache device begin, in bytes. */
  offset: number;
  /** How many they are. */
  length: number;
  /** Where the bytes of the volume begin that this concerns, when they are known. */
  volumeOffset?: number;
  /** How many they are. */
  volumeLength?: number;
}

/** What `check` found. Blocks are 4096 bytes. */
export interface CheckReport {
  /** Names the cache. */
  uuid: string;
  /** It was closed in order. */
  clean: boolean;
  /** Records of the log that count. */
  records: number;
  /** Blocks whose checksum was verified. */
  verifiedBlocks: number;
  /** Blocks whose newest content the backing device lacks. */
  dirtyBlocks: number;
  /** Blocks that read as zeroes, which the backing device does not know yet. */
  zeroBlocks: number;
  /** Blocks that were lost before this check, or whose record is: they read as EIO until they are written again. */
  lostBlocks: number;
  /** Records past the durable mark that were not whole: a torn end, which loses nothing that was flushed. */
  droppedRecords: number;
  /** What a crash leaves and the next open mends: sentences, no cause for worry. */
  notes: string[];
  /** Everything that is wrong; empty when all is well. */
  problems: Problem[];
}

/**
 * Verifies every checksum that a cache device holds, and with `backing` the pairing, and changes nothing. Damage is
 * reported, not thrown. It reads the whole live log.
 *
 * A path is opened, which waits for nobody: a cache that is being served is refused. Devices of your own must not be in
 * use by a cache meanwhile; they stay open.
 *
 * @throws {RefusedError} when the device is no cache, both superblocks are gone, it is in use, or the backing is not its own
 * @throws {UsageError} when there is no such file or device
 * @throws {DeviceError} when a device cannot be read
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { checkCache, formatCache, MemoryDevice } from "../../mod.ts";
 * const [fast, slow] = [new MemoryDevice(16 * 1024 * 1024), new MemoryDevice(64 * 1024 * 1024)];
 * await formatCache({ cache: fast, backing: slow });
 * assert((await checkCache({ cache: fast, backing: slow })).problems.length === 0);
 *
 * await fast.write(0, new Uint8Array(512)); // somebody overwrites the first of two superblocks
 * const { problems } = await checkCache({ cache: fast });
 * assert(problems.length === 1 && problems[0]!.severity === "damage" && problems[0]!.offset === 0);
 * ```
 */
export async function checkCache(options: CheckOptions): Promise<CheckReport> {
  return options.mirror === undefined
    ? await checkDevice(options)
    : await checkMirror(options, options.mirror, checkDevice);
}

async function checkDevice(options: EngineCheckOptions): Promise<CheckReport> {
  const device = await openTarget(options.cache, false);
  try {
    const scan = await scanCache(
      device,
      (done, total) => options.onProgress?.(done, total, "reading"),
      options.makeKernels,
    );
    if (options.backing !== undefined) {
      const backing = await openTarget(options.backing, false);
      try {
        await checkPair(scan.superblock, device, backing, options.acceptChangedBacking ?? false);
      } finally {
        if (typeof options.backing === "string") await backing.close();
      }
    }
    return await checkScan(device, scan, options.onProgress);
  } finally {
    if (typeof options.cache === "string") await device.close();
  }
}

/** Verifies what `scan` walked over. */
export async function checkScan(
  device: BlockDevice,
  scan: Scan,
  onProgress?: CheckOptions["onProgress"],
): Promise<CheckReport> {
  const problems: Problem[] = [];
  const notes: string[] = [];
  // After a crash the copy that was being written may be torn; after a clean close both are whole.
  const superblockProblems = [
    ...scan.superblockProblems.map(damagedCopy),
    ...await damagedEntryCopies(device),
  ];
  if (scan.superblock.clean) problems.push(...superblockProblems);
  else notes.push(...superblockProblems.map((problem) => problem.what));
  if (scan.checkpointProblem) {
    problems.push({
      severity: "damage",
      what: `${scan.checkpointProblem}: everything in the log counts as dirty`,
      offset: 131072,
      length: scan.superblock.geometry.checkpointBytes,
    });
  }
  if (scan.superblock.mirrored) await noteLeg(device, notes, problems);
  noteGaps(scan, problems);
  noteUnreadable(scan, problems);
  let verifiedBlocks = 0;
  for (const [i, record] of scan.records.entries()) {
    verifiedBlocks += await checkRecord(scan, record, problems);
    onProgress?.(i + 1, scan.records.length, "verifying");
  }
  const { versions, walk, superblock } = scan;
  return {
    uuid: formatUuid(superblock.uuid),
    clean: superblock.clean,
    records: scan.records.length,
    verifiedBlocks,
    dirtyBlocks: versions.kernels.dirty.count,
    zeroBlocks: versions.kernels.zeroDirty.count,
    lostBlocks: versions.poison.blocks,
    droppedRecords: walk.dropped,
    notes,
    problems,
  };
}

function damagedCopy(problem: SuperblockProblem): Problem {
  const copy = problem.message.includes("superblock 1") ? 1 : 0;
  return {
    severity: "damage",
    what: `${problem.message}; the other copy is good`,
    offset: superblockOffsets[copy],
    length: blockBytes,
  };
}

/** Each superblock's copy of the last entry list is all zeroes, or whole. */
async function damagedEntryCopies(device: BlockDevice): Promise<Problem[]> {
  const problems: Problem[] = [];
  for (const [copy, offset] of superblockOffsets.entries()) {
    const bytes = new Uint8Array(superblockBytes);
    try {
      await device.read(offset, bytes);
    } catch (error) {
      // The whole copy counts as damaged, and that is told already.
      if (error instanceof DeviceError && error.code === "EIO") continue;
      throw error;
    }
    const half = bytes.subarray(superblockPreviousOffset, superblockPreviousOffset + halfBytes);
    if (half.every((byte) => byte === 0)) continue;
    const block = new Uint8Array(blockBytes);
    block.set(half, halfBytes);
    if (decodePrevious(block)) continue;
    problems.push({
      severity: "damage",
      what: `superblock ${copy}'s copy of the last record's entries is damaged; the record itself is used`,
      offset: offset + superblockPreviousOffset,
      length: half.length,
    });
  }
  return problems;
}

function noteGaps(scan: Scan, problems: Problem[]): void {
  const { geometry, backingBytes } = scan.superblock;
  for (const gap of scan.walk.gaps) {
    const which = gap.firstSequence === gap.lastSequence
      ? `record ${gap.firstSequence} is`
      : `records ${gap.firstSequence} to ${gap.lastSequence} are`;
    const accepted = scan.versions.unrecorded.any ? "" : " (accepted before)";
    problems.push({
      severity: gap.lost && !accepted ? "loss" : "damage",
      what: gap.lost
        ? `${which} unreadable, and nobody knows what they held: all blocks that no later record holds are lost${accepted}`
        : `the header of ${which} unreadable; its entries are known from a copy, nothing is lost`,
      offset: geometry.logOffset + gap.slot * blockBytes,
      length: blockBytes,
      ...(gap.lost ? { volumeOffset: 0, volumeLength: backingBytes } : {}),
    });
  }
}

/** Places outside of all known records that could not be read: after a crash they may have held flushed records. */
function noteUnreadable(scan: Scan, problems: Problem[]): void {
  const { reader, records, superblock } = scan;
  const known = (slot: number) =>
    records.some((record) => slot >= record.slot && slot <= record.slot + record.dataCount);
  for (const slot of reader.unreadable.keys()) {
    if (known(slot)) continue;
    problems.push({
      severity: superblock.clean ? "damage" : "loss",
      what: superblock.clean
        ? "a block outside of all records cannot be read"
        : "a block behind the end of the log cannot be read and may have held flushed data",
      offset: superblock.geometry.logOffset + slot * blockBytes,
      length: blockBytes,
    });
  }
}

/** Verifies one record; returns the number of data blocks looked at. */
async function checkRecord(scan: Scan, record: ScannedRecord, problems: Problem[]): Promise<number> {
  const { reader, versions, superblock } = scan;
  const { logOffset } = superblock.geometry;
  const bytes = await reader.readable(record.slot, 1 + record.dataCount);
  const header = decodeRecord(bytes.slice(0, blockBytes), record.slot, superblock.uuid);
  if (header && recordIsWhole(header, bytes)) return record.dataCount;
  if (header && !hasGoodCopy(header, bytes)) {
    problems.push({
      severity: "damage",
      what:
        `record ${record.sequence} is damaged in its copy of its predecessor's entries; the predecessor itself is used`,
      offset: logOffset + record.slot * blockBytes + blockBytes / 2,
      length: blockBytes / 2,
    });
  }
  const { kernels } = versions;
  for (let i = 1; i <= record.dataCount; i++) {
    const slot = record.slot + i;
    const matches = crc32c(bytes.subarray(i * blockBytes, (i + 1) * blockBytes)) === kernels.crcs[slot];
    if (matches && !reader.unreadable.has(slot)) continue;
    const block = kernels.reverse[slot]!;
    const newest = kernels.indexGet(block) === slot;
    const needed = newest && kernels.dirty.test(block);
    problems.push({
      severity: needed ? "loss" : "damage",
      what: needed
        ? `the only copy of block ${block} is damaged`
        : newest
        ? `a copy of block ${block} is damaged; the backing device has it`
        : `an old version of block ${block} is damaged; it is not used`,
      offset: logOffset + slot * blockBytes,
      length: blockBytes,
      volumeOffset: block * blockBytes,
      volumeLength: Math.min(blockBytes, superblock.backingBytes - block * blockBytes),
    });
  }
  return record.dataCount;
}

/** Whether a record's second half is what its writer put there. */
function hasGoodCopy(header: RecordHeader, bytes: Uint8Array): boolean {
  const previous = decodePrevious(bytes);
  return previous !== undefined && repeatsPredecessorOf(header, previous);
}
