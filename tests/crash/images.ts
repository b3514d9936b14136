/**
 * Small caches whose whole history is known, for damaging them bit by bit.
 *
 * @module
 */

import { type Cache, DamageError, DeviceError, openCache } from "../../mod.ts";
import { formatDevices } from "../../src/cache/format.ts";
import { scanCache } from "../../src/cache/scan.ts";
import type { Tunables } from "../../src/cache/tunables.ts";
import { type Clock, systemClock } from "../../src/clock.ts";
import { SeededRandom } from "../../src/random.ts";
import { blockBytes, kib, mib } from "../../src/units.ts";
import { ImageDevice } from "./image_device.ts";

/** The last block is short, on purpose. */
export const backingBytes = 192 * kib + 1536;
const segmentBlocks = 8;
const segmentCount = 12;
const cacheBytes = mib + segmentCount * segmentBlocks * blockBytes;

/** A pair of devices, and what the volume holds. */
export interface Pair {
  cache: ImageDevice;
  backing: ImageDevice;
  /** What reads must show, after each record that a flush ended; the last is the present. */
  states: { sequence: number; bytes: Uint8Array }[];
}

/** A live record and the bytes of the cache device that it covers. */
export interface LiveRecord {
  sequence: number;
  offset: number;
  dataCount: number;
}

/** The live records of a cache, by a walk over it, and the durable mark that it found. */
export async function liveRecords(cache: ImageDevice): Promise<{ records: LiveRecord[]; mark: number }> {
  const { records, walk, superblock } = await scanCache(cache);
  const { logOffset } = superblock.geometry;
  return {
    mark: walk.mark,
    records: records.map(({ sequence, slot, dataCount }) => ({
      sequence,
      offset: logOffset + slot * blockBytes,
      dataCount,
    })),
  };
}

/** Makes a pair whose backing has content of its own. */
export async function makePair(seed: number): Promise<Pair> {
  const random = new SeededRandom(seed);
  const cache = new ImageDevice(`cache-${seed}`, cacheBytes);
  const backing = new ImageDevice(`backing-${seed}`, backingBytes);
  random.fill(backing.bytes);
  await formatDevices(cache, backing, { segmentBlocks, random: random.fill });
  return { cache, backing, states: [{ sequence: 0, bytes: backing.bytes.slice() }] };
}

/** A clock whose timers never fire: nothing happens by itself. */
export const stillClock: Clock = { ...systemClock, after: () => () => {} };

/** Opens a pair, lets `use` work on it, and closes it in order. */
export async function session(
  { cache, backing }: Pair,
  tunables: Partial<Tunables>,
  use: (cache: Cache) => Promise<void>,
): Promise<void> {
  const clock = tunables.writeback === "on" ? systemClock : stillClock;
  const open = await openCache({ cache, backing, clock, tunables: { writeback: "off", ...tunables } });
  try {
    await use(open);
  } finally {
    await open.close();
  }
}

/** Some writes, partial writes, trims and zeroes, each `group` of them flushed into one record. */
export async function change(pair: Pair, cache: Cache, random: SeededRandom, flushes: number, group: number) {
  const bytes = pair.states.at(-1)!.bytes.slice();
  for (let flush = 0; flush < flushes; flush++) {
    for (let i = 0; i < group; i++) await changeOnce(cache, random, bytes);
    await cache.flush();
    pair.states.push({ sequence: cache.status().cache.durableSequence, bytes: bytes.slice() });
  }
}

async function changeOnce(cache: Cache, random: SeededRandom, bytes: Uint8Array): Promise<void> {
  const kind = random.below(10);
  const length = kind < 6 ? blockBytes : 1 + random.below(2 * blockBytes);
  const offset = kind < 6
    ? random.below(Math.floor(bytes.length / blockBytes)) * blockBytes
    : random.below(bytes.length - length);
  if (kind < 8) {
    const payload = new Uint8Array(length);
    random.fill(payload);
    await cache.write(offset, payload);
    bytes.set(payload, offset);
  } else {
    await (kind === 8 ? cache.trim(offset, length) : cache.zero(offset, length, { keepAllocated: true }));
    bytes.fill(0, offset, offset + length);
  }
}

/** What a cache showed and did when it was opened and read in full. */
export interface Outcome {
  /** Why it was not opened at all. */
  refused: string | undefined;
  /** By 512 B sector of the volume: what was read, or undefined for EIO. */
  sectors: (Uint8Array | undefined)[];
  dropped: number;
  warnings: string[];
  /** The backing after a drain. */
  backing: Uint8Array;
  /** Why the drain did not end well. */
  drained: unknown;
}

/** Opens copies of both, reads everything block by block (sector by sector where that fails), and drains. */
export async function tryAll(pair: Pair, acceptDamage: boolean): Promise<Outcome> {
  const [cache, backing] = [pair.cache.copy(), pair.backing.copy()];
  const outcome: Outcome = {
    refused: undefined,
    sectors: [],
    dropped: 0,
    warnings: [],
    backing: backing.bytes,
    drained: undefined,
  };
  let open: Cache;
  try {
    open = await openCache({
      cache,
      backing,
      acceptDamage,
      clock: stillClock,
      tunables: { writeback: "off" },
      warn: (message) => outcome.warnings.push(message),
    });
  } catch (error) {
    outcome.refused = `${error}`;
    return outcome;
  }
  try {
    outcome.dropped = open.recovery.dropped;
    const size = open.sizeBytes;
    for (let offset = 0; offset < size; offset += blockBytes) {
      const bytes = new Uint8Array(Math.min(blockBytes, size - offset));
      const whole = await readable(open, offset, bytes);
      for (let at = 0; at < bytes.length; at += 512) {
        const sector = bytes.subarray(at, at + 512);
        outcome.sectors.push(whole || await readable(open, offset + at, sector) ? sector : undefined);
      }
    }
    await open.drain().catch((error) => outcome.drained = error);
  } finally {
    await open.close();
  }
  if (outcome.drained !== undefined && !(outcome.drained instanceof DamageError)) {
    if (!(outcome.drained instanceof DeviceError)) throw outcome.drained;
  }
  return outcome;
}

async function readable(open: Cache, offset: number, into: Uint8Array): Promise<boolean> {
  try {
    await open.read(offset, into);
    return true;
  } catch (error) {
    if (error instanceof DeviceError) return false;
    throw error;
  }
}
