/**
 * All workloads of one operation, and from a fresh log those of two; `deno task exhaust --ops N` leaves nothing out. Then that
 * what is not run by itself would do what is said of it, and that planted faults are found.
 *
 * @module
 */

import { assert, assertEquals, assertGreater } from "../assert.ts";
import { eachWorkload, Exhaustion } from "./exhaustive.ts";
import { mutants, show } from "./mutant.ts";
import { Prefixes } from "./tiny_prefixes.ts";
import { type Operation, type StartName, starts } from "./tiny_world.ts";
import { Unreduced } from "./unreduced.ts";

const operationsOf: Record<StartName, number> = { fresh: 2, lapped: 1, full: 1 };

async function goThrough(exhaustion: Exhaustion, start: StartName, workload: Operation[]): Promise<void> {
  assertEquals(
    (await exhaustion.run(start, workload))?.message,
    undefined,
    `deno task exhaust --start ${start} --workload "${workload.join(" ")}"`,
  );
}

for (const start of Object.keys(starts) as StartName[]) {
  Deno.test(`Exhaustion: from a ${start} log, no crash image of a short workload loses or invents anything`, async () => {
    const exhaustion = new Exhaustion(0);
    for (let length = 1; length <= operationsOf[start]; length++) {
      for (const workload of eachWorkload(length)) await goThrough(exhaustion, start, workload);
    }
    const { workloads, sampled, images, outcomes, recoveries } = exhaustion.totals;
    assertEquals(sampled, 0);
    assertGreater(outcomes, 2 * workloads);
    assertGreater(recoveries, workloads);
    assertGreater(images, 10 * outcomes);
  });
}

Deno.test("Exhaustion: what recoveries are not run for is what each single image does", async () => {
  for (
    const [start, workload] of [["fresh", "u1"], ["lapped", "u1"], ["full", "p0 u1"], [
      "lapped",
      "w1 j",
    ]] as const
  ) {
    const unreduced = new Unreduced();
    const exhaustion = new Exhaustion(0, unreduced);
    await goThrough(exhaustion, start, workload.split(" ") as Operation[]);
    assertGreater(unreduced.images, 3);
    assertGreater(unreduced.recoveries, exhaustion.totals.recoveries);
  }
});

Deno.test("Exhaustion.run: the power also goes inside the recovery", async () => {
  const exhaustion = new Exhaustion(1);
  const without = new Exhaustion(0);
  for (const each of [exhaustion, without]) await goThrough(each, "fresh", ["u1"]);
  assertGreater(exhaustion.totals.outcomes, without.totals.outcomes);
});

Deno.test("Exhaustion: finds planted faults", async () => {
  const codeOf = async (name: string, workload: string) =>
    await show(name, ["--start", "fresh", "--workload", workload], "exhaustive_main.ts", "null");
  for (
    const name of [
      "flush-without-sync",
      "header-proves-record",
      "superblocks-not-synced",
      "open-rewrites-nothing",
    ]
  ) {
    assert(mutants.some((mutant) => mutant.name === name));
    assertEquals(await codeOf(name, "u1"), 1, name);
  }
  assertEquals(await codeOf("torn-record-passed", "m"), 1);
  // The same workload finds nothing where nothing of it is wrong.
  assertEquals(await codeOf("torn-record-passed", "u1"), 0);
});

Deno.test("Prefixes: what a power cut leaves nothing of is the same as nothing, and what was flushed is not", async () => {
  const prefixes = await Prefixes.compare(["fresh"], 3);
  assert(prefixes.cover("fresh", ["w0", "k", "f"]));
  assert(prefixes.cover("fresh", ["z", "k", "u1"]));
  assert(!prefixes.cover("fresh", ["k", "u1"]));
  assert(!prefixes.cover("fresh", ["u1", "k", "u1"]));
  assert(!prefixes.cover("fresh", ["w0", "f", "u1"]));
});
