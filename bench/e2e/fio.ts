/**
 * fio, the client of all end-to-end benchmarks: how it is called, and what its report says.
 *
 * @module
 */

import { NbdboostError } from "../../src/errors.ts";
import type { LatencyMicros, Run } from "./result.ts";

/** What fio tells of a run. */
export type FioFacts =
  & Pick<Run, "iops" | "megabytesPerSecond" | "latencyMicros" | "flushMicros" | "clientCpuPercent">
  & {
    /** Reads and writes in all. */
    operations: number;
  };

interface Latency {
  percentile?: Record<string, number>;
}

interface Direction {
  total_ios: number;
  iops: number;
  bw_bytes: number;
  clat_ns: Latency;
}

interface Report {
  jobs: {
    error: number;
    read: Direction;
    write: Direction;
    sync: { total_ios: number; lat_ns: Latency };
    usr_cpu: number;
    sys_cpu: number;
  }[];
}

/** Nanoseconds to microseconds, to a tenth. */
const micros = (ns: number | undefined) => Math.round((ns ?? 0) / 100) / 10;

function latencyOf({ percentile = {} }: Latency): LatencyMicros {
  return {
    p50: micros(percentile["50.000000"]),
    p99: micros(percentile["99.000000"]),
    p999: micros(percentile["99.900000"]),
  };
}

/** Reads fio's report of one group. Lines that fio put before the JSON are passed over. */
export function parseFio(text: string): FioFacts {
  let report: Report;
  try {
    report = JSON.parse(text.slice(Math.max(0, text.search(/^\{/m))));
  } catch (cause) {
    throw new NbdboostError(`fio's report is not JSON; it begins with "${text.slice(0, 200).trim()}".`, {
      cause,
    });
  }
  const [job] = report.jobs;
  if (report.jobs.length !== 1 || !job) {
    throw new NbdboostError(`fio's report has ${report.jobs.length} groups: expected one.`);
  }
  if (job.error !== 0) throw new NbdboostError(`fio ended with errno ${job.error}.`);
  const { read, write, sync } = job;
  const used = [read, write].filter(({ total_ios }) => total_ios > 0);
  const operations = read.total_ios + write.total_ios;
  if (operations === 0) throw new NbdboostError("fio did not finish a single request.");
  const latencies = used.map(({ clat_ns }) => latencyOf(clat_ns));
  const slower = (name: keyof LatencyMicros) => Math.max(...latencies.map((latency) => latency[name]));
  return {
    operations,
    iops: read.iops + write.iops,
    megabytesPerSecond: (read.bw_bytes + write.bw_bytes) / 1e6,
    latencyMicros: { p50: slower("p50"), p99: slower("p99"), p999: slower("p999") },
    flushMicros: sync.total_ios > 0 ? latencyOf(sync.lat_ns) : null,
    clientCpuPercent: job.usr_cpu + job.sys_cpu,
  };
}

/** Runs fio until it ends, or until `signal` ends it; `directory` takes its files. */
export async function runFio(
  directory: string,
  args: readonly string[],
  signal: AbortSignal,
): Promise<FioFacts> {
  const report = `${directory}/fio.json`;
  // The nbd engine prints on stdout, hence the report goes to a file. Statistics in /tmp-like places are not wanted.
  const { code, stderr, stdout } = await new Deno.Command("fio", {
    args: ["--name=job", "--output-format=json", `--output=${report}`, `--aux-path=${directory}`, ...args],
    cwd: directory,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
    signal,
  }).output();
  if (code !== 0) {
    const said = new TextDecoder().decode(stderr) + new TextDecoder().decode(stdout);
    throw new NbdboostError(`fio ended with exit code ${code}: ${said.trim().slice(0, 400)}`);
  }
  try {
    return parseFio(await Deno.readTextFile(report));
  } finally {
    await Deno.remove(report);
  }
}
