/** Streams that go past the log: when they do, when they must not, and what a flush then needs. @module */

import type { Cache } from "../../src/cache/cache.ts";
import { DeviceError } from "../../src/errors.ts";
import { blockBytes, mib } from "../../src/units.ts";
import { assert, assertEquals, assertRejects } from "../assert.ts";
import { Machine } from "../sim/machine.ts";

const blocks = 64;
const tunables = { bypassSequential: blockBytes, writeback: "off" } as const;

function bytesOf(value: number, count = 1): Uint8Array<ArrayBuffer> {
  return new Uint8Array(count * blockBytes).fill(value);
}

async function machine(): Promise<{ machine: Machine; cache: Cache }> {
  const machine = new Machine({ backingBytes: blocks * blockBytes });
  await machine.format();
  return { machine, cache: await machine.open({ tunables }) };
}

async function readBlock(machine: Machine, cache: Cache, block: number): Promise<number> {
  const bytes = new Uint8Array(blockBytes);
  await machine.run(cache.read(block * blockBytes, bytes));
  assert(bytes.every((byte) => byte === bytes[0]));
  return bytes[0]!;
}

Deno.test("bypass: a stream goes straight to the backing, and a flush syncs that too", async () => {
  const { machine: m, cache } = await machine();
  await m.run(cache.write(0, bytesOf(1, 8)));
  assertEquals(cache.status().blocks.bypassed, 8);
  assertEquals(m.backing(0, 8 * blockBytes), bytesOf(1, 8));
  assertEquals(cache.status().log.records, 0);
  assertEquals(await readBlock(m, cache, 3), 1);
  await m.run(cache.flush());
  m.powerCut("none");
  const again = await m.open({ tunables });
  assertEquals(await readBlock(m, again, 3), 1);
  await m.run(again.close());
  assertEquals(m.violations, []);
});

Deno.test("bypass: without a flush a power cut may take it, and no older flushed version comes back later", async () => {
  const { machine: m, cache } = await machine();
  await m.run(cache.write(0, bytesOf(1, 8)));
  m.powerCut("none");
  const again = await m.open({ tunables });
  assertEquals(await readBlock(m, again, 3), 0);
  await m.run(again.close());
});

Deno.test("bypass: FUA is durable when it is answered", async () => {
  const { machine: m, cache } = await machine();
  await m.run(cache.write(0, bytesOf(1, 8), { fua: true }));
  m.powerCut("none");
  const again = await m.open({ tunables });
  assertEquals(await readBlock(m, again, 7), 1);
  await m.run(again.close());
});

Deno.test("bypass: a block that the log holds, dirty or clean, keeps its request in the log", async () => {
  const { machine: m, cache } = await machine();
  const half = bytesOf(1).subarray(0, 512);
  await m.run(cache.write(3 * blockBytes, half));
  await m.run(cache.write(0, bytesOf(2, 8)));
  assertEquals(cache.status().blocks.bypassed, 0);
  await m.run(cache.drain({ keepLog: true }));
  await m.run(cache.write(0, bytesOf(3, 8), { fua: true }));
  assertEquals(cache.status().blocks.bypassed, 0);
  m.powerCut("none");
  const again = await m.open({ tunables });
  assertEquals(await readBlock(m, again, 3), 3);
  await m.run(again.close());
});

Deno.test("bypass: a trim in the log keeps its blocks in the log, though long applied and synced", async () => {
  const { machine: m, cache } = await machine();
  await m.run(cache.trim(2 * blockBytes, 2 * blockBytes));
  await m.run(cache.drain({ keepLog: true }));
  await m.run(cache.write(0, bytesOf(2, 8), { fua: true }));
  assertEquals(cache.status().blocks.bypassed, 0);
  m.powerCut("none");
  let again = await m.open({ tunables });
  assertEquals(await readBlock(m, again, 2), 2);
  await m.run(again.drain());
  // The tail has passed all of it, so now it may.
  await m.run(again.write(8 * blockBytes, bytesOf(4, 8), { fua: true }));
  assertEquals(again.status().blocks.bypassed, 8);
  m.powerCut("none");
  again = await m.open({ tunables });
  assertEquals(await readBlock(m, again, 9), 4);
  await m.run(again.close());
});

Deno.test("bypass: the ends of a request that are no whole blocks take the log", async () => {
  const { machine: m, cache } = await machine();
  await m.run(cache.write(512, bytesOf(5, 4)));
  assertEquals(cache.status().blocks.bypassed, 3);
  assertEquals(cache.status().cache.dirtyBlocks, 2);
  const bytes = new Uint8Array(4 * blockBytes);
  await m.run(cache.read(512, bytes));
  assertEquals(bytes, bytesOf(5, 4));
  await m.run(cache.close());
});

Deno.test("bypass: a backing that refuses the write leaves it to the log", async () => {
  const { machine: m, cache } = await machine();
  m.fault = (disk, { kind }) =>
    disk.name === "backing" && kind === "write"
      ? { error: new DeviceError("EIO", "a write that fails") }
      : undefined;
  await m.run(cache.write(0, bytesOf(6, 8), { fua: true }));
  assertEquals([cache.status().blocks.bypassed, cache.status().cache.dirtyBlocks], [0, 8]);
  m.fault = () => undefined;
  m.powerCut("none");
  const again = await m.open({ tunables });
  assertEquals(await readBlock(m, again, 5), 6);
  await m.run(again.close());
});

