/** Reading back what was written back: a backing device that lies is found out while the log still has the truth. @module */

import { DamageError, DeviceError } from "../../src/errors.ts";
import { blockBytes, mib } from "../../src/units.ts";
import { assertEquals, assertRejects, assertStringIncludes } from "../assert.ts";
import { failing, filled, readBlocks, World, writeBlocks } from "./fault_devices.ts";

Deno.test("Cache.drain: with verify all blocks of the log are read back, and the log is empty afterwards", async () => {
  const world = await World.make();
  const cache = await world.open();
  await writeBlocks(cache, 0, 100, (block) => block + 1);
  // Of these only some sectors are in the log, and of the last block there is only a part.
  await cache.write(200 * blockBytes + 512, filled(9, 1024));
  await cache.trim(300 * blockBytes, 10 * blockBytes);
  const phases = new Set<string>();
  const report = await world.drive(cache.drain({
    verify: true,
    onProgress: (_done, _total, phase) => phases.add(phase),
  }));
  assertEquals(report, { comparedBlocks: 101 });
  assertEquals([...phases], ["draining", "comparing"]);
  const { dirtyBlocks, tailSequence, headSequence } = cache.status().cache;
  assertEquals([dirtyBlocks, tailSequence - headSequence], [0, 0]);
  await world.drive(cache.close());
});

Deno.test("Cache.drain: the end of a backing that is no whole block is read back too", async () => {
  const world = await World.make({ backingBytes: 4 * mib - 1024 });
  const cache = await world.open();
  await cache.write(4 * mib - blockBytes, filled(5, blockBytes - 1024));
  assertEquals(await world.drive(cache.drain({ verify: true })), { comparedBlocks: 1 });
  await world.drive(cache.close());
});

Deno.test("Cache.drain: with verify a backing that lies is told of, and what it lost is still there", async () => {
  const world = await World.make();
  const { backing } = world;
  const cache = await world.open();
  await writeBlocks(cache, 0, 50, (block) => block + 1);
  await cache.write(60 * blockBytes + 512, filled(9, 512));
  // It says that it wrote, and did not.
  backing.onWritten = () => {
    backing.bytes[7 * blockBytes + 100] = 99;
    backing.bytes[60 * blockBytes + 600] = 99;
  };
  const error = await world.drive(assertRejects(() => cache.drain({ verify: true }), DamageError));
  assertStringIncludes(error.message, "2 of 51 blocks");
  assertEquals(cache.status().cache.dirtyBlocks, 2);
  assertEquals(await readBlocks(cache, 7, 8), [8, 9]);
  await world.drive(cache.close());
  backing.onWritten = () => {};
  // The next life knows it as well, and mends it.
  const again = await world.open();
  assertEquals(again.status().cache.dirtyBlocks, 2);
  assertEquals(await world.drive(again.drain({ verify: true })), { comparedBlocks: 51 });
  await world.drive(again.close());
  assertEquals([backing.bytes[7 * blockBytes + 100], backing.bytes[60 * blockBytes + 600]], [8, 9]);
});

Deno.test("Cache.drain: with verify a backing that cannot be read is told of, block by block", async () => {
  const world = await World.make();
  const cache = await world.open();
  await writeBlocks(cache, 0, 50, (block) => block + 1);
  world.backing.onRead = failing({ offset: 10 * blockBytes, length: 2 * blockBytes });
  await world.drive(assertRejects(() => cache.drain({ verify: true }), DamageError, "2 of 50 blocks"));
  assertEquals(cache.status().cache.dirtyBlocks, 2);
  world.backing.heal();
  await world.drive(cache.close());
});

Deno.test("Cache.drain: with keepLog the log keeps what it has for a later verify, while it has room", async () => {
  const world = await World.make();
  const cache = await world.open();
  await writeBlocks(cache, 0, 60, (block) => block + 1);
  await world.drive(cache.drain({ keepLog: true }));
  assertEquals([cache.status().cache.dirtyBlocks, cache.status().cache.cachedBlocks], [0, 60]);
  assertEquals(await world.drive(cache.drain({ verify: true })), { comparedBlocks: 60 });
  // More than the log holds: writers come first, the tail moves.
  await world.drive(cache.drain({ keepLog: true }));
  await world.drive((async () => {
    for (let i = 0; i < 1000; i++) await cache.write((i % 700) * blockBytes, filled(i & 255));
  })());
  await world.drive(cache.drain({ verify: true }));
  const { tailSequence, headSequence } = cache.status().cache;
  assertEquals(tailSequence, headSequence);
  await world.drive(cache.close());
});

Deno.test("Cache.drain: what is overwritten while it is read back is left out, and written back", async () => {
  const world = await World.make();
  const cache = await world.open();
  await writeBlocks(cache, 0, 20, () => 1);
  let wrote = false;
  world.backing.onRead = async () => {
    if (wrote) return;
    wrote = true;
    await cache.write(3 * blockBytes, filled(2));
  };
  assertEquals(await world.drive(cache.drain({ verify: true })), { comparedBlocks: 19 });
  await world.drive(cache.close());
  assertEquals(world.backing.bytes[3 * blockBytes], 2);
});

Deno.test("CacheStatus.writeback: says since when it fails, and forgets it once all is well", async () => {
  const world = await World.make();
  const cache = await world.open({ tunables: { writeback: "on" } });
  world.backing.onWrite = () => {
    throw new DeviceError("EIO", "the disk is gone");
  };
  await cache.write(0, filled(1));
  await cache.flush();
  for (let i = 0; i < 100; i++) await world.pass(100);
  const { state, writeback } = cache.status();
  assertEquals([state, writeback.lastError], ["degraded", "the disk is gone"]);
  assertEquals(writeback.failingSeconds! >= 5 && writeback.failingSeconds! <= 10, true);
  world.backing.heal();
  for (let i = 0; i < 400; i++) await world.pass(100);
  const after = cache.status();
  assertEquals([after.state, after.writeback.lastError, after.writeback.failingSeconds], [
    "serving",
    null,
    null,
  ]);
  await world.drive(cache.close());
});
