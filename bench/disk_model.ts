/**
 * `deno task disk-model [--logs GiB,…] [--loads uniform,zipf,region] [--depth N] [--scale N] [--copy-forward PERCENT] [--seed N]
 * [--json FILE] [--watch] [--count] [--prefix SIZE,…]`: the real engine in front of a modelled 1 TiB disk, in virtual time, with a full log and saturated
 * writers of 4 KiB at random; beside it the bare disk and FIFO batches of 32 segments (dm-writeboost's way, at its best).
 *
 * `--scale N` makes disk and log N times smaller and leaves distances on the disk what they are, so that a run takes seconds; by
 * default the log has 32,768 blocks, and half a million for the Zipf load. `--scale 1` is the disk itself: up to hours, and
 * gigabytes of RAM, for large logs.
 *
 * `--prefix SIZE,…`: beside each cell the same with `writeback_order=prefix` and steps of so much log, made smaller with it.
 *
 * `--count`: instead, what 20,000 random writes cost on both devices, beside what was counted on real kernels.
 *
 * @module
 */

import {
  bareDisk,
  countCosts,
  type EngineResult,
  fifoBatches,
  type Load,
  runEngine,
} from "../tests/sim/disk_runs.ts";
import { blockBytes, formatSize, gib, kib, parseSize } from "../src/units.ts";

/**
 * Slots of the log of a run that is scaled by default. How often a write of the Zipf load meets a block that is dirty already
 * depends on the number of blocks in all, not only on the log's share of them: of a small disk it is much too seldom.
 */
const slotsDefault: Record<Load, number> = { uniform: 32_768, zipf: 524_288, region: 32_768 };
/** Blocks of 32 segments of dm-writeboost: 127 each. */
const fifoBlocks = 32 * 127;

const options = parse(Deno.args);
const bare: Record<Load, number> = { uniform: 0, zipf: 0, region: 0 };
const cells: unknown[] = [];
console.log(
  `${Deno.build.os} ${Deno.build.arch}, Deno ${Deno.version.deno}, commit ${await commit()}, seed ${options.seed}`,
);
console.log(
  `virtual 7200 rpm disk of 1 TiB, queue depth ${options.depth}, writers as many, copy_forward ${options.copyForward}\n`,
);
if (options.count) await count();
else {for (const load of options.loads) {
    bare[load] = bareDisk(options.depth, load, 20_000, options.seed);
    console.log(`${load}: bare disk ${bare[load].toFixed(0)} writes/s`);
    for (const logGib of options.logs) {
      await cell(load, logGib);
      for (const step of options.steps) await cell(load, logGib, step);
    }
  }}
if (options.json) {
  await Deno.writeTextFile(options.json, JSON.stringify({ options, bare, cells }, undefined, 1));
}

async function cell(load: Load, logGib: number, stepBytes = 0): Promise<void> {
  const logBytes = logGib * gib;
  const scale = options.scale ??
    Math.max(1, 2 ** Math.floor(Math.log2(logBytes / blockBytes / slotsDefault[load])));
  const fifo = stepBytes > 0 ? 0 : fifoBatches({
    logBytes,
    scale,
    queueDepth: options.depth,
    load,
    batchBlocks: fifoBlocks,
    seed: options.seed,
  });
  const startMs = performance.now();
  const result = await runEngine({
    logBytes,
    scale,
    queueDepth: options.depth,
    load,
    seed: options.seed,
    tunables: {
      copyForward: options.copyForward,
      ...(stepBytes > 0
        ? { writebackOrder: "prefix" as const, writebackStep: Math.max(64 * kib, stepBytes / scale) }
        : {}),
    },
    ...(options.watch ? { onStatus: watch } : {}),
  });
  cells.push({ load, logGib, scale, fifo, stepBytes, ...result });
  console.log(
    `  log ${logGib} GiB (1:${scale})${stepBytes > 0 ? `, prefix, steps of ${formatSize(stepBytes)}` : ""}: ${
      describe(result, bare[load])
    }${stepBytes > 0 ? "" : `; FIFO batches ${fifo.toFixed(0)} (${(fifo / bare[load]).toFixed(1)}x)`}` +
      `; took ${((performance.now() - startMs) / 1000).toFixed(0)} s`,
  );
}

