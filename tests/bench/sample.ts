/**
 * A made-up result, small and with round figures.
 *
 * @module
 */

import type { BenchResult, Run } from "../../bench/e2e/result.ts";

/** A run with `iops`; the rest follows. */
export function sampleRun(round: number, job: string, peer: string, iops: number): Run {
  return {
    round,
    job,
    peer,
    iops,
    megabytesPerSecond: iops * 4096 / 1e6,
    latencyMicros: { p50: 100, p99: 200, p999: 300 },
    flushMicros: job.includes("sync") ? { p50: 400, p99: 500, p999: 600 } : null,
    cpuMicrosPerOp: peer === "device" ? null : 6,
    peakRssBytes: peer === "device" ? null : 100 * 1024 * 1024,
    clientCpuPercent: 90,
    flushesPerSync: null,
  };
}

/** A result with `runs`. */
export function sampleResult(runs: Run[]): BenchResult {
  return {
    format: "nbdboost-bench/1",
    date: "2001-02-03T04:05:06.000Z",
    commit: "0123456789abcdef0123456789abcdef01234567+",
    machine: {
      cpu: "A <fast> & small CPU",
      cores: 2,
      memoryBytes: 8 * 2 ** 30,
      kernel: "linux 6",
      filesystem: "ext4",
    },
    versions: { nbdboost: "0.1.0", fio: "3.33" },
    parameters: {
      rounds: 5,
      seconds: 3,
      warmUpSeconds: 1,
      sizeBytes: 2 ** 30,
      cacheBytes: 16 * 2 ** 30,
      transport: "unix",
    },
    skipped: [{ peer: "nbd-server", why: "nbd-server is not installed" }],
    failed: [],
    inProcess: { crc32cGigabytesPerSecond: [10.5], ceilingMegabytesPerSecond: [2900] },
    runs,
  };
}
