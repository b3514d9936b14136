/**
 * `deno task sim [--crashes N] [--seed S] [--minutes M] [--from S] [--good|--faulty] [--light|--heavy] [--mirrored|--plain]
 * [--world-crashes N] [--failures N] [--trace LINES] [--prefix|--history]`: tries to make the cache lose or invent a byte. Without --good or --faulty every second
 * world has devices that fail and rot, too. Without --light or --heavy most worlds are small and short-lived. Without --mirrored or --plain one world
 * in four has a cache device of two legs, which break, come back and are replaced. `--prefix`: instead, worlds whose backing device is compared
 * with the point that the cache states, at every moment (tests/sim/prefix_world.ts). `--history`: instead, worlds whose past is looked at
 * (tests/sim/history_world.ts).
 *
 * Exit code 1 on a violation, with the seed, the command that repeats it and the trace of what happened; the last line is a
 * summary. The same seed gives the same trace hash.
 *
 * @module
 */

import { Coverage } from "./coverage.ts";
import { noCounts as noHistoryCounts } from "./history_counts.ts";
import { liveHistory } from "./history_world.ts";
import { hunt } from "./hunt.ts";
import { show } from "./mutant.ts";
import { livePrefix, noCounts as noPrefixCounts } from "./prefix_world.ts";
import { World } from "./world.ts";

const planted = Deno.args.indexOf("--mutant");
if (planted >= 0) {
  const others = Deno.args.filter((_, i) => i !== planted && i !== planted + 1);
  Deno.exit(await show(Deno.args[planted + 1] ?? "", others));
}

if (Deno.args.includes("--prefix")) {
  Deno.exit(await hunt("--prefix", livePrefix, noPrefixCounts(), Deno.args));
}
if (Deno.args.includes("--history")) {
  Deno.exit(await hunt("--history", liveHistory, noHistoryCounts(), Deno.args));
}

const options = parse(Deno.args);
const coverage = new Coverage();
const startMs = performance.now();
const deadlineMs = startMs + options.minutes * 60_000;
let seed = options.seed ?? 1;
let failed = 0;
let hash = 0;
let worlds = 0;

do {
  const result = await new World(seed, isFaulty(seed), coverage, undefined, options.light, options.mirrored)
    .run(options.worldCrashes);
  worlds++;
  hash = (Math.imul(hash, 31) + result.hash) >>> 0;
  if (result.violation !== undefined) {
    failed++;
    console.log(
      `again: deno task sim --seed ${seed} ${isFaulty(seed) ? "--faulty" : "--good"}${
        options.worldCrashes === undefined ? "" : ` --world-crashes ${options.worldCrashes}`
      }${options.light === undefined ? "" : options.light ? " --light" : " --heavy"}${
        options.mirrored === undefined ? "" : options.mirrored ? " --mirrored" : " --plain"
      }`,
    );
    console.log(`seed ${seed}, crash ${result.crashes}: ${result.violation.split("\n")[0]}`);
    if (options.trace) {
      const trace: string[] = [];
      await new World(seed, isFaulty(seed), new Coverage(), trace, options.light, options.mirrored).run(
        options.worldCrashes,
      );
      console.log(trace.slice(-options.trace).join("\n"));
      console.log(result.violation);
    }
    if (failed >= options.failures) break;
  }
  seed++;
} while (--options.seedsLeft > 0 && coverage.crashes < options.crashes && performance.now() < deadlineMs);

const seconds = (performance.now() - startMs) / 1000;
console.log(coverage.toString());
console.log(
  `${failed === 0 ? "ok" : "FAILED"}: ${worlds} worlds, ${coverage.crashes} crashes, ${failed} violations, ` +
    `${seconds.toFixed(1)} s, ${Math.round(coverage.crashes / seconds)} crashes/s, trace hash ${
      hash.toString(16)
    }`,
);
Deno.exit(failed === 0 ? 0 : 1);

/** Every second world has faulty devices. */
function isFaulty(seed: number): boolean {
  return options.faulty ?? seed % 2 === 0;
}

function parse(args: string[]) {
  const value = (name: string): number | undefined => {
    const at = args.indexOf(`--${name}`);
    return at < 0 ? undefined : Number(args[at + 1]);
  };
  const one = value("seed");
  return {
    seed: one ?? value("from"),
    seedsLeft: one === undefined ? value("worlds") ?? Infinity : 1,
    crashes: value("crashes") ?? (value("minutes") === undefined ? 10_000 : Infinity),
    minutes: value("minutes") ?? Infinity,
    worldCrashes: value("world-crashes"),
    failures: value("failures") ?? 1,
    faulty: args.includes("--faulty") ? true : args.includes("--good") ? false : undefined,
    light: args.includes("--light") ? true : args.includes("--heavy") ? false : undefined,
    mirrored: args.includes("--mirrored") ? true : args.includes("--plain") ? false : undefined,
    trace: value("trace") ?? (one === undefined ? 0 : 120),
  };
}
