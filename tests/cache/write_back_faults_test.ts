// Why: one block that the backing refuses once held the tail, and so every writer, for ever; and a lost block let `drain` copy
// its own notes round and round. Neither may stop the world, and when the backing heals everything must arrive.
import { DamageError, DeviceError } from "../../src/errors.ts";
import { blockBytes } from "../../src/units.ts";
import type { Cache } from "../../src/cache/cache.ts";
import { assert, assertEquals, assertGreater, assertLess, assertRejects } from "../assert.ts";
import {
  failing,
  FaultyDevice,
  filled,
  readBlock,
  readBlocks,
  slotRange,
  turn,
  World,
} from "./fault_devices.ts";

const stale = 0xee;
/** Some laps over a log of 8 segments of 32 blocks. */
const manyWrites = 2000;
const bad = { offset: 500 * blockBytes, length: 8 * blockBytes };

async function staleWorld(): Promise<World> {
  const world = await World.make();
  world.backing.bytes.fill(stale);
  return world;
}

/** Writes blocks 0 to 399 again and again, which needs the log several times over. */
async function writeOn(cache: Cache): Promise<void> {
  for (let i = 0; i < manyWrites; i++) await cache.write((i % 400) * blockBytes, filled(i % 200 + 1));
}

function assertWritten(backing: FaultyDevice): void {
  for (let block = 0; block < 400; block++) {
    const last = manyWrites - 400 + block;
    assertEquals(backing.bytes[block * blockBytes], last % 200 + 1, `block ${block} of the backing`);
  }
}

for (
  const { name, put, seen, arrived } of [
    {
      name: "a block",
      put: (cache: Cache) => cache.write(bad.offset, filled(5)),
      seen: 5,
      arrived: (bytes: Uint8Array) => bytes.every((byte, i) => byte === (i < blockBytes ? 5 : stale)),
    },
    {
      name: "a sector of a block",
      put: (cache: Cache) => cache.write(bad.offset + 1024, filled(5, 512)),
      seen: "mixed",
      arrived: (bytes: Uint8Array) => bytes.every((byte, i) => byte === (i >>> 9 === 2 ? 5 : stale)),
    },
    {
      name: "a range of zeroes",
      put: (cache: Cache) => cache.trim(bad.offset, bad.length),
      seen: 0,
      arrived: (bytes: Uint8Array) => bytes.every((byte) => byte === 0),
    },
    {
      name: "a range of zeroes that keeps its space",
      put: (cache: Cache) => cache.zero(bad.offset, bad.length, { keepAllocated: true }),
      seen: 0,
      arrived: (bytes: Uint8Array) => bytes.every((byte) => byte === 0),
    },
  ]
) {
  Deno.test(`WriteBack: ${name} that the backing refuses stops nobody, and arrives when the backing heals`, async () => {
    const world = await staleWorld();
    const refuse = failing(bad);
    world.backing.onWrite = world.backing.onZero = refuse;
    const cache = await world.open();
    await world.drive(put(cache));
    await world.drive(cache.flush());
    // It alone is dirty, so there is no other block whose success would let the pass go on.
    await assertRejects(() => world.drive(cache.drain()), DeviceError);
    await world.drive(writeOn(cache));
    assertEquals(await readBlock(cache, 500), seen);
    assertGreater(cache.status().cache.tailSequence, 20);
    assertGreater(world.warnings.length, 0);
    // The same after a crash right now, where the backing still refuses.
    await world.drive(cache.flush());
    const after = world.crash();
    after.backing.onWrite = after.backing.onZero = refuse;
    const recovered = await after.open();
    assertEquals([await readBlock(recovered, 500), recovered.recovery.lostBlocks], [seen, 0]);
    await after.drive(recovered.close());

    world.backing.heal();
    await world.drive(cache.drain());
    const { dirtyBlocks, zeroBlocks, lostBlocks } = cache.status().cache;
    assertEquals([dirtyBlocks, zeroBlocks, lostBlocks], [0, 0, 0]);
    await world.drive(cache.close());
    assertWritten(world.backing);
    assert(arrived(world.backing.bytes.subarray(bad.offset, bad.offset + bad.length)));
  });
}

