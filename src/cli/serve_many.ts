/**
 * Several caches served by one server in this thread.
 *
 * Invariants: all caches are open before anything is listened on; when one cannot be opened, those that were are closed
 * again. The server is closed first, and then every cache, whatever happens to another.
 *
 * @module
 */

import { type Cache, openCache, type RecoveryReport, serve } from "./engine.ts";
import type { ServePlan } from "./serve_plan.ts";

/** Caches that are being served. */
export interface ManyServed {
  readonly uris: readonly string[];
  /** Resolves when no client is connected. */
  idle(): Promise<void>;
  /** Closes the server first and then the caches. */
  close(): Promise<void>;
}

/** What is told while they are opened and served. */
export interface ManyEvents {
  warn(message: string): void;
  onProgress(done: number, total: number): void;
  /** A cache was opened. */
  onOpened(name: string, recovery: RecoveryReport): void;
}

/** Opens every cache of `plan` and serves them all. */
export async function serveMany(
  plan: ServePlan,
  events: ManyEvents,
): Promise<ManyServed> {
  const caches: Cache[] = [];
  try {
    const exports = [];
    for (const { name, description, cache, backing, ...options } of plan.exports) {
      const warn = (message: string) => events.warn(`export "${name}": ${message}`);
      const opened = await openCache({ cache, backing, ...options, warn, onProgress: events.onProgress });
      caches.push(opened);
      events.onOpened(name, opened.recovery);
      exports.push({ name, description, readOnly: options.readOnly, volume: opened });
    }
    const { listen, sockets, standardStreams, limits, tls } = plan;
    const { warn } = events;
    const server = await serve(exports, { listen, sockets, standardStreams, limits, tls, warn });
    const close = async () => {
      try {
        await server.close();
      } finally {
        await closeAll(caches);
      }
    };
    return { uris: server.uris, idle: () => server.idle(), close };
  } catch (error) {
    await closeAll(caches).catch((failure) => events.warn(`while closing: ${failure.message}`));
    throw error;
  }
}

async function closeAll(caches: readonly Cache[]): Promise<void> {
  const results = await Promise.allSettled(caches.map((cache) => cache.close()));
  for (const result of results) if (result.status === "rejected") throw result.reason;
}
