/**
 * nbdboost: a crash-safe, log-structured write-back block cache in user space, served over NBD.
 *
 * ```ts
 * import assert from "node:assert/strict";
 * import { formatCache, MemoryDevice, openCache } from "./mod.ts";
 *
 * const [fast, slow] = [new MemoryDevice(16 * 1024 * 1024), new MemoryDevice(64 * 1024 * 1024)];
 * await formatCache({ cache: fast, backing: slow });
 * const cache = await openCache({ cache: fast, backing: slow });
 * await cache.write(4096, new Uint8Array(512).fill(7), { fua: true });
 * const bytes = new Uint8Array(512);
 * await cache.read(4096, bytes);
 * assert(bytes[0] === 7);
 * await cache.drain(); // now the backing alone is complete
 * await cache.close();
 * ```
 *
 * @module
 */

export type { BlockDevice, DeviceIdentity } from "./src/device/block_device.ts";
export { MemoryDevice } from "./src/device/memory.ts";
export { openDevice, type OpenOptions } from "./src/device/open.ts";
export type {
  Io,
  IoConnection,
  IoFile,
  IoListener,
  PathFacts,
  SocketAddress,
  TlsIdentity,
  TlsTrust,
} from "./src/io/io.ts";
export { Cache } from "./src/cache/cache.ts";
export type { DrainOptions, DrainReport } from "./src/cache/drain.ts";
export type { CacheMap } from "./src/cache/map.ts";
export type { AttachOptions, AttachReport, Mirror, MirrorStatus } from "./src/cache/mirror.ts";
export type { LegOptions } from "./src/cache/legs.ts";
export type { LegStatus } from "./src/device/leg.ts";
export type { CacheState, CacheStatus } from "./src/cache/status.ts";
export type { CacheWear } from "./src/cache/wear.ts";
export type { LatencySummary } from "./src/latency.ts";
export { formatCache, type FormatOptions, type FormatReport } from "./src/cache/format.ts";
export { type CacheOptions, openCache, type RecoveryReport } from "./src/cache/open.ts";
export { checkCache, type CheckOptions, type CheckReport, type Problem } from "./src/cache/check.ts";
export {
  inspectCache,
  type InspectedLeg,
  type InspectedRecord,
  type InspectOptions,
  type InspectReport,
} from "./src/cache/inspect.ts";
export type { InspectedSegment } from "./src/cache/inspect_segments.ts";
export {
  recoverCache,
  type RecoverOptions,
  type RecoverPhase,
  type RecoverReport,
} from "./src/cache/recover.ts";
export {
  type FlushPoint,
  type HistoryOptions,
  type HistoryReport,
  listHistory,
} from "./src/cache/flush_points.ts";
export type { HistoryStatus } from "./src/cache/history_hold.ts";
export type { PointStatus } from "./src/cache/point_order.ts";
export type { CacheHistory, FrozenVolume } from "./src/cache/cache_history.ts";
export { planRewind, rewindCache, type RewindOptions, type RewindReport } from "./src/cache/rewind.ts";
export {
  checkDmWriteboost,
  type DmWriteboostOptions,
  type DmWriteboostRecoverOptions,
  type DmWriteboostRecoverReport,
  type DmWriteboostReport,
  type DmWriteboostSegment,
  inspectDmWriteboost,
  isDmWriteboost,
  recoverDmWriteboost,
} from "./src/foreign/dm_writeboost.ts";
export type { ByteRange } from "./src/foreign/dm_writeboost_plan.ts";
export type { Tunables } from "./src/cache/tunables.ts";
export type { Extent, MarkedExtent, MarkKind, ReadEnd, Volume, WriteOptions } from "./src/cache/volume.ts";
export type { Gap } from "./src/log/recovery.ts";
export {
  type Export,
  type Limits,
  type Observer,
  type RequestKind,
  serve,
  type ServedExport,
  type ServeOptions,
  type Server,
  type Statistics,
} from "./src/nbd/mod.ts";
export type { Clock } from "./src/clock.ts";
export type { RandomSource } from "./src/random.ts";
export {
  DamageError,
  DeviceError,
  type DeviceErrorCode,
  InUseError,
  NbdboostError,
  RefusedError,
  UsageError,
} from "./src/errors.ts";
export { version } from "./src/version.ts";