Deno.test("WriteBack: a block and a range, both refused, stop nobody, and arrive when the backing heals", async () => {
  const world = await staleWorld();
  const block = { offset: 700 * blockBytes, length: blockBytes };
  world.backing.onZero = failing(bad);
  world.backing.onWrite = failing(block);
  const cache = await world.open({ tunables: { writeback: "on" } });
  await cache.write(block.offset, filled(5));
  await world.drive(cache.trim(bad.offset, bad.length));
  await world.drive(writeOn(cache));
  assertEquals(await readBlocks(cache, 500, 507, 700), [0, 0, 5]);
  world.backing.heal();
  await world.drive(cache.drain());
  await world.drive(cache.close());
  assertWritten(world.backing);
  assertEquals(await readBlocks(world.backing, 499, 500, 507, 508, 700), [stale, 0, 0, stale, 5]);
});

/** Blocks 0 to 9 in one record, block i holding i + 1; block 3's data, at slot 4, is rotten. */
async function rottenWorld(): Promise<World> {
  const world = await staleWorld();
  const cache = await world.open();
  for (let i = 0; i < 10; i++) await cache.write(i * blockBytes, filled(i + 1));
  await world.drive(cache.flush());
  await world.drive(cache.close());
  world.cache.flip(slotRange(4).offset + 5);
  return world;
}

for (const found of ["by a read before", "by the drain itself"]) {
  Deno.test(`Cache.drain: ends with DamageError when a block is lost, found ${found}`, async () => {
    const world = await rottenWorld();
    const cache = await world.open();
    if (found === "by a read before") {
      assertEquals(await readBlock(cache, 3), "EIO");
      await world.drive(cache.flush());
    }
    const before = world.cache.writes.length;
    for (let i = 0; i < 3; i++) {
      await assertRejects(() => world.drive(cache.drain()), DamageError, "1 blocks are lost");
    }
    // The tail moves at most a few times: a poisoned entry at the head is not in its way.
    assertLess(world.cache.writes.length - before, 20);
    assertEquals(await readBlocks(cache, 0, 2, 3, 4, 9), [1, 3, "EIO", 5, 10]);
    assertEquals(await readBlocks(world.backing, 0, 2, 3, 4, 9), [1, 3, stale, 5, 10]);
    assertEquals(cache.status().cache.dirtyBlocks, 0);
    await world.drive(cache.close());
    const again = await world.open();
    assertEquals(await readBlocks(again, 2, 3, 4), [3, "EIO", 5]);
    // Healed by a write, the cache drains to the end.
    await again.write(3 * blockBytes, filled(44));
    await world.drive(again.drain());
    await world.drive(again.close());
    assertEquals(await readBlock(world.backing, 3), 44);
  });
}

/** One sector of block 5 is in the log, clean; its copy there, at slot 1, is rotten. Block 9 holds the tail. */
async function rottenCleanPart(): Promise<World> {
  const world = await staleWorld();
  const cache = await world.open();
  await cache.write(5 * blockBytes + 512, filled(7, 512));
  await cache.write(9 * blockBytes, filled(9));
  await world.drive(cache.flush());
  world.backing.onWrite = failing({ offset: 9 * blockBytes, length: blockBytes });
  await assertRejects(() => world.drive(cache.drain()), DeviceError);
  world.backing.heal();
  await world.drive(cache.close());
  assertEquals(world.backing.bytes[5 * blockBytes + 512], 7);
  world.cache.flip(slotRange(1).offset + 600);
  return world;
}

/** What block 5 must be: the backing's, with the written sector. */
function assertBlock5(bytes: Uint8Array, when: string): void {
  assert(bytes.every((byte, i) => byte === (i >>> 9 === 1 ? 7 : i >>> 9 === 4 ? 4 : stale)), when);
}

