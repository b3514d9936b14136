/**
 * `rewind`: makes the volume of a flush point the present again, offline.
 *
 * Invariants: the flush point is what the volume is afterwards, exactly; a crash at any moment leaves the one present or the
 * other. What came after the flush point is void by the new epoch (log-rules.md 14), from the first superblock on that
 * names it.
 *
 * @module
 */

import { systemClock } from "../clock.ts";
import { assert, DamageError } from "../errors.ts";
import { LogReader } from "../log/reader.ts";
import { findPoint, type FoundPoint } from "./past.ts";
import { type CacheOptions, type EngineOptions, openCache } from "./open.ts";
import { openLegs } from "./legs.ts";
import { openTarget } from "./pair.ts";

/** How to rewind. */
export interface RewindOptions extends Omit<CacheOptions, "readOnly" | "at" | "acceptDamage"> {
  /** The flush point that becomes the present; see {@linkcode listHistory}. */
  to: number;
}

/** What is undone, or would be. */
export interface RewindReport {
  /** The flush point. */
  to: number;
  /** Flush points that came after it. */
  undoneFlushPoints: number;
  /** Records that came after it. */
  undoneRecords: number;
  /** Blocks (4096 bytes) that they hold. */
  undoneBlocks: number;
}

/**
 * Tells what {@linkcode rewindCache} would undo, and changes nothing. Whether the backing belongs to the cache is not
 * looked at.
 *
 * @throws {RefusedError} when there is no such flush point, or something newer may have reached the backing
 * @throws {DamageError} when records before it are lost
 */
export async function planRewind(
  options: Pick<
    RewindOptions,
    "cache" | "mirror" | "to" | "acceptChangedBacking" | "acceptMissingMirror" | "resyncMirror"
  >,
): Promise<RewindReport> {
  // Of two legs the one that counts tells what there is, whichever was named first.
  const { device, superblock, resync } = await openLegs(options, {
    open: (target) => openTarget(target, false),
    clock: systemClock,
    warn: () => {},
  });
  try {
    const reader = new LogReader(device, superblock.geometry, superblock.uuid);
    const mayDiffer = options.acceptChangedBacking ?? false;
    return report(options.to, await findPoint(reader, superblock, options.to, mayDiffer));
  } finally {
    if (typeof options.cache === "string") await device.close();
    if (typeof options.mirror === "string") await resync?.close();
  }
}

/**
 * Makes the volume as it was at a flush point the present again: **what came after it is gone for good.** The cache is
 * opened, which recovers it, as of the flush point, and closed in order. Flush points up to that one stay; if history was
 * held, it is held on.
 *
 * A crash meanwhile leaves the old present or the new one. Devices of your own are closed.
 *
 * @throws {RefusedError} when there is no such flush point, something newer may have reached the backing, the two do not
 * belong together or are in use
 * @throws {DamageError} when records before it are lost
 * @throws {UsageError} when there is no such file or device
 * @throws {DeviceError} when a device fails
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { formatCache, listHistory, openCache, rewindCache } from "../../mod.ts";
 * const directory = await Deno.makeTempDir();
 * const pair = { cache: `${directory}/cache.nbb`, backing: `${directory}/disk.img` };
 * await Deno.writeFile(pair.backing, new Uint8Array(1024 * 1024));
 * await formatCache({ ...pair, cacheSize: 8 * 1024 * 1024 });
 * const cache = await openCache(pair);
 * await cache.history.hold();
 * await cache.write(0, new Uint8Array(4096).fill(1), { fua: true });
 * await cache.write(0, new Uint8Array(4096).fill(2), { fua: true });
 * await cache.close();
 *
 * const { points: [first] } = await listHistory({ cache: pair.cache });
 * const { undoneFlushPoints } = await rewindCache({ ...pair, to: first!.sequence });
 * assert(undoneFlushPoints === 1);
 * const again = await openCache(pair);
 * const bytes = new Uint8Array(4096);
 * await again.read(0, bytes);
 * assert(bytes[0] === 1);
 * await again.close();
 * await Deno.remove(directory, { recursive: true });
 * ```
 */
export async function rewindCache(options: RewindOptions): Promise<RewindReport> {
  const { to, ...open } = options;
  let plan: RewindReport | undefined;
  const engine: EngineOptions = {
    ...open,
    rewindTo: to,
    onPoint: (point) => plan = report(to, point),
  };
  const cache = await openCache(engine);
  const { readOnly } = cache;
  await cache.close();
  if (readOnly) {
    throw new DamageError(
      `Cannot rewind ${nameOf(options.cache)}: it is damaged, and nothing was changed; see nbdboost check`,
    );
  }
  assert(plan !== undefined, "the flush point was found");
  return plan;
}

function nameOf(target: RewindOptions["cache"]): string {
  return typeof target === "string" ? target : target.name;
}

function report(to: number, { undone }: FoundPoint): RewindReport {
  return {
    to,
    undoneFlushPoints: undone.flushPoints,
    undoneRecords: undone.records,
    undoneBlocks: undone.blocks,
  };
}
