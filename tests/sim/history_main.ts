/**
 * The past in the simulator, for as long as wanted: `deno run -A tests/sim/history_main.ts [WORLDS] [SEED]`.
 *
 * @module
 */

import { noCounts } from "./history_counts.ts";
import { liveHistory } from "./history_world.ts";

const worlds = Number(Deno.args[0] ?? 1000);
const first = Number(Deno.args[1] ?? Date.now() % 1_000_000_000);
const counts = noCounts();
for (let seed = first; seed < first + worlds; seed++) {
  try {
    await liveHistory(seed, counts);
  } catch (error) {
    console.error(`seed ${seed} (again: deno run -A tests/sim/history_main.ts 1 ${seed})`);
    console.error(error);
    Deno.exit(1);
  }
}
console.log(`${worlds} worlds from seed ${first}: ${JSON.stringify(counts)}`);
