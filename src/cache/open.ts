/**
 * Opening: pair check, recovery, a new epoch, and only then the first reply (log-rules.md 4, 7, 14).
 *
 * Invariants: with `readOnly`, or when damage was found and not accepted, nothing at all is written. Otherwise, before the
 * cache is handed out: the accepted records past the mark are written again in place, the cache device is synced, the
 * backing is synced, and both superblocks durably name the new epoch.
 *
 * @module
 */

import { type Clock, systemClock } from "../clock.ts";
import type { BlockDevice } from "../device/block_device.ts";
import { MirrorDevice } from "../device/mirror.ts";
import { RefusedError, UsageError } from "../errors.ts";
import { readCheckpoint, type SlotBits } from "../log/checkpoint.ts";
import type { Epoch } from "../log/codec.ts";
import { backingBlocksOf } from "../log/geometry.ts";
import { entryBytes, recordEntriesMax } from "../log/layout.ts";
import { LogReader } from "../log/reader.ts";
import { type Gap, type Walk, walkLog } from "../log/recovery.ts";
import { Segments } from "../log/segments.ts";
import type { HistoryState, Superblock } from "../log/superblock.ts";
import { SuperblockStore } from "../log/superblock_store.ts";
import { LogWriter } from "../log/writer.ts";
import { type RandomSource, systemRandom } from "../random.ts";
import { blockBytes, mib } from "../units.ts";
import { Kernels } from "../wasm/kernels.ts";
import type { MemoryPlan } from "../wasm/memory_map.ts";
import { stagingBlocksOf } from "./batch.ts";
import { Bypassed } from "./bypass.ts";
import { type Cache, cacheSeam } from "./cache.ts";
import { CleanCopies } from "./clean_copies.ts";
import type { Core } from "./core.ts";
import { Foreground } from "./foreground.ts";
import { historyOf, openHistory, rewoundHistory } from "./history.ts";
import { lentBuffersMax } from "./lent_buffers.ts";
import { RangeLocks } from "./locks.ts";
import { type LegOptions, type OpenedCache, openLegs } from "./legs.ts";
import { Mirror } from "./mirror.ts";
import { findPoint, type FoundPoint } from "./past.ts";
import { checkPair, type OpenTarget, openTarget } from "./pair.ts";
import { readSlotBlocks } from "./read_slots.ts";
import { Statistics } from "./statistics.ts";
import { checkTunables, defaultTunables, type Tunables } from "./tunables.ts";
import { Versions } from "./versions.ts";
import { lentBufferBytes } from "./volume.ts";

/** RAM for segments: the open one, those being written, and what reads hit. */
const bufferBytes = 8 * mib;
/** Fewest segments in RAM: one open, one being written, one to go on with. */
const bufferCountMin = 4;

/** How to open a cache. */
export interface CacheOptions extends LegOptions {
  /** The backing device: a path, or a device of your own. */
  backing: string | BlockDevice;
  /** Writes nothing to either device and refuses writes. */
  readOnly?: boolean;
  /** With `readOnly`: the volume as it was at this flush point (see {@linkcode listHistory}). */
  at?: number;
  /** Opens for writing although damage was found; what is lost reads as EIO. */
  acceptDamage?: boolean;
  /**
   * Opens although, after a crash, blocks behind the end of the log cannot be read. If they held flushed data, older data is
   * returned in its place from then on, without an error.
   */
  acceptUnreadable?: boolean;
  /** Opens although the backing is another device, or was changed since the last clean close. */
  acceptChangedBacking?: boolean;
  /** Settings that differ from the usual ones. */
  tunables?: Partial<Tunables>;
  /** Time and timers; the machine's clock by default. */
  clock?: Clock;
  /** Makes the random part of the epoch; the machine's cryptographic source by default. */
  random?: RandomSource;
  /**
   * Gets one sentence for everything that people must know; by default nobody does. `level` is `error` when data is lost, or
   * clients get errors.
   */
  warn?: (message: string, level?: "error") => void;
  /** Progress of recovery: segments read, and segments in all. */
  onProgress?: (done: number, total: number) => void;
}

