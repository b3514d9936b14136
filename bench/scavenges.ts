/**
 * Counts what the garbage collector does to a live server under load: random 4 KiB writes at a queue depth of 64 by fio over a
 * unix socket, log and backing in real files. `deno task bench:scavenges [--seconds S] [--set KEY=VALUE] [--dir DIRECTORY]`
 * prints each collection in the measured time, their number, and the server's CPU time per write.
 *
 * The load begins some seconds before the time that counts and ends after it, since code that is not compiled yet makes
 * objects that compiled code does not. Needs fio with its nbd engine, and Linux.
 *
 * @module
 */

import { parseArgs } from "node:util";
import { formatCache } from "../mod.ts";
import { gib, mib } from "../src/units.ts";
import { runFio } from "./e2e/fio.ts";
import { cpuSeconds } from "./e2e/process_tree.ts";
import { Workspace } from "./e2e/workspace.ts";

const warmUpSeconds = 6;
/** The load goes on for so long, as times of V8 and ours may differ a little. */
const afterSeconds = 2;
const sizeBytes = 512 * mib;
/** Taken by a fast client, so that the log does not fill within the measured time. */
const logBytesPerSecond = 300 * mib;

const { values } = parseArgs({
  options: {
    seconds: { type: "string", default: "10" },
    set: { type: "string", multiple: true, default: [] },
    dir: { type: "string", default: "/tmp" },
  },
});

/** A collection, as V8's --trace-gc tells it. */
interface Collection {
  isolate: string;
  ms: number;
  line: string;
}

function parseTrace(text: string): Collection[] {
  return [...text.matchAll(/^\[\d+:(0x[0-9a-f]+)\] +(\d+) ms: (.*)$/gm)]
    .map(([, isolate, ms, line]) => ({ isolate: isolate!, ms: Number(ms), line: line! }));
}

async function main(): Promise<void> {
  const seconds = Number(values.seconds);
  const workspace = await Workspace.make(values.dir);
  try {
    const logBytes = (warmUpSeconds + seconds + afterSeconds) * logBytesPerSecond;
    await workspace.fill(sizeBytes, Math.min(16 * gib, logBytes), () => {});
    await measure(workspace, seconds);
  } finally {
    await workspace.remove();
  }
}

async function measure(workspace: Workspace, seconds: number): Promise<void> {
  const { disk, cache } = workspace;
  const directory = await workspace.startRun(false);
  await formatCache({ cache, backing: disk, force: true });
  const uri = `nbd+unix:///?socket=${directory}/nbd`;
  const spawned = performance.now();
  const server = new Deno.Command(Deno.execPath(), {
    args: [
      ...[
        "run",
        "--quiet",
        "--allow-all",
        "--v8-flags=--trace-gc",
        import.meta.resolve("../cli.ts"),
        "serve",
      ],
      ...["--cache", cache, "--backing", disk, "--listen", uri, "--io", "ring", "--control", "off"],
      ...values.set.flatMap((setting) => ["--set", setting]),
    ],
    stdin: "null",
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  try {
    const output = new Response(server.stdout).text();
    // It prints through a buffer, which only its end empties: so it is ready when its socket is there.
    for (let tries = 0; !(await exists(`${directory}/nbd`)) && tries < 600; tries++) await sleep(100);
    const load = runFio(directory, [
      ...["--ioengine=nbd", `--uri=${uri}`, `--size=${sizeBytes}`, "--time_based", "--norandommap"],
      ...["--rw=randwrite", "--bs=4k", "--iodepth=64"],
      `--runtime=${(warmUpSeconds + seconds + afterSeconds) * 1000}ms`,
    ], new AbortController().signal);
    const measured = async () => {
      await sleep(warmUpSeconds * 1000);
      const [fromMs, cpu] = [performance.now() - spawned, cpuSeconds(server.pid)];
      await sleep(seconds * 1000);
      return { fromMs, toMs: performance.now() - spawned, cpu: cpuSeconds(server.pid) - cpu };
    };
    const [facts, { fromMs, toMs, cpu }] = await Promise.all([load, measured()]);
    server.kill("SIGTERM");
    const all = parseTrace(await output);
    const within = all.filter(({ ms }) => ms >= fromMs && ms < toMs);
    for (const { isolate, ms, line } of within) {
      console.log(`${((ms - fromMs) / 1000).toFixed(1)} s, isolate ${isolate}: ${line}`);
    }
    const rate = facts.operations / (warmUpSeconds + seconds + afterSeconds);
    console.log(
      `collections: ${within.length} in ${seconds} s (${all.length} in the server's life), ${
        (rate / 1000).toFixed(1)
      } k IOPS, ${(cpu / (rate * seconds) * 1e6).toFixed(2)} us of CPU per write`,
    );
  } finally {
    try {
      server.kill("SIGKILL");
    } catch {
      // It has ended, as it should.
    }
    await server.status;
  }
}

async function exists(path: string): Promise<boolean> {
  return await Deno.stat(path).then(() => true, () => false);
}

function sleep(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

await main();