Deno.test("bypass: a failed backing sync is a failed log sync, and what it dropped reads as EIO", async () => {
  const { machine: m, cache } = await machine();
  await m.run(cache.write(32 * blockBytes, bytesOf(9).subarray(0, 512)));
  await m.run(cache.write(0, bytesOf(7, 8)));
  m.fault = (disk, { kind }) =>
    disk.name === "backing" && kind === "sync"
      ? { error: new DeviceError("EIO", "a sync that fails"), drop: true }
      : undefined;
  await assertRejects(() => m.run(cache.flush()), DeviceError, "backing failed a sync");
  m.fault = () => undefined;
  await assertRejects(() => m.run(cache.flush()), DeviceError, "backing failed a sync");
  await assertRejects(() => m.run(cache.write(0, bytesOf(8))), DeviceError, "backing failed a sync");
  assertEquals(cache.status().state, "poisoned");
  await assertRejects(() => readBlock(m, cache, 3), DeviceError, "lost");
  assertEquals(await readBlock(m, cache, 40), 0);
  await assertRejects(() => m.run(cache.close()), DeviceError);
});

Deno.test("bypass: a read under way when a backing sync drops what went past finds the copy that the log has got", async () => {
  const m = new Machine({ backingBytes: blocks * blockBytes });
  await m.format();
  const cache = await m.open({ tunables: { ...tunables, readCacheThreshold: 8 } });
  await m.run(cache.write(0, bytesOf(7, 8)));
  m.fault = () => ({ slowMs: 1000 });
  const slow = Array.from({ length: 8 }, () => new Uint8Array(blockBytes));
  const reading = Promise.all(slow.map((into, block) => cache.read(block * blockBytes, into)));
  m.fault = (disk, { kind }) =>
    disk.name === "backing" && kind === "sync"
      ? { error: new DeviceError("EIO", "a sync that fails"), drop: true, unseen: true }
      : undefined;
  for (let block = 0; block < 8; block++) assertEquals(await readBlock(m, cache, block), 7);
  assertEquals(cache.status().cache.cachedBlocks, 8);
  await assertRejects(() => m.run(cache.flush()), DeviceError, "backing failed a sync");
  await m.run(reading);
  assertEquals(slow.map((bytes) => bytes[0]), Array(8).fill(7));
  await assertRejects(() => m.run(cache.close()), DeviceError);
});

// Nothing was outstanding, so the failure was no business of the stream's; but what was under way may have been dropped by it,
// and the next good sync would have said nothing of that.
Deno.test("bypass: what was under way when a backing sync failed goes to the log", async () => {
  const { machine: m, cache } = await machine();
  await m.run(cache.write(32 * blockBytes, bytesOf(9).subarray(0, 512)));
  m.fault = (disk, { kind, offset }) => {
    if (disk.name !== "backing") return undefined;
    if (kind === "sync") return { error: new DeviceError("EIO", "a sync that fails"), drop: true };
    return kind === "write" && offset === 0 ? { slowMs: 50 } : undefined;
  };
  const stream = cache.write(0, bytesOf(7, 8));
  await assertRejects(() => m.run(cache.drain()), DeviceError, "a sync that fails");
  m.fault = () => undefined;
  await m.run(stream);
  assertEquals([cache.status().blocks.bypassed, cache.status().cache.dirtyBlocks], [0, 9]);
  await m.run(cache.flush());
  m.powerCut("none");
  const again = await m.open({ tunables });
  assertEquals(await readBlock(m, again, 3), 7);
  await m.run(again.close());
});

Deno.test("bypass: a drain and a close make durable what went past the log", async () => {
  const { machine: m, cache } = await machine();
  await m.run(cache.write(0, bytesOf(1, 8)));
  await m.run(cache.drain());
  m.powerCut("none");
  let again = await m.open({ tunables });
  assertEquals(await readBlock(m, again, 1), 1);
  await m.run(again.write(8 * blockBytes, bytesOf(2, 8)));
  await m.run(again.close());
  m.powerCut("none");
  again = await m.open({ tunables });
  assert(again.recovery.clean);
  assertEquals(await readBlock(m, again, 9), 2);
  await m.run(again.close());
});

Deno.test("bypass: small requests, and those that are no stream, take the log", async () => {
  const m = new Machine({ backingBytes: 4 * mib });
  await m.format();
  const cache = await m.open({ tunables: { bypassSequential: 256 * 1024, writeback: "on" } });
  // Small ones of a journal.
  for (let i = 0; i < 96; i++) await m.run(cache.write(i * blockBytes, bytesOf(1)));
  // Large ones at random places.
  for (const at of [3, 1, 2]) await m.run(cache.write(at * mib, bytesOf(2, 16)));
  assertEquals(cache.status().blocks.bypassed, 0);
  // A stream, of which the first 256 KiB tell that it is one.
  for (let i = 0; i < 8; i++) await m.run(cache.write(2 * mib + (16 + i * 16) * blockBytes, bytesOf(3, 16)));
  assert(cache.status().blocks.bypassed >= 5 * 16);
  await m.run(cache.close());
});

Deno.test("bypass: a stream whose requests are under way together is one still", async () => {
  const m = new Machine({ backingBytes: 8 * mib });
  await m.format();
  const cache = await m.open({ tunables: { bypassSequential: 256 * 1024, writeback: "on" } });
  const writes = Array.from({ length: 64 }, (_, i) => cache.write(i * 16 * blockBytes, bytesOf(i + 1, 16)));
  await m.run(Promise.all(writes));
  // 256 KiB tell that it is one: at most 4 requests of 64 KiB.
  assert(cache.status().blocks.bypassed >= 60 * 16, `${cache.status().blocks.bypassed}`);
  assertEquals(await readBlock(m, cache, 1000), 63);
  await m.run(cache.close());
});
