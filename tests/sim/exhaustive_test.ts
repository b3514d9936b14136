/**
 * All workloads of one operation, and from a fresh log those of two, but for the one operation that leaves thousands of
 * images; `deno task exhaust --ops N` leaves nothing out.
 *
 * @module
 */

import { assertEquals, assertGreater } from "../assert.ts";
import { eachWorkload, Exhaustion } from "./exhaustive.ts";
import { type StartName, starts } from "./tiny_world.ts";

const operationsOf: Record<StartName, number> = { fresh: 2, lapped: 1, full: 1 };

for (const start of Object.keys(starts) as StartName[]) {
  Deno.test(`Exhaustion: from a ${start} log, no crash image of a short workload loses or invents anything`, async () => {
    const exhaustion = new Exhaustion(0);
    for (let length = 1; length <= operationsOf[start]; length++) {
      for (const workload of eachWorkload(length)) {
        if (length > 1 && workload.includes("m")) continue;
        assertEquals(
          (await exhaustion.run(start, workload))?.message,
          undefined,
          `deno task exhaust --start ${start} --workload "${workload.join(" ")}"`,
        );
      }
    }
    const { workloads, outcomes, recoveries } = exhaustion.totals;
    assertGreater(outcomes, 2 * workloads);
    assertGreater(recoveries, workloads);
  });
}

Deno.test("Exhaustion.run: the power also goes inside the recovery", async () => {
  const exhaustion = new Exhaustion(1);
  const without = new Exhaustion(0);
  for (const each of [exhaustion, without]) assertEquals(await each.run("fresh", ["w0", "f"]), undefined);
  assertGreater(exhaustion.totals.outcomes, without.totals.outcomes);
});
