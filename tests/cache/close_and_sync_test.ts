// Why: syncs at the same time may hide a failure from one of them; a superblock written after a failure, or a clean close
// over rot, makes the next open believe what is not so.
import { inspectCache } from "../../src/cache/inspect.ts";
import { DamageError, DeviceError } from "../../src/errors.ts";
import { superblockOffsets } from "../../src/log/layout.ts";
import { SeededRandom } from "../../src/random.ts";
import { blockBytes, mib } from "../../src/units.ts";
import { assertEquals, assertGreater, assertRejects } from "../assert.ts";
import {
  failing,
  FaultyDevice,
  filled,
  logOffset,
  readBlock,
  readBlocks,
  slotRange,
  turn,
  World,
} from "./fault_devices.ts";

const stale = 0xee;

/** Blocks 0 to 3 in one record, block i holding i + 1; closed clean. */
async function fourBlocks(): Promise<World> {
  const world = await World.make();
  world.backing.bytes.fill(stale);
  const cache = await world.open();
  for (let i = 0; i < 4; i++) await cache.write(i * blockBytes, filled(i + 1));
  await world.drive(cache.flush());
  await world.drive(cache.close());
  return world;
}

/** Begins a request that reads block 2 from the log, closes meanwhile, and lets the log read end only then. */
async function closeDuring(
  world: World,
  request: (cache: Awaited<ReturnType<World["open"]>>) => Promise<unknown>,
) {
  const cache = await world.open();
  // Something to be written at the close.
  await cache.write(20 * blockBytes, filled(20));
  let answer = () => {};
  world.cache.onRead = async (offset) => {
    if (offset === slotRange(3).offset) await new Promise<void>((resolve) => answer = resolve);
  };
  const requested = request(cache);
  await turn();
  const closed = cache.close();
  closed.catch(() => {});
  await turn();
  world.cache.heal();
  answer();
  const result = await world.drive(requested.then(() => "done", () => "failed"));
  await world.drive(closed);
  return result;
}

Deno.test("Cache.close: rot that a read finds meanwhile is not hidden by a clean close", async () => {
  const world = await fourBlocks();
  world.cache.flip(slotRange(3).offset + 5);
  assertEquals(
    await closeDuring(world, (cache) => cache.read(2 * blockBytes, new Uint8Array(blockBytes))),
    "failed",
  );
  const cache = await world.open();
  assertEquals(await readBlocks(cache, 1, 2, 3, 20), [2, "EIO", 4, 20]);
  assertEquals(cache.recovery.lostBlocks, 1);
  await assertRejects(() => world.drive(cache.drain()), DamageError);
  assertEquals(await readBlocks(world.backing, 1, 2, 3, 20), [2, stale, 4, 20]);
  await world.drive(cache.close());
  assertEquals(await readBlocks(await world.open(), 1, 2, 3, 20), [2, "EIO", 4, 20]);
});

Deno.test("Cache.close: a partial write under way ends with the rest of its block, rotten or not", async () => {
  for (const rotten of [false, true]) {
    const world = await fourBlocks();
    if (rotten) world.cache.flip(slotRange(3).offset + 5);
    const result = await closeDuring(world, (cache) => cache.write(2 * blockBytes + 512, filled(9, 512)));
    assertEquals(result, "done");
    const cache = await world.open();
    const [lost, kept] = [new Uint8Array(512), new Uint8Array(512)];
    await cache.read(2 * blockBytes + 512, kept);
    assertEquals(kept[0], 9);
    if (rotten) await assertRejects(() => cache.read(2 * blockBytes, lost), DeviceError);
    else {
      await cache.read(2 * blockBytes, lost);
      assertEquals(lost[0], 3);
    }
    await world.drive(cache.drain().catch(() => {}));
    assertEquals([world.backing.bytes[2 * blockBytes], world.backing.bytes[2 * blockBytes + 512]], [
      rotten ? stale : 3,
      9,
    ]);
    await world.drive(cache.close());
  }
});

Deno.test("Cache.close: rot that nobody could write down is not followed by a clean close", async () => {
  const world = await fourBlocks();
  world.cache.flip(slotRange(3).offset + 5);
  const cache = await world.open();
  assertEquals(await readBlock(cache, 2), "EIO");
  world.cache.onWrite = failing({ offset: logOffset, length: mib });
  await assertRejects(() => world.drive(cache.close()), DeviceError);
  world.cache.heal();
  const again = await world.open();
  assertEquals(again.recovery.clean, false);
  assertEquals(await readBlocks(again, 1, 2, 3), [2, "EIO", 4]);
});

