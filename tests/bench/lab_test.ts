/** The harness with real servers, as people start it; not for the figures. @module */

import { jobs } from "../../bench/e2e/jobs.ts";
import { estimateSeconds, fits } from "../../bench/e2e/lab.ts";
import { peers } from "../../bench/e2e/peers.ts";
import type { BenchResult } from "../../bench/e2e/result.ts";
import { assert, assertEquals, assertGreater, assertStringIncludes } from "../assert.ts";
import { cliPath, runHere, Temp } from "../cli/support.ts";
import { requireTool } from "../interop/tools.ts";

const small = ["--rounds", "1", "--size", "16MiB", "--cache-size", "32MiB"];
const pair = ["--peers", "nbdboost-portable,nbdkit-memory"];

Deno.test("jobs, peers: names are unique, and every job meets somebody with a disk", () => {
  for (const table of [jobs, peers]) assertEquals(new Set(table.map(({ name }) => name)).size, table.length);
  for (const job of jobs) assert(peers.some((peer) => peer.onDisk && fits(job, peer)), job.name);
});

Deno.test("fits: who keeps nothing is not asked to sync; the device alone does only what it can", () => {
  const memory = peers.find(({ name }) => name === "nbdkit-memory")!;
  const device = peers.find(({ name }) => name === "device")!;
  assertEquals(jobs.filter((job) => fits(job, memory)).some(({ needsDisk }) => needsDisk), false);
  assertEquals(jobs.filter((job) => fits(job, device)).map(({ name }) => name), ["sync-1"]);
});

Deno.test("estimateSeconds: grows with rounds and runs", () => {
  const plan = {
    rounds: 1,
    seconds: 3,
    warmUpSeconds: 1,
    sizeBytes: 0,
    cacheBytes: 0,
    inProcess: false,
    jobs,
    peers,
  };
  assertEquals(estimateSeconds({ ...plan, rounds: 5 }), 5 * estimateSeconds(plan));
  assertGreater(estimateSeconds(plan), jobs.length * 4);
});

Deno.test("bench: one job against two servers; the figures are there and nothing else is left", async () => {
  if (!requireTool("fio")) return;
  await using temp = await Temp.make();
  const json = temp.join("result.json");
  const work = temp.join("work");
  await Deno.mkdir(work);
  const args = ["--seconds", "0.5", "--only", "randwrite-fsync32", "--only", "randwrite-qd64,sync-1"];
  const { code, out, err } = await runHere(
    "bench",
    ...[...small, ...pair, "--peers", "device", ...args, "--json", json, "--directory", work],
  );
  assertEquals(code, 0, err);
  assertEquals([...Deno.readDirSync(work)], []);
  const result: BenchResult = JSON.parse(await Deno.readTextFile(json));
  assertEquals(result.failed, []);
  const found = new Set(result.runs.map(({ job, peer }) => `${job} ${peer}`));
  for (const job of ["randwrite-fsync32", "randwrite-qd64", "sync-1"]) {
    assert(found.has(`${job} nbdboost-portable`), job);
  }
  assert(found.has("sync-1 device"));
  const memory = found.has("randwrite-qd64 nbdkit-memory");
  assertEquals(result.skipped.map(({ peer }) => peer), memory ? [] : ["nbdkit-memory"]);
  for (const run of result.runs) {
    assertGreater(run.iops, 0);
    assertGreater(run.latencyMicros.p99, 0);
    assertEquals(run.flushMicros !== null, run.job !== "randwrite-qd64" && run.peer !== "device", run.job);
    if (run.peer === "device") continue;
    assertGreater(run.cpuMicrosPerOp!, 0);
    assertGreater(run.peakRssBytes!, 1 << 20);
  }
  assertStringIncludes(out, "random 4 KiB writes, QD64\n");
  assert(!JSON.stringify(result).includes(temp.path));
});

Deno.test("bench: Ctrl-C ends it with servers and files gone", async () => {
  if (!requireTool("fio")) return;
  await using temp = await Temp.make();
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      ...["run", "--quiet", "--allow-all", cliPath, "bench", ...small, "--seconds", "60"],
      ...["--only", "randwrite-qd1", "--peers", "nbdboost-portable", "--directory", temp.path],
    ],
    stdin: "null",
    stderr: "piped",
  }).spawn();
  let err = "";
  const reading = (async () => {
    for await (const text of child.stderr.pipeThrough(new TextDecoderStream())) err += text;
  })();
  const socket = () => {
    for (const { name } of Deno.readDirSync(temp.path)) {
      try {
        // The socket is there once the server listens; fio follows.
        if (Deno.lstatSync(`${temp.path}/${name}/run-1/nbd`).isSocket) return true;
      } catch {
        // Not yet.
      }
    }
    return false;
  };
  let ended = false;
  child.status.then(() => ended = true);
  while (!socket()) {
    if (ended) throw new Error(`it ended by itself: ${err}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  await new Promise((resolve) => setTimeout(resolve, 500));
  child.kill("SIGINT");
  assertEquals((await child.status).code, 1);
  await reading;
  assertStringIncludes(err, "ended by SIGINT; its servers and files are gone");
  assertEquals([...Deno.readDirSync(temp.path)], []);
  // A server whose files are gone would still be in /proc with the directory in its command line.
  const left = [...Deno.readDirSync("/proc")].filter(({ name }) => {
    try {
      return /^\d+$/.test(name) && Deno.readTextFileSync(`/proc/${name}/cmdline`).includes(temp.path);
    } catch {
      return false;
    }
  });
  assertEquals(left, []);
});

Deno.test("bench: what cannot be asked for is said with what can", async () => {
  const cases: [string[], string][] = [
    [["--only", "nothing"], "expected one of randwrite-qd1, "],
    [["--peers", "nbdkit-file,nobody"], 'Option --peers has the value "nobody"'],
    [["--rounds", "1.5"], "expected a whole number"],
    [["--rounds", "0"], "expected a number above 0"],
    [["--seconds", "soon"], "expected a number above 0"],
    [["--size", "1MiB"], "at least 16MiB"],
  ];
  for (const [args, says] of cases) {
    const { code, err } = await runHere("bench", ...args);
    assertEquals(code, 2, err);
    assertStringIncludes(err, says);
  }
});
