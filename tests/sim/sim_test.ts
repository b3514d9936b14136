/**
 * A short run of the simulator with every test run; `deno task sim` goes on for as long as asked.
 *
 * @module
 */

import { assertEquals, assertGreater, assertNotEquals } from "../assert.ts";
import { Coverage } from "./coverage.ts";
import { World } from "./world.ts";

const worlds = 60;
const crashes = 20;

for (const faulty of [false, true]) {
  Deno.test(`World: ${faulty ? "faulty" : "crashing"} devices lose and invent nothing`, async () => {
    const coverage = new Coverage();
    for (let seed = 1; seed <= worlds; seed++) {
      const light = seed % 2 === 0;
      const { violation } = await new World(seed, faulty, coverage, undefined, light).run(crashes);
      assertEquals(
        violation,
        undefined,
        `deno task sim --seed ${seed} ${faulty ? "--faulty" : "--good"} ${light ? "--light" : "--heavy"} ` +
          `--world-crashes ${crashes}`,
      );
    }
    for (
      const name of [
        "laps",
        "kills",
        "clean closes",
        "opened with kept records",
        "drains compared",
        "blocks past the log",
        "clean copies kept",
        "blocks fetched ahead",
      ]
    ) assertGreater(coverage.counts.get(name) ?? 0, 0, name);
  });
}

Deno.test("World: the same seed gives the same trace, another one another", async () => {
  const hashOf = async (seed: number) => (await new World(seed, seed % 2 === 0, new Coverage()).run(5)).hash;
  for (const seed of [7, 8]) {
    const hash = await hashOf(seed);
    assertEquals(await hashOf(seed), hash);
    assertNotEquals(await hashOf(seed + 100), hash);
  }
});