/** Counts the syncs under way on `device`, each of which takes a while. */
function watchSyncs(world: World, device: FaultyDevice): { count: number; underWay: number; most: number } {
  const watch = { count: 0, underWay: 0, most: 0 };
  device.onSync = async () => {
    watch.count++;
    watch.most = Math.max(watch.most, ++watch.underWay);
    await new Promise<void>((resolve) => world.clock.after(3, resolve));
    watch.underWay--;
  };
  return watch;
}

Deno.test("Durability.sync: never two at once on a device, whoever asks", async () => {
  for (let seed = 1; seed <= 4; seed++) {
    const world = await World.make();
    const [cacheSyncs, backingSyncs] = [watchSyncs(world, world.cache), watchSyncs(world, world.backing)];
    const cache = await world.open({ tunables: { writeback: "on", flushInterval: 1 } });
    const random = new SeededRandom(seed);
    const asked: Promise<void>[] = [];
    for (let step = 0; step < 600; step++) {
      const block = random.below(300);
      switch (random.below(8)) {
        case 0:
          asked.push(cache.flush());
          break;
        case 1:
          asked.push(cache.write(block * blockBytes, filled(step & 255), { fua: true }));
          break;
        case 2:
          asked.push(cache.trim(block * blockBytes, 5 * blockBytes));
          break;
        case 3:
          if (step % 5 === 0) asked.push(cache.drain().then(() => {}));
          break;
        case 4:
          await world.pass(random.below(20));
          break;
        default:
          asked.push(cache.write(block * blockBytes + random.below(9) * 512, filled(step & 255, 2048)));
      }
    }
    await world.drive(Promise.all(asked));
    await world.drive(cache.close());
    assertGreater(cacheSyncs.count, 50);
    assertGreater(backingSyncs.count, 3);
    assertEquals([cacheSyncs.most, backingSyncs.most], [1, 1], `seed ${seed}`);
  }
});

for (
  const { name, fail } of [
    {
      name: "a log write",
      fail: (device: FaultyDevice) => device.onWrite = failing({ offset: logOffset, length: mib }),
    },
    {
      name: "a sync",
      fail: (device: FaultyDevice) =>
        device.onSync = () => {
          throw new DeviceError("EIO", "the test fails this sync");
        },
    },
  ]
) {
  Deno.test(`SuperblockStore: after ${name} failed no superblock is written, and nothing is promised`, async () => {
    const world = await fourBlocks();
    const cache = await world.open({ tunables: { writeback: "on" } });
    await world.pass(1000);
    await cache.write(30 * blockBytes, filled(30));
    fail(world.cache);
    await assertRejects(() => world.drive(cache.flush()), DeviceError);
    world.cache.heal();
    const before = world.cache.superblockWrites;
    const logWrites = world.cache.logWrites;
    await world.pass(20);
    await world.pass(5000);
    await assertRejects(() => world.drive(cache.flush()), DeviceError);
    await assertRejects(
      () => world.drive(cache.write(31 * blockBytes, filled(31), { fua: true })),
      DeviceError,
    );
    await assertRejects(() => world.drive(cache.drain()), DeviceError);
    assertEquals(await readBlocks(cache, 0, 1, 2, 3), [1, 2, 3, 4]);
    await assertRejects(() => world.drive(cache.close()), DeviceError);
    assertEquals([world.cache.superblockWrites - before, world.cache.logWrites - logWrites], [0, 0]);
    const again = await world.open();
    assertEquals([again.recovery.clean, again.recovery.damaged], [false, false]);
    assertEquals(await readBlocks(again, 0, 1, 2, 3), [1, 2, 3, 4]);
  });
}