/** What only the engine's own thread and the simulator set. */
export interface EngineOptions extends CacheOptions {
  /** Opens paths and URIs; by default on the portable backend. */
  openTarget?: OpenTarget;
  /** Segments that RAM holds. */
  bufferCount?: number;
  /** Blocks of log that may be un-synced, at least two segments. */
  unsyncedBlocks?: number;
  /** Gives empty kernels for a plan; a new memory and instance by default, which cost more than the rest of a small open. */
  makeKernels?: (plan: MemoryPlan) => Kernels;
  /** Gets what recovery found, before anything is written. What it throws ends the opening. */
  onRecovered?: (recovered: Recovered) => void;
  /** Opens for writing as of this flush point: what came after it is void from then on. For `rewindCache` alone. */
  rewindTo?: number;
  /** Gets what was found there, before anything is written. */
  onPoint?: (point: FoundPoint) => void;
}

/** All that recovery found: with what is read later, everything that an open cache does follows from it. */
export interface Recovered {
  superblock: Superblock;
  /** Which of the two copies that is. */
  copy: number;
  versions: Versions;
  walk: Walk;
  report: RecoveryReport;
}

/** What opening found. */
export interface RecoveryReport {
  /** The cache had been closed in order. */
  clean: boolean;
  /** Records replayed. */
  records: number;
  /** Records past the durable mark that were whole and were kept. */
  kept: number;
  /** Records past the durable mark that were not whole, or followed one that was not, and were dropped. */
  dropped: number;
  /** Blocks (4096 bytes) whose newest content the backing device lacks. */
  dirtyBlocks: number;
  /** Blocks that read as zeroes, which the backing device does not know yet. */
  zeroBlocks: number;
  /** Blocks of which no good version is left. */
  lostBlocks: number;
  /** Records before the mark that were unreadable, with what became of them. */
  gaps: Gap[];
  /** True when something flushed is lost and that was not accepted before: the cache is read-only then. */
  damaged: boolean;
}

/**
 * Opens a cache in front of its backing device, and recovers it first: everything that was flushed before the last crash is
 * there, durably, when this resolves. `recovery` of the result tells what was found.
 *
 * Paths are opened and locked. Devices of your own belong to the cache from this call on: it closes them when it is closed,
 * and also when this fails. Unless `readOnly` is given both must be writable.
 *
 * Damage does not make it fail: without `acceptDamage` the cache is read-only then, and nothing was written.
 *
 * @throws {RefusedError} when the two do not belong together, are in use, or are not what they were
 * @throws {UsageError} when there is no such file or device
 * @throws {DeviceError} when a device fails
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { formatCache, openCache } from "../../mod.ts";
 * const directory = await Deno.makeTempDir();
 * const pair = { cache: `${directory}/cache.nbb`, backing: `${directory}/disk.img` };
 * await Deno.writeFile(pair.backing, new Uint8Array(1024 * 1024));
 * await formatCache({ ...pair, cacheSize: 8 * 1024 * 1024 });
 *
 * const cache = await openCache({ ...pair, tunables: { writeback: "off" }, warn: console.warn });
 * await cache.write(4096, new Uint8Array(4096).fill(7));
 * await cache.close();
 *
 * const again = await openCache(pair);
 * assert(again.recovery.clean && again.recovery.dirtyBlocks === 1);
 * await again.close();
 * await Deno.remove(directory, { recursive: true });
 * ```
 */
export async function openCache(options: CacheOptions): Promise<Cache> {
  const { openTarget: openPath = openTarget }: EngineOptions = options;
  const write = !(options.readOnly ?? false);
  if (options.at !== undefined && write) {
    throw new UsageError(
      `Cannot open a cache as of flush point ${options.at} for writing: expected readOnly with it; see rewindCache for the other`,
    );
  }
  checkTunables({ ...defaultTunables, ...options.tunables });
  let backing = typeof options.backing === "string" ? undefined : options.backing;
  let opened: OpenedCache | undefined;
  try {
    opened = await openLegs(options, {
      open: (target) => openPath(target, write, "cache"),
      clock: options.clock ?? systemClock,
      warn: options.warn ?? (() => {}),
    });
    backing = typeof options.backing === "string"
      ? await openPath(options.backing, write, "backing")
      : options.backing;
    return await open(options, opened, backing);
  } catch (error) {
    await backing?.close();
    await opened?.device.close();
    await opened?.resync?.close();
    throw error;
  }
}

