/**
 * Measurements on model devices: the bare disk, FIFO batches as a cache in the kernel does them, and the real engine. All
 * take a saturated load of random 4 KiB writes and tell what is sustained.
 *
 * Invariant: virtual time only; a run with the same seed gives the same figures.
 *
 * @module
 */

import { setImmediate } from "node:timers";
import { formatDevices } from "../../src/cache/format.ts";
import { openCache } from "../../src/cache/open.ts";
import type { CacheStatus } from "../../src/cache/status.ts";
import type { Tunables } from "../../src/cache/tunables.ts";
import { SeededRandom } from "../../src/random.ts";
import { blockBytes, mib, tib } from "../../src/units.ts";
import { type ArmRequest, DiskArm, DiskModel, SsdModel } from "./disk_model.ts";
import { SimClock } from "./sim_clock.ts";

/** The seek curve's span. */
export const spanBytes = tib;
/** Which blocks are written: any; few of them often, wherever they lie; nine of ten times a twentieth of the volume, in one piece. */
export type Load = "uniform" | "zipf" | "region";

/** Draws block numbers below `blocks`. */
export function makeLoad(load: Load, blocks: number, random: SeededRandom): () => number {
  if (load === "uniform") return () => random.below(blocks);
  if (load === "region") {
    const first = Math.floor(blocks * 0.6);
    return () => random.below(10) < 9 ? first + random.below(Math.floor(blocks / 20)) : random.below(blocks);
  }
  // Zipf with exponent 0.99 by the approximation of Gray et al. (1994), scattered over the volume.
  const theta = 0.99;
  const zeta = zetaOf(blocks, theta);
  const alpha = 1 / (1 - theta);
  const eta = (1 - (2 / blocks) ** (1 - theta)) / (1 - zetaOf(2, theta) / zeta);
  return () => {
    const u = random.next() / 2 ** 32;
    const uz = u * zeta;
    let rank: number;
    if (uz < 1) rank = 0;
    else if (uz < 1 + 0.5 ** theta) rank = 1;
    else rank = Math.min(blocks - 1, Math.floor(blocks * (eta * u - eta + 1) ** alpha));
    return scatter(rank, blocks);
  };
}

/** The sum of 1 / i^theta for i up to n; beyond a million terms by the integral. */
function zetaOf(n: number, theta: number): number {
  const exact = Math.min(n, 1_000_000);
  let sum = 0;
  for (let i = 1; i <= exact; i++) sum += i ** -theta;
  if (n > exact) sum += (n ** (1 - theta) - exact ** (1 - theta)) / (1 - theta);
  return sum;
}

/** Spreads ranks over the volume. The step is odd and no divisor of usual sizes, so ranks hardly collide. */
function scatter(rank: number, blocks: number): number {
  return Number(BigInt.asUintN(64, BigInt(rank + 1) * 0x9e3779b97f4a7c15n) >> 12n) % blocks;
}

/** Random writes per second of the bare disk with so many in flight. */
export function bareDisk(queueDepth: number, load: Load, writes = 20_000, seed = 1): number {
  const random = new SeededRandom(seed);
  const next = makeLoad(load, spanBytes / blockBytes, random);
  const arm = new DiskArm(spanBytes);
  const queue: ArmRequest[] = [];
  let nowMs = 0;
  for (let i = 0; i < writes; i++) {
    while (queue.length < queueDepth) {
      queue.push({ offset: next() * blockBytes, length: blockBytes, passedOver: 0 });
    }
    nowMs = serveOne(arm, queue, nowMs);
  }
  return writes / nowMs * 1000;
}

function serveOne(arm: DiskArm, queue: ArmRequest[], nowMs: number): number {
  const index = arm.choose(queue, nowMs);
  for (const other of queue) other.passedOver++;
  return arm.serve(queue.splice(index, 1)[0]!, nowMs);
}

/**
 * User writes per second of a full FIFO log that is written back in sorted batches of its oldest segments (dm-writeboost's
 * way, at its best: loading, its own log writes and metadata cost nothing).
 */