Deno.test("SuperblockStore: what waits for its turn when the log fails is not written", async () => {
  const world = await fourBlocks();
  const cache = await world.open();
  let [letGo, logFails] = [() => {}, false];
  const gate = new Promise<void>((resolve) => letGo = resolve);
  world.cache.onWrite = async (offset) => {
    if (offset < logOffset) await gate;
    else if (logFails) throw new DeviceError("EIO", "the test fails this log write");
  };
  const draining = cache.drain();
  draining.catch(() => {});
  await turn();
  const before = world.cache.superblockWrites;
  // The tail's first copy is under way. Behind it waits a mark that tells of a newer record.
  await cache.write(30 * blockBytes, filled(30));
  await world.drive(cache.flush());
  await world.pass(20);
  logFails = true;
  await cache.write(31 * blockBytes, filled(31));
  await assertRejects(() => world.drive(cache.flush()), DeviceError);
  letGo();
  await assertRejects(() => world.drive(draining), DeviceError);
  await assertRejects(() => world.drive(cache.close()), DeviceError);
  assertEquals(world.cache.superblockWrites - before, 0);
});

Deno.test("SuperblockStore: the tail's superblocks are not written when the log failed before their turn", async () => {
  const world = await fourBlocks();
  const cache = await world.open();
  // More than a segment, so that the tail can move without what fails below.
  for (let i = 0; i < 40; i++) await cache.write((100 + i) * blockBytes, filled(1));
  await world.drive(cache.flush());
  let letGo = () => {};
  world.backing.onSync = () => new Promise<void>((resolve) => letGo = resolve);
  const draining = cache.drain();
  draining.catch(() => {});
  await turn();
  world.cache.onSync = () => {
    throw new DeviceError("EIO", "the test fails this sync");
  };
  await cache.write(31 * blockBytes, filled(31));
  await assertRejects(() => world.drive(cache.flush()), DeviceError);
  world.cache.heal();
  const before = world.cache.superblockWrites;
  letGo();
  await assertRejects(() => world.drive(draining), DeviceError);
  await assertRejects(() => world.drive(cache.close()), DeviceError);
  assertEquals(world.cache.superblockWrites - before, 0);
});

Deno.test("SuperblockStore: when the first copy cannot be written or synced the second is not touched", async () => {
  for (const what of ["write", "sync"]) {
    const world = await fourBlocks();
    const cache = await world.open();
    const writes = () => world.cache.writes.filter(({ offset }) => offset <= superblockOffsets[1]).length;
    const before = writes();
    const fault = new DeviceError("EIO", "the test fails this call");
    world.cache.onWrite = (offset) => {
      if (offset > superblockOffsets[1]) return;
      if (what === "write") throw fault;
      world.cache.onSync = () => {
        throw fault;
      };
    };
    // The tail moves, which two superblocks would say.
    await assertRejects(() => world.drive(cache.drain()), DeviceError);
    await assertRejects(() => world.drive(cache.close()), DeviceError);
    assertEquals(writes() - before, 1, what);
    world.cache.heal();
    const again = await world.open();
    assertEquals(again.recovery.damaged, false);
    assertEquals(await readBlocks(again, 0, 1, 2, 3), [1, 2, 3, 4]);
  }
});

Deno.test("LogWriter.markFlushPoint: only a client's flush or FUA marks the end of a record", async () => {
  const world = await World.make();
  const cache = await world.open({ tunables: { flushInterval: 1 } });
  const put = (block: number, options = {}) =>
    world.drive(cache.write(block * blockBytes, filled(1), options));
  await put(0);
  await world.drive(cache.flush());
  await put(1, { fua: true });
  await world.drive(cache.trim(50 * blockBytes, blockBytes, { fua: true }));
  await world.drive(cache.flush()); // nothing to flush
  for (let i = 0; i < 31; i++) await put(100 + i); // ends with its segment
  await put(200);
  await world.pass(3000); // the engine's own flush
  await put(300);
  await world.drive(cache.flush());
  await put(400);
  await world.drive(cache.close());
  const { recordList } = await inspectCache({ cache: world.cache, records: true });
  const found = recordList!.map(({ dataBlocks, flushPoint }) => ({ dataBlocks, flushPoint }));
  assertEquals(found, [
    { dataBlocks: 1, flushPoint: true },
    { dataBlocks: 1, flushPoint: true },
    { dataBlocks: 0, flushPoint: true },
    { dataBlocks: 26, flushPoint: false },
    { dataBlocks: 6, flushPoint: false },
    { dataBlocks: 1, flushPoint: true },
    { dataBlocks: 1, flushPoint: false },
  ]);
});
