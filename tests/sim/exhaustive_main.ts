/**
 * `deno task exhaust [--ops N] [--from N] [--depth N] [--start NAME] [--shard I/N] [--log FILE] [--workload "w0 f …"] [--failures N]
 * [--unreduced] [--mutant NAME]`: goes through all workloads of up to N operations (2 by default) on a tiny machine, see exhaustive.ts; with
 * --workload through one.
 *
 * --from: leaves out workloads of fewer operations.
 * --depth: how deep the power goes again inside a recovery, at each of its syncs and with every subset (0 by default).
 * --shard: every N-th group of workloads only, from the I-th (0 to N-1) on; all shards together are the whole.
 * --log: what is done is added to FILE, and what FILE says is done is not done again; the summary is of all of it. So a run
 * goes on where it was stopped, and files of several shards add up when they are put one behind the other.
 * --unreduced: opens every single image by itself as well, and compares.
 * --mutant: plants the fault into a copy of the engine first, see mutant.ts.
 *
 * Exit code 1 on a violation, with the command that repeats it. The shortest workloads come first.
 *
 * @module
 */

import process from "node:process";
import { eachWorkload, Exhaustion, type Totals } from "./exhaustive.ts";
import { show } from "./mutant.ts";
import { Progress } from "./progress.ts";
import { Prefixes } from "./tiny_prefixes.ts";
import { type Operation, operations, type StartName, starts } from "./tiny_world.ts";
import { Unreduced } from "./unreduced.ts";

/** Operations that the workloads of a group end with in all ways; they begin alike, so most of what they come to is equal. */
const tailLength = 2;

/** Workloads that are gone through together. */
interface Group {
  name: string;
  start: StartName;
  workloads: () => Iterable<Operation[]>;
  count: number;
}

/** A group that is done. */
interface Done extends Totals {
  group: string;
  depth: number;
  /** Workloads that are the same as others, and were left out. */
  same: number;
  cpuSeconds: number;
}

const mutant = Deno.args.indexOf("--mutant");
if (mutant >= 0) {
  const name = Deno.args[mutant + 1] ?? "";
  Deno.exit(await show(name, Deno.args.toSpliced(mutant, 2), "exhaustive_main.ts"));
}
const options = parse(Deno.args);
const unreduced = options.unreduced ? new Unreduced() : undefined;
const exhaustion = new Exhaustion(options.depth, unreduced);
const done: Done[] = readLog();
const startMs = performance.now();
let failures = 0;

const one = options.workload;
const lengths = one
  ? [one.length]
  : Array.from({ length: options.ops - options.from + 1 }, (_, i) => options.from + i);
const prefixes = await Prefixes.compare(options.starts, one ? 0 : options.ops);
search: for (const length of lengths) {
  const known = new Set(done.map(({ group }) => group));
  const groups = groupsOf(length).filter((_, i) => i % options.shards === options.shard);
  const open = groups.filter(({ name }) => !known.has(name));
  const progress = new Progress(`${length} operations`, open.reduce((sum, { count }) => sum + count, 0));
  for (const group of open) {
    await goThrough(group, progress);
    if (failures >= options.failures) break search;
  }
  if (failures === 0 && open.length > 0) console.log(`up to ${length} operations: ${summary()}`);
}
console.log(`${failures === 0 ? "ok" : "FAILED"}: ${summary()}, ${failures} violations`);
Deno.exit(failures === 0 ? 0 : 1);

function groupsOf(length: number): Group[] {
  const names = options.starts;
  if (one) {
    return names.map((start) => ({
      name: `${start} ${one.join(" ")}`,
      start,
      workloads: () => [one],
      count: 1,
    }));
  }
  const tail = Math.min(tailLength, length);
  return [...eachWorkload(length - tail)].flatMap((head) =>
    names.map((start) => ({
      name: [start, ...head, ...new Array(tail).fill("*")].join(" "),
      start,
      *workloads() {
        for (const rest of eachWorkload(tail)) yield [...head, ...rest];
      },
      count: Object.keys(operations).length ** tail,
    }))
  );
}

