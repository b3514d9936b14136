/**
 * `bench`: the end-to-end benchmarks of `bench/e2e/`, from the command line.
 *
 * @module
 */

import { type Job, jobs } from "../../bench/e2e/jobs.ts";
import { estimateSeconds, fits, Lab, type LabOptions } from "../../bench/e2e/lab.ts";
import { isInstalled } from "../../bench/e2e/machine.ts";
import { type Peer, peers } from "../../bench/e2e/peers.ts";
import { type BenchResult, median, summarize } from "../../bench/e2e/result.ts";
import { exitCode, NbdboostError, UsageError } from "../errors.ts";
import { probeRing } from "../io/ring/mod.ts";
import { formatSeconds, gib, mib } from "../units.ts";
import { type Output, tableLines } from "./output.ts";
import { StopSignal } from "./process.ts";
import { refuseToReplace } from "./side_file.ts";
import type { Command, Options } from "./table.ts";

const roundsStandard = 5;
const roundsMax = 1000;
const secondsStandard = 3;
const warmUpSecondsMax = 1;
const sizeStandard = gib;
const cacheSizeStandard = 4 * gib;
/** fio's jobs and the smallest log want so much. */
const sizeMin = 16 * mib;

/** What `--only` calls the measurements without server and client, which are not in the table of jobs. */
const inProcess = { name: "in-process" };

/** The verb. */
export const bench: Command = {
  name: "bench",
  summary: "measure it against other NBD servers",
  description:
    "Runs the same fio jobs against this server, on io_uring and portable, and against nbdkit, qemu-nbd and " +
    "nbd-server where they are installed: each with real files and real syncs, one after the other, round by round, so " +
    "that a change of the machine's mood hits all alike. Prints medians over the rounds: rates, latencies, CPU time of the " +
    "server per operation, peak memory. Needs fio with its nbd engine. For figures that mean something nothing else may " +
    "run meanwhile. " +
    `Jobs: ${[...jobs, inProcess].map(({ name }) => name).join(", ")}. Peers: ${
      peers.map(({ name }) => name).join(", ")
    }.`,
  destroys:
    "nothing; it uses a fresh directory below --directory (about --size + --cache-size) and removes it.",
  options: [
    {
      name: "rounds",
      kind: "number",
      value: "N",
      standard: `${roundsStandard}`,
      summary: "how often each job meets each peer",
    },
    {
      name: "seconds",
      kind: "number",
      value: "S",
      standard: `${secondsStandard}`,
      summary: "how long each time, after a warm-up",
    },
    {
      name: "only",
      kind: "text",
      value: "JOB",
      repeatable: true,
      standard: "all",
      summary: "the jobs to run",
    },
    {
      name: "peers",
      kind: "text",
      value: "PEER",
      repeatable: true,
      standard: "all",
      summary: "the peers to run them against",
    },
    {
      name: "size",
      kind: "size",
      value: "SIZE",
      standard: "1GiB",
      summary: "of the file that is served",
    },
    {
      name: "cache-size",
      kind: "size",
      value: "SIZE",
      standard: "4GiB",
      summary: "of the log; what a job writes should fit",
    },
    {
      name: "transport",
      kind: "choice",
      value: "KIND",
      choices: ["unix", "tcp"],
      standard: "unix",
      summary: "a unix socket, or TCP on loopback",
    },
    {
      name: "directory",
      kind: "text",
      value: "DIR",
      standard: "the directory for temporary files",
      summary: "where to put the files: on the device to measure",
    },
    { name: "json", kind: "text", value: "FILE", summary: "also write the raw figures there, as JSON" },
  ],
  examples: [
    {
      line: "nbdboost bench --directory /ssd --json result.json",
      says: "everything; it says how long it takes",
    },
    {
      line:
        "nbdboost bench --rounds 1 --seconds 1 --only randwrite-qd64 --peers nbdboost-ring --peers nbdkit-file",
      says: "one job against two peers, in seconds",
    },
  ],
  exits: { 1: "fio is missing, or a run failed; the others were measured all the same" },
  run: runBench,
};

/** The rows of `table` that `names` ask for, all of them when none is asked for. */
function choose<T extends { name: string }>(
  option: string,
  names: readonly string[],
  table: readonly T[],
): T[] {
  const asked = names.flatMap((name) => name.split(","));
  const known = table.map(({ name }) => name);
  for (const name of asked) {
    if (!known.includes(name)) {
      throw new UsageError(
        `Option --${option} has the value "${name}": expected one of ${known.join(", ")}.`,
      );
    }
  }
  return asked.length === 0 ? [...table] : table.filter(({ name }) => asked.includes(name));
}

/** Why `peer` cannot take part here, if so. */
function whyNot(peer: Peer): string | undefined {
  if (peer.program !== null && !isInstalled(peer.program)) return `${peer.program} is not installed`;
  if (peer.name !== "nbdboost-ring") return undefined;
  const probe = probeRing();
  return probe.usable ? undefined : probe.why;
}

