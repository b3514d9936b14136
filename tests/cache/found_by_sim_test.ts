/**
 * What the simulator found, each bug reduced to the shortest story that showed it.
 *
 * @module
 */

import { DamageError, DeviceError } from "../../src/errors.ts";
import { planGeometry } from "../../src/log/geometry.ts";
import { Segments } from "../../src/log/segments.ts";
import { LogWriter } from "../../src/log/writer.ts";
import { SeededRandom } from "../../src/random.ts";
import { mib } from "../../src/units.ts";
import { Kernels } from "../../src/wasm/kernels.ts";
import { assert, assertEquals, assertRejects } from "../assert.ts";
import { Machine } from "../sim/machine.ts";
import { SimClock } from "../sim/sim_clock.ts";
import { Medium } from "../sim/medium.ts";
import { SimDisk } from "../sim/sim_disk.ts";

const block = (value: number) => new Uint8Array(4096).fill(value);

async function contentOf(machine: Machine, cache: Awaited<ReturnType<Machine["open"]>>, index: number) {
  const bytes = new Uint8Array(4096);
  await machine.run(cache.read(index * 4096, bytes));
  return bytes;
}

Deno.test("LogWriter.makeDurable: an open record that holds nothing is not waited for", async () => {
  const geometry = planGeometry(mib + 8 * 4 * 4096, 4);
  const clock = new SimClock(0);
  const medium = new Medium(mib + 8 * 4 * 4096, "cache");
  const kernels = Kernels.create({
    slotCount: geometry.slotCount,
    backingBlocks: 8,
    segmentBlocks: 4,
    bufferCount: 4,
    stagingBlocks: 8,
  });
  const segments = new Segments(geometry.segmentCount, geometry.segmentBlocks);
  const writer = new LogWriter({
    device: new SimDisk({
      medium,
      clock,
      random: new SeededRandom(1),
      latencyMs: () => 0.1,
      onViolation: (message) => {
        throw new Error(message);
      },
    }),
    kernels,
    segments,
    geometry,
    clock,
    uuid: new Uint8Array(16),
    epoch: { number: 1, randomLow: 1, randomHigh: 1, firstSequence: 1 },
    head: { slot: 0, sequence: 1, chain: 0 },
    last: undefined,
    reusableTail: 0,
    bufferCount: 4,
  });
  // A slow write reserves the record, finds that it must read the old version first, and puts nothing yet.
  assertEquals(writer.prepare("client"), "none");
  await writer.makeDurable(writer.openSequence);
  assertEquals(segments.lastSequence[0], 0);
  // What is put afterwards is waited for.
  writer.putData(3, 0xff);
  let durable = false;
  const done = writer.makeDurable(writer.openSequence).then(() => durable = true);
  for (let i = 0; i < 20; i++) await null;
  assert(!durable);
  while (clock.step()) for (let i = 0; i < 20; i++) await null;
  await done;
});

Deno.test("Cache.close: a request under way puts nothing behind the checkpoint", async () => {
  const machine = new Machine({ backingBytes: 16 * 4096, segmentBlocks: 4, segmentCount: 8 });
  await machine.format();
  const cache = await machine.open({ bufferCount: 2, tunables: { writeback: "off" } });
  await machine.run(cache.write(0, block(1)));
  for (let i = 1; i < 9; i++) await machine.run(cache.write(i * 4096, block(9)));
  await machine.run(cache.flush());
  // Block 0 is on the device only, so that this write reads it first, and puts it while the cache closes.
  const writing = cache.write(100, new Uint8Array(1000).fill(2)).then(() => true, () => false);
  await machine.run(cache.close());
  const written = await machine.run(writing);
  machine.powerCut("none");
  const again = await machine.open();
  assert(again.recovery.clean);
  const bytes = await contentOf(machine, again, 0);
  assertEquals(bytes[0], 1);
  assertEquals(bytes[2000], 1);
  assertEquals(bytes[500], written ? 2 : 1);
  assertEquals(machine.violations, []);
});

Deno.test("Cache.drain: a log that fails meanwhile rejects each one that waits", async () => {
  const machine = new Machine({ backingBytes: 16 * 4096 });
  await machine.format();
  const cache = await machine.open();
  await machine.run(cache.write(0, block(1)));
  machine.fault = (disk, { kind }) =>
    disk.name === "cache" && kind === "write" ? { error: new DeviceError("EIO", "simulated") } : undefined;
  const first = assertRejects(() => cache.drain(), DeviceError);
  // The pass of the first is under way: the second waits for the next, which never comes.
  while (!cache.status().writeback.active) await machine.steps(1);
  const second = assertRejects(() => cache.drain(), DeviceError);
  const sinceMs = machine.clock.monotonicMs();
  await machine.run(Promise.all([first, second]));
  assert(machine.clock.monotonicMs() - sinceMs < 5000);
});

