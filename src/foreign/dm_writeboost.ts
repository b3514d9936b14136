/**
 * Caches of dm-writeboost, without dm-writeboost: what is on them, whether it is whole, and how to get it out.
 *
 * Invariants: the cache device is only read. Nothing is written to a backing device before everything that is needed has been
 * verified, and nothing at all when anything is missing, unless that loss was accepted.
 *
 * @module
 */

import type { BlockDevice } from "../device/block_device.ts";
import { openDevice } from "../device/open.ts";
import { DamageError, RefusedError } from "../errors.ts";
import type { Problem } from "../cache/check.ts";
import { blockBytes, fullMask } from "../units.ts";
import { lastWritebackOffset, lengthMax, slotBytes, slotOffset } from "./dm_writeboost_layout.ts";
import { type EntryRange, type EntryTable, noEntries, PieceList } from "./dm_writeboost_entries.ts";
import { arrange, type Arrangement } from "./dm_writeboost_order.ts";
import { copyWithPieces, differing, type ScannedCache, writePieces } from "./dm_writeboost_pieces.ts";
import { type ByteRange, planVersions, SectorMasks } from "./dm_writeboost_plan.ts";
import {
  findHiddenSegments,
  hasWriteboostMagic,
  scanWriteboost,
  type WriteboostScan,
} from "./dm_writeboost_scan.ts";

/** A cache of dm-writeboost. */
export interface DmWriteboostOptions {
  /** The cache device: a path, or a device of your own, which stays open. */
  cache: string | BlockDevice;
  /** Its backing device; nothing on the cache device tells which one that is. */
  backing?: string | BlockDevice;
  /** Reads the device as a cache of dm-writeboost though its magic is gone. */
  assumeDmWriteboost?: boolean;
  /** Progress of each step in turn, in bytes. */
  onProgress?: (done: number, total: number) => void;
}

/** What a cache of dm-writeboost holds. Blocks are 4096 bytes. */
export interface DmWriteboostReport {
  /** What sort of cache it is. */
  format: "dm-writeboost";
  /** The size of the cache device in bytes. */
  cacheBytes: number;
  /** Bytes of a slot, which holds one segment. */
  segmentBytes: number;
  /** Slots of the log. */
  segments: number;
  /** Segments that count. */
  usedSegments: number;
  /** The number of the newest segment; 0 when nothing was ever written. */
  newestSegment: number;
  /** All segments up to this one are on the backing device, as the cache device says; 0 when it does not say. */
  lastWriteback: number;
  /** Blocks that hold something that the backing device may lack. */
  dirtyBlocks: number;
  /** Blocks of which some is lost: what is left of them is not the newest, or nobody can tell. */
  lostBlocks: number;
  /** The same as bytes of the volume. */
  lostRanges: ByteRange[];
  /**
   * Anywhere here up to 127 blocks may be older than they should be, for each segment of which nobody knows for certain what it
   * held. Only with a backing device.
   */
  suspectRanges: ByteRange[];
  /** What the segment claims to hold that was being written when the machine stopped: no flush had covered it. */
  tornRanges: ByteRange[];
  /** What is not as usual, and no cause for worry. */
  notes: string[];
  /** Everything that is wrong; empty when all is well. */
  problems: Problem[];
}

/** A slot, for `inspect --records`. */
export interface DmWriteboostSegment {
  /** Its number, as its header gives it. */
  id: number;
  /** Where it begins, in bytes of the cache device. */
  offset: number;
  /** Its checksum is right. */
  whole: boolean;
  /** Blocks that it holds, of 4096 bytes. */
  blocks: number;
  /** Blocks of which only some sectors count. */
  partialBlocks: number;
  /** Clean copies of blocks of the backing device. */
  cleanBlocks: number;
}

