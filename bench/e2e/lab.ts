/**
 * Runs the jobs against the peers, round by round: in each round every job meets every peer once, one after the other,
 * each with a fresh server on the same files.
 *
 * Invariant: when `run` has settled, or `abandon` has, no server or client of it lives and its files are gone.
 *
 * @module
 */

import { NbdboostError } from "../../src/errors.ts";
import { formatSize, mib } from "../../src/units.ts";
import { type FioFacts, runFio } from "./fio.ts";
import { measureCeiling, measureCrc32c } from "./in_process.ts";
import type { Job } from "./jobs.ts";
import { describeMachine, findCommit, findVersions } from "./machine.ts";
import type { Peer } from "./peers.ts";
import { cpuSeconds, MemoryWatch } from "./process_tree.ts";
import type { BenchResult, Run } from "./result.ts";
import type { Server } from "./server.ts";
import { Workspace } from "./workspace.ts";

/** What is to be measured. */
export interface LabOptions {
  readonly rounds: number;
  /** Of each job against each peer. */
  readonly seconds: number;
  /** The same load before it, which does not count. */
  readonly warmUpSeconds: number;
  readonly sizeBytes: number;
  readonly cacheBytes: number;
  readonly transport: "unix" | "tcp";
  /** An existing directory on the filesystem to measure. */
  readonly directory: string;
  readonly jobs: readonly Job[];
  /** Also measure what needs neither server nor client. */
  readonly inProcess: boolean;
  /** Those that can take part. */
  readonly peers: readonly Peer[];
  readonly skipped: BenchResult["skipped"];
  /** Is told about progress, a line at a time. */
  readonly say: (line: string) => void;
}

/** Starting and stopping a server and two clients, as seen on the machine of performance.md. */
const overheadSecondsPerRun = 2;
/** Of sequential writing, guessed low. */
const fillBytesPerSecond = 400 * mib;

/** Whether `job` makes sense against `peer`. */
export function fits(job: Job, peer: Peer): boolean {
  if (peer.start === undefined) return job.device !== undefined;
  return peer.onDisk || !job.needsDisk;
}

/** How long a run will take, roughly. */
export function estimateSeconds(
  options: Pick<
    LabOptions,
    "rounds" | "seconds" | "warmUpSeconds" | "sizeBytes" | "cacheBytes" | "jobs" | "inProcess" | "peers"
  >,
): number {
  const runs = options.jobs.flatMap((job) => options.peers.filter((peer) => fits(job, peer))).length;
  const perRun = options.seconds + options.warmUpSeconds + overheadSecondsPerRun;
  return options.rounds * (runs * perRun + (options.inProcess ? 3 * options.seconds : 0)) +
    (options.sizeBytes + options.cacheBytes) / fillBytesPerSecond;
}

/** One benchmark. */
export class Lab {
  readonly #options: LabOptions;
  readonly #abort = new AbortController();
  #workspace: Workspace | undefined;
  #server: Server | undefined;
  #over: Promise<unknown> = Promise.resolve();

  constructor(options: LabOptions) {
    this.#options = options;
  }

  /** Measures everything. Rejects after {@linkcode abandon}, and when not even the files can be made. */
  run(): Promise<BenchResult> {
    const work = this.#work().finally(() => this.#clean());
    this.#over = work.catch(() => {});
    return work;
  }

  /** Ends everything; resolves when all is gone. */
  async abandon(): Promise<void> {
    this.#abort.abort();
    await this.#over;
  }

  #check(): void {
    if (this.#abort.signal.aborted) throw new NbdboostError("The benchmark was interrupted.");
  }

