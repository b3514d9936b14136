/**
 * The kill test: a real server process is killed with SIGKILL at random moments, again and again, on the same devices.
 * After each restart everything that a flush (or FUA) covered must be there, and every other sector must hold one of
 * the versions that were submitted since.
 *
 * A failure prints its seed. `NBDBOOST_KILL_SEED` repeats the choices of a run, though not the moments to the microsecond;
 * `NBDBOOST_KILL_ROUNDS` sets the number of rounds.
 *
 * @module
 */

import { checkCache } from "../../mod.ts";
import { SeededRandom } from "../../src/random.ts";
import { formatSize, kib, mib } from "../../src/units.ts";
import { assert, assertEquals } from "../assert.ts";
import { runHere, Temp } from "../cli/support.ts";
import { ServerChild } from "./server_child.ts";
import { VolumeModel } from "./volume_model.ts";
import { Workload } from "./workload.ts";

const inCi = Deno.env.get("CI") === "true";
const roundsStandard = inCi ? 30 : 8;
const rounds = Number(Deno.env.get("NBDBOOST_KILL_ROUNDS") ?? roundsStandard);
/** In CI always the same choices, so that what fails there was broken by the change. */
const seedStandard = inCi ? 20261128 : crypto.getRandomValues(new Uint32Array(1))[0]!;
const seed = Number(Deno.env.get("NBDBOOST_KILL_SEED") ?? seedStandard);
/** The last block is short, on purpose. */
const backingBytes = 40 * mib + 1536;
const cacheBytes = 16 * mib;
const segmentBytes = 128 * kib;
const workMsMin = 100;
const workMsMax = 900;
/** Longer than a start takes, so that kills fall before, into and after recovery. */
const startMsMax = 500;

const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

Deno.test(`serve: what a flush covered survives SIGKILL (${rounds} rounds)`, async (t) => {
  console.log(`kill test: NBDBOOST_KILL_SEED=${seed} NBDBOOST_KILL_ROUNDS=${rounds}`);
  await using temp = await Temp.make();
  const cache = temp.join("cache.nbb");
  const backing = await temp.sparse("disk.img", backingBytes);
  const pair = ["--cache", cache, "--backing", backing];
  const made = await runHere(
    "format",
    ...pair,
    "--cache-size",
    `${cacheBytes}`,
    "--segment-size",
    `${segmentBytes}`,
  );
  assertEquals(made.code, 0, made.err);

  const random = new SeededRandom(seed);
  const model = new VolumeModel(backingBytes);
  const uri = `nbd+unix:///?socket=${temp.join("s")}`;
  const totals = { writes: 0, bytes: 0, zeroes: 0, flushes: 0, reads: 0, startKills: 0, closes: 0, open: 0 };
  for (let round = 1; round <= rounds; round++) {
    const passed = await t.step(`round ${round}`, () => oneRound({ random, model, pair, uri, totals }));
    assert(
      passed,
      `round ${round} failed; repeat with NBDBOOST_KILL_SEED=${seed} NBDBOOST_KILL_ROUNDS=${rounds}`,
    );
  }

  await t.step("a last restart, and then drain leaves the backing alone complete", async () => {
    const server = await ServerChild.start([...pair, "--listen", uri]);
    const workload = await Workload.connect(uri, model, random);
    assertEquals(model.restart(await workload.readAll()), []);
    workload.close();
    await server.kill();
    const drained = await runHere("drain", ...pair);
    assertEquals(drained.code, 0, drained.err);
    const alone = await Deno.readFile(backing);
    assertEquals(alone.length, backingBytes);
    assertEquals(model.restart(alone), []);
    assertEquals((await checkCache({ cache, backing })).problems, []);
  });
  console.log(
    `kill test: ${totals.writes} writes (${formatSize(totals.bytes)}, ${
      (totals.bytes / cacheBytes).toFixed(0)
    } times the cache), ` +
      `${totals.zeroes} trims and zeroes, ${totals.flushes} flushes, ${totals.reads} reads; ${totals.open} sectors were ` +
      `undecided at a kill; ${totals.startKills} kills while starting, ${totals.closes} closes in order or cut short`,
  );
});

interface Scene {
  random: SeededRandom;
  model: VolumeModel;
  pair: string[];
  uri: string;
  totals: Workload["counts"] & { startKills: number; closes: number; open: number };
}

/** Starts (and perhaps kills while starting), verifies everything, works, and kills. */
async function oneRound({ random, model, pair, uri, totals }: Scene): Promise<void> {
  const writeback = ["auto", "on", "on", "off"][random.below(4)]!;
  const args = [...pair, "--listen", uri, "--set", `writeback=${writeback}`];
  while (random.chance(0.3)) {
    const starting = new ServerChild(args);
    await sleep(random.below(startMsMax));
    await starting.kill();
    totals.startKills++;
  }
  // What a kill leaves is never damage. Looked at before a server may repair it.
  const report = await checkCache({ cache: pair[1]!, backing: pair[3]! });
  assertEquals(report.problems, []);

  const server = await ServerChild.start(args);
  try {
    const workload = await Workload.connect(uri, model, random);
    try {
      const wrong = model.restart(await workload.readAll());
      assert(
        wrong.length === 0,
        `${wrong.length} sectors are wrong after a restart: ${wrong.slice(0, 5).join("; ")}`,
      );
      const working = workload.run();
      // A rejection is looked at below, after the kill.
      working.catch(() => {});
      await sleep(workMsMin + random.below(workMsMax - workMsMin));
      await end({ server, workload, working }, random, totals);
      await working;
      totals.open += model.openSectors;
    } finally {
      workload.close();
      for (const key of ["writes", "bytes", "zeroes", "flushes", "reads"] as const) {
        totals[key] += workload.counts[key];
      }
    }
  } finally {
    await server.kill();
  }
}

interface Running {
  server: ServerChild;
  workload: Workload;
  working: Promise<void>;
}

/** SIGKILL under full load, or right upon a reply to a flush or FUA; now and then a close in order, or one cut short. */
async function end({ server, workload, working }: Running, random: SeededRandom, totals: Scene["totals"]) {
  const way = random.below(8);
  if (way > 1) {
    if (way > 4) {
      workload.stop();
      await working;
      await workload.lastWords();
    }
    return await server.kill();
  }
  totals.closes++;
  workload.mayShutDown = true;
  if (way === 0) {
    server.signal("SIGTERM");
    await sleep(random.below(30));
    return await server.kill();
  }
  server.signal("SIGTERM");
  assertEquals(await server.ended(), 0, server.notes.join("; "));
}
