/**
 * The status of a server, in the fields that scripts parse: `status --json`, `GET /status`.
 *
 * @module
 */

import type { CacheStatus } from "../cache/status.ts";
import type { Tunables } from "../cache/tunables.ts";
import type { EngineStatus } from "../host/served.ts";
import { type LatencySummary, latencySummary } from "../latency.ts";
import { stateMeaning } from "./meaning.ts";

/** The kinds of requests whose latency is shown. */
export const timedKinds = ["read", "write", "flush", "trim", "zero"] as const;

/** A cache's status, and what serving it adds. Requests, bytes and latencies are those of NBD clients. */
export interface ServerStatus extends Omit<CacheStatus, "latencyMicros"> {
  /** What the state means for the data, in plain words. */
  meaning: string;
  /** What moves the bytes. */
  io: "ring" | "portable";
  /** Why that one was chosen. */
  ioReason: string;
  /** Open connections. */
  clients: number;
  /** The settings. */
  tunables: Tunables;
  /** How long requests took, from being parsed to their reply being queued. */
  latencyMicros: Record<typeof timedKinds[number], LatencySummary>;
}

/** Puts it together, in the order in which people read it. */
export function serverStatus(
  engine: EngineStatus,
  { io, ioReason }: { io: "ring" | "portable"; ioReason: string },
): ServerStatus {
  const { version, uuid, state, uptimeSeconds, backing, cache, mirror } = engine.cache;
  const { blocks, log, wear, writeback, bytes, history } = engine.cache;
  const { read, write, flush, trim, zero, error, bytesRead, bytesWritten } = engine.requests;
  const { latencies } = engine;
  const shown = engine.serving ? state : "stopping";
  return {
    version,
    uuid,
    state: shown,
    meaning: stateMeaning({ state: shown, backing, cache, mirror, writeback }),
    io,
    ioReason,
    uptimeSeconds,
    backing,
    cache,
    mirror,
    clients: engine.clients,
    requests: { read, write, flush, trim, zero, error },
    bytes: { ...bytes, read: bytesRead, written: bytesWritten },
    blocks,
    log,
    wear,
    writeback,
    history,
    latencyMicros: {
      read: latencySummary(latencies.read),
      write: latencySummary(latencies.write),
      flush: latencySummary(latencies.flush),
      trim: latencySummary(latencies.trim),
      zero: latencySummary(latencies.zero),
    },
    tunables: engine.tunables,
  };
}