  async #clean(): Promise<void> {
    await this.#server?.kill();
    this.#server = undefined;
    await this.#workspace?.remove();
    this.#workspace = undefined;
  }

  async #work(): Promise<BenchResult> {
    const { rounds, seconds, warmUpSeconds, sizeBytes, cacheBytes, transport, say } = this.#options;
    const workspace = this.#workspace = await Workspace.make(this.#options.directory);
    const result: BenchResult = {
      format: "nbdboost-bench/1",
      date: new Date().toISOString(),
      commit: await findCommit(),
      machine: await describeMachine(workspace.directory),
      versions: await findVersions(),
      parameters: { rounds, seconds, warmUpSeconds, sizeBytes, cacheBytes, transport },
      skipped: [...this.#options.skipped],
      failed: [],
      inProcess: { crc32cGigabytesPerSecond: [], ceilingMegabytesPerSecond: [] },
      runs: [],
    };
    if (/tmpfs|ramfs/.test(result.machine.filesystem)) {
      say(
        `Beware: ${this.#options.directory} is in RAM (${result.machine.filesystem}): syncs cost nothing there.`,
      );
    }
    if (this.#options.jobs.length > 0) {
      say(`writing the files: ${formatSize(sizeBytes)} to serve, ${formatSize(cacheBytes)} for the log`);
      await workspace.fill(sizeBytes, cacheBytes, () => this.#check());
    }
    for (let round = 1; round <= rounds; round++) await this.#round(round, workspace, result);
    return result;
  }

  async #round(round: number, workspace: Workspace, result: BenchResult): Promise<void> {
    const { jobs, peers, rounds, say } = this.#options;
    this.#check();
    if (this.#options.inProcess) await this.#inProcess(round, result);
    for (const job of jobs) {
      for (const peer of peers.filter((one) => fits(job, one))) {
        this.#check();
        const label = `round ${round}/${rounds}, ${job.name}, ${peer.name}`;
        try {
          const run = await this.#one(round, job, peer, workspace);
          result.runs.push(run);
          say(`${label}: ${describeRun(job, run)}`);
        } catch (error) {
          this.#check();
          const why = (error as Error).message;
          // A path of this machine is nobody's business.
          const told = why.replaceAll(workspace.directory, "DIRECTORY");
          result.failed.push({ round, job: job.name, peer: peer.name, why: told });
          say(`${label}: FAILED: ${why}`);
        }
      }
    }
  }

  async #inProcess(round: number, { inProcess }: BenchResult): Promise<void> {
    const { rounds, seconds, say } = this.#options;
    const crc32c = measureCrc32c(seconds);
    const ceiling = await measureCeiling(seconds);
    inProcess.crc32cGigabytesPerSecond.push(rounded(crc32c, 2));
    inProcess.ceilingMegabytesPerSecond.push(rounded(ceiling, 0));
    const label = `round ${round}/${rounds}, in-process`;
    say(`${label}: crc32c ${crc32c.toFixed(1)} GB/s, engine on memory devices ${ceiling.toFixed(0)} MB/s`);
  }

  async #one(round: number, job: Job, peer: Peer, workspace: Workspace): Promise<Run> {
    const directory = await workspace.startRun(peer.direct ?? false);
    try {
      if (!peer.start) return makeRun(round, job, peer, await this.#device(job, workspace, directory));
      const { sizeBytes } = this.#options;
      const transport = job.tcp ? "tcp" : this.#options.transport;
      const { disk, cache } = workspace;
      const server = this.#server = await peer.start({ directory, disk, cache, sizeBytes, transport });
      const measured = await this.#measure(round, job, server, directory);
      this.#server = undefined;
      await server.stop();
      return makeRun(round, job, peer, measured);
    } finally {
      await this.#server?.kill();
      this.#server = undefined;
      await workspace.endRun(directory);
    }
  }

  async #device(job: Job, { raw }: Workspace, directory: string): Promise<Measured> {
    const { seconds, warmUpSeconds } = this.#options;
    const { size } = await Deno.stat(raw);
    const fio = (runtime: number) =>
      runFio(
        directory,
        [
          ...[
            "--ioengine=psync",
            `--filename=${raw}`,
            `--size=${size}`,
            "--time_based",
            `--runtime=${Math.round(runtime * 1000)}ms`,
          ],
          ...job.device!,
        ],
        this.#abort.signal,
      );
    await fio(warmUpSeconds);
    return { facts: await fio(seconds), cpuSeconds: null, peakRssBytes: null, flushesPerSync: null };
  }

  async #measure(round: number, job: Job, server: Server, directory: string): Promise<Measured> {
    const { seconds, warmUpSeconds, sizeBytes } = this.#options;
    const size = Math.min(job.writtenBytes ?? sizeBytes, sizeBytes);
    const fio = (...args: string[]) =>
      connected(
        directory,
        ["--ioengine=nbd", `--uri=${server.uri}`, `--size=${size}`, "--group_reporting", ...args],
        this.#abort.signal,
      );
    if (job.writtenBytes !== undefined) {
      await fio("--rw=write", "--bs=256k", "--iodepth=16", "--end_fsync=1");
    }
    const load = (runtime: number, seed: number) =>
      fio(
        "--time_based",
        `--runtime=${Math.round(runtime * 1000)}ms`,
        "--norandommap",
        `--randseed=${seed}`,
        ...job.fio,
      );
    await load(warmUpSeconds, 1000 + round);
    using memory = new MemoryWatch(server.pid);
    const before = await server.status?.();
    const cpuBefore = cpuSeconds(server.pid);
    const facts = await load(seconds, round);
    const cpu = cpuSeconds(server.pid) - cpuBefore;
    const after = await server.status?.();
    let flushesPerSync: number | null = null;
    if (before && after && facts.flushMicros !== null) {
      const syncs = after.log.syncs - before.log.syncs;
      if (syncs > 0) flushesPerSync = (after.requests.flush - before.requests.flush) / syncs;
    }
    return { facts, cpuSeconds: cpu, peakRssBytes: memory.peakBytes, flushesPerSync };
  }
}

