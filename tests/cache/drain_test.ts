/**
 * Draining: that it ends, with what it must, whatever the log holds. No timer may be needed for that, so the clock's
 * never fire; a device, and the listener to the progress, give up on an endless drain.
 *
 * @module
 */

import { checkCache, DamageError, DeviceError, formatCache, openCache } from "../../mod.ts";
import { scanCache } from "../../src/cache/scan.ts";
import { blockBytes, mib } from "../../src/units.ts";
import { assertEquals, assertRejects } from "../assert.ts";
import { ImageDevice } from "../crash/image_device.ts";
import { stillClock } from "../crash/images.ts";

const changesMax = 2000;
const progressMax = 200;

/** A device that fails when it is written to without end. */
class TiredDevice extends ImageDevice {
  override async write(offset: number, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    if (this.changes >= changesMax) throw new DeviceError("EIO", `${this.name} was written to without end`);
    await super.write(offset, bytes);
  }
}

async function makePair() {
  const pair = { cache: new TiredDevice("cache", 8 * mib), backing: new TiredDevice("backing", 4 * mib) };
  await formatCache(pair);
  return { ...pair, clock: stillClock };
}

/** An endless drain reports progress without end. */
function withEnd(): { onProgress: () => void } {
  let calls = 0;
  return {
    onProgress() {
      if (++calls > progressMax) throw new Error("the drain does not end");
    },
  };
}

const block = (value: number) => new Uint8Array(blockBytes).fill(value);

Deno.test("Cache.drain, Cache.close: need no timer", async () => {
  const pair = await makePair();
  for (let round = 1; round <= 3; round++) {
    const cache = await openCache({ ...pair, tunables: { writeback: "off" } });
    for (let at = 0; at < 40; at++) await cache.write(at * blockBytes, block(round));
    await cache.trim(40 * blockBytes, mib);
    await cache.drain();
    await cache.drain();
    assertEquals(cache.status().cache.dirtyBlocks, 0);
    await cache.close();
    assertEquals(pair.backing.bytes[39 * blockBytes], round);
  }
});

Deno.test("Cache.drain: ends with DamageError when a block is lost, and carries all others over", async () => {
  const pair = await makePair();
  const first = await openCache({ ...pair, tunables: { writeback: "off" } });
  for (let at = 0; at < 10; at++) await first.write(at * blockBytes, block(7));
  await first.close();
  const { records: [record], superblock } = await scanCache(pair.cache);
  pair.cache.flip(superblock.geometry.logOffset + (record!.slot + 4) * blockBytes + 99, 5);

  const cache = await openCache({ ...pair, tunables: { writeback: "off" } });
  await assertRejects(() => cache.drain(withEnd()), DamageError, "1 blocks are lost");
  // And again: the entry that tells of the loss is no reason to go on for ever either.
  await assertRejects(() => cache.drain(withEnd()), DamageError, "1 blocks are lost");
  await assertRejects(() => cache.read(3 * blockBytes, block(0)), DeviceError);
  await cache.close();
  for (let at = 0; at < 10; at++) assertEquals(pair.backing.bytes[at * blockBytes], at === 3 ? 0 : 7);

  const later = await openCache(pair);
  await assertRejects(() => later.read(3 * blockBytes, block(0)), DeviceError);
  await later.write(3 * blockBytes, block(8));
  await later.drain();
  await later.close();
  assertEquals(pair.backing.bytes[3 * blockBytes], 8);
  const { problems, lostBlocks } = await checkCache(pair);
  assertEquals([problems, lostBlocks], [[], 0]);
});
