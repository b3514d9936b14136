/**
 * `deno task exhaust [--ops N] [--depth N] [--start NAME] [--shard I/N] [--workload "w0 f …"] [--failures N]`: goes through
 * all workloads of up to N operations (2 by default) on a tiny machine, see exhaustive.ts; with --workload through one.
 *
 * --depth: how deep the power goes again inside a recovery, at each of its syncs and with every subset (0 by default).
 * Exit code 1 on a violation, with the command that repeats it. The shortest workloads come first.
 *
 * @module
 */

import { eachWorkload, Exhaustion, type Finding } from "./exhaustive.ts";
import { type Operation, operations, type StartName, starts } from "./tiny_world.ts";

const options = parse(Deno.args);
const exhaustion = new Exhaustion(options.depth);
const startMs = performance.now();
let failures = 0;
let index = 0;

search: for (let length = options.workload?.length ?? 1; length <= options.ops; length++) {
  for (const workload of options.workload ? [options.workload] : eachWorkload(length)) {
    for (const start of options.starts) {
      if (index++ % options.shards !== options.shard) continue;
      const finding = await exhaustion.run(start, workload);
      if (!finding) continue;
      tell(finding);
      if (++failures >= options.failures) break search;
    }
  }
  if (failures === 0) console.log(`up to ${length} operations: ${summary()}`);
}
console.log(`${failures === 0 ? "ok" : "FAILED"}: ${summary()}, ${failures} violations`);
Deno.exit(failures === 0 ? 0 : 1);

function tell({ start, workload, message }: Finding): void {
  console.log(
    `again: deno task exhaust --start ${start} --depth ${options.depth} --workload "${workload.join(" ")}"`,
  );
  for (const operation of workload) console.log(`  ${operation}: ${operations[operation]}`);
  console.log(message);
}

function summary(): string {
  const { workloads, points, sampled, images, distinct, recoveries } = exhaustion.totals;
  const seconds = (performance.now() - startMs) / 1000;
  return `${workloads} workloads, ${points} moments (${sampled} sampled), ${images} images, ${distinct} distinct, ` +
    `${recoveries} recoveries, ${seconds.toFixed(1)} s`;
}

function parse(args: string[]) {
  const text = (name: string): string | undefined => {
    const at = args.indexOf(`--${name}`);
    return at < 0 ? undefined : args[at + 1];
  };
  const workload = text("workload")?.trim().split(/\s+/).map(operationOf);
  const [shard = 0, shards = 1] = text("shard")?.split("/").map(Number) ?? [];
  return {
    ops: workload?.length ?? Number(text("ops") ?? 2),
    depth: Number(text("depth") ?? 0),
    starts: (text("start")?.split(",") ?? Object.keys(starts)) as StartName[],
    shard,
    shards,
    workload,
    failures: Number(text("failures") ?? 1),
  };
}

function operationOf(name: string): Operation {
  if (name in operations) return name as Operation;
  console.error(`Cannot do "${name}": expected one of ${Object.keys(operations).join(", ")}`);
  Deno.exit(2);
}