function readOptions(options: Options, output: Output): LabOptions {
  const number = (name: string, standard: number, max: number) => {
    const value = options.number(name) ?? standard;
    if (value > max) {
      throw new UsageError(`Option --${name} has the value "${value}": expected at most ${max}.`);
    }
    return value;
  };
  const size = (name: string, standard: number) => {
    const value = options.size(name) ?? standard;
    if (value < sizeMin || value % mib !== 0) {
      throw new UsageError(
        `Option --${name} has the value ${value}: expected a multiple of 1MiB, at least ${sizeMin / mib}MiB.`,
      );
    }
    return value;
  };
  const rounds = number("rounds", roundsStandard, roundsMax);
  if (!Number.isInteger(rounds)) {
    throw new UsageError(`Option --rounds has the value "${rounds}": expected a whole number.`);
  }
  const seconds = number("seconds", secondsStandard, 3600);
  const chosen = choose<{ name: string }>("only", options.list("only"), [...jobs, inProcess]);
  const asked = choose("peers", options.list("peers"), peers);
  const skipped = asked.flatMap((peer) => {
    const why = whyNot(peer);
    return why === undefined ? [] : [{ peer: peer.name, why }];
  });
  return {
    rounds,
    seconds,
    warmUpSeconds: Math.min(warmUpSecondsMax, seconds / 2),
    sizeBytes: size("size", sizeStandard),
    cacheBytes: size("cache-size", cacheSizeStandard),
    transport: options.text("transport") === "tcp" ? "tcp" : "unix",
    directory: options.text("directory") ?? Deno.env.get("TMPDIR") ?? "/tmp",
    jobs: chosen.filter((one) => one !== inProcess) as Job[],
    inProcess: chosen.includes(inProcess),
    peers: asked.filter(({ name }) => !skipped.some(({ peer }) => peer === name)),
    skipped,
    say: (line) => output.note(line),
  };
}

async function runBench(options: Options, output: Output): Promise<number> {
  const file = options.text("json");
  if (file !== undefined) {
    refuseToReplace(file, { option: "--json", kind: "the figures", pattern: /^\{/, stream: true });
  }
  const labOptions = readOptions(options, output);
  if (!isInstalled("fio")) {
    throw new NbdboostError(
      "Cannot find fio, the client of all these benchmarks: install it (on Debian and Ubuntu: apt-get install fio).",
    );
  }
  for (const { peer, why } of labOptions.skipped) output.note(`SKIPPED: ${peer}: ${why}`);
  const estimate = formatSeconds(estimateSeconds(labOptions));
  output.note(
    `this takes about ${estimate} (${labOptions.rounds} × ${labOptions.seconds} s for each job and peer)`,
  );
  const lab = new Lab(labOptions);
  using stop = new StopSignal(() => Deno.exit(exitCode.failed));
  const interrupted = stop.received.then(async (signal) => {
    await lab.abandon();
    throw new NbdboostError(`The benchmark was ended by ${signal}; its servers and files are gone.`);
  });
  interrupted.catch(() => {});
  let result: BenchResult;
  try {
    result = await lab.run();
  } catch (error) {
    if (stop.seen) await interrupted;
    throw error;
  }
  if (file !== undefined) await Deno.writeTextFile(file, JSON.stringify(result, null, 2) + "\n");
  printResult(labOptions, result, output);
  return result.failed.length > 0 ? exitCode.failed : exitCode.done;
}

/** A table per job: medians over the rounds. */
function printResult({ jobs, peers }: LabOptions, result: BenchResult, output: Output): void {
  for (const job of jobs) {
    const rows = peers.filter((peer) => fits(job, peer)).flatMap((peer) => {
      const summary = summarize(result, job.name, peer.name);
      if (!summary) return [];
      const { iops, megabytesPerSecond, latencyMicros, cpuMicrosPerOp, peakRssBytes } = summary;
      return [{
        peer: peer.name,
        IOPS: Math.round(iops),
        "MB/s": Number(megabytesPerSecond.toFixed(1)),
        "p50 us": Math.round(latencyMicros.p50),
        "p99 us": Math.round(latencyMicros.p99),
        "p99.9 us": Math.round(latencyMicros.p999),
        "CPU us/op": cpuMicrosPerOp === null ? "-" : cpuMicrosPerOp.toFixed(1),
        "RSS MiB": peakRssBytes === null ? "-" : Math.round(peakRssBytes / mib).toString(),
      }];
    });
    if (rows.length === 0) continue;
    output.line("");
    output.line(job.title);
    for (const line of tableLines(rows, "  ")) output.line(line);
  }
  const { crc32cGigabytesPerSecond, ceilingMegabytesPerSecond } = result.inProcess;
  if (crc32cGigabytesPerSecond.length > 0) {
    output.line("");
    output.line(
      `in-process: crc32c of 4 KiB blocks ${median(crc32cGigabytesPerSecond).toFixed(1)} GB/s, ` +
        `random 4 KiB writes on memory devices ${median(ceilingMegabytesPerSecond).toFixed(0)} MB/s`,
    );
  }
  for (const { round, job, peer, why } of result.failed) {
    output.note(`FAILED in round ${round}: ${job} against ${peer}: ${why}`);
  }
}
