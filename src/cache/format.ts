/**
 * Making a new cache: the only thing here that may overwrite what a device held.
 *
 * Invariants: nothing is written before everything has been checked; a file that this made is removed again on failure;
 * the log's space is allocated now, so that no later log write fails for want of it.
 *
 * @module
 */

import { type Clock, systemClock } from "../clock.ts";
import type { BlockDevice } from "../device/block_device.ts";
import { createFile, preallocate } from "../device/create.ts";
import { lookUpPath } from "../device/open.ts";
import { findSignature } from "../device/signature.ts";
import { RefusedError, UsageError } from "../errors.ts";
import { emptySlotBits, writeCheckpoint } from "../log/checkpoint.ts";
import { backingBlocksOf, type Geometry, planGeometry, segmentBlocksOf } from "../log/geometry.ts";
import { segmentBlocksDefault, superblockOffsets } from "../log/layout.ts";
import { encodeSuperblock, formatUuid, noHistory, type Superblock } from "../log/superblock.ts";
import { portableIo } from "../io/portable.ts";
import { type LegMark, newLegName, writeLegMarks } from "../log/leg_mark.ts";
import { findHiddenSegments } from "../foreign/dm_writeboost_scan.ts";
import { isNbdUri } from "../nbd/uri.ts";
import { type RandomSource, systemRandom } from "../random.ts";
import { blockBytes, formatSize, mib, sectorBytes } from "../units.ts";
import { planMemory } from "../wasm/memory_map.ts";
import { stagingBlocksOf } from "./batch.ts";
import { openTarget } from "./pair.ts";
import { lentBuffersMax } from "./lent_buffers.ts";
import { readSlotBlocks } from "./read_slots.ts";
import { lentBufferBytes } from "./volume.ts";

/** How to format. */
export interface FormatOptions {
  /** The cache device: a path, or a device of your own. */
  cache: string | BlockDevice;
  /** A second device that gets everything the first one gets, so that either alone is enough; made new as well. */
  mirror?: string | BlockDevice;
  /** The backing device that it will belong to; only read. */
  backing: string | BlockDevice;
  /** Bytes; makes the missing regular file `cache`, and `mirror`. */
  cacheSize?: number;
  /** Bytes; a power of two from 128 KiB to 8 MiB, 512 KiB by default. */
  segmentSize?: number;
  /** Overwrites whatever the cache device holds. */
  force?: boolean;
  /** Time for the superblock; the machine's clock by default. */
  clock?: Clock;
  /** Makes the uuid; the machine's cryptographic source by default. */
  random?: RandomSource;
  /** Progress of reserving the cache's space: bytes done, and bytes in all. */
  onProgress?: (done: number, total: number) => void;
}

/** What was made. */
export interface FormatReport {
  /** Names the cache from now on. */
  uuid: string;
  /** The size of the cache device in bytes. */
  cacheBytes: number;
  /** Bytes of one segment of the log. */
  segmentBytes: number;
  /** Segments of the log; about so many times `segmentBytes` can be cached. */
  segments: number;
  /** The size of the backing device in bytes. */
  backingBytes: number;
}

/**
 * Makes a new, empty cache for a backing device, durably, with all of its space reserved.
 *
 * **It destroys what the cache device holds**, but refuses to when its first MiB is not all zeroes, unless `force` is
 * given. The backing device is only read: it may hold data, which the cache will serve. Cache and backing belong together
 * from now on; one cache device serves one backing device.
 *
 * Paths are opened and closed again; devices of your own stay open. A cache file that was made and could not be finished
 * is removed again.
 *
 * @throws {RefusedError} when the cache device holds something, is in use, or is the backing device itself
 * @throws {UsageError} for sizes that cannot be, and when there is no such file and no `cacheSize`
 * @throws {DeviceError} when a device fails, or the filesystem has no room
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { formatCache } from "../../mod.ts";
 * const directory = await Deno.makeTempDir();
 * await Deno.writeFile(`${directory}/disk.img`, new Uint8Array(1024 * 1024));
 *
 * const made = await formatCache({
 *   cache: `${directory}/cache.nbb`,
 *   cacheSize: 8 * 1024 * 1024, // makes the file
 *   backing: `${directory}/disk.img`,
 * });
 * assert(made.backingBytes === 1024 * 1024 && made.segmentBytes === 512 * 1024);
 * await Deno.remove(directory, { recursive: true });
 * ```
 */
