/**
 * The ceiling of the engine itself ("MaxSSD"): random 4 KiB writes through `Cache.writeNow` on one core, log and backing in
 * RAM, no server. `deno task bench:in-process [--seconds S]` prints each lap and writes
 * `bench/results/in_process.json`.
 *
 * A lap fills most of the log, seals, checksums and log writes included; draining between laps is not counted. The first lap
 * is the devices': the RAM that stands for the cache device is faulted in page by page. CPU seconds stand beside
 * those of the clock, since a machine with other work to do shows in one and not in the other. What the parts of such a write
 * cost by themselves follows, measured in the same run over memory of the same size: what they leave is the engine's own.
 *
 * @module
 */

import process from "node:process";
import { formatCache, MemoryDevice, openCache, version } from "../mod.ts";
import { writeAsServed } from "./e2e/in_process.ts";
import { SeededRandom } from "../src/random.ts";
import { segmentBlocksDefault } from "../src/log/layout.ts";
import { Kernels } from "../src/wasm/kernels.ts";
import { blockBytes, mib } from "../src/units.ts";

const seed = 1;
const cacheBytes = 512 * mib;
const backingBytes = 512 * mib;
/** Writes of a lap: four fifths of the log, headers included. */
const lapWrites = Math.floor(0.8 * cacheBytes / blockBytes);
const secondsStandard = 10;

const results = new URL("./results/in_process.json", import.meta.url);

interface Lap {
  gigabytesPerSecond: number;
  gigabytesPerCpuSecond: number;
}

async function main(): Promise<void> {
  const at = Deno.args.indexOf("--seconds");
  const seconds = at < 0 ? secondsStandard : Number(Deno.args[at + 1]);
  const [fast, slow] = [new MemoryDevice(cacheBytes), new MemoryDevice(backingBytes)];
  await formatCache({ cache: fast, backing: slow });
  const cache = await openCache({ cache: fast, backing: slow, tunables: { writeback: "off" } });
  const random = new SeededRandom(seed);
  // What is written has just come in, as it has from a socket of the server: into a buffer that the cache lent.
  const source = cache.lendBuffer()!;
  random.fill(source);
  const offsets = new Float64Array(lapWrites);
  const laps: Lap[] = [];
  for (let used = 0; laps.length < 3 || used < seconds;) {
    for (let i = 0; i < lapWrites; i++) offsets[i] = random.below(backingBytes / blockBytes) * blockBytes;
    const started = performance.now();
    const cpu = process.cpuUsage();
    await writeAsServed(cache, offsets, source);
    const elapsed = (performance.now() - started) / 1000;
    const { user, system } = process.cpuUsage(cpu);
    used += elapsed;
    const gigabytes = lapWrites * blockBytes / 1e9;
    const lap = {
      gigabytesPerSecond: gigabytes / elapsed,
      gigabytesPerCpuSecond: gigabytes / ((user + system) / 1e6),
    };
    laps.push(lap);
    console.log(
      `lap ${laps.length}: ${lap.gigabytesPerSecond.toFixed(2)} GB/s, ` +
        `${lap.gigabytesPerCpuSecond.toFixed(2)} GB per CPU second`,
    );
    await cache.drain();
  }
  cache.returnBuffer(source);
  await cache.close();
  const warm = laps.slice(1);
  const parts = await measureParts();
  const summary = {
    what: "random 4 KiB writes through Cache.writeNow, devices in RAM, one thread",
    version,
    seed,
    runtime: Deno.version,
    cpus: navigator.hardwareConcurrency,
    firstLap: laps[0],
    medianGigabytesPerSecond: median(warm.map((lap) => lap.gigabytesPerSecond)),
    medianGigabytesPerCpuSecond: median(warm.map((lap) => lap.gigabytesPerCpuSecond)),
    bestGigabytesPerSecond: Math.max(...warm.map((lap) => lap.gigabytesPerSecond)),
    nanosecondsPerWrite: parts,
    laps,
  };
  await Deno.writeTextFile(results, JSON.stringify(summary, null, 2) + "\n");
  const best = blockBytes / Math.max(...warm.map((lap) => lap.gigabytesPerCpuSecond));
  const own = best - Object.values(parts).reduce((sum, ns) => sum + ns, 0);
  for (const [name, ns] of Object.entries(parts)) console.log(`${name}: ${ns} ns`);
  console.log(`a write in the best lap: ${best.toFixed(0)} ns of CPU, ${own.toFixed(0)} more than these`);
  console.log(
    `median of ${warm.length} laps after the first: ${summary.medianGigabytesPerSecond.toFixed(2)} GB/s, ` +
      `${summary.medianGigabytesPerCpuSecond.toFixed(2)} GB per CPU second`,
  );
}

