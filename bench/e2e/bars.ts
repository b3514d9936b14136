/**
 * What was promised before it was built, each beside what a run gave: ratios within rounds, medians over rounds.
 *
 * @module
 */

import { mib } from "../../src/units.ts";
import { peers } from "./peers.ts";
import { type BenchResult, median, ratio, summarize } from "./result.ts";

/** One promise. */
export interface Bar {
  readonly what: string;
  readonly needed: string;
  /** What the run gave; undefined when it did not measure that. */
  readonly measured?: string;
  readonly met?: boolean;
}

/** The server that the promises are about. */
export const ours: string = peers.find((peer) => peer.ours === "first")!.name;

/** Bytes of RAM that the index takes for each block of the log, at most. */
const indexBytesPerBlock = 14;
const blockBytes = 4096;

/** All others that can serve. */
export const others: readonly string[] = peers.filter((peer) =>
  peer.start !== undefined && peer.ours === undefined
).map(({ name }) => name);

const title = (name: string) => peers.find((peer) => peer.name === name)?.title ?? name;
const times = (value: number) => `${value.toFixed(2)} ×`;

/** At least `least` times the rate of each of `rivals`, of which the fastest is what counts. */
function faster(
  result: BenchResult,
  what: string,
  job: string,
  rivals: readonly string[],
  least: number,
): Bar {
  const ratios = rivals.flatMap((rival) => {
    const value = ratio(result, job, ours, rival);
    return value === undefined ? [] : [{ rival, value }];
  });
  const worst = ratios.sort((a, b) => a.value - b.value)[0];
  const bar = { what, needed: `≥ ${times(least)}` };
  if (!worst) return bar;
  const against = rivals.length > 1 ? ` (${title(worst.rival)})` : "";
  return { ...bar, measured: times(worst.value) + against, met: worst.value >= least };
}

function limit(
  what: string,
  unit: string,
  digits: number,
  value: number | null | undefined,
  bound: { most: number } | { least: number },
): Bar {
  const needed = "most" in bound ? `≤ ${bound.most} ${unit}` : `≥ ${bound.least} ${unit}`;
  if (value === null || value === undefined || Number.isNaN(value)) return { what, needed };
  const met = "most" in bound ? value <= bound.most : value >= bound.least;
  return { what, needed, measured: `${value.toFixed(digits)} ${unit}`, met };
}

/** All promises, judged by `result`. */
export function judge(result: BenchResult): Bar[] {
  const writes = summarize(result, "randwrite-qd64", ours);
  const indexBytes = result.parameters.cacheBytes / blockBytes * indexBytesPerBlock;
  const besidesIndex = writes?.peakRssBytes == null ? undefined : (writes.peakRssBytes - indexBytes) / mib;
  const { crc32cGigabytesPerSecond, ceilingMegabytesPerSecond } = result.inProcess;
  const qd64 = (rivals: string[], against: string, least: number) =>
    faster(result, `random 4 KiB writes, QD64, against ${against}`, "randwrite-qd64", rivals, least);
  return [
    qd64(["nbdkit-file"], "nbdkit file", 1),
    qd64(["nbdkit-cache"], "nbdkit --filter=cache", 3.5),
    qd64(["qemu-nbd-writeback", "qemu-nbd-uring"], "the faster qemu-nbd", 3.5),
    qd64(["nbd-server"], "nbd-server", 2),
    limit("server CPU of a random 4 KiB write, QD64", "µs", 1, writes?.cpuMicrosPerOp, { most: 7 }),
    faster(result, "QD16 with fsync every 32, against the best of them", "randwrite-fsync32", others, 1.8),
    faster(result, "random reads that hit, against nbdkit file", "randread-hit-qd64", ["nbdkit-file"], 1),
    faster(result, "1 MiB sequential reads of uncached data, against nbdkit file", "read-1m", [
      "nbdkit-file",
    ], 0.9),
    faster(result, "128 KiB sequential reads of uncached data, against nbdkit file", "read-128k", [
      "nbdkit-file",
    ], 0.9),
    faster(
      result,
      "random 4 KiB writes, QD64, over TCP, against the best of them",
      "randwrite-qd64-tcp",
      others,
      1.2,
    ),
    limit(
      `peak memory with a log of ${
        Math.round(result.parameters.cacheBytes / 1024 / mib)
      } GiB, less its index of ${Math.round(indexBytes / mib)} MiB`,
      "MiB",
      0,
      besidesIndex,
      { most: 120 },
    ),
    limit("crc32c of a 4 KiB block", "GB/s", 1, median(crc32cGigabytesPerSecond), { least: 10 }),
    limit(
      "random 4 KiB writes in-process, on memory devices",
      "MB/s",
      0,
      median(ceilingMegabytesPerSecond),
      { least: 3000 },
    ),
  ];
}