export async function formatCache(options: FormatOptions): Promise<FormatReport> {
  const segmentBlocks = options.segmentSize === undefined
    ? segmentBlocksDefault
    : segmentBlocksOf(options.segmentSize);
  const backing = await openTarget(options.backing, false);
  try {
    const targets = options.mirror === undefined ? [options.cache] : [options.cache, options.mirror];
    for (const target of targets) await refuseSame(target, options.backing, "the backing device itself");
    if (options.mirror !== undefined) {
      await refuseSame(options.mirror, options.cache, "the cache device itself");
    }
    const made: string[] = [];
    const devices: BlockDevice[] = [];
    try {
      for (const target of targets) {
        const created = await createMissing(target, options, segmentBlocks);
        if (created) made.push(target as string);
        const device = await openTarget(target, true);
        devices.push(device);
        if (!options.force && !created) await refuseForeign(device);
        const geometry = planGeometry(device.sizeBytes, segmentBlocks);
        checkMemory(geometry, backing);
      }
      for (const [i, device] of devices.entries()) {
        if (!made.includes(targets[i] as string)) await preallocate(device, options.onProgress);
      }
      const { mirror: _, ...others } = options;
      return await formatDevices(devices[0]!, backing, {
        ...others,
        segmentBlocks,
        ...(devices[1] ? { mirror: devices[1] } : {}),
      });
    } catch (error) {
      for (const path of made) await portableIo.remove(path).catch(() => {});
      throw error;
    } finally {
      for (const [i, device] of devices.entries()) {
        if (typeof targets[i] === "string") await device.close();
      }
    }
  } finally {
    if (typeof options.backing === "string") await backing.close();
  }
}

/** Writes both superblocks. Checks nothing but geometry: tests use segments down to 4 blocks. */
export async function formatDevices(
  cache: BlockDevice,
  backing: BlockDevice,
  options: { segmentBlocks: number; clock?: Clock; random?: RandomSource; mirror?: BlockDevice },
): Promise<FormatReport> {
  const { mirror } = options;
  const legs = mirror ? [cache, mirror] : [cache];
  const cacheBytes = Math.min(...legs.map(({ sizeBytes }) => sizeBytes));
  const geometry = planGeometry(cacheBytes, options.segmentBlocks);
  backingBlocksOf(backing.sizeBytes);
  const uuid = new Uint8Array(16);
  (options.random ?? systemRandom)(uuid);
  // RFC 9562, version 4.
  uuid[6] = (uuid[6]! & 0x0f) | 0x40;
  uuid[8] = (uuid[8]! & 0x3f) | 0x80;
  const start = { slot: 0, sequence: 1, chain: 0 };
  const now = (options.clock ?? systemClock).wallMs();
  const superblock: Superblock = {
    uuid,
    mirrored: mirror !== undefined,
    generation: 1,
    clean: true,
    epoch: { number: 0, randomLow: 0, randomHigh: 0, firstSequence: 1 },
    geometry,
    cacheBytes,
    tail: start,
    durableMark: 0,
    head: start,
    history: { ...noHistory, floor: 0 },
    createdMs: now,
    closedMs: now,
    backingBytes: backing.sizeBytes,
    // What the backing holds until the first open is nobody's business here.
    backing: { ...await backing.identity(), modifiedMs: 0 },
    samples: [],
    previous: undefined,
  };
  for (const leg of legs) {
    // An older cache's superblocks, and signatures of others, must not be found again.
    await leg.write(0, new Uint8Array(mib));
    await writeCheckpoint(leg, superblock, emptySlotBits(geometry));
    await leg.sync();
  }
  if (mirror) await writeMarks(cache, mirror, uuid, options.random ?? systemRandom);
  for (const leg of legs) {
    for (const [copy, offset] of superblockOffsets.entries()) {
      await leg.write(offset, encodeSuperblock({ ...superblock, generation: 1 + copy }, copy));
      await leg.sync();
    }
  }
  return {
    uuid: formatUuid(uuid),
    cacheBytes,
    segmentBytes: geometry.segmentBlocks * blockBytes,
    segments: geometry.segmentCount,
    backingBytes: backing.sizeBytes,
  };
}

