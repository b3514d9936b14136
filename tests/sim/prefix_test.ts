// Why: a backing device that is said to be a consistent old image, and is not, is worse than one that makes no promise. More of
// the same: deno task sim --prefix --crashes 20000
import { assert } from "../assert.ts";
import { livePrefix, noCounts } from "./prefix_world.ts";

const worlds = 24;

Deno.test("prefix: between steps the backing is the volume of the point that is stated, and within one of two, through crashes", async () => {
  const counts = noCounts();
  for (let seed = 1; seed <= worlds; seed++) {
    try {
      await livePrefix(seed, counts);
    } catch (cause) {
      throw new Error(`seed ${seed}; again: deno task sim --prefix --seed ${seed}`, { cause });
    }
  }
  for (const [what, count] of Object.entries(counts)) assert(count > 0, `no ${what} in ${worlds} worlds`);
});
