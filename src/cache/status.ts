/**
 * The status of a cache, in the fields that scripts parse.
 *
 * @module
 */

import type { SuperblockStore } from "../log/superblock_store.ts";
import { formatUuid, type Superblock } from "../log/superblock.ts";
import type { LogWriter } from "../log/writer.ts";
import { blockBytes } from "../units.ts";
import { version } from "../version.ts";
import type { Core } from "./core.ts";
import type { Tail } from "./tail.ts";
import type { WriteBack } from "./writeback.ts";

/** The states of a cache. `degraded`: serving, but the backing fails or blocks are lost. */
export type CacheState = "serving" | "read-only" | "degraded" | "poisoned" | "draining" | "stopping";

/** A latency in microseconds. */
export interface LatencySummary {
  p50: number;
  p99: number;
  max: number;
}

/** What `Cache.status()` returns; units are in the names. */
export interface CacheStatus {
  version: string;
  uuid: string;
  state: CacheState;
  uptimeSeconds: number;
  backing: { target: string; sizeBytes: number };
  cache: {
    path: string;
    sizeBytes: number;
    segmentBytes: number;
    segments: number;
    freeSegments: number;
    cachedBlocks: number;
    dirtyBlocks: number;
    zeroBlocks: number;
    lostBlocks: number;
    headSequence: number;
    tailSequence: number;
    durableSequence: number;
    ramBytes: number;
  };
  requests: { read: number; write: number; flush: number; trim: number; zero: number; error: number };
  bytes: { read: number; written: number; log: number; writeback: number };
  blocks: { readHit: number; readMiss: number; overwritten: number; writtenBack: number };
  log: { records: number; writes: number; syncs: number; flushesPerSync: number };
  writeback: {
    mode: string;
    active: boolean;
    requests: number;
    blocksPerRequest: number;
    lastError: string | null;
  };
  latencyMicros: { flush: LatencySummary };
}

/** Puts the status together. */
export function makeStatus(
  core: Core,
  superblock: Superblock,
  engine: { writer: LogWriter; tail: Tail; writeback: WriteBack; store: SuperblockStore } | undefined,
  facts: { uptimeMs: number; draining: boolean; stopping: boolean; damaged: boolean },
): CacheStatus {
  const { kernels, versions, statistics, geometry, tunables } = core;
  const writer = engine?.writer;
  const log = writer?.statistics ?? { records: 0, writes: 0, syncs: 0, bytes: 0, flushes: 0 };
  const lastError = engine?.writeback.state.lastError;
  let state: CacheState = "serving";
  if (lastError || versions.poison.any) state = "degraded";
  if (facts.draining) state = "draining";
  if (!engine) state = "read-only";
  if (writer?.failure) state = "poisoned";
  if (facts.stopping) state = "stopping";
  return {
    version,
    uuid: formatUuid(superblock.uuid),
    state,
    uptimeSeconds: Math.floor(facts.uptimeMs / 1000),
    backing: { target: core.backing.name, sizeBytes: core.backing.sizeBytes },
    cache: {
      path: core.device.name,
      sizeBytes: core.device.sizeBytes,
      segmentBytes: geometry.segmentBlocks * blockBytes,
      segments: geometry.segmentCount,
      freeSegments: writer?.freeSegments ?? 0,
      cachedBlocks: kernels.count,
      dirtyBlocks: kernels.dirty.count,
      zeroBlocks: kernels.zeroDirty.count,
      lostBlocks: versions.poison.blocks,
      headSequence: writer?.openSequence ?? superblock.head.sequence,
      tailSequence: engine?.tail.sequence ?? superblock.tail.sequence,
      durableSequence: writer?.durableSequence ?? superblock.durableMark,
      ramBytes: kernels.map.totalBytes,
    },
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
    },
    log: {
      records: log.records,
      writes: log.writes,
      syncs: log.syncs,
      flushesPerSync: log.syncs === 0 ? 0 : log.flushes / log.syncs,
    },
    writeback: {
      mode: tunables.writeback,
      active: engine?.writeback.state.active ?? false,
      requests: statistics.writebackRequests,
      blocksPerRequest: statistics.writebackRequests === 0
        ? 0
        : statistics.writtenBackBlocks / statistics.writebackRequests,
      lastError: lastError ?? null,
    },
    latencyMicros: { flush: statistics.flushLatency.summary() },
  };
}
