// Why: write-back that does not give way makes every miss wait behind 32 writes; write-back that always gives way fills the log.
import { Foreground, requestsInFlightMax } from "../../src/cache/foreground.ts";
import { blockBytes, mib } from "../../src/units.ts";
import type { BlockDevice } from "../../src/device/block_device.ts";
import { DiskModel } from "../sim/disk_model.ts";
import { SimClock } from "../sim/sim_clock.ts";
import { Machine } from "../sim/machine.ts";
import { assert, assertEquals, assertGreater, assertLess } from "../assert.ts";

const bytes = new Uint8Array(blockBytes);

/** Lets events happen until the promise has settled. */
async function run<T>(clock: SimClock, promise: Promise<T>): Promise<T> {
  let done = false;
  promise.then(() => done = true, () => done = true);
  while (!done) {
    for (let i = 0; i < 10; i++) await null;
    if (!done && !clock.step()) throw new Error("nothing is left to happen");
  }
  return await promise;
}

/** A device whose reads take as long as it is told. */
function deviceOf(clock: SimClock): { foreground: Foreground; read: (ms: number) => Promise<void> } {
  let tookMs = 0;
  const device = { read: () => new Promise<void>((resolve) => clock.after(tookMs, resolve)) };
  const foreground = new Foreground(device as unknown as BlockDevice, clock);
  return {
    foreground,
    read: async (ms) => {
      tookMs = ms;
      await run(clock, foreground.read(0, bytes));
    },
  };
}

Deno.test("Foreground.depth: falls fast while reads are slow, grows while they are not, and is full when there are none", async () => {
  const clock = new SimClock(0);
  const { foreground, read } = deviceOf(clock);
  assertEquals(foreground.depth(0), requestsInFlightMax);
  for (let i = 0; i < 20; i++) await read(5);
  assertEquals(foreground.depth(0), requestsInFlightMax, "as fast as ever");
  for (let i = 0; i < 10; i++) await read(50);
  assertEquals(foreground.depth(0), 1);
  for (let i = 0; i < 30; i++) await read(5);
  assertGreater(foreground.depth(0), 3);
  assertLess(foreground.depth(0), 10);
  await run(clock, new Promise<void>((resolve) => clock.after(600, resolve)));
  assertEquals(foreground.depth(0), requestsInFlightMax);
});

Deno.test("Foreground.depth: the fuller the log, the less write-back gives way", async () => {
  const { foreground, read } = deviceOf(new SimClock(0));
  await read(5);
  for (let i = 0; i < 10; i++) await read(50);
  assertEquals([0, 0.5, 0.75, 1, 1.5].map((share) => foreground.depth(share)), [1, 1, 16, 32, 32]);
});

Deno.test("Foreground.busyPercent: tells for how much of the time a read was under way", async () => {
  const clock = new SimClock(0);
  const { foreground, read } = deviceOf(clock);
  assertEquals(foreground.busyPercent, 0);
  for (let i = 0; i < 300; i++) {
    await read(5);
    await run(clock, new Promise<void>((resolve) => clock.after(15, resolve)));
  }
  assertGreater(foreground.busyPercent, 20);
  assertLess(foreground.busyPercent, 30);
});

Deno.test("Foreground: on a modelled disk reads beside write-back take at most three times what they take alone", async () => {
  const clock = new SimClock(0);
  const disk = new DiskModel({
    sizeBytes: 1024 * mib,
    spanBytes: 1024 * mib,
    queueDepth: 32,
    clock,
    name: "disk",
  });
  const foreground = new Foreground(disk, clock);
  let place = 1;
  const next = () => (place = place * 48271 % 2147483647) % 262144 * blockBytes;
  const meanOf = async (count: number) => {
    const startMs = clock.monotonicMs();
    for (let i = 0; i < count; i++) await run(clock, foreground.read(next(), bytes));
    return (clock.monotonicMs() - startMs) / count;
  };
  const aloneMs = await meanOf(300);
  // Writers as the sweep has them: as many as may be in flight.
  let inFlight = 0;
  let written = 0;
  let stopped = false;
  const pump = () => {
    while (!stopped && inFlight < foreground.depth(0)) {
      inFlight++;
      disk.write(next(), bytes).then(() => {
        inFlight--;
        written++;
        pump();
      });
    }
  };
  pump();
  await meanOf(300);
  const besideMs = await meanOf(300);
  stopped = true;
  assertLess(besideMs, 3 * aloneMs);
  assert(written > 100, "write-back is not starved");
});

Deno.test("WriteBack: writeback_threshold leaves the backing to clients that keep it busy, until the log is half full", async () => {
  const machine = new Machine({ backingBytes: 64 * mib, segmentBlocks: 32, segmentCount: 64 });
  await machine.format();
  const cache = await machine.open({ tunables: { writeback: "on", writebackThreshold: 30 } });
  let stopping = false;
  const reader = (async () => {
    while (!stopping) await cache.read(48 * mib, new Uint8Array(blockBytes));
  })();
  await machine.pass(3000);
  for (let i = 0; i < 300; i++) await machine.run(cache.write(i * 7 * blockBytes, bytes));
  await machine.run(cache.flush());
  await machine.pass(3000);
  assertEquals(cache.status().cache.dirtyBlocks, 300);
  for (let i = 300; i < 1100; i++) await machine.run(cache.write(i * 7 * blockBytes, bytes));
  await machine.pass(3000);
  assertLess(cache.status().cache.dirtyBlocks, 700);
  stopping = true;
  await machine.run(reader);
  await machine.pass(10_000);
  assertEquals(cache.status().cache.dirtyBlocks, 0);
  await machine.run(cache.close());
});

Deno.test("WriteBack: writeback_threshold heeds how busy the kernel says the disk is, and does not mistake itself for others", async () => {
  const machine = new Machine({ backingBytes: 64 * mib, segmentBlocks: 32, segmentCount: 64 });
  await machine.format();
  let share = 0.8;
  let busyMs = 0;
  let atMs = 0;
  const look = () => {
    const now = machine.clock.monotonicMs();
    // Somebody else's requests; ours are counted whenever a write is not synced yet.
    busyMs += (now - atMs) * Math.max(share, unsynced > 0 ? 1 : 0);
    atMs = now;
  };
  let unsynced = 0;
  let asked = 0;
  machine.fault = (disk, { kind }) => {
    if (disk.name !== "backing") return undefined;
    look();
    if (kind === "write") unsynced++;
    if (kind === "sync") unsynced = 0;
    return { slowMs: 5 };
  };
  const cache = await machine.open({
    tunables: { writeback: "on", writebackThreshold: 30 },
    busyMs: () => {
      look();
      asked++;
      return Promise.resolve(busyMs);
    },
  });
  for (let i = 0; i < 300; i++) await machine.run(cache.write(i * 7 * blockBytes, bytes));
  await machine.run(cache.flush());
  await machine.pass(20_000);
  assertGreater(cache.status().cache.dirtyBlocks, 290, "the disk is somebody else's");
  share = 0.1;
  await machine.pass(20_000);
  assertEquals(cache.status().cache.dirtyBlocks, 0, "write-back does not take itself for others");
  // With nothing dirty nobody asks.
  const before = asked;
  await machine.pass(3_600_000);
  assertEquals(asked, before);
  await machine.run(cache.close());
});
