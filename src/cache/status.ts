/**
 * The status of a cache, in the fields that scripts parse.
 *
 * @module
 */

import { superblockBytes } from "../log/layout.ts";
import type { SuperblockStore } from "../log/superblock_store.ts";
import { formatUuid, type Superblock } from "../log/superblock.ts";
import type { LogWriter } from "../log/writer.ts";
import type { LatencySummary } from "../latency.ts";
import { blockBytes } from "../units.ts";
import { version } from "../version.ts";
import type { Core } from "./core.ts";
import type { MirrorStatus } from "./mirror.ts";
import type { PointStatus } from "./point_order.ts";
import type { Room } from "./room.ts";
import type { HistoryHold, HistoryStatus } from "./history_hold.ts";
import type { Tail } from "./tail.ts";
import { type CacheWear, makeWear } from "./wear.ts";
import type { WriteBack } from "./writeback.ts";

/**
 * The states of a cache.
 *
 * - `serving`: all is well
 * - `read-only`: it was opened so, or damage was found and not accepted
 * - `degraded`: it serves, but the backing device fails, blocks are lost, or a mirror has one leg alone
 * - `poisoned`: the log cannot be written any more; writes and flushes fail with EIO until it is opened again
 * - `draining`: everything is being written back, because `drain` was called
 * - `stopping`: it is closing, or closed
 */
export type CacheState = "serving" | "read-only" | "degraded" | "poisoned" | "draining" | "stopping";

/**
 * What `Cache.status()` returns: plain data that JSON can carry. Units are in the names, blocks are 4096 bytes, and counts
 * start at 0 when the cache is opened.
 */
export interface CacheStatus {
  /** The version of nbdboost. */
  version: string;
  /** The uuid of the cache. */
  uuid: string;
  /** What it is up to. */
  state: CacheState;
  /** Since it was opened. */
  uptimeSeconds: number;
  /** The backing device. */
  backing: {
    /** Its name: a path or an NBD URI. */
    target: string;
    /** Its size, which is the volume's. */
    sizeBytes: number;
    /** Why it cannot be reached just now; null while it can. Writes and hits go on without it, misses wait and fail. */
    away: string | null;
    /** For how long; null while it can be reached. */
    awaySeconds: number | null;
  };
  /** The cache device and what it holds. */
  cache: {
    /** Its name: a path. */
    path: string;
    /** Its size. */
    sizeBytes: number;
    /** Bytes of one segment of the log. */
    segmentBytes: number;
    /** Segments of the log. */
    segments: number;
    /** Segments that hold nothing that is needed; 0 when the cache is read-only. */
    freeSegments: number;
    /** Blocks that reads find in the log. */
    cachedBlocks: number;
    /** Of these, those whose content the backing device lacks. */
    dirtyBlocks: number;
    /** Blocks that read as zeroes, which the backing device does not know yet. */
    zeroBlocks: number;
    /** Blocks of which no good version is left. */
    lostBlocks: number;
    /** Writes that wait for room in the log, or for their turn because it fills faster than it is written back. */
    waitingWriters: number;
    /** The sequence of the record that is open, or comes next. */
    headSequence: number;
    /** The sequence of the oldest record that is needed. */
    tailSequence: number;
    /** The highest sequence that is durable. */
    durableSequence: number;
    /** RAM for the index, for what is on its way to the log and for write-back; fixed when the cache is opened. */
    ramBytes: number;
  };
  /** The legs of a mirrored cache device; null when it is a plain one. */
  mirror: MirrorStatus | null;
  /** Requests, and how many of them failed. */
  requests: { read: number; write: number; flush: number; trim: number; zero: number; error: number };
  /** Bytes that clients read and wrote, that went to the log, and that went to the backing device. */
  bytes: { read: number; written: number; log: number; writeback: number };
  /**
   * Blocks that reads found in RAM or log, those for which they asked the backing device, those overwritten before they
   * reached the log, those written back, those copied from the log's old end to its new one, and those of large sequential
   * writes that went past the log, those kept in the read cache, and those that were fetched ahead for it.
   */
  blocks: {
    readHit: number;
    readMiss: number;
    overwritten: number;
    writtenBack: number;
    copied: number;
    bypassed: number;
    kept: number;
    prefetched: number;
  };
  /** Records written, device writes and syncs for them, and how many flushes one sync served on average. */
  log: { records: number; writes: number; syncs: number; flushesPerSync: number };
  /** What the cache costs its device. */
  wear: CacheWear;
  /** What carries dirty blocks to the backing device. */
  writeback: {
    /** The tunable: `auto`, `on` or `off`. */
    mode: string;
    /** Which moment the backing device shows by itself, with `writeback_order=prefix`; null in any other order. */
    point: PointStatus | null;
    /** It is at work just now. */
    active: boolean;
    /** Writes and zero requests to the backing device. */
    requests: number;
    /** How many blocks one request carried on average. */
    blocksPerRequest: number;
    /** Bytes per second that reached the backing device of late. */
    bytesPerSecond: number;
    /** Seconds until nothing is dirty at that rate; null while nothing is written back, or nothing is dirty. */
    etaSeconds: number | null;
    /** The last failure, null when all went well since. */
    lastError: string | null;
    /** For how long it has failed; null when all went well since. */
    failingSeconds: number | null;
  };
  /** How far back the past can be looked at; see `holdHistory`. */
  history: HistoryStatus;
  /** How long calls took. */
  latencyMicros: {
    /** Flushes, until they were durable. */
    flush: LatencySummary;
  };
}