Deno.test("Cache.drain: a full log of which every block rots is given back", async () => {
  const machine = new Machine({ backingBytes: 64 * 4096, segmentBlocks: 4, segmentCount: 6 });
  await machine.format();
  const cache = await machine.open({ bufferCount: 2, tunables: { writeback: "off", fullTimeout: 5 } });
  let written = 0;
  for (; cache.writeNow(written * 4096, block(1), 0, 4096); written++) await machine.run(cache.flush());
  for (let offset = mib + 2000; offset < machine.cacheMedium.sizeBytes; offset += 4096) {
    // Headers stay, so that it is the data that rots.
    if (machine.slot((offset - mib - 2000) / 4096)[0] !== "N".charCodeAt(0)) machine.flip(offset);
  }
  await assertRejects(() => machine.run(cache.drain()), DamageError);
  assert(cache.status().cache.lostBlocks > 0);
  const { freeSegments, segments } = cache.status().cache;
  assert(freeSegments >= segments - 3, `${freeSegments} of ${segments} segments are free`);
  await machine.run(cache.write(0, block(2)));
  await machine.run(cache.close());
  const again = await machine.open({ acceptDamage: true });
  assertEquals((await contentOf(machine, again, 0))[0], 2);
  await assertRejects(() => contentOf(machine, again, 1), DeviceError);
});

Deno.test("Cache.write: a backing whose syncs fail is no progress, so that a full log fails in time", async () => {
  const machine = new Machine({ backingBytes: 64 * 4096, segmentBlocks: 4, segmentCount: 6 });
  await machine.format();
  const cache = await machine.open({ tunables: { fullTimeout: 5 } });
  machine.fault = (disk, { kind }) =>
    disk.name === "backing" && kind === "sync" ? { error: new DeviceError("EIO", "simulated") } : undefined;
  let failed: unknown;
  for (let i = 0; i < 40 && !failed; i++) {
    await machine.run(cache.write((i % 64) * 4096, block(1))).catch((error) => failed = error);
  }
  assert(failed instanceof DeviceError && failed.code === "EIO", `${failed}`);
});

Deno.test("Cache.close: a log that failed is closed only when nothing is under way on its device", async () => {
  for (const slow of ["sync", "read"]) {
    const machine = new Machine({ backingBytes: 64 * 4096, segmentBlocks: 4, segmentCount: 8 });
    await machine.format();
    const cache = await machine.open({ bufferCount: 4, tunables: { writeback: "off" } });
    let isSlow = false;
    let isAway = false;
    machine.fault = (disk, { kind }) => {
      if (disk.name !== "cache") return undefined;
      if (kind === slow) {
        isSlow = true;
        return { slowMs: 500 };
      }
      return kind === "write" && isAway ? { error: new DeviceError("EIO", "simulated") } : undefined;
    };
    await machine.run(cache.write(0, block(1)));
    const flushing = cache.flush().catch(() => {});
    // The sync is the flush's; the read is that of the mark, which follows when nobody writes.
    while (!isSlow) await machine.steps(1);
    isAway = true;
    for (let i = 1; i < 8; i++) await cache.write(i * 4096, block(1)).catch(() => {});
    cache.flush().catch(() => {});
    while (cache.status().state !== "poisoned") await machine.steps(1);
    await assertRejects(() => machine.run(cache.close()), DeviceError);
    await machine.run(flushing);
    assertEquals(machine.violations, [], slow);
  }
});

Deno.test("Cache.drain: ends although clients never pause, and no write waits for it for long", async () => {
  const machine = new Machine({ backingBytes: 9 * 4096, segmentBlocks: 8, segmentCount: 6 });
  await machine.format();
  const cache = await machine.open({ bufferCount: 3, tunables: { writeback: "off" } });
  machine.fault = (_, { kind }) => kind === "sync" ? { slowMs: 100 } : undefined;
  let writing = true;
  let longestMs = 0;
  const now = () => machine.clock.monotonicMs();
  const write = async (client: number) => {
    for (let i = 0; writing; i++) {
      const sinceMs = now();
      await cache.write(((client + i) % 8) * 4096, block(i));
      longestMs = Math.max(longestMs, now() - sinceMs);
      await new Promise<void>((resolve) => machine.clock.after(0.1, resolve));
    }
  };
  const clients = [0, 3, 5].map(write);
  const sinceMs = now();
  await machine.run(cache.drain());
  assert(now() - sinceMs < 30_000, `the drain took ${now() - sinceMs} ms of simulated time`);
  writing = false;
  await machine.run(Promise.all(clients));
  assert(longestMs < 5000, `a write took ${longestMs} ms`);
  assertEquals(machine.violations, []);
});
