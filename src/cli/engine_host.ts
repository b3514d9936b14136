/**
 * Where the engine runs: on the portable backend in this thread, or on the ring in one of its own. One face for both.
 *
 * @module
 */

import { RefusedError } from "../errors.ts";
import type { HostOptions } from "../host/messages.ts";
import { type HostEvents, RingHost } from "../host/ring_host.ts";
import { probeRing, type RingProbe } from "../io/ring/mod.ts";
import { openCache, serve } from "./engine.ts";

/** A cache that is being served. */
export interface EngineHost {
  readonly recovery: RingHost["recovery"];
  readonly uris: readonly string[];
  /** Closes the server first and then the cache. */
  close(): Promise<void>;
}

/** What `--io` takes. */
export const ioChoices = ["auto", "ring", "portable"] as const;

/**
 * Opens a cache and serves it. `ring` insists on io_uring; `auto` is the portable backend until the ring has passed
 * everything that the portable one has.
 *
 * @throws {RefusedError} when `ring` was asked for and cannot be used here
 */
export async function startEngine(
  choice: string,
  options: HostOptions,
  events: HostEvents,
): Promise<EngineHost> {
  if (choice !== "ring") return await startPortable(options, events);
  const probe = probeHere();
  if (!probe.usable) {
    throw new RefusedError(`Cannot use --io ring: ${probe.why}; use --io auto or --io portable`);
  }
  const host = await RingHost.start(options, events);
  const { recovery, uris } = host;
  return { recovery, uris, close: () => host.close() };
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

async function startPortable(options: HostOptions, events: HostEvents): Promise<EngineHost> {
  const { listen, exportName, description, ...cacheOptions } = options;
  const { warn = () => {}, onProgress = () => {} } = events;
  const cache = await openCache({ ...cacheOptions, warn, onProgress });
  try {
    const { readOnly } = options;
    const server = await serve(cache, { listen, exportName, description, readOnly, warn });
    const close = async () => {
      try {
        await server.close();
      } finally {
        await cache.close();
      }
    };
    return { recovery: cache.recovery, uris: server.uris, close };
  } catch (error) {
    await cache.close();
    throw error;
  }
}
