/**
 * Several caches served by one server in this thread.
 *
 * Invariants: all caches are open before anything is listened on; when one cannot be opened, those that were are closed
 * again. The server is closed first, and then every cache, whatever happens to another.
 *
 * @module
 */

import type { Cache } from "../cache/cache.ts";
import type { Clock } from "../clock.ts";
import type { Warn } from "../cache/core.ts";
import type { Io } from "../io/io.ts";
import { serve } from "../nbd/mod.ts";
import type { ExportOptions, ManyOptions, ManyStarted } from "./messages.ts";

/** Caches that are being served. */
export interface ManyServed extends ManyStarted {
  /** Resolves when no client is connected. */
  idle(): Promise<void>;
  /** Closes the server first and then the caches. */
  close(): Promise<void>;
}

/** How and by what they are opened and served. */
export interface ManyHost {
  /** Opens one. */
  open(options: ExportOptions, warn: Warn): Promise<Cache>;
  warn: Warn;
  /** What the server uses; by default the portable backend and the machine's clock. */
  io?: Io;
  clock?: Clock;
}

/** Opens every cache of `options` and serves them all. */
export async function serveMany(options: ManyOptions, host: ManyHost): Promise<ManyServed> {
  const { warn, io, clock } = host;
  const caches: Cache[] = [];
  try {
    const exports = [];
    for (const each of options.exports) {
      const { name, description, readOnly } = each;
      const volume = await host.open(each, (message, level) => warn(`export "${name}": ${message}`, level));
      caches.push(volume);
      exports.push({ name, description, readOnly, volume });
    }
    const { listen, sockets, standardStreams, limits, tls } = options;
    const server = await serve(exports, { listen, sockets, standardStreams, limits, tls, io, clock, warn });
    return {
      recoveries: caches.map(({ recovery }) => recovery),
      uris: [...server.uris],
      idle: () => server.idle(),
      async close() {
        try {
          await server.close();
        } finally {
          await closeAll(caches);
        }
      },
    };
  } catch (error) {
    await closeAll(caches).catch((failure) => warn(`while closing: ${failure.message}`));
    throw error;
  }
}

async function closeAll(caches: readonly Cache[]): Promise<void> {
  const results = await Promise.allSettled(caches.map((cache) => cache.close()));
  for (const result of results) if (result.status === "rejected") throw result.reason;
}
