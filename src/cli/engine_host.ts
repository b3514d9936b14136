/**
 * Where the engine runs: on the portable backend in this thread, or on the ring in one of its own. One face for both.
 *
 * @module
 */

import type { ControlTarget } from "../control/target.ts";
import { RefusedError } from "../errors.ts";
import type { HostOptions, Started } from "../host/messages.ts";
import { EngineThreadError, type HostEvents, RingHost } from "../host/ring_host.ts";
import type { ServedCache } from "../host/served.ts";
import { ServedCaches } from "../host/served_caches.ts";
import { probeRing, type RingProbe } from "../io/ring/mod.ts";
import { isNbdUri, parseNbdUri } from "../nbd/uri.ts";
import { openCache } from "./engine.ts";

/** One of the caches that are being served. */
export interface EngineExport extends ControlTarget {
  readonly recovery: Started["exports"][number]["recovery"];
}

/** Caches that are being served, by one server on one backend. */
export interface EngineHost {
  /** Which backend moves their bytes, and why that one. */
  readonly io: "ring" | "portable";
  readonly ioReason: string;
  readonly uris: readonly string[];
  /** In the order in which they were given. */
  readonly exports: readonly EngineExport[];
  /** Resolves when no client is connected; never where it cannot be told. */
  idle(): Promise<void>;
  /** Closes the server first and then the caches. */
  close(): Promise<void>;
}

/** What `--io` takes. */
export const ioChoices = ["auto", "ring", "portable"] as const;

/**
 * Opens caches and serves them. `ring` insists on io_uring; `auto` takes it where kernel and permissions allow it, else the
 * portable backend, and `ioReason` tells why.
 *
 * @throws {RefusedError} when `ring` was asked for and cannot be used here
 */
export function startEngine(choice: string, options: HostOptions, events: HostEvents): Promise<EngineHost> {
  return startOn(
    choice,
    needsPortable(options),
    (why) => startRing(options, events, why),
    (why) => startPortable(options, events, why),
  );
}

/** Starts on the backend that was chosen, or on the better one of those that can do it. */
async function startOn(
  choice: string,
  needed: string | undefined,
  ring: (why: string) => Promise<EngineHost>,
  portable: (why: string) => Promise<EngineHost>,
): Promise<EngineHost> {
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
function needsPortable({ tls, standardStreams, exports }: HostOptions): string | undefined {
  if (standardStreams) return "standard input and output (--stdio)";
  if (tls !== undefined) return "TLS (--tls)";
  const isSecret = exports.some(({ backing }) => isNbdUri(backing) && parseNbdUri(backing).tls);
  return isSecret ? "TLS (--backing nbds)" : undefined;
}

async function startRing(options: HostOptions, events: HostEvents, ioReason: string): Promise<EngineHost> {
  const host = await RingHost.start(options, events);
  const backend = { io: "ring", ioReason } as const;
  return {
    ...backend,
    uris: host.uris,
    exports: host.exports.map((each) => ({
      ...backend,
      recovery: each.recovery,
      status: () => each.status(),
      map: () => each.map(),
      tune: (settings) => each.tune(settings),
      mirror: (action, onProgress) => each.mirror(action, onProgress),
      drain: (onProgress) => each.drain(onProgress),
      history: (limit) => each.history(limit),
      hold: (release) => each.hold(release),
      detach: (verify, onProgress) => each.detach(verify, onProgress),
    })),
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
  const { warn = () => {}, onProgress = () => {} } = events;
  const host = await ServedCaches.open(options, {
    warn,
    open: ({ name: _, description: __, ...each }, warn) => openCache({ ...each, warn, onProgress }),
  });
  const backend = { io: "portable", ioReason } as const;
  return {
    ...backend,
    uris: host.server.uris,
    exports: host.all.map((each) => ({ ...backend, ...targetOf(each) })),
    idle: () => host.server.idle(),
    close: () => host.close(),
  };
}

/** Async functions, so that what they throw is a rejection, as it is from the other thread. */
function targetOf(served: ServedCache): Omit<EngineExport, "io" | "ioReason"> {
  return {
    recovery: served.cache.recovery,
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
  };
}
