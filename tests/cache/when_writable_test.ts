// Why: a writer that waits for log writes must be called, whatever becomes of them, and must not wait for anything longer.
import type { Cache } from "../../src/cache/cache.ts";
import { DeviceError } from "../../src/errors.ts";
import { blockBytes, mib } from "../../src/units.ts";
import { assert, assertEquals, assertRejects } from "../assert.ts";
import { filled, turn, World } from "./fault_devices.ts";

/** A cache of which all RAM segments are being written, until `letGo`. */
async function full(): Promise<{ world: World; cache: Cache; letGo: () => void }> {
  // More segments than RAM holds.
  const world = await World.make({ cacheBytes: 24 * mib, backingBytes: 32 * mib });
  world.cache.byEvents = true;
  const cache = await world.open();
  let letGo = () => {};
  const held = new Promise<void>((resolve) => letGo = resolve);
  world.cache.onWrite = () => held;
  for (let block = 0; cache.writeNow(block % 500 * blockBytes, filled(1), 0, blockBytes); block++);
  return { world, cache, letGo };
}

Deno.test("Cache.whenWritable: calls when a log write has ended, once however often it was asked", async () => {
  const { world, cache, letGo } = await full();
  let calls = 0;
  const again = () => void calls++;
  assert(cache.whenWritable(blockBytes, again) && cache.whenWritable(blockBytes, again));
  await turn();
  assertEquals(calls, 0);
  letGo();
  for (let i = 0; i < 20; i++) await turn();
  assertEquals(calls, 1);
  assert(cache.writeNow(0, filled(2), 0, blockBytes));
  assert(!cache.whenWritable(blockBytes, again), "there is room");
  world.cache.heal();
  await world.drive(cache.close());
});

Deno.test("Cache.whenWritable: calls after a while though nothing happens, and does not keep a cache open", async () => {
  const { world, cache, letGo } = await full();
  let calls = 0;
  assert(cache.whenWritable(blockBytes, () => void calls++));
  await world.pass(1000);
  assertEquals(calls, 1);
  assert(cache.whenWritable(blockBytes, () => void calls++));
  letGo();
  world.cache.heal();
  await world.drive(cache.close());
  assertEquals(calls, 2);
  assert(!cache.whenWritable(blockBytes, () => {}));
});

Deno.test("Cache.whenWritable: promises nothing once the log has failed, or for more than its RAM", async () => {
  const { world, cache, letGo } = await full();
  assert(!cache.whenWritable(cache.sizeBytes, () => {}));
  let calls = 0;
  assert(cache.whenWritable(blockBytes, () => void calls++));
  world.cache.onSync = () => {
    throw new Error("gone");
  };
  letGo();
  await assertRejects(() => world.drive(cache.flush()), DeviceError);
  assertEquals(calls, 1);
  assert(!cache.writeNow(0, filled(2), 0, blockBytes) && !cache.whenWritable(blockBytes, () => {}));
  await assertRejects(() => world.drive(cache.close()), DeviceError);
});
