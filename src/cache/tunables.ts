/**
 * What can be set while a cache runs.
 *
 * @module
 */

import { UsageError } from "../errors.ts";
import { blockBytes, gib, kib, mib, parseSize, tib } from "../units.ts";

/** The settings, by the names that the command line spells with underscores. */
export interface Tunables {
  /**
   * `auto`: when idle or when the log fills; `on`: whenever something is dirty; `off`: only when space is needed, or
   * `drain` asks. By default `auto`.
   */
  writeback: "auto" | "on" | "off";
  /**
   * Percent of the time for which others may keep the backing device busy before write-back leaves it to them, until the
   * log is half as full as it may be: 0 to 100, by default 100, which is never. Others are clients' reads; of a block device
   * whoever the kernel has seen using its disk, for which write-back rests a quarter of a second every five. In any case it
   * has the fewer requests in flight the slower clients' reads become.
   */
  writebackThreshold: number;
  /**
   * `elevator`: dirty blocks are written back in the order of their addresses, newest version only, which is fastest; the
   * backing device alone is no consistent image until it is drained. `prefix`: in steps from one moment of the volume to the
   * next, each in the versions of that moment, so that between two steps the backing device alone is the volume as it was
   * then. By default `elevator`.
   */
  writebackOrder: "elevator" | "prefix";
  /**
   * With `prefix`: bytes of log after which a client's flush ends a step, twice as many when nobody flushes; never more than
   * an eighth, or a quarter, of the log, nor less than a 4096th. Short steps are soon done, long ones cost less.
   * 65536 to 2^40, by default 64 MiB.
   */
  writebackStep: number;
  /** Most blocks (4096 bytes) of one write-back batch, of which some overlap in time: 1 to 256, by default 256. */
  writebackBatch: number;
  /**
   * Percent of the log that may be dirty before writers go at the pace of write-back; below it the live blocks at the log's
   * old end are copied to its new one when space is wanted. 10 to 90, by default 60. 0: nothing is copied, which writes
   * less to the cache device and makes a full cache slower.
   */
  copyForward: number;
  /**
   * Bytes that a sequential stream of writes must have carried before what follows goes straight to the backing device, past
   * the log, where the log holds nothing of the same place: a flush then waits for a sync of the backing device, too.
   * 4096 to 2^40, 0 for never, by default 0.
   */
  bypassSequential: number;
  /**
   * Longest run of blocks that reads may miss to be kept in the log as copies, where later reads find them: 1 to 1048576,
   * 0 keeps nothing, by default 0. Longer runs are read once, as a backup does, and not worth the space.
   */
  readCacheThreshold: number;
  /**
   * Bytes that the cache device is rated for over its life (TBW), for the forecast in the status: 2^30 to 2^53, 0 when not
   * known, by default 0.
   */
  cacheTbw: number;
  /** Seconds between flushes that the engine does by itself: 1 to 3600, 0 for none, by default 0. */
  flushInterval: number;
  /**
   * Seconds for which a write waits for a full log while nothing is written back, before it fails with EIO: 1 to 86400,
   * by default 30.
   */
  fullTimeout: number;
  /**
   * What happens when history is held and the log is full: `release` lets go of it, which is told as an error, and clients go
   * on; `wait` keeps it, and writes wait for `fullTimeout` and then fail with EIO. By default `release`.
   */
  historyFull: "release" | "wait";
}

/** The settings of a cache that was not told otherwise. */
export const defaultTunables: Readonly<Tunables> = {
  writeback: "auto",
  writebackThreshold: 100,
  writebackOrder: "elevator",
  writebackStep: 64 * mib,
  writebackBatch: 256,
  copyForward: 60,
  bypassSequential: 0,
  cacheTbw: 0,
  readCacheThreshold: 0,
  flushInterval: 0,
  fullTimeout: 30,
  historyFull: "release",
};

/** The largest batch: as much as one request to the backing may carry, 1 MiB. */
export const writebackBatchMax = 256;

/** `orZero`: 0 switches it off. `isSize`: bytes, which may have a unit. */
const numeric: Record<
  string,
  { key: keyof Tunables; min: number; max: number; orZero?: true; isSize?: true }
> = {
  writeback_threshold: { key: "writebackThreshold", min: 0, max: 100 },
  writeback_batch: { key: "writebackBatch", min: 1, max: writebackBatchMax },
  writeback_step: { key: "writebackStep", min: 64 * kib, max: tib, isSize: true },
  copy_forward: { key: "copyForward", min: 10, max: 90, orZero: true },
  bypass_sequential: { key: "bypassSequential", min: blockBytes, max: tib, orZero: true, isSize: true },
  read_cache_threshold: { key: "readCacheThreshold", min: 1, max: 1_048_576, orZero: true },
  cache_tbw: { key: "cacheTbw", min: gib, max: 2 ** 53, orZero: true, isSize: true },
  flush_interval: { key: "flushInterval", min: 1, max: 3600, orZero: true },
  full_timeout: { key: "fullTimeout", min: 1, max: 86400 },
};

/** Parses one `KEY=VALUE` of the command line. Throws `UsageError` that names key, value and what was expected. */
export function parseTunable(text: string): Partial<Tunables> {
  const [key = "", value = ""] = text.split(/=(.*)/s);
  if (key === "writeback") {
    if (value === "auto" || value === "on" || value === "off") return { writeback: value };
    throw new UsageError(`Cannot set writeback to "${value}": expected auto, on or off`);
  }
  if (key === "writeback_order") {
    if (value === "elevator" || value === "prefix") return { writebackOrder: value };
    throw new UsageError(`Cannot set writeback_order to "${value}": expected elevator or prefix`);
  }
  if (key === "history_full") {
    if (value === "release" || value === "wait") return { historyFull: value };
    throw new UsageError(`Cannot set history_full to "${value}": expected release or wait`);
  }
  const rule = Object.hasOwn(numeric, key) ? numeric[key] : undefined;
  if (!rule) {
    throw new UsageError(
      `Cannot set "${key}": there is no such tunable; expected one of writeback, writeback_order, history_full, ${
        Object.keys(numeric).join(", ")
      }`,
    );
  }
  const number = rule.isSize ? parseSize(value) ?? NaN : Number(value);
  const isInRange = (number >= rule.min && number <= rule.max) || (rule.orZero === true && number === 0);
  if (value.trim() === "" || !Number.isInteger(number) || !isInRange) {
    throw new UsageError(
      `Cannot set ${key} to "${value}": expected ${rule.orZero ? "0, or " : ""}a ${
        rule.isSize ? "size" : "whole number"
      } from ${rule.min} to ${rule.max}`,
    );
  }
  return { [rule.key]: number };
}

/** Refuses settings that contradict each other. */
export function checkTunables({ writebackOrder, bypassSequential }: Readonly<Tunables>): void {
  if (writebackOrder !== "prefix" || bypassSequential === 0) return;
  throw new UsageError(
    `Cannot combine writeback_order=prefix with bypass_sequential=${bypassSequential}: what goes past the log reaches the ` +
      `backing device before what was written earlier; set bypass_sequential=0, or writeback_order=elevator`,
  );
}