/** How to recover a cache of dm-writeboost. */
export interface DmWriteboostRecoverOptions extends DmWriteboostOptions {
  /** Its backing device: a path, or a device of your own, which stays open. */
  backing: string | BlockDevice;
  /** Only says what would be done. */
  dryRun?: boolean;
  /** Saves what is provably the newest, though something is missing. */
  acceptLoss?: boolean;
  /** Leaves the backing device alone and writes a full copy, brought up to date, to this new file. */
  output?: string;
}

/** What was done. */
export interface DmWriteboostRecoverReport extends DmWriteboostReport {
  /** What was written: the backing device, a copy, or nothing (`dryRun`). */
  wrote: "backing" | "copy" | "nothing";
  /** The path or name of the backing device, or of the copy. */
  target: string;
}

/**
 * Tells whether a device holds a cache of dm-writeboost. What neither of the two magics marks, but is full of segments, is
 * refused with a sentence that says how to go on.
 *
 * @param cache a path, or a device of your own, which stays open
 * @throws {RefusedError} when the magic is gone and the segments are there
 */
export async function isDmWriteboost(cache: string | BlockDevice): Promise<boolean> {
  return await withDevice(cache, false, async (device) => {
    if (await hasWriteboostMagic(device)) return true;
    const head = new Uint8Array(Math.min(blockBytes, device.sizeBytes));
    await device.read(0, head);
    if (new TextDecoder().decode(head.subarray(0, 8)) === "NBDBOOST") return false;
    const { whole, slots } = await findHiddenSegments(device);
    if (whole === 0) return false;
    throw new RefusedError(
      `Cannot take ${device.name} for any cache: its first bytes are of none, yet ${whole} of its first ` +
        `${slots} slots hold whole segments of dm-writeboost; if it is one, add --assume-dm-writeboost`,
    );
  });
}

/**
 * Tells what is on a cache of dm-writeboost, and lists its segments in the order of their slots.
 *
 * @throws {RefusedError} when it is none, or its segments fit no order
 */
export async function inspectDmWriteboost(
  options: DmWriteboostOptions,
): Promise<DmWriteboostReport & { recordList: DmWriteboostSegment[] }> {
  return await withDevice(options.cache, false, async (device) => {
    const { scan, report } = await examine(options, device, undefined);
    const recordList = scan.slots.filter(({ state }) => state !== "blank").map((slot) => {
      return {
        id: slot.id,
        offset: slotOffset(slot.slot),
        whole: slot.state === "whole",
        ...countBlocks(scan.table, slot.entries ?? noEntries),
      };
    });
    return { ...report, recordList };
  });
}

function countBlocks(
  table: EntryTable,
  { first, count }: EntryRange,
): Pick<DmWriteboostSegment, "blocks" | "partialBlocks" | "cleanBlocks"> {
  const counts = { blocks: count, partialBlocks: 0, cleanBlocks: 0 };
  for (let entry = first; entry < first + count; entry++) {
    const dirtyBits = table.dirtyBits(entry);
    if (dirtyBits === 0) counts.cleanBlocks++;
    else if (dirtyBits !== fullMask) counts.partialBlocks++;
  }
  return counts;
}

/**
 * Verifies every checksum of a cache of dm-writeboost and the order of its segments; with a backing device also what that one
 * should hold already.
 *
 * @throws {RefusedError} when it is none, or its segments fit no order
 */
export async function checkDmWriteboost(options: DmWriteboostOptions): Promise<DmWriteboostReport> {
  const { cache, backing } = options;
  return await withDevice(cache, false, async (device) => {
    if (backing === undefined) return (await examine(options, device, undefined)).report;
    return await withDevice(backing, false, async (below) => (await examine(options, device, below)).report);
  });
}

/**
 * Makes a backing device what dm-writeboost would have shown, or writes such a copy of it. The cache device is left as it is:
 * once the backing device is in use, it must not be recovered from again.
 *
 * @throws {DamageError} with nothing changed, when anything is damaged and `acceptLoss` was not given
 * @throws {RefusedError} when it is no such cache, its segments fit no order, or a device is in use
 * @throws {DeviceError} when a device fails; recovering again does the rest
 */
