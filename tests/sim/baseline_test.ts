/**
 * The simulator bites: a cache with dm-writeboost's rules loses data in it, on the days on which the module is known to.
 *
 * @module
 */

import { assertEquals, assertStringIncludes } from "../assert.ts";
import { compare, faultsOf } from "./baseline.ts";
import { scenarios } from "./baseline_scenarios.ts";

const runs = 8;

Deno.test("baseline: a model of dm-writeboost loses data where the module does, and the engine never", async () => {
  assertEquals(faultsOf(await compare(runs, 1)), []);
});

Deno.test("docs/durability.md: every scenario of the baseline is in the table", async () => {
  const text = await Deno.readTextFile(new URL("../../docs/durability.md", import.meta.url));
  for (const { name } of scenarios) assertStringIncludes(text, `| ${name} |`);
});
