/** The read cache: what is kept, what must not be, and that nobody suffers from it. @module */

import type { Cache } from "../../src/cache/cache.ts";
import { checkCache } from "../../src/cache/check.ts";
import { inspectCache } from "../../src/cache/inspect.ts";
import { MemoryDevice } from "../../src/device/memory.ts";
import { blockBytes } from "../../src/units.ts";
import { assert, assertEquals, assertGreater } from "../assert.ts";
import { Machine } from "../sim/machine.ts";

const blocks = 64;
const tunables = { readCacheThreshold: 8, writeback: "on" } as const;

function bytesOf(value: number, count = 1): Uint8Array<ArrayBuffer> {
  return new Uint8Array(count * blockBytes).fill(value);
}

/** A machine whose backing holds in each block the number of the block and one. */
async function machine(segmentCount = 16): Promise<{ machine: Machine; cache: Cache; reads: () => number }> {
  const machine = new Machine({ backingBytes: blocks * blockBytes, segmentBlocks: 8, segmentCount });
  for (let block = 0; block < blocks; block++) {
    machine.backingMedium.poke(block * blockBytes, bytesOf(block + 1));
  }
  await machine.format();
  let reads = 0;
  machine.fault = (disk, { kind }) => {
    if (disk.name === "backing" && kind === "read") reads++;
    return undefined;
  };
  const cache = await machine.open({ tunables });
  reads = 0;
  return { machine, cache, reads: () => reads };
}

async function read(machine: Machine, cache: Cache, block: number, count = 1): Promise<number> {
  const bytes = new Uint8Array(count * blockBytes);
  await machine.run(cache.read(block * blockBytes, bytes));
  for (let i = 0; i < count; i++) assertEquals(bytes[i * blockBytes], bytes[0]! + i);
  return bytes[0]!;
}

Deno.test("CleanCopies: a block that was read is read from the log from then on", async () => {
  const { machine: m, cache, reads } = await machine();
  assertEquals(await read(m, cache, 5, 3), 6);
  assertEquals([reads(), cache.status().blocks.kept], [1, 3]);
  assertEquals(await read(m, cache, 6), 7);
  assertEquals([reads(), cache.status().blocks.readHit], [1, 1]);
  assertEquals(cache.status().cache.dirtyBlocks, 0);
  await m.run(cache.close());
  assertEquals(m.violations, []);
});

Deno.test("CleanCopies: long runs are read once and not kept, nor is anything while it is off", async () => {
  const { machine: m, cache } = await machine();
  await read(m, cache, 0, 9);
  // A run may come in pieces.
  for (let block = 20; block < 40; block++) await read(m, cache, block);
  assertEquals(cache.status().blocks.kept, 8);
  cache.tune({ readCacheThreshold: 0 });
  await read(m, cache, 50);
  await m.run(cache.prefetch(52 * blockBytes, blockBytes));
  assertEquals(cache.status().blocks.kept, 8);
  await m.run(cache.close());
});

Deno.test("CleanCopies: a flush of nothing but copies writes nothing", async () => {
  const { machine: m, cache } = await machine();
  await read(m, cache, 5);
  const { syncs } = cache.status().log;
  await m.run(cache.flush());
  assertEquals([cache.status().log.records, cache.status().log.syncs], [0, syncs]);
  // With something to flush they come along, and the volume is whole where that record ends.
  await m.run(cache.write(0, bytesOf(99)));
  await m.run(cache.flush());
  assertEquals(cache.status().log.records, 1);
  await m.run(cache.close());
});

Deno.test("CleanCopies: a write to a block whose copy is still in RAM outlives a crash", async () => {
  const { machine: m, cache } = await machine();
  await read(m, cache, 5);
  await m.run(cache.write(5 * blockBytes, bytesOf(77), { fua: true }));
  await m.run(cache.write(5 * blockBytes + 512, bytesOf(78).subarray(0, 512), { fua: true }));
  m.powerCut("none");
  const again = await m.open({ tunables });
  const bytes = new Uint8Array(blockBytes);
  await m.run(again.read(5 * blockBytes, bytes));
  assertEquals([bytes[0], bytes[512], bytes[1024]], [77, 78, 77]);
  await m.run(again.close());
});

Deno.test("CleanCopies: recovery forgets them", async () => {
  const { machine: m, cache, reads } = await machine();
  await read(m, cache, 5, 3);
  await m.run(cache.write(0, bytesOf(99), { fua: true }));
  m.powerCut("none");
  // The backing is written by somebody who may: a copy of the past must not come back.
  m.backingMedium.poke(5 * blockBytes, bytesOf(200));
  const again = await m.open({ tunables });
  const before = reads();
  assertEquals(again.status().cache.cachedBlocks, 1);
  assertEquals(await read(m, again, 5), 200);
  assertEquals(reads(), before + 1);
  await m.run(again.close());
});

Deno.test("CleanCopies: check and inspect know them", async () => {
  const { machine: m, cache } = await machine();
  await read(m, cache, 5, 3);
  await m.run(cache.write(0, bytesOf(99)));
  await m.run(cache.close());
  const image = new Uint8Array(m.cacheMedium.sizeBytes);
  m.cacheMedium.peek(0, image);
  const device = async () => {
    const copy = new MemoryDevice(image.length);
    await copy.write(0, image);
    return copy;
  };
  const [record] = (await inspectCache({ cache: await device(), records: true })).recordList!;
  assertEquals([record!.dataBlocks, record!.cleanBlocks], [1, 3]);
  const { problems, dirtyBlocks } = await checkCache({ cache: await device() });
  assertEquals([problems, dirtyBlocks], [[], 1]);
});