/** Clients that connect at the same moment may overrun the short queue of a server that accepts one by one. */
const connectTriesMax = 5;

async function connected(
  directory: string,
  args: readonly string[],
  signal: AbortSignal,
): Promise<FioFacts> {
  for (let tries = 1;; tries++) {
    try {
      return await runFio(directory, args, signal);
    } catch (error) {
      const overrun = (error as Error).message.includes("Resource temporarily unavailable");
      if (!overrun || tries === connectTriesMax || signal.aborted) throw error;
    }
  }
}

interface Measured {
  facts: FioFacts;
  cpuSeconds: number | null;
  peakRssBytes: number | null;
  flushesPerSync: number | null;
}

function rounded(value: number, digits: number): number {
  return Number(value.toFixed(digits));
}

function makeRun(round: number, job: Job, peer: Peer, measured: Measured): Run {
  const { facts, cpuSeconds, peakRssBytes, flushesPerSync } = measured;
  return {
    round,
    job: job.name,
    peer: peer.name,
    iops: rounded(facts.iops, 1),
    megabytesPerSecond: rounded(facts.megabytesPerSecond, 2),
    latencyMicros: facts.latencyMicros,
    flushMicros: facts.flushMicros,
    cpuMicrosPerOp: cpuSeconds === null ? null : rounded(cpuSeconds * 1e6 / facts.operations, 2),
    peakRssBytes,
    clientCpuPercent: rounded(facts.clientCpuPercent, 0),
    flushesPerSync: flushesPerSync === null ? null : rounded(flushesPerSync, 2),
  };
}

/** One run in a few words. */
export function describeRun(job: Job, run: Run): string {
  const rate = job.unit === "IOPS"
    ? `${(run.iops / 1000).toFixed(1)} k IOPS`
    : `${run.megabytesPerSecond.toFixed(0)} MB/s`;
  const cpu = run.cpuMicrosPerOp === null ? "" : `, ${run.cpuMicrosPerOp.toFixed(1)} us of CPU per op`;
  return `${rate}, p99 ${Math.round(run.latencyMicros.p99)} us${cpu}`;
}