/** Puts the status together. */
export function makeStatus(
  core: Core,
  superblock: Superblock,
  engine:
    | {
      writer: LogWriter;
      room: Room;
      tail: Tail;
      writeback: WriteBack;
      store: SuperblockStore;
      hold: HistoryHold;
    }
    | undefined,
  facts: {
    uptimeMs: number;
    draining: boolean;
    stopping: boolean;
    damaged: boolean;
    mirror: MirrorStatus | null;
  },
): CacheStatus {
  const { kernels, versions, statistics, geometry, tunables } = core;
  const writer = engine?.writer;
  const log = writer?.statistics ?? { records: 0, writes: 0, syncs: 0, bytes: 0, flushes: 0 };
  const superblockWrites = engine?.store.writes ?? 0;
  const { lastError, failingSinceMs } = engine?.writeback.state ?? {};
  const nowMs = core.clock.monotonicMs();
  const dirtyBlocks = kernels.dirty.count;
  const bytesPerSecond = Math.round(statistics.writebackRate.at(nowMs));
  const away = core.backing.away?.() ?? null;
  let state: CacheState = "serving";
  if (lastError || away !== null || versions.poison.any || facts.mirror?.whole === false) state = "degraded";
  if (facts.draining) state = "draining";
  if (!engine) state = "read-only";
  if (writer?.failure) state = "poisoned";
  if (facts.stopping) state = "stopping";
  return {
    version,
    uuid: formatUuid(superblock.uuid),
    state,
    uptimeSeconds: Math.floor(facts.uptimeMs / 1000),
    backing: {
      target: core.backing.name,
      sizeBytes: core.backing.sizeBytes,
      away,
      awaySeconds: away === null ? null : Math.floor((core.backing.awayMs?.() ?? 0) / 1000),
    },
    cache: {
      path: core.device.name,
      sizeBytes: core.device.sizeBytes,
      segmentBytes: geometry.segmentBlocks * blockBytes,
      segments: geometry.segmentCount,
      freeSegments: writer?.freeSegments ?? 0,
      cachedBlocks: kernels.count,
      dirtyBlocks,
      zeroBlocks: kernels.zeroDirty.count,
      lostBlocks: versions.poison.blocks,
      waitingWriters: engine?.room.waiting ?? 0,
      headSequence: writer?.openSequence ?? superblock.head.sequence,
      tailSequence: engine?.tail.sequence ?? superblock.tail.sequence,
      durableSequence: writer?.durableSequence ?? superblock.durableMark,
      ramBytes: kernels.map.totalBytes,
    },
    mirror: facts.mirror,
    requests: {
      read: statistics.readRequests,
      write: statistics.writeRequests,
      flush: statistics.flushRequests,
      trim: statistics.trimRequests,
      zero: statistics.zeroRequests,
      error: statistics.errors,
    },
    bytes: {
      read: statistics.readBytes,
      written: statistics.writtenBytes,
      log: log.bytes,
      writeback: statistics.writebackBytes,
    },
    blocks: {
      readHit: statistics.readHitBlocks,
      readMiss: statistics.readMissBlocks,
      overwritten: statistics.overwrittenBlocks,
      writtenBack: statistics.writtenBackBlocks,
      copied: statistics.copiedBlocks,
      bypassed: statistics.bypassedBlocks,
      kept: statistics.keptBlocks,
      prefetched: statistics.prefetchedBlocks,
    },
    log: {
      records: log.records,
      writes: log.writes,
      syncs: log.syncs,
      flushesPerSync: log.syncs === 0 ? 0 : log.flushes / log.syncs,
    },
    wear: makeWear({
      writtenBytes: log.bytes + superblockWrites * superblockBytes,
      writeRequests: log.writes + superblockWrites,
      clientBytes: statistics.writtenBytes,
      ratedBytes: tunables.cacheTbw,
      uptimeMs: facts.uptimeMs,
    }),
    writeback: {
      mode: tunables.writeback,
      point: engine?.writeback.order.status() ?? null,
      active: engine?.writeback.state.active ?? false,
      requests: statistics.writebackRequests,
      blocksPerRequest: statistics.writebackRequests === 0
        ? 0
        : statistics.writtenBackBlocks / statistics.writebackRequests,
      bytesPerSecond,
      etaSeconds: bytesPerSecond === 0 || dirtyBlocks === 0
        ? null
        : Math.ceil(dirtyBlocks * blockBytes / bytesPerSecond),
      lastError: lastError ?? null,
      failingSeconds: failingSinceMs === undefined ? null : Math.floor((nowMs - failingSinceMs) / 1000),
    },
    history: engine?.hold.status() ?? {
      held: core.history.held,
      oldestSequence: core.history.floor,
      freeBytes: 0,
      fullInSeconds: null,
      views: 0,
    },
    latencyMicros: { flush: statistics.flushLatency.summary() },
  };
}
