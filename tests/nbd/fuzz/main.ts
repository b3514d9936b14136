/**
 * `deno task fuzz [--minutes M] [--seed S]`: hostile sessions against the codec for half of the time, and against a live
 * server for the other half. Prints what was done; ends with 1 when anything broke.
 *
 * @module
 */

import { parseArgs } from "node:util";
import { fuzzCodec } from "./codec.ts";
import { fuzzLive } from "./live.ts";

const { values } = parseArgs({
  args: Deno.args,
  options: { minutes: { type: "string", default: "1" }, seed: { type: "string" } },
});
const minutes = Number(values.minutes);
const seed = values.seed === undefined ? Date.now() % 1_000_000_000 : Number(values.seed);
if (!(minutes > 0) || !Number.isSafeInteger(seed)) {
  console.error("expected --minutes M above 0 and --seed S, a whole number");
  Deno.exit(2);
}
console.log(`seed ${seed}, ${minutes} minutes`);

/** True for half of the time, from now on. */
function forHalf(): () => boolean {
  const end = Date.now() + minutes * 30_000;
  return () => Date.now() < end;
}

try {
  const codec = await fuzzCodec(seed, Infinity, forHalf());
  console.log(
    `codec: ${codec.sessions} hostile sessions, ${codec.bytes} bytes, ${codec.ended} ended by the server`,
  );
  // What the runtime opens once, with the first connections, is no leak: two descriptors, however many connections follow.
  await fuzzLive(seed, 50);
  const live = await fuzzLive(seed, Infinity, forHalf());
  console.log(
    `live: ${live.connections} hostile connections, ${live.bytes} bytes; a client beside them made ` +
      `${live.victimRequests} requests, all answered rightly; descriptors ${
        live.descriptors.join(" then ")
      }; ` +
      `resident MiB at the end ${live.rssMib[1]}`,
  );
  if (live.descriptors[1] > live.descriptors[0]) throw new Error("descriptors are left open");
} catch (error) {
  console.error((error as Error).message);
  console.error(`again: deno task fuzz --minutes ${minutes} --seed ${seed}`);
  Deno.exit(1);
}