function describe(result: EngineResult, bareWrites: number): string {
  const { writesPerSecond, longestMs, p999Ms, dirtyShare, cacheBytesPerByte, writesPerCacheRequest } = result;
  return `${writesPerSecond.toFixed(0)} writes/s (${(writesPerSecond / bareWrites).toFixed(1)}x), ` +
    `99.9 % within ${p999Ms.toFixed(0)} ms, from empty to full within ${
      result.fillingP999Ms.toFixed(0)
    } ms, ` +
    `longest ${longestMs.toFixed(0)} ms, dirty ${dirtyShare.toFixed(2)}, ` +
    `cache ${cacheBytesPerByte.toFixed(2)} B/B and ${writesPerCacheRequest.toFixed(0)} writes/request`;
}

function watch(
  status: { cache: { dirtyBlocks: number; freeSegments: number } },
  seconds: number,
  rate: number,
): void {
  const { dirtyBlocks, freeSegments } = status.cache;
  console.log(
    `    ${seconds.toFixed(0)} s: ${
      rate.toFixed(0)
    } writes/s, ${dirtyBlocks} dirty, ${freeSegments} segments free`,
  );
}

async function count(): Promise<void> {
  const userBytes = 20_000 * blockBytes;
  for (const copyForward of [0, options.copyForward]) {
    for (const flushEvery of [0, 32]) {
      const costs = await countCosts({ flushEvery, tunables: { copyForward }, seed: options.seed });
      cells.push({ copyForward, flushEvery, ...costs });
      console.log(
        `copy_forward ${copyForward}, ${
          flushEvery === 0 ? "no flushes" : `a flush every ${flushEvery} writes`
        }: cache ` +
          `${costs.cacheWrites} writes (one per ${(20_000 / costs.cacheWrites).toFixed(0)}), ` +
          `${(costs.cacheBytes / 2 ** 20).toFixed(1)} MiB (${
            (costs.cacheBytes / userBytes).toFixed(3)
          } B/B), ` +
          `${costs.cacheSyncs} syncs; backing ${costs.backingWrites} writes, ${costs.backingSyncs} syncs; ` +
          `${costs.copiedBlocks} blocks copied`,
      );
    }
  }
  console.log(
    "\ncounted on real kernels, no flushes: dm-writeboost 160 writes, 78.7 MiB, backing 18,437 to 18,614;",
  );
  console.log(
    "  dm-writecache 20,154 writes, 93.6 MiB, backing 18,823; bcache about 1.55 B/B, backing 18,784",
  );
  console.log("a flush every 32 writes: dm-writeboost 1,877 writes, 83.0 MiB, backing 20,394;");
  console.log("  dm-writecache 19,499 writes, 106.0 MiB, backing 18,323");
}

async function commit(): Promise<string> {
  try {
    const { stdout } = await new Deno.Command("git", { args: ["rev-parse", "--short", "HEAD"] }).output();
    return new TextDecoder().decode(stdout).trim();
  } catch {
    return "unknown";
  }
}

function parse(args: string[]) {
  const value = (name: string) => {
    const at = args.indexOf(name);
    return at < 0 ? undefined : args[at + 1];
  };
  const number = (name: string, otherwise: number) => Number(value(name) ?? otherwise);
  const scale = value("--scale");
  return {
    logs: (value("--logs") ?? "1,4,16,64").split(",").map(Number),
    loads: (value("--loads") ?? "uniform,zipf").split(",") as Load[],
    depth: number("--depth", 32),
    scale: scale === undefined ? undefined : Number(scale),
    copyForward: number("--copy-forward", 60),
    seed: number("--seed", 1),
    steps: (value("--prefix")?.split(",") ?? []).map((text) => parseSize(text) ?? NaN),
    json: value("--json"),
    watch: args.includes("--watch"),
    count: args.includes("--count"),
  };
}
