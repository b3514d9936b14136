/**
 * What the control address controls: the engine, wherever it runs.
 *
 * @module
 */

import type { DrainReport } from "../cache/drain.ts";
import type { HistoryReport } from "../cache/flush_points.ts";
import type { HistoryStatus } from "../cache/history_hold.ts";
import type { CacheMap } from "../cache/map.ts";
import type { MirrorStatus } from "../cache/mirror.ts";
import type { Tunables } from "../cache/tunables.ts";
import type { EngineStatus, MirrorAction, OnProgress } from "../host/served.ts";

/** An engine that can be asked and told. */
export interface ControlTarget {
  /** Which backend moves its bytes. */
  readonly io: "ring" | "portable";
  /** Why that one. */
  readonly ioReason: string;
  status(): Promise<EngineStatus>;
  map(): Promise<CacheMap>;
  /** Changes settings; resolves to all of them. */
  tune(settings: Partial<Tunables>): Promise<Tunables>;
  /** See `ServedCache.mirror`. */
  mirror(action: MirrorAction, onProgress: OnProgress): Promise<MirrorStatus>;
  /** Writes everything back, among clients. */
  drain(onProgress: OnProgress): Promise<DrainReport>;
  /** Lists the newest flush points; 0 for all of them. */
  history(limit: number): Promise<HistoryReport>;
  /** Holds history, or releases it. */
  hold(release: boolean): Promise<HistoryStatus>;
  /** See `ServedCache.detach`. */
  detach(verify: boolean, onProgress: OnProgress): Promise<DrainReport>;
}
