/**
 * Where the engine runs: on the portable backend in this thread, or on the ring in one of its own. One face for both.
 *
 * @module
 */

import type { DrainReport } from "../cache/drain.ts";
import type { HistoryReport } from "../cache/flush_points.ts";
import type { HistoryStatus } from "../cache/history_hold.ts";
import type { CacheMap } from "../cache/map.ts";
import type { MirrorStatus } from "../cache/mirror.ts";
import type { Tunables } from "../cache/tunables.ts";
import { RefusedError } from "../errors.ts";
import type { HostOptions, ManyOptions, ManyStarted } from "../host/messages.ts";
import { EngineThreadError, type HostEvents, RingHost, startManyOnRing } from "../host/ring_host.ts";
import { type EngineStatus, type MirrorAction, type OnProgress, ServedCache } from "../host/served.ts";
import { serveMany } from "../host/served_many.ts";
import { probeRing, type RingProbe } from "../io/ring/mod.ts";
import { isNbdUri, parseNbdUri } from "../nbd/uri.ts";
import { openCache } from "./engine.ts";

/** A cache that is being served. */
export interface EngineHost {
  /** Which backend moves its bytes, and why that one. */
  readonly io: "ring" | "portable";
  readonly ioReason: string;
  readonly recovery: RingHost["recovery"];
  readonly uris: readonly string[];
  /** See `ServedCache`. */
  status(): Promise<EngineStatus>;
  map(): Promise<CacheMap>;
  tune(settings: Partial<Tunables>): Promise<Tunables>;
  mirror(action: MirrorAction, onProgress: OnProgress): Promise<MirrorStatus>;
  drain(onProgress: OnProgress): Promise<DrainReport>;
  history(limit: number): Promise<HistoryReport>;
  hold(release: boolean): Promise<HistoryStatus>;
  detach(verify: boolean, onProgress: OnProgress): Promise<DrainReport>;
  /** Resolves when no client is connected; never where it cannot be told. */
  idle(): Promise<void>;
  /** Closes the server first and then the cache. */
  close(): Promise<void>;
}

/** What `--io` takes. */
export const ioChoices = ["auto", "ring", "portable"] as const;

/**
 * Opens a cache and serves it. `ring` insists on io_uring; `auto` takes it where kernel and permissions allow it, else the
 * portable backend, and `ioReason` tells why.
 *
 * @throws {RefusedError} when `ring` was asked for and cannot be used here
 */
export function startEngine(choice: string, options: HostOptions, events: HostEvents): Promise<EngineHost> {
  return startOn(
    choice,
    needsPortable(options, [options.backing]),
    (why) => startRing(options, events, why),
    (why) => startPortable(options, events, why),
  );
}

/** Several caches that are being served, by one server on one backend. */
export interface ManyHosted extends ManyStarted, Pick<EngineHost, "io" | "ioReason" | "idle" | "close"> {}

/** As {@linkcode startEngine}, for several caches. */
export function startMany(choice: string, options: ManyOptions, events: HostEvents): Promise<ManyHosted> {
  const { warn = () => {}, onProgress = () => {} } = events;
  return startOn<ManyHosted>(
    choice,
    needsPortable(options, options.exports.map(({ backing }) => backing)),
    async (ioReason) => ({
      ...await startManyOnRing(options, events),
      io: "ring",
      ioReason,
      idle: () => new Promise(() => {}),
    }),
    async (ioReason) => ({
      ...await serveMany(options, {
        warn,
        open: ({ name: _, description: __, ...each }, warn) => openCache({ ...each, warn, onProgress }),
      }),
      io: "portable",
      ioReason,
    }),
  );
}