async function open(options: EngineOptions, opened: OpenedCache, backing: BlockDevice): Promise<Cache> {
  const { device, superblock, copy, problems } = opened;
  const warn = options.warn ?? (() => {});
  for (const problem of problems) {
    warn(`${device.name}: ${problem.message}; the other copy is used, and nothing is lost`);
  }
  await checkPair(superblock, device, backing, options.acceptChangedBacking ?? false);
  const { geometry } = superblock;
  const segments = new Segments(geometry.segmentCount, geometry.segmentBlocks);
  const bufferCount = options.bufferCount ?? Math.min(
    geometry.segmentCount,
    Math.max(bufferCountMin, Math.floor(bufferBytes / (geometry.segmentBlocks * blockBytes))),
  );
  const backingBlocks = backingBlocksOf(backing.sizeBytes);
  const kernels = (options.makeKernels ?? Kernels.create)({
    slotCount: geometry.slotCount,
    backingBlocks,
    segmentBlocks: geometry.segmentBlocks,
    bufferCount,
    stagingBlocks: stagingBlocksOf(geometry.slotCount),
    readSlots: readSlotBlocks,
    lentBytes: lentBuffersMax * lentBufferBytes,
  });
  const versions = new Versions(kernels, segments, backingBlocks);
  const checkpoint = await readCheckpoint(device, superblock);
  if (checkpoint.problem) {
    warn(
      `${device.name}: ${checkpoint.problem}; everything in the log counts as dirty, so more is written back than is ` +
        "needed, and nothing is lost",
    );
  }
  const reader = new LogReader(device, geometry, superblock.uuid, options.unsyncedBlocks);
  reader.acceptUnreadable = options.acceptUnreadable ?? false;
  const past = options.at ?? options.rewindTo;
  const point = past === undefined
    ? undefined
    : await findPoint(reader, superblock, past, options.acceptChangedBacking ?? false);
  if (point) options.onPoint?.(point);
  // The checkpoint knows what was not written back of the present; of the past, all of it counts as such.
  const walk = await replayLog(
    reader,
    superblock,
    versions,
    point ? undefined : checkpoint.bits,
    options.onProgress,
    past,
  );
  if (reader.unreadable.size > 0) {
    warn(
      `${device.name}: ${reader.unreadable.size} blocks of the log cannot be read, and what only they held is lost; nbdboost check ` +
        "tells more",
      "error",
    );
  }
  const recovery = report(superblock, versions, walk);
  options.onRecovered?.({ superblock, copy, versions, walk, report: recovery });
  const readOnly = options.readOnly === true || (recovery.damaged && !options.acceptDamage);
  if (recovery.damaged && !options.readOnly) {
    warn(
      `${device.name} is damaged: ${recovery.lostBlocks} blocks (${
        recovery.lostBlocks * blockBytes
      } bytes) are lost` +
        (readOnly ? "; it is served read-only until that is accepted with --accept-damage" : "") +
        "; reads there get EIO, and everything else is there",
      "error",
    );
  }
  let core: Core;
  let cache: Cache | undefined;
  const parts = {
    device,
    backing,
    geometry,
    kernels,
    segments,
    versions,
    foreground: new Foreground(backing, options.clock ?? systemClock),
    locks: new RangeLocks(),
    bypassed: new Bypassed({ kernels, versions, backing }),
    clock: options.clock ?? systemClock,
    tunables: { ...defaultTunables, ...options.tunables },
    statistics: new Statistics(),
    history: historyOf(superblock, point?.head ?? walk.head.sequence, options.acceptChangedBacking ?? false),
    warn,
  };
  const shared = {
    ...parts,
    copies: new CleanCopies(parts),
    onRot(block: number, slot: number, why: string) {
      if (cache) cacheSeam.lose(cache, block, slot, why);
    },
  };
  if (readOnly) {
    // Nothing is copied to it.
    await opened.resync?.close();
    core = { ...shared, writer: undefined };
    const mirror = mirrorOf(options, core, superblock);
    return cache = cacheSeam.make({ core, superblock, store: undefined, recovery, mirror });
  }
  const epoch = newEpoch(superblock.epoch, walk.head.sequence, options.random ?? systemRandom);
  const writer = new LogWriter({
    device,
    kernels,
    segments,
    geometry,
    clock: shared.clock,
    uuid: superblock.uuid,
    epoch,
    head: walk.head,
    last: walk.last,
    reusableTail: segments.of(superblock.tail.slot),
    bufferCount,
    ...(options.unsyncedBlocks === undefined ? {} : { unsyncedBlocks: options.unsyncedBlocks }),
  });
  keepLastEntries(kernels, walk);
  const store = new SuperblockStore(device, writer, superblock, copy);
  if (point) shared.history.rewound(point.head);
  let history = openHistory(superblock.history, shared.history);
  if (point) history = rewoundHistory(history, epoch);
  await beginEpoch({ device, backing, store, walk, epoch, geometry, history });
  core = { ...shared, writer };
  // The tail passes no gap before all that was lost in it is written down as lost.
  for (const gap of walk.gaps) if (gap.lost) segments.held.add(segments.of(gap.slot));
  const mirror = mirrorOf(options, core, superblock);
  cache = cacheSeam.make({ core, superblock: store.current, store, recovery, mirror });
  try {
    if (recovery.damaged) await cacheSeam.persistLosses(cache);
  } catch (error) {
    await cache.close().catch(() => {});
    throw error;
  }
  segments.forgetLost();
  // In the background; what goes wrong is warned of.
  if (opened.resync) mirror!.attach(opened.resync).catch((error) => warn(`${error.message}`, "error"));
  return cache;
}

