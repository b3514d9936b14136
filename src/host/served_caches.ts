/**
 * Caches served by one server in this thread, each under its name.
 *
 * Invariants: all caches are open before anything is listened on; when one cannot be opened, those that were are closed
 * again. The server is closed first, and then every cache, whatever happens to another. A cache that is detached leaves
 * the others as they are; with the last one the server ends.
 *
 * @module
 */

import type { Cache } from "../cache/cache.ts";
import type { Warn } from "../cache/core.ts";
import type { Clock } from "../clock.ts";
import type { Io } from "../io/io.ts";
import { serve, type ServeOptions, type Server } from "../nbd/mod.ts";
import { RequestLatencies } from "../nbd/request_latencies.ts";
import type { ExportOptions, HostOptions, Started } from "./messages.ts";
import { ServedCache } from "./served.ts";

/** A cache that is open, and how it is to be offered. */
export interface OpenExport {
  cache: Cache;
  /** By default the one that the URIs name. */
  name?: string;
  description?: string;
  readOnly?: boolean;
}

/** What goes for the server. */
export type ServerOptions = Omit<ServeOptions, "exportName" | "description" | "readOnly" | "observer">;

/** How and by what caches are opened and served. */
export interface CacheHost {
  /** Opens one. */
  open(options: ExportOptions, warn: Warn): Promise<Cache>;
  warn: Warn;
  /** What the server uses; by default the portable backend and the machine's clock. */
  io?: Io;
  clock?: Clock;
}

/** Caches that are being served. */
export class ServedCaches {
  readonly server: Server;
  /** In the order in which they were given. */
  readonly all: readonly ServedCache[];

  private constructor(
    server: Server,
    exports: readonly OpenExport[],
    latencies: readonly RequestLatencies[],
  ) {
    this.server = server;
    this.all = exports.map(({ cache }, index) => {
      const served = server.exports[index]!;
      return new ServedCache(cache, served, latencies[index]!, () => {
        const isLast = this.all.every((each) => each.cache === cache || !each.serving);
        return isLast ? server.close() : served.withdraw();
      });
    });
  }

  /** Opens every cache of `options` and serves them all. */
  static async open(options: HostOptions, host: CacheHost): Promise<ServedCaches> {
    const { exports, ...rest } = options;
    const { warn, io, clock } = host;
    const opened: OpenExport[] = [];
    try {
      for (const each of exports) {
        const { name = "", description = "", readOnly = false } = each;
        const told: Warn = exports.length === 1
          ? warn
          : (message, level) => warn(`export "${name}": ${message}`, level);
        opened.push({ cache: await host.open(each, told), name, description, readOnly });
      }
    } catch (error) {
      await closeAll(opened).catch((failure) => warn(`while closing: ${failure.message}`));
      throw error;
    }
    return await ServedCaches.start(opened, { ...rest, io, clock, warn });
  }

  /** Serves caches, and measures how long their requests take. They are closed when that fails. */
  static async start(exports: readonly OpenExport[], options: ServerOptions): Promise<ServedCaches> {
    const latencies = exports.map(() => new RequestLatencies());
    try {
      return new ServedCaches(await serveAll(exports, latencies, options), exports, latencies);
    } catch (error) {
      await closeAll(exports);
      throw error;
    }
  }

  /** What is told of them once they are served. */
  started(): Started {
    return {
      exports: this.all.map(({ cache: { recovery, sizeBytes } }) => ({ recovery, sizeBytes })),
      uris: [...this.server.uris],
    };
  }

  /** Closes the server first and then the caches. */
  async close(): Promise<void> {
    for (const each of this.all) each.stop();
    try {
      await this.server.close();
    } finally {
      await closeAll(this.all);
    }
  }
}

function serveAll(
  exports: readonly OpenExport[],
  latencies: readonly RequestLatencies[],
  options: ServerOptions,
): Promise<Server> {
  const [only] = exports;
  if (exports.length > 1 || only === undefined) {
    const offered = exports.map((
      { cache: volume, name = "", description = "", readOnly = false },
      index,
    ) => ({
      name,
      description,
      readOnly,
      volume,
      observer: latencies[index],
    }));
    return serve(offered, options);
  }
  const { cache, name, description, readOnly } = only;
  const exportName = name === "" ? undefined : name;
  return serve(cache, { ...options, exportName, description, readOnly, observer: latencies[0] });
}

async function closeAll(them: readonly { cache: Cache }[]): Promise<void> {
  const results = await Promise.allSettled(them.map(({ cache }) => cache.close()));
  for (const result of results) if (result.status === "rejected") throw result.reason;
}