/** Starts on the backend that was chosen, or on the better one of those that can do it. */
async function startOn<Host>(
  choice: string,
  needed: string | undefined,
  ring: (why: string) => Promise<Host>,
  portable: (why: string) => Promise<Host>,
): Promise<Host> {
  if (choice === "portable") return await portable("asked for by --io portable");
  if (needed !== undefined) {
    if (choice !== "ring") return await portable(`the ring cannot do ${needed}`);
    throw new RefusedError(
      `Cannot use --io ring with ${needed}: it cannot do that; use --io auto or --io portable`,
    );
  }
  const probe = probeHere();
  if (probe.usable) {
    try {
      return await ring(choice === "ring" ? "asked for by --io ring" : "io_uring can be used here");
    } catch (error) {
      // Only where nothing was opened yet can another backend take its place.
      if (choice === "ring" || !(error instanceof EngineThreadError)) throw error;
      return await portable(`the ring's thread did not start: ${error.message}`);
    }
  }
  if (choice === "ring") {
    throw new RefusedError(`Cannot use --io ring: ${probe.why}; use --io auto or --io portable`);
  }
  return await portable(`no io_uring: ${probe.why}`);
}

/** What is asked for that only the portable backend can do. */
function needsPortable(
  { tls, standardStreams }: Pick<HostOptions, "tls" | "standardStreams">,
  backings: readonly string[],
): string | undefined {
  if (standardStreams) return "standard input and output (--stdio)";
  if (tls !== undefined) return "TLS (--tls)";
  const isSecret = backings.some((backing) => isNbdUri(backing) && parseNbdUri(backing).tls);
  return isSecret ? "TLS (--backing nbds)" : undefined;
}

async function startRing(options: HostOptions, events: HostEvents, ioReason: string): Promise<EngineHost> {
  const host = await RingHost.start(options, events);
  const { recovery, uris } = host;
  return {
    io: "ring",
    ioReason,
    recovery,
    uris,
    status: () => host.status(),
    map: () => host.map(),
    tune: (settings) => host.tune(settings),
    mirror: (action, onProgress) => host.mirror(action, onProgress),
    drain: (onProgress) => host.drain(onProgress),
    history: (limit) => host.history(limit),
    hold: (release) => host.hold(release),
    detach: (verify, onProgress) => host.detach(verify, onProgress),
    idle: () => new Promise(() => {}),
    close: () => host.close(),
  };
}

/** Whether the ring can be used, and a thread be started for it. */
function probeHere(): RingProbe {
  const probe = probeRing();
  const path = new URL("../host/ring_worker.ts", import.meta.url);
  if (!probe.usable || path.protocol !== "file:") return probe;
  // A query first: a Worker that is not permitted would ask the person at the terminal.
  if (Deno.permissions.querySync({ name: "read", path }).state === "granted") return probe;
  return {
    usable: false,
    why: `Deno was not given the permission to read ${path.pathname}, its thread's program`,
  };
}

async function startPortable(
  options: HostOptions,
  events: HostEvents,
  ioReason: string,
): Promise<EngineHost> {
  const { listen, sockets, standardStreams, exportName, description, limits, tls, ...cacheOptions } = options;
  const { warn = () => {}, onProgress = () => {} } = events;
  const cache = await openCache({ ...cacheOptions, warn, onProgress });
  const { readOnly } = options;
  const served = await ServedCache.start(cache, {
    listen,
    sockets,
    standardStreams,
    exportName,
    description,
    readOnly,
    limits,
    tls,
    warn,
  });
  // Async functions, so that what they throw is a rejection, as it is from the other thread.
  return {
    io: "portable",
    ioReason,
    recovery: cache.recovery,
    uris: served.server.uris,
    // deno-lint-ignore require-await -- see above
    status: async () => served.status(),
    // deno-lint-ignore require-await -- see above
    map: async () => served.map(),
    // deno-lint-ignore require-await -- see above
    tune: async (settings) => served.tune(settings),
    mirror: (action, onProgress) => served.mirror(action, onProgress),
    drain: (onProgress) => served.drain(onProgress),
    history: (limit) => served.history(limit),
    hold: (release) => served.hold(release),
    detach: (verify, onProgress) => served.detach(verify, onProgress),
    idle: () => served.server.idle(),
    close: () => served.close(),
  };
}