export async function recoverDmWriteboost(
  options: DmWriteboostRecoverOptions,
): Promise<DmWriteboostRecoverReport> {
  const { cache, backing, dryRun = false, acceptLoss = false, output, onProgress } = options;
  const writes = !dryRun && output === undefined;
  return await withDevice(cache, false, (device) =>
    withDevice(backing, writes, async (below) => {
      const { scan: { table }, report, pieces } = await examine(options, device, below);
      const [problem] = report.problems;
      if (problem && !acceptLoss && !dryRun) {
        throw new DamageError(
          `Cannot recover ${device.name} without loss: ${problem.what}` +
            (report.problems.length > 1 ? ` (and ${report.problems.length - 1} more)` : "") +
            `; nothing was changed. See nbdboost check, and add --accept-loss to save the rest`,
        );
      }
      const result: DmWriteboostRecoverReport = { ...report, wrote: "nothing", target: output ?? below.name };
      if (dryRun) return result;
      const scanned = { device, table };
      if (output !== undefined) await copyWithPieces(scanned, below, pieces, output, onProgress);
      else await writePieces(scanned, below, pieces, onProgress);
      return { ...result, wrote: output === undefined ? "backing" : "copy" };
    }));
}

async function withDevice<T>(
  target: string | BlockDevice,
  write: boolean,
  use: (device: BlockDevice) => Promise<T>,
): Promise<T> {
  if (typeof target !== "string") return await use(target);
  const device = await openDevice(target, { write });
  try {
    return await use(device);
  } finally {
    await device.close();
  }
}

interface Examined {
  scan: WriteboostScan;
  report: DmWriteboostReport;
  /** What is to be written. */
  pieces: PieceList;
}

/** Everything that can be known before anything is written. */
async function examine(
  options: DmWriteboostOptions,
  cache: BlockDevice,
  backing: BlockDevice | undefined,
): Promise<Examined> {
  const { assumeDmWriteboost = false, onProgress } = options;
  if (!assumeDmWriteboost && !(await hasWriteboostMagic(cache))) {
    throw new RefusedError(
      `Cannot take ${cache.name} for a cache of dm-writeboost: it does not begin with its magic; if it is one all the ` +
        `same, add --assume-dm-writeboost`,
    );
  }
  const scan = await scanWriteboost(cache, onProgress);
  const arrangement = arrange(scan);
  const isEmpty = scan.slots.every(({ state }) => state === "blank");
  const refused = arrangement.refused ??
    (!scan.marked && !scan.slots.some(({ state }) => state === "whole")
      ? "it has neither the magic nor a single whole segment"
      : undefined);
  if (refused !== undefined && !(isEmpty && scan.marked && scan.slots.length > 0)) {
    throw new RefusedError(
      `Cannot read ${cache.name} as a cache of dm-writeboost: ${refused}; bring the device back to what it was`,
    );
  }
  const plan = planVersions(arrangement, scan.table, backing?.sizeBytes ?? Infinity);
  const problems = arrangement.problems.map(({ slot, loses, what }): Problem => ({
    severity: loses ? "loss" : "damage",
    what,
    offset: slot < 0 ? lastWritebackOffset : slotOffset(slot),
    length: slot < 0 ? 8 : slotBytes,
  }));
  // Whoever says so by an option knows that; nothing is missing by it.
  if (!scan.marked) arrangement.notes.push("its magic is gone");
  const findings = new Findings(
    { device: cache, table: scan.table },
    backing,
    problems,
    plan.lost,
    plan.writes,
  );
  if (plan.outside.blocks > 0) findings.noteOutside(plan.outside);
  await findings.weighDoubtful(plan.doubtful, plan.unknown);
  await findings.compareSettled(plan.settled);
  return {
    scan,
    pieces: findings.pieces,
    report: {
      ...describe(scan, arrangement, findings),
      suspectRanges: plan.unsure > 0 && backing ? plan.certain.gaps(backing.sizeBytes) : [],
    },
  };
}