Deno.test("Reads: a clean partial block that rots is served from the backing", async () => {
  for (const length of [blockBytes, 512]) {
    const world = await rottenCleanPart();
    const cache = await world.open();
    assertEquals([cache.recovery.dirtyBlocks, cache.status().cache.cachedBlocks], [1, 2]);
    const bytes = new Uint8Array(length);
    await cache.read(5 * blockBytes + (length < blockBytes ? 512 : 0), bytes);
    assert(
      bytes.every((byte, i) => byte === (length < blockBytes || i >>> 9 === 1 ? 7 : stale)),
      `a read of ${length} bytes`,
    );
    assertEquals(cache.status().cache.lostBlocks, 0);
    await world.drive(cache.close());
  }
});

Deno.test("Writes: a write beside a clean partial block that rots merges with the backing", async () => {
  const world = await rottenCleanPart();
  const cache = await world.open();
  // Cuts two sectors, so that the old version is fetched.
  await world.drive(cache.write(5 * blockBytes + 2048, filled(4, 300)));
  await world.drive(cache.write(5 * blockBytes + 2348, filled(4, 212)));
  const bytes = new Uint8Array(blockBytes);
  await cache.read(5 * blockBytes, bytes);
  assertBlock5(bytes, "read");
  // As the format wants it, sectors that do not count are zero in the log.
  await world.drive(cache.flush());
  assertEquals(world.sequenceAt(5), 3);
  const { offset, length } = slotRange(6);
  const logged = world.cache.bytes.subarray(offset, offset + length);
  assertEquals([logged[512], logged[2048], logged[2559]], [0, 4, 4]);
  assert(logged.every((byte, i) => i >>> 9 === 4 || byte === 0));
  await world.drive(cache.drain());
  assertBlock5(world.backing.bytes.subarray(5 * blockBytes, 6 * blockBytes), "drained");
  await world.drive(cache.close());
});

Deno.test("Reads.fetch: a version that is moved to the head while a write fetches it is not taken for gone", async () => {
  const world = await staleWorld();
  let cache = await world.open();
  await cache.write(bad.offset, filled(5));
  await world.drive(cache.flush());
  await world.drive(cache.close());
  // Opened again, its only copy is on the cache device.
  cache = await world.open();
  world.backing.onWrite = failing(bad);
  let letGo = () => {};
  let reads = 0;
  world.cache.onRead = async () => {
    if (++reads > 1) return;
    await new Promise<void>((resolve) => letGo = resolve);
    throw new DeviceError("EIO", "the test fails this read");
  };
  const writing = cache.write(bad.offset + 1536, filled(9, 512));
  await turn();
  assertEquals(reads, 1);
  while (cache.status().cache.headSequence < 3) {
    await assertRejects(() => world.drive(cache.drain()), DeviceError);
  }
  // Sealed, so that the write cannot go into the moved version itself.
  await world.drive(cache.flush());
  letGo();
  await world.drive(writing);
  const bytes = new Uint8Array(blockBytes);
  await cache.read(bad.offset, bytes);
  assert(bytes.every((byte, i) => byte === (i >>> 9 === 3 ? 9 : 5)));
  world.backing.heal();
  await world.drive(cache.drain());
  assert(world.backing.bytes.subarray(bad.offset, bad.offset + blockBytes).every((byte) => byte !== stale));
  await world.drive(cache.close());
});

Deno.test("BatchLoader: a block that cannot be read for a moment is not lost", async () => {
  const world = await World.make();
  let cache = await world.open();
  for (let i = 0; i < 4; i++) await cache.write(i * blockBytes, filled(i + 1));
  // RAM holds none of them afterwards.
  await world.drive(cache.close());
  cache = await world.open();
  // That the backing refused them is no reason to give up sooner.
  world.backing.onWrite = failing({ offset: 0, length: world.backing.sizeBytes });
  for (let i = 0; i < 2; i++) await assertRejects(() => world.drive(cache.drain()), DeviceError);
  world.backing.heal();
  world.cache.onRead = failing(slotRange(1, 4));
  for (let i = 0; i < 6; i++) await assertRejects(() => world.drive(cache.drain()), DeviceError);
  world.cache.heal();
  await world.drive(cache.drain());
  assertEquals([0, 1, 2, 3].map((block) => world.backing.bytes[block * blockBytes]), [1, 2, 3, 4]);
  await world.drive(cache.close());
});