Deno.test("CleanCopies: the log as a ring of copies, though nobody writes: old ones make room for new ones", async () => {
  const { machine: m, cache } = await machine(6);
  for (let round = 0; round < 6; round++) {
    for (let i = 0; i < blocks; i++) {
      const block = i * 7 % blocks;
      assertEquals(await read(m, cache, block), block + 1);
      await m.pass(20);
    }
    await m.pass(1000);
  }
  // More than the log has room for.
  assertGreater(cache.status().blocks.kept, 2 * 6 * 8);
  assertEquals(cache.status().cache.dirtyBlocks, 0);
  await m.run(cache.close());
});

Deno.test("CleanCopies: no writer waits for them, and what was kept goes first", async () => {
  const { machine: m, cache } = await machine(6);
  for (let round = 0; round < 20; round++) {
    for (let block = 0; block < 24; block += 2) await read(m, cache, block + 32);
    for (let block = 0; block < 8; block++) {
      await m.run(cache.write(block * blockBytes, bytesOf(100 + block), { fua: true }));
    }
  }
  await m.run(cache.drain());
  assertEquals(m.backing(7 * blockBytes, blockBytes), bytesOf(107));
  await m.run(cache.close());
  assertEquals(m.violations, []);
});

Deno.test("CleanCopies: what is read while somebody writes there is not kept", async () => {
  const { machine: m, cache } = await machine();
  cache.tune({ bypassSequential: blockBytes });
  const bytes = new Uint8Array(blockBytes);
  const reading = cache.read(9 * blockBytes, bytes);
  const writing = cache.write(8 * blockBytes, bytesOf(50, 4));
  await m.run(Promise.all([reading, writing]));
  assertEquals(await read(m, cache, 9).catch(() => -1), 50);
  assertEquals(cache.status().blocks.bypassed, 4);
  await m.run(cache.close());
});

Deno.test("CleanCopies: a stream goes past the log over a copy, which is not read any more, after a crash neither", async () => {
  const { machine: m, cache } = await machine();
  await read(m, cache, 9);
  cache.tune({ bypassSequential: blockBytes });
  await m.run(cache.write(40 * blockBytes, bytesOf(1)));
  await m.run(cache.write(8 * blockBytes, bytesOf(50, 4), { fua: true }));
  assertEquals(cache.status().blocks.bypassed, 5);
  const bytes = new Uint8Array(blockBytes);
  await m.run(cache.read(9 * blockBytes, bytes));
  assertEquals(bytes, bytesOf(50));
  await m.run(cache.write(0, bytesOf(3).subarray(0, 512), { fua: true }));
  m.powerCut("none");
  const again = await m.open({ tunables });
  await m.run(again.read(9 * blockBytes, bytes));
  assertEquals(bytes, bytesOf(50));
  await m.run(again.close());
});

Deno.test("CleanCopies: a copy that rots is read from the backing", async () => {
  const { machine: m, cache, reads } = await machine();
  await read(m, cache, 5);
  await m.run(cache.write(0, bytesOf(99), { fua: true }));
  // Out of RAM.
  for (let i = 0; i < 8; i++) await m.run(cache.write((40 + i % 4) * blockBytes, bytesOf(i), { fua: true }));
  m.flip(1024 * 1024 + blockBytes);
  const before = reads();
  assertEquals(await read(m, cache, 5), 6);
  assert(reads() <= before + 1);
  await m.run(cache.close());
});

Deno.test("Cache.prefetch: neighbours that are missing are one read of the backing, and hits afterwards", async () => {
  const { machine: m, cache, reads } = await machine();
  await m.run(cache.write(12 * blockBytes, bytesOf(99)));
  await m.run(cache.prefetch(8 * blockBytes, 12 * blockBytes));
  assertEquals([reads(), cache.status().blocks.prefetched, cache.status().blocks.kept], [2, 11, 11]);
  for (let block = 8; block < 12; block++) assertEquals(await read(m, cache, block), block + 1);
  assertEquals(await read(m, cache, 12), 99);
  assertEquals(reads(), 2);
  await m.run(cache.close());
});

Deno.test("Cache.prefetch: a hint that costs neither time nor memory without end", async () => {
  const m = new Machine({ backingBytes: 2 ** 38, segmentBlocks: 8, segmentCount: 16 });
  await m.format();
  const cache = await m.open({ tunables: { ...tunables, writeback: "off" } });
  // Nothing of all this is to be fetched, and it must not be looked for block by block.
  await m.run(cache.trim(0, cache.sizeBytes));
  await m.run(cache.prefetch(0, cache.sizeBytes));
  assertEquals(cache.status().blocks.prefetched, 0);
  m.powerCut("none");
  const other = await machine();
  await other.machine.run(Promise.all(
    Array.from({ length: 40 }, (_, i) => other.cache.prefetch(i * blockBytes, blockBytes)),
  ));
  assertEquals(other.reads(), 8);
  await other.machine.run(other.cache.close());
});

Deno.test("Cache.read: blocks that were written back are hits until the log goes over them again", async () => {
  const { machine: m, cache, reads } = await machine();
  for (let block = 0; block < 4; block++) await m.run(cache.write(block * blockBytes, bytesOf(70 + block)));
  await m.run(cache.drain());
  assertEquals(cache.status().cache.tailSequence, cache.status().cache.headSequence);
  assertEquals(await read(m, cache, 0, 4), 70);
  assertEquals(reads(), 0);
  await m.run(cache.close());
});