async function goThrough({ name, start, workloads }: Group, progress: Progress): Promise<void> {
  const before = { ...exhaustion.totals };
  const cpuBefore = process.cpuUsage();
  let same = 0;
  for (const workload of workloads()) {
    progress.tell();
    if (prefixes.cover(start, workload)) {
      same++;
      continue;
    }
    const finding = await exhaustion.run(start, workload);
    if (!finding) continue;
    console.log(
      `again: deno task exhaust --start ${start} --depth ${options.depth} --workload "${workload.join(" ")}"`,
    );
    for (const operation of workload) console.log(`  ${operation}: ${operations[operation]}`);
    console.log(finding.message);
    if (++failures >= options.failures) break;
  }
  const { user, system } = process.cpuUsage(cpuBefore);
  const group: Done = {
    group: name,
    depth: options.depth,
    ...difference(exhaustion.totals, before),
    same,
    cpuSeconds: (user + system) / 1e6,
  };
  done.push(group);
  if (options.log !== undefined && failures === 0) {
    Deno.writeTextFileSync(options.log, `${JSON.stringify(group)}\n`, { append: true });
  }
}

function difference(after: Totals, before: Totals): Totals {
  const of = (name: keyof Totals) => after[name] - before[name];
  return {
    workloads: of("workloads"),
    points: of("points"),
    sampled: of("sampled"),
    images: of("images"),
    outcomes: of("outcomes"),
    recoveries: of("recoveries"),
  };
}

/** What is done, of those that the options ask for. */
function readLog(): Done[] {
  if (options.log === undefined) return [];
  let text: string;
  try {
    text = Deno.readTextFileSync(options.log);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
  const byGroup = new Map<string, Done>();
  for (const line of text.trim().split("\n")) {
    if (line === "") continue;
    const group: Done = JSON.parse(line);
    if (group.depth === options.depth) byGroup.set(group.group, group);
  }
  return [...byGroup.values()];
}

function summary(): string {
  const sum = (name: keyof Omit<Done, "group">) => done.reduce((sum, group) => sum + group[name], 0);
  const compared = unreduced ? `${unreduced.images} of them one by one, ` : "";
  return `${sum("workloads")} workloads (${sum("same")} more are the same as one of them), ` +
    `${sum("points")} moments (${sum("sampled")} sampled), ${sum("images")} images, ${compared}` +
    `${sum("outcomes")} outcomes, ${sum("recoveries")} recoveries, ` +
    `${sum("cpuSeconds").toFixed(0)} s of CPU, ${((performance.now() - startMs) / 1000).toFixed(0)} s`;
}

function parse(args: string[]) {
  const text = (name: string): string | undefined => {
    const at = args.indexOf(`--${name}`);
    return at < 0 ? undefined : args[at + 1];
  };
  const workload = text("workload")?.trim().split(/\s+/).map(operationOf);
  const [shard = 0, shards = 1] = text("shard")?.split("/").map(Number) ?? [];
  if (!(shard >= 0 && shard < shards)) {
    console.error(`Cannot take shard ${text("shard")}: expected I/N with I from 0 to N-1`);
    Deno.exit(2);
  }
  return {
    ops: Number(text("ops") ?? 2),
    from: Number(text("from") ?? 1),
    depth: Number(text("depth") ?? 0),
    starts: (text("start")?.split(",") ?? Object.keys(starts)) as StartName[],
    shard,
    shards,
    log: text("log"),
    workload,
    failures: Number(text("failures") ?? 1),
    unreduced: args.includes("--unreduced"),
  };
}

function operationOf(name: string): Operation {
  if (name in operations) return name as Operation;
  console.error(`Cannot do "${name}": expected one of ${Object.keys(operations).join(", ")}`);
  Deno.exit(2);
}