/** Both legs say that they belong together. */
async function writeMarks(
  cache: BlockDevice,
  mirror: BlockDevice,
  uuid: Uint8Array<ArrayBuffer>,
  random: RandomSource,
): Promise<void> {
  const names = [newLegName(random), newLegName(random)] as const;
  for (const [i, device] of [cache, mirror].entries()) {
    const mark: LegMark = {
      uuid,
      generation: 0,
      claim: "together",
      self: names[i]!,
      other: names[1 - i]!,
      legBytes: device.sizeBytes,
      sinceSequence: 0,
      sinceMs: 0,
    };
    await writeLegMarks({
      mark,
      write: (offset, bytes) => device.write(offset, bytes),
      sync: () => device.sync(),
    }, {});
  }
}

async function refuseSame(
  cache: string | BlockDevice,
  other: string | BlockDevice,
  what: string,
): Promise<void> {
  let same = cache === other;
  if (!same && typeof cache === "string" && typeof other === "string") {
    const facts = await Promise.all(
      [cache, other].map((path) => portableIo.stat(path).catch(() => undefined)),
    );
    if (facts.includes(undefined)) return;
    same = await portableIo.realPath(cache) === await portableIo.realPath(other);
  }
  if (!same) return;
  throw new RefusedError(
    `Cannot format ${
      typeof cache === "string" ? cache : cache.name
    }: it is ${what}; give two different devices`,
  );
}

/** Makes the cache file when it is missing and a size was given. Returns whether it did. */
async function createMissing(
  cache: string | BlockDevice,
  options: FormatOptions,
  segmentBlocks: number,
): Promise<boolean> {
  const { cacheSize } = options;
  if (typeof cache !== "string") return false;
  if (isNbdUri(cache)) return false;
  const facts = await lookUpPath(cache, "create");
  if (facts) {
    if (cacheSize !== undefined && facts.kind === "file" && facts.sizeBytes !== cacheSize) {
      throw new UsageError(
        `Cannot give ${cache} a size of ${formatSize(cacheSize)}: it exists with ${
          formatSize(facts.sizeBytes)
        }; leave out ` +
          `--cache-size to use it as it is, or remove it first`,
      );
    }
    return false;
  }
  if (cacheSize === undefined) {
    throw new UsageError(
      `Cannot format ${cache}: there is no such file; add --cache-size to create it with that size, or check the path`,
    );
  }
  if (cacheSize % sectorBytes !== 0) {
    throw new UsageError(
      `Cannot create ${cache} with ${cacheSize} bytes: expected a multiple of ${sectorBytes}`,
    );
  }
  planGeometry(cacheSize, segmentBlocks);
  await createFile(cache, cacheSize, options.onProgress ? { onProgress: options.onProgress } : {});
  return true;
}

async function refuseForeign(cache: BlockDevice): Promise<void> {
  const found = await findSignature(cache) ?? await findHidden(cache);
  if (found === undefined) return;
  throw new RefusedError(
    `Cannot format ${cache.name}: it holds ${found}; if that may be destroyed, add --force, else name another device`,
  );
}

/** What only its segments give away: a cache of dm-writeboost whose magic is gone can be rescued still. */
async function findHidden(cache: BlockDevice): Promise<string | undefined> {
  const { whole } = await findHiddenSegments(cache);
  return whole === 0
    ? undefined
    : `whole segments of dm-writeboost, whose magic is gone (recover saves what they hold)`;
}

/** Refuses now what could not be opened later. */
function checkMemory(geometry: Geometry, backing: BlockDevice): void {
  planMemory({
    slotCount: geometry.slotCount,
    backingBlocks: backingBlocksOf(backing.sizeBytes),
    segmentBlocks: geometry.segmentBlocks,
    bufferCount: 16,
    stagingBlocks: stagingBlocksOf(geometry.slotCount),
    readSlots: readSlotBlocks,
    lentBytes: lentBuffersMax * lentBufferBytes,
  });
}
