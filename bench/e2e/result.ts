/**
 * What a run of the benchmarks leaves behind, as plain data, and how it is summed up: medians over rounds, and ratios
 * taken within a round, because the machine's mood changes between rounds.
 *
 * @module
 */

/** How long requests took. */
export interface LatencyMicros {
  p50: number;
  p99: number;
  p999: number;
}

/** One job against one peer in one round. */
export interface Run {
  round: number;
  job: string;
  peer: string;
  /** Reads and writes per second. */
  iops: number;
  /** 10^6 bytes per second. */
  megabytesPerSecond: number;
  /** From submission to reply, the slower of reads and writes. */
  latencyMicros: LatencyMicros;
  /** Of flushes, when the job sends any. */
  flushMicros: LatencyMicros | null;
  /** User and system time of the server's processes, per read or write; null for what has no server. */
  cpuMicrosPerOp: number | null;
  /** Peak resident memory of the server's processes together. */
  peakRssBytes: number | null;
  /** What the client's own processes used, in percent of one core: near 100 per connection it is the limit. */
  clientCpuPercent: number;
  /** How many flushes shared one sync, by the server's own count; null when it does not tell. */
  flushesPerSync: number | null;
}

/** A measured run of everything. */
export interface BenchResult {
  format: "nbdboost-bench/1";
  /** ISO 8601, when it began. */
  date: string;
  /** Of the sources, with `+` when they were changed since; null for a compiled executable. */
  commit: string | null;
  machine: {
    cpu: string;
    cores: number;
    memoryBytes: number;
    kernel: string;
    filesystem: string;
  };
  versions: Record<string, string>;
  parameters: {
    rounds: number;
    seconds: number;
    warmUpSeconds: number;
    sizeBytes: number;
    cacheBytes: number;
    transport: "unix" | "tcp";
  };
  /** Peers that took no part, and why. */
  skipped: { peer: string; why: string }[];
  /** Runs that came to nothing, and why. */
  failed: { round: number; job: string; peer: string; why: string }[];
  /** Without any server or client, one figure for each round. */
  inProcess: {
    /** CRC-32C of 4 KiB blocks that are in the processor's cache. */
    crc32cGigabytesPerSecond: number[];
    /** Random 4 KiB writes into a cache on a memory device: what the engine could do with an infinitely fast device. */
    ceilingMegabytesPerSecond: number[];
  };
  runs: Run[];
}

/** The middle of `values`, the mean of the two middle ones when their number is even; NaN of nothing. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  if (sorted.length % 2 === 1) return sorted[middle]!;
  return sorted.length === 0 ? NaN : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** The median of those that are known; null when none is. */
export function medianKnown(values: readonly (number | null)[]): number | null {
  const known = values.filter((value) => value !== null);
  return known.length === 0 ? null : median(known);
}

/** The medians of one job against one peer. */
export type Summary = Omit<Run, "round"> & { rounds: number };

function medianLatency(values: readonly LatencyMicros[]): LatencyMicros {
  const of = (name: keyof LatencyMicros) => median(values.map((value) => value[name]));
  return { p50: of("p50"), p99: of("p99"), p999: of("p999") };
}

/** The runs of `job` against `peer`. */
export function runsOf(result: BenchResult, job: string, peer: string): Run[] {
  return result.runs.filter((run) => run.job === job && run.peer === peer);
}

/** Their medians; undefined when there is no run. */
export function summarize(result: BenchResult, job: string, peer: string): Summary | undefined {
  const runs = runsOf(result, job, peer);
  if (runs.length === 0) return undefined;
  const flushes = runs.flatMap(({ flushMicros }) => flushMicros === null ? [] : [flushMicros]);
  return {
    job,
    peer,
    rounds: runs.length,
    iops: median(runs.map(({ iops }) => iops)),
    megabytesPerSecond: median(runs.map(({ megabytesPerSecond }) => megabytesPerSecond)),
    latencyMicros: medianLatency(runs.map(({ latencyMicros }) => latencyMicros)),
    flushMicros: flushes.length === 0 ? null : medianLatency(flushes),
    cpuMicrosPerOp: medianKnown(runs.map(({ cpuMicrosPerOp }) => cpuMicrosPerOp)),
    peakRssBytes: medianKnown(runs.map(({ peakRssBytes }) => peakRssBytes)),
    clientCpuPercent: median(runs.map(({ clientCpuPercent }) => clientCpuPercent)),
    flushesPerSync: medianKnown(runs.map(({ flushesPerSync }) => flushesPerSync)),
  };
}

/** How many times the rate of `other` that of `peer` is: the median of the ratios of each round that has both. */
export function ratio(
  result: BenchResult,
  job: string,
  peer: string,
  other: string,
  otherJob: string = job,
): number | undefined {
  const rates = new Map(runsOf(result, otherJob, other).map(({ round, iops }) => [round, iops]));
  const ratios = runsOf(result, job, peer).flatMap(({ round, iops }) => {
    const theirs = rates.get(round);
    return theirs ? [iops / theirs] : [];
  });
  return ratios.length === 0 ? undefined : median(ratios);
}
