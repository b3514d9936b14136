/**
 * `deno task fuzz [--minutes M] [--seed S]`: hostile sessions against the codec for half of the time, and against a live
 * server for the other half, on both backends where there is a ring. Prints what was done; ends with 1 when anything broke.
 *
 * @module
 */

import { parseArgs } from "node:util";
import type { Io } from "../../../src/io/io.ts";
import { portableIo } from "../../../src/io/portable.ts";
import { probeRing, ringIo } from "../../../src/io/ring/mod.ts";
import { fuzzCodec } from "./codec.ts";
import { fuzzLive, leftOpen, runtimeDescriptors } from "./live.ts";

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

/** True for a share of the time, from now on. */
function forShare(share: number): () => boolean {
  const end = Date.now() + share * minutes * 60_000;
  return () => Date.now() < end;
}

async function attack(io: Io, share: number): Promise<void> {
  await fuzzLive(seed, 300, () => true, io);
  const live = await fuzzLive(seed, Infinity, forShare(share), io);
  console.log(
    `live (${io.name}): ${live.connections} hostile connections, ${live.bytes} bytes; a client beside them made ` +
      `${live.victimRequests} requests, all answered rightly; descriptors ${
        live.descriptors.join(" then ")
      }; ` +
      `resident MiB at the end ${live.rssMib[1]}`,
  );
  if (leftOpen(live) > runtimeDescriptors) throw new Error("descriptors are left open");
}

try {
  const codec = await fuzzCodec(seed, Infinity, forShare(0.5));
  console.log(
    `codec: ${codec.sessions} hostile sessions, ${codec.bytes} bytes, ${codec.transmitting} came to the transmission, ` +
      `${codec.ended} ended by the server, ${codec.messages} messages of it well formed`,
  );
  const probe = probeRing();
  await attack(portableIo, probe.usable ? 0.25 : 0.5);
  if (probe.usable) await attack(ringIo, 0.25);
  else console.log(`live (ring): not attacked: ${probe.why}`);
} catch (error) {
  console.error((error as Error).message);
  console.error(`again: deno task fuzz --minutes ${minutes} --seed ${seed}`);
  Deno.exit(1);
}