/** What comes to light when the plan is held against the backing device. */
class Findings {
  constructor(
    readonly cache: ScannedCache,
    readonly backing: BlockDevice | undefined,
    readonly problems: Problem[],
    readonly lost: SectorMasks,
    readonly pieces: PieceList,
  ) {}

  noteOutside(outside: SectorMasks): void {
    const [first] = outside.ranges();
    this.problems.push({
      severity: "loss",
      what:
        `${outside.blocks} blocks of the cache lie behind the end of ${
          this.backing!.name
        }, the first at byte ` +
        `${first!.offset} of ${this.backing!.sizeBytes}: it is another device, or was made smaller`,
      offset: 0,
      length: 0,
      volumeOffset: first!.offset,
      volumeLength: first!.length,
    });
  }

  /**
   * Below a segment of which nobody knows what it held. If it was on the backing device already, so was all that is older,
   * but for what it held itself: then only few blocks differ, and those must be left alone. If more differ, it was not.
   */
  async weighDoubtful(doubtful: PieceList, unknown: number): Promise<void> {
    const { backing, cache } = this;
    const found = backing ? await differing(cache, backing, doubtful) : doubtful;
    const { lost } = this;
    for (let at = 0; at < found.count; at++) {
      const { block, mask } = found.at(at);
      lost.add(block, mask);
    }
    if (blocksOf(found) > unknown * lengthMax) this.pieces.addAll(found);
  }

  /** What the backing device should hold already, by the cache's own word. */
  async compareSettled(settled: PieceList): Promise<void> {
    const { backing, cache } = this;
    if (!backing) return;
    const found = await differing(cache, backing, settled);
    const [copies, rest] = [new PieceList(), new PieceList()];
    for (let at = 0; at < found.count; at++) {
      const piece = found.at(at);
      (cache.table.dirtyBits(piece.entry) === 0 ? copies : rest).add(piece);
    }
    const tell = (pieces: PieceList, what: string) => {
      if (pieces.count === 0) return;
      this.problems.push({
        severity: "damage",
        what: `${pieces.count} blocks ${what}: is ${backing.name} the right device, and unchanged?`,
        offset: 0,
        length: 0,
        volumeOffset: pieces.at(0).block * blockBytes,
        volumeLength: blockBytes,
      });
    };
    tell(copies, "that the cache read from the backing device are not what it holds now");
    tell(rest, "that count as written back are not on the backing device");
    this.pieces.addAll(rest);
  }
}

/** How many blocks pieces are of. */
function blocksOf(pieces: PieceList): number {
  const blocks = new SectorMasks();
  for (let at = 0; at < pieces.count; at++) {
    const { block, mask } = pieces.at(at);
    blocks.add(block, mask);
  }
  return blocks.blocks;
}

function describe(
  scan: WriteboostScan,
  arrangement: Arrangement,
  findings: Findings,
): Omit<DmWriteboostReport, "suspectRanges"> {
  const torn = new SectorMasks();
  const { first, count } = arrangement.torn;
  for (let entry = first; entry < first + count; entry++) {
    torn.add(scan.table.block(entry), scan.table.dirtyBits(entry));
  }
  return {
    format: "dm-writeboost",
    cacheBytes: scan.sizeBytes,
    segmentBytes: slotBytes,
    segments: arrangement.slotCount,
    usedSegments: arrangement.layers.filter(({ role }) => role === "apply").length,
    newestSegment: arrangement.newest,
    lastWriteback: scan.lastWriteback,
    dirtyBlocks: blocksOf(findings.pieces),
    lostBlocks: findings.lost.blocks,
    lostRanges: findings.lost.ranges(),
    tornRanges: torn.ranges(),
    notes: arrangement.notes,
    problems: findings.problems,
  };
}
