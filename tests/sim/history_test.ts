// Why: a view of the past that shows a byte of another moment is worse than none, and a rewind that a crash leaves half done
// loses the volume. More of the same: deno task sim --history
import { assert } from "../assert.ts";
import { noCounts } from "./history_counts.ts";
import { liveHistory } from "./history_world.ts";

const worlds = 24;

Deno.test("history: views, offline openings and rewinds show the image of their flush point, through crashes", async () => {
  const counts = noCounts();
  for (let seed = 1; seed <= worlds; seed++) {
    try {
      await liveHistory(seed, counts);
    } catch (cause) {
      throw new Error(`seed ${seed}; again: deno task sim --history --seed ${seed}`, { cause });
    }
  }
  for (const [what, count] of Object.entries(counts)) assert(count > 0, `no ${what} in ${worlds} worlds`);
});