/** Nanoseconds of CPU time that a 4 KiB block costs in each part of the way, by itself: the least of some turns. */
async function measureParts(): Promise<Record<string, number>> {
  const bufferCount = 16;
  const kernels = Kernels.create({
    slotCount: cacheBytes / blockBytes,
    backingBlocks: backingBytes / blockBytes,
    segmentBlocks: segmentBlocksDefault,
    bufferCount,
    stagingBlocks: 64,
    lentBytes: 64 * blockBytes,
  });
  const { lent, buffers } = kernels.map;
  const source = new Uint8Array(kernels.bytes.buffer, lent, 64 * blockBytes);
  new SeededRandom(seed).fill(source);
  const bufferBlocks = bufferCount * segmentBlocksDefault;
  const device = new MemoryDevice(cacheBytes);
  const segmentBytes = segmentBlocksDefault * blockBytes;
  const segmentAt = (i: number) => {
    const start = buffers + i % bufferCount * segmentBytes;
    return kernels.bytes.subarray(start, start + segmentBytes);
  };
  const segmentCount = cacheBytes / segmentBytes;
  for (let i = 0; i < segmentCount; i++) await device.write(i * segmentBytes, segmentAt(i));
  const random = new SeededRandom(seed);
  const blocks = Uint32Array.from(
    { length: cacheBytes / blockBytes },
    () => random.below(kernels.reverse.length),
  );
  let sum = 0;
  const parts: Record<string, () => number | Promise<number>> = {
    "copy into the log's RAM": () => {
      for (let i = 0; i < lapWrites; i++) {
        kernels.copyIn(buffers + i % bufferBlocks * blockBytes, source, (i & 63) * blockBytes, blockBytes);
      }
      return lapWrites;
    },
    checksum: () => {
      for (let i = 0; i < lapWrites; i++) sum ^= kernels.crc32cBlock(buffers + i % bufferBlocks * blockBytes);
      return lapWrites;
    },
    "index, one lookup and one change": () => {
      kernels.indexClear();
      for (let i = 0; i < lapWrites; i++) {
        sum ^= kernels.indexGet(blocks[i]!);
        kernels.indexPut(blocks[i]!, i);
      }
      return lapWrites;
    },
    "the memory device's copy": async () => {
      for (let i = 0; i < segmentCount; i++) await device.write(i * segmentBytes, segmentAt(i));
      return cacheBytes / blockBytes;
    },
  };
  const result: Record<string, number> = {};
  for (const [name, part] of Object.entries(parts)) {
    let least = Infinity;
    for (let turn = 0; turn < 5; turn++) {
      const before = process.cpuUsage();
      const count = await part();
      const { user, system } = process.cpuUsage(before);
      least = Math.min(least, (user + system) * 1000 / count);
    }
    result[name] = Math.round(least);
  }
  // The checksums are used, so that none can be left out.
  if (sum === 0.5) throw new Error("no integer");
  await device.close();
  return result;
}

function median(values: number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[sorted.length >> 1]!;
}

await main();