export function fifoBatches(options: {
  logBytes: number;
  /** As of an {@linkcode EngineRun}. */
  scale: number;
  queueDepth: number;
  load: Load;
  batchBlocks: number;
  seed?: number;
}): number {
  const { logBytes, scale, queueDepth, load, batchBlocks, seed = 1 } = options;
  const random = new SeededRandom(seed);
  const blocksInAll = spanBytes / scale / blockBytes;
  const next = makeLoad(load, blocksInAll, random);
  // Scattered over the whole span: a batch is as thin there as it is without the scale.
  const place = (block: number) => (block * scale + scatter(block, scale)) * blockBytes;
  const arm = new DiskArm(spanBytes);
  const slots = Math.floor(logBytes / scale / blockBytes);
  const log = new Float64Array(slots);
  /** The place of a block's newest version, counted from 1 over all laps. */
  const newest = new Uint32Array(blocksInAll);
  let head = 0;
  const put = () => {
    const block = next();
    log[head % slots] = block;
    newest[block] = ++head;
  };
  while (head < slots) put();
  let nowMs = 0;
  let measuredFromMs = 0;
  const batches = 12;
  for (let batch = 0; batch < batches; batch++) {
    if (batch === 2) measuredFromMs = nowMs;
    const blocks: number[] = [];
    for (let i = head - slots; i < head - slots + batchBlocks; i++) {
      const block = log[i % slots]!;
      if (newest[block] === i + 1) {
        blocks.push(block);
        newest[block] = 0;
      }
    }
    blocks.sort((a, b) => a - b);
    const queue: ArmRequest[] = [];
    for (let at = 0; at < blocks.length || queue.length > 0;) {
      while (at < blocks.length && queue.length < queueDepth) {
        queue.push({ offset: place(blocks[at++]!), length: blockBytes, passedOver: 0 });
      }
      nowMs = serveOne(arm, queue, nowMs);
    }
    for (let i = 0; i < batchBlocks; i++) put();
  }
  return (batches - 2) * batchBlocks / (nowMs - measuredFromMs) * 1000;
}

/** What a run of the engine is asked. */
export interface EngineRun {
  /** Log bytes per 1 TiB of backing device. */
  logBytes: number;
  /** The backing device and the log are so much smaller; distances on the disk stay what they are. */
  scale: number;
  queueDepth: number;
  load: Load;
  /** Writes in flight; as many as the queue is deep by default. */
  writers?: number;
  tunables?: Partial<Tunables>;
  seed?: number;
  /** Laps of the log before, and while, it is measured. */
  warmUpLaps?: number;
  measuredLaps?: number;
  segmentBlocks?: number;
  onStatus?: (status: CacheStatus, seconds: number, writesPerSecond: number) => void;
}

/** What it tells. */
export interface EngineResult {
  writesPerSecond: number;
  /** The longest wait of any write, from the first on, and of 99.9 % while it was measured. */
  longestMs: number;
  p999Ms: number;
  /** The wait of 99.9 % from the first write on until the log has been written twice: from empty to full, and some time full. */
  fillingP999Ms: number;
  /** Of the blocks of the log, on average while it was measured. */
  dirtyShare: number;
  /** Bytes to the cache device per byte written, and writes of users per write request to it. */
  cacheBytesPerByte: number;
  writesPerCacheRequest: number;
  backingSyncs: number;
  virtualSeconds: number;
}

/** What a workload costs on both devices, everything written back at the end. */
export interface DeviceCosts {
  cacheWrites: number;
  cacheBytes: number;
  cacheSyncs: number;
  backingWrites: number;
  backingBytes: number;
  backingSyncs: number;
  copiedBlocks: number;
}

/**
 * The workload that was counted on real kernels: 20,000 random writes of 4 KiB over 512 MiB, a cache of 64 MiB, a backing of
 * 1 GiB, one writer, everything written back at the end. `flushEvery`: a flush after so many writes; 0 for none.
 */
export async function countCosts(
  options: { flushEvery: number; tunables?: Partial<Tunables>; seed?: number },
): Promise<DeviceCosts> {
  const { flushEvery, tunables = {}, seed = 1 } = options;
  const random = new SeededRandom(seed);
  const clock = new SimClock(0);
  const run = pumpOf(clock);
  const backing = new DiskModel({
    sizeBytes: 1024 * mib,
    spanBytes,
    queueDepth: 32,
    clock,
    name: "backing",
  });
  const cacheDevice = new SsdModel({ sizeBytes: 65 * mib, clock, name: "cache" });
  await run(formatDevices(cacheDevice, backing, { segmentBlocks: 128, clock, random: random.fill }));
  const cache = await run(openCache({ cache: cacheDevice, backing, clock, random: random.fill, tunables }));
  const before = [{ ...cacheDevice.counters }, { ...backing.counters }] as const;
  const bytes = new Uint8Array(blockBytes);
  for (let i = 1; i <= 20_000; i++) {
    await run(cache.write(random.below(512 * mib / blockBytes) * blockBytes, bytes));
    if (flushEvery > 0 && i % flushEvery === 0) await run(cache.flush());
  }
  await run(cache.drain());
  const costs = {
    cacheWrites: cacheDevice.counters.writes - before[0].writes,
    cacheBytes: cacheDevice.counters.writtenBytes - before[0].writtenBytes,
    cacheSyncs: cacheDevice.counters.syncs - before[0].syncs,
    backingWrites: backing.counters.writes - before[1].writes,
    backingBytes: backing.counters.writtenBytes - before[1].writtenBytes,
    backingSyncs: backing.counters.syncs - before[1].syncs,
    copiedBlocks: cache.status().blocks.copied,
  };
  await run(cache.close());
  return costs;
}