function mirrorOf(options: EngineOptions, core: Core, superblock: Superblock): Mirror | undefined {
  const { device } = core;
  if (!(device instanceof MirrorDevice)) return undefined;
  const { openTarget: open = openTarget, random = systemRandom } = options;
  return new Mirror({
    core,
    device,
    uuid: superblock.uuid,
    open: (target) => open(target, true, "cache"),
    random,
  });
}

/** Walks the log, up to the record `until` if that is given, and replays it into `versions`. */
export async function replayLog(
  reader: LogReader,
  superblock: Superblock,
  versions: Versions,
  checkpoint: SlotBits | undefined,
  onProgress?: (done: number, total: number) => void,
  until?: number,
): Promise<Walk> {
  const { segments } = versions;
  const isDirty = checkpoint ? (slot: number) => checkpoint.has(slot) : () => true;
  const walk = await walkLog(reader, superblock, {
    placed: (slot, sequence, chain) => segments.place(slot, sequence, chain),
    lost: (slot, sequence, chain) => segments.placeLost(slot, sequence, chain),
    apply: (entries, slot, sequence) => versions.replay(entries, slot, sequence, isDirty),
    loseAll: (sequence) => versions.loseAll(sequence),
    progress: (done) => onProgress?.(done, segments.count),
  }, until);
  // Records that were placed and then dropped are not there.
  for (let segment = 0; segment < segments.count; segment++) {
    segments.lastSequence[segment] = Math.min(segments.lastSequence[segment]!, walk.head.sequence - 1);
  }
  return walk;
}

function report(superblock: Superblock, versions: Versions, walk: Walk): RecoveryReport {
  const { kernels, poison } = versions;
  return {
    clean: superblock.clean,
    records: walk.records,
    kept: walk.rewrites.length,
    dropped: walk.dropped,
    dirtyBlocks: kernels.dirty.count,
    zeroBlocks: kernels.zeroDirty.count,
    lostBlocks: poison.blocks,
    gaps: walk.gaps,
    damaged: versions.unrecorded.any,
  };
}

function newEpoch(previous: Epoch, firstSequence: number, random: RandomSource): Epoch {
  const bytes = new Uint8Array(8);
  random(bytes);
  const view = new DataView(bytes.buffer);
  if (previous.number >= 0xffff_ffff) {
    throw new RefusedError("Cannot open: this cache has been opened 2^32 times; drain and format it");
  }
  return {
    number: previous.number + 1,
    randomLow: view.getUint32(0, true),
    randomHigh: view.getUint32(4, true),
    firstSequence,
  };
}

/** The next record repeats the entry list of the last one. */
function keepLastEntries(kernels: Kernels, walk: Walk): void {
  const entries = walk.lastEntries;
  if (!entries) return;
  const from = entries.bytes.subarray(entries.offset, entries.offset + recordEntriesMax * entryBytes);
  kernels.bytes.set(from, kernels.map.entries);
}

/** Makes durable what was found, before anything is said about it (log-rules.md 7). */
async function beginEpoch(options: {
  device: BlockDevice;
  backing: BlockDevice;
  store: SuperblockStore;
  walk: Walk;
  epoch: Epoch;
  geometry: { logOffset: number };
  history: HistoryState;
}): Promise<void> {
  const { device, backing, store, walk, epoch, geometry, history } = options;
  for (const { slot, bytes } of [...walk.mends, ...walk.rewrites]) {
    await device.write(geometry.logOffset + slot * blockBytes, bytes);
  }
  await device.sync();
  await backing.sync();
  await store.write({
    clean: false,
    epoch,
    history,
    backingBytes: backing.sizeBytes,
    backing: await backing.identity(),
  });
}
