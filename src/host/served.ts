/**
 * A cache that is served, as a thing that can be looked at, tuned, drained and detached. It lives where the engine lives;
 * everything that goes in and out is plain data, so that it may live in another thread.
 *
 * @module
 */

import type { Cache } from "../cache/cache.ts";
import type { DrainReport } from "../cache/drain.ts";
import type { HistoryReport } from "../cache/flush_points.ts";
import type { HistoryStatus } from "../cache/history_hold.ts";
import type { CacheMap } from "../cache/map.ts";
import type { MirrorStatus } from "../cache/mirror.ts";
import type { CacheStatus } from "../cache/status.ts";
import type { Tunables } from "../cache/tunables.ts";
import { DamageError, RefusedError } from "../errors.ts";
import type { LatencyCounts } from "../latency.ts";
import type { RequestKind, ServedExport, Statistics } from "../nbd/mod.ts";
import type { RequestLatencies } from "../nbd/request_latencies.ts";

/** How far something long has come, and which part of it. */
export type OnProgress = (done: number, total: number, phase: string) => void;

/** What is to be done with the legs of a mirror. */
export type MirrorAction =
  /** Gives up a leg. */
  | { do: "drop"; path: string }
  /** Copies to a device, and takes it into service; without a path to the leg that is missing. */
  | { do: "attach"; path?: string; force?: boolean };

/** What the engine knows of itself. */
export interface EngineStatus {
  cache: CacheStatus;
  tunables: Tunables;
  /** Clients are still served; false once detaching or stopping came so far. */
  serving: boolean;
  /** Open connections. */
  clients: number;
  /** What clients asked for and got. */
  requests: Statistics;
  latencies: Record<RequestKind, LatencyCounts>;
}

/** What one cache that is served can be asked and told, from wherever. */
export interface Served {
  status(): Promise<EngineStatus>;
  map(): Promise<CacheMap>;
  /** Changes settings; resolves to all of them. */
  tune(settings: Partial<Tunables>): Promise<Tunables>;
  /** See {@linkcode ServedCache}, as for the others. */
  mirror(action: MirrorAction, onProgress: OnProgress): Promise<MirrorStatus>;
  drain(onProgress: OnProgress): Promise<DrainReport>;
  history(limit: number): Promise<HistoryReport>;
  hold(release: boolean): Promise<HistoryStatus>;
  detach(verify: boolean, onProgress: OnProgress): Promise<DrainReport>;
}

/** A cache that is being served. */
export class ServedCache {
  readonly cache: Cache;
  readonly #served: ServedExport;
  readonly #latencies: RequestLatencies;
  readonly #end: () => Promise<void>;
  #detaching = false;
  #serving = true;

  /** `end` stops the serving of it, and of nothing that is to go on. */
  constructor(cache: Cache, served: ServedExport, latencies: RequestLatencies, end: () => Promise<void>) {
    this.cache = cache;
    this.#served = served;
    this.#latencies = latencies;
    this.#end = end;
  }

  /** False once detaching or stopping came so far that no client is served. */
  get serving(): boolean {
    return this.#serving;
  }

  /** What is going on. */
  status(): EngineStatus {
    return {
      cache: this.cache.status(),
      tunables: { ...this.cache.tunables },
      serving: this.#serving,
      clients: this.#served.clients,
      requests: { ...this.#served.statistics },
      latencies: this.#latencies.counts(),
    };
  }

  /** What log and backing device look like. */
  map(): CacheMap {
    return this.cache.map();
  }

  /** Changes settings; returns all of them. */
  tune(settings: Partial<Tunables>): Tunables {
    this.cache.tune(settings);
    return { ...this.cache.tunables };
  }

  /** Gives up a leg, or takes another into service; resolves when that is done. */
  async mirror(action: MirrorAction, onProgress: OnProgress): Promise<MirrorStatus> {
    const { mirror } = this.cache;
    if (mirror === undefined) {
      throw new RefusedError(
        `Cannot change the legs of ${this.cache.status().cache.path}: it has no mirror; drain it, and make a cache with one by ` +
          "nbdboost format --mirror",
      );
    }
    if (action.do === "drop") await mirror.drop(action.path);
    else {
      const missing = mirror.status().legs.find(({ state }) => state === "missing");
      const path = action.path ?? missing?.path;
      if (path === undefined) throw new RefusedError("Cannot bring a leg back: both are in service");
      await mirror.attach(path, {
        force: action.force ?? false,
        onProgress: (done, total) => onProgress(done, total, "copying"),
      });
    }
    return mirror.status();
  }

  /** Writes everything back, among clients. */
  drain(onProgress: OnProgress): Promise<DrainReport> {
    return this.cache.drain({ onProgress });
  }

  /** Lists the newest flush points; 0 for all of them. */
  history(limit: number): Promise<HistoryReport> {
    return this.cache.history.list({ limit });
  }

  /** Holds history, or releases it. */
  hold(release: boolean): Promise<HistoryStatus> {
    return release ? this.cache.history.release() : this.cache.history.hold();
  }

  /**
   * Writes everything back, ends the serving of it, reads back what the log still holds, and closes the cache: the backing device
   * alone is complete afterwards. With `verify` clients have to go first, so that everything that was dirty is read back;
   * else only a quarter of the log may be given up unread, and only if clients need the room.
   *
   * @throws {RefusedError} when it is read-only, poisoned, its history is held, or it is detaching already; then it goes on serving
   * @throws {DamageError} when blocks are lost; then it goes on serving. When the backing device does not return what was
   * written; then nobody is served any more
   */
  async detach(verify: boolean, onProgress: OnProgress): Promise<DrainReport> {
    this.#refuseDetach();
    this.#detaching = true;
    try {
      if (!verify) await this.cache.drain({ onProgress, keepLog: true });
      this.#serving = false;
      await this.#end();
      const report = await this.cache.drain({ onProgress, verify: true });
      await this.cache.close();
      return report;
    } finally {
      this.#detaching = false;
    }
  }

  #refuseDetach(): void {
    const { state, cache: { path, lostBlocks } } = this.cache.status();
    const refuse = (why: string) => new RefusedError(`Cannot detach ${path}: ${why}`);
    if (lostBlocks > 0) {
      throw new DamageError(
        `Cannot detach ${path}: ${lostBlocks} blocks are lost, so the backing device would not be complete; see nbdboost ` +
          `check, and write those ranges again or use nbdboost recover --accept-loss`,
      );
    }
    if (state === "poisoned") {
      throw refuse(
        "its log cannot be written any more; stop the server and start it again, which shows what is there",
      );
    }
    if (this.cache.readOnly) {
      throw refuse("it is served read-only, so nothing can be written back; serve it without that");
    }
    this.cache.history.refuseHeld("detach");
    if (this.#detaching || !this.#serving || state === "stopping") {
      throw refuse("it is being detached or stopped already");
    }
  }

  /** From now on it is being stopped. */
  stop(): void {
    this.#serving = false;
  }
}
