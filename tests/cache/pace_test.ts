// Why: a log that gives its space back in one piece stalls every writer for as long as a sweep takes. Who waits, for what, and
// for how long is policy, and it must hold for small logs, failing disks and fresh recoveries alike.
import { DeviceError } from "../../src/errors.ts";
import { blockBytes, gib, mib } from "../../src/units.ts";
import { bareDisk, countCosts, runEngine } from "../sim/disk_runs.ts";
import { Machine } from "../sim/machine.ts";
import { hanging, World } from "./fault_devices.ts";
import { assert, assertEquals, assertGreater, assertLess } from "../assert.ts";
import { parseTunable } from "../../src/cache/tunables.ts";

const block = new Uint8Array(blockBytes).fill(1);
/** 64 segments of 32 blocks over a backing that is eight times as large. */
const sizes = { backingBytes: 64 * mib, segmentBlocks: 32, segmentCount: 64 };
const slots = sizes.segmentBlocks * sizes.segmentCount;

/** Writes scattered blocks at once until the log takes no more so; tells how many it took. */
function fill(
  cache: { writeNow: (offset: number, bytes: Uint8Array, at: number, length: number) => boolean },
  from: number,
) {
  let count = 0;
  while (cache.writeNow((from + count) * 7919 % (8 * slots) * blockBytes, block, 0, blockBytes)) count++;
  return count;
}

Deno.test("Pace: nobody waits until 60 % of the log is dirty, then each written block admits one", async () => {
  const machine = new Machine(sizes);
  await machine.format();
  const cache = await machine.open({
    tunables: { writeback: "off" },
    unsyncedBlocks: 100 * slots,
    bufferCount: 64,
  });
  const taken = fill(cache, 0);
  assertEquals(taken, Math.floor(0.6 * slots));
  machine.fault = (disk) => disk.name === "backing" ? { slowMs: 10 } : undefined;
  const dirty: number[] = [];
  for (let i = 0; i < 3000; i++) {
    await machine.run(cache.write((taken + i) * 7919 % (8 * slots) * blockBytes, block));
    dirty.push(cache.status().cache.dirtyBlocks);
  }
  assertEquals(Math.max(...dirty), taken, "never more");
  assertGreater(Math.min(...dirty.slice(100)), taken - 2 * 256, "hardly less");
  assertGreater(cache.status().blocks.copied, 0);
  await machine.run(cache.close());
});

Deno.test("Pace: with a backing that takes nothing clients go on until the log is full, and fail in time", async () => {
  const machine = new Machine(sizes);
  await machine.format();
  const cache = await machine.open({ tunables: { fullTimeout: 5 } });
  machine.fault = (disk) =>
    disk.name === "backing" ? { error: new DeviceError("EIO", "simulated") } : undefined;
  let taken = 0;
  let failure: unknown;
  while (failure === undefined && taken < 2 * slots) {
    await machine.run(cache.write(taken * 7 % (8 * slots) * blockBytes, block)).then(
      () => taken++,
      (error) => failure = error,
    );
  }
  assert(failure instanceof DeviceError && failure.code === "EIO", `${failure}`);
  assertGreater(taken, 0.9 * slots);
  await machine.run(cache.close());
});

Deno.test("Pace: with a backing that never answers nothing is copied in circles, and clients fail when the log is full", async () => {
  // A log so small that it is short of space as soon as more than half of it is dirty.
  const world = await World.make();
  const cache = await world.open({ tunables: { writeback: "on", fullTimeout: 3 } });
  world.backing.onWrite = hanging;
  let taken = 0;
  let failure: unknown;
  while (failure === undefined && taken < 512) {
    await world.drive(cache.write(taken * blockBytes, block)).then(() => taken++, (error) => failure = error);
  }
  assert(failure instanceof DeviceError && failure.code === "EIO", `${failure}`);
  // Five segments of 31 blocks: one is the head's, two are the engine's.
  assertGreater(taken, 5 * 31);
  assertLess(cache.status().blocks.copied, 256);
});

Deno.test("Pace: a log that is all dirty after a crash takes writes at once, slowly, and comes down to its share", async () => {
  const machine = new Machine(sizes);
  await machine.format();
  let cache = await machine.open({ tunables: { writeback: "off", copyForward: 90 } });
  for (let i = 0; i < 0.88 * slots; i++) await machine.run(cache.write(i * 7 * blockBytes, block));
  await machine.run(cache.flush());
  machine.powerCut("none");
  cache = await machine.open();
  const before = cache.status().cache.dirtyBlocks;
  assertGreater(before, 0.8 * slots);
  machine.fault = (disk) => disk.name === "backing" ? { slowMs: 10 } : undefined;
  let longestMs = 0;
  for (let i = 0; i < 600; i++) {
    const startMs = machine.clock.monotonicMs();
    await machine.run(cache.write((8 * slots - 1 - i * 3) * blockBytes, block));
    longestMs = Math.max(longestMs, machine.clock.monotonicMs() - startMs);
  }
  assertLess(longestMs, 2000);
  assertLess(cache.status().cache.dirtyBlocks, before);
  await machine.run(cache.close());
});

Deno.test("Pace: copy_forward=0 copies nothing, and nobody waits for ever", async () => {
  const machine = new Machine(sizes);
  await machine.format();
  const cache = await machine.open({ tunables: parseTunable("copy_forward=0") });
  machine.fault = (disk) => disk.name === "backing" ? { slowMs: 10 } : undefined;
  for (let i = 0; i < 3 * slots; i++) {
    await machine.run(cache.write(i * 7919 % (8 * slots) * blockBytes, block));
  }
  assertEquals(cache.status().blocks.copied, 0);
  await machine.run(cache.close());
});

Deno.test("Pace: without copying forward no write waits for 2 s either, wherever the writes go", async () => {
  for (const [load, gain] of [["uniform", 2.8], ["region", 2]] as const) {
    const run = { logBytes: gib, scale: 16, queueDepth: 32, load, tunables: { copyForward: 0 } };
    const result = await runEngine(run);
    assertLess(result.longestMs, 2000, load);
    assertGreater(result.writesPerSecond, gain * bareDisk(32, load), load);
    // Nothing is copied, and hardly a record is closed before it is full.
    assertLess(result.cacheBytesPerByte, 1.04, load);
  }
});

Deno.test("WriteBack: a cache costs no more requests and bytes than its records, and a few superblocks", async () => {
  const [writes, requestsBar, bytesBar] = [20_000, 120, 1.04];
  const costs = await countCosts({ flushEvery: 0, tunables: { copyForward: 0 } });
  assertGreater(writes / costs.cacheWrites, requestsBar);
  assertLess(costs.cacheBytes / (writes * blockBytes), bytesBar);
  const flushed = await countCosts({ flushEvery: 32, tunables: { copyForward: 0 } });
  // Each flush closes a record; one that would span two segments is two.
  assertLess(flushed.cacheWrites, writes / 32 * 1.3);
});

Deno.test("WriteBack: in front of a modelled disk a full log sustains what it should, and no write waits for 2 s", async () => {
  // A 64th of the disk and the log; `deno task disk-model` has the whole table.
  const run = { logBytes: gib, scale: 64, queueDepth: 32, load: "uniform" as const };
  const result = await runEngine(run);
  assertGreater(result.writesPerSecond, 2.8 * bareDisk(32, "uniform"));
  assertLess(result.longestMs, 2000);
  // What copying forward adds; a log as small as this one needs most of it.
  assertLess(result.cacheBytesPerByte, 2.7);
});