/**
 * Lets virtual time pass until a promise has settled. Between two events everything that needs no time is done first, however
 * long the chain of promises: what is still under way when the clock jumps on would seem to take as long as a turn of the disk.
 */
function pumpOf(clock: SimClock, check = () => {}): <T>(promise: Promise<T>) => Promise<T> {
  return async (promise) => {
    let done = false;
    promise.then(() => done = true, () => done = true);
    for (;;) {
      await new Promise<void>((resolve) => setImmediate(resolve));
      check();
      if (done) return await promise;
      if (!clock.step()) throw new Error("nothing is left to happen, and the run still waits");
    }
  };
}

function p999Of(waits: number[]): number {
  waits.sort((a, b) => a - b);
  return waits[Math.floor(waits.length * 0.999)]!;
}

/** Runs the real engine on model devices. */
export async function runEngine(options: EngineRun): Promise<EngineResult> {
  const { logBytes, scale, queueDepth, load, writers = queueDepth, seed = 1 } = options;
  const { warmUpLaps = 2, measuredLaps = 1.5 } = options;
  const random = new SeededRandom(seed);
  const clock = new SimClock(0);
  const backing = new DiskModel({
    sizeBytes: spanBytes / scale,
    spanBytes,
    queueDepth,
    clock,
    name: "backing",
  });
  const cacheBytes = logBytes / scale + mib;
  const cacheDevice = new SsdModel({ sizeBytes: cacheBytes, clock, name: "cache" });
  let failure: unknown;
  const run = pumpOf(clock, () => {
    if (failure) throw failure;
  });
  await run(
    formatDevices(cacheDevice, backing, {
      segmentBlocks: options.segmentBlocks ?? 128,
      clock,
      random: random.fill,
    }),
  );
  const cache = await run(openCache({
    cache: cacheDevice,
    backing,
    clock,
    random: random.fill,
    tunables: { writeback: "on", ...options.tunables },
    warn: (message) => failure = new Error(message),
  }));
  const next = makeLoad(load, backing.sizeBytes / blockBytes, random);
  const slots = Math.floor((cacheBytes - mib) / blockBytes);
  const bytes = new Uint8Array(blockBytes);
  let written = 0;
  let stopping = false;
  let longestMs = 0;
  const fillingWaits: number[] = [];
  const waits: number[] = [];
  let measuring = false;
  const writer = async () => {
    while (!stopping) {
      const offset = next() * blockBytes;
      const startMs = clock.monotonicMs();
      if (!cache.writeNow(offset, bytes, 0, blockBytes)) await cache.write(offset, bytes);
      const waitMs = clock.monotonicMs() - startMs;
      if (waitMs > longestMs) longestMs = waitMs;
      (measuring ? waits : fillingWaits).push(waitMs);
      written++;
      // A write that needs no wait takes the client a moment, too.
      if (waitMs === 0) await new Promise<void>((resolve) => clock.after(0.01, resolve));
    }
  };
  let target = Infinity;
  let reached = () => {};
  const all = Array.from({ length: writers }, () => writer().catch((error) => failure = error));
  const until = async (count: number) => {
    target = count;
    await run(
      new Promise<void>((resolve) => {
        reached = resolve;
        const look = () => {
          if (written >= target) reached();
          else clock.after(20, look);
        };
        look();
      }),
    );
  };
  const watch = () => {
    if (stopping) return;
    const status = cache.status();
    const seconds = clock.monotonicMs() / 1000;
    options.onStatus?.(status, seconds, (written - lastWritten) / 20);
    lastWritten = written;
    clock.after(20_000, watch);
  };
  let lastWritten = 0;
  watch();
  await until(warmUpLaps * slots);
  measuring = true;
  const from = {
    ms: clock.monotonicMs(),
    written,
    bytes: cacheDevice.counters.writtenBytes,
    requests: cacheDevice.counters.writes,
    syncs: backing.counters.syncs,
  };
  let dirty = 0;
  const parts = 20;
  for (let part = 1; part <= parts; part++) {
    await until(from.written + measuredLaps * slots * part / parts);
    dirty += cache.status().cache.dirtyBlocks / slots / parts;
  }
  const seconds = (clock.monotonicMs() - from.ms) / 1000;
  const writes = written - from.written;
  stopping = true;
  const result = {
    writesPerSecond: writes / seconds,
    longestMs,
    p999Ms: p999Of(waits),
    fillingP999Ms: p999Of(fillingWaits),
    dirtyShare: dirty,
    cacheBytesPerByte: (cacheDevice.counters.writtenBytes - from.bytes) / (writes * blockBytes),
    writesPerCacheRequest: writes / (cacheDevice.counters.writes - from.requests),
    backingSyncs: backing.counters.syncs - from.syncs,
    virtualSeconds: clock.monotonicMs() / 1000,
  };
  await run(Promise.all(all));
  clock.stop();
  return result;
}
