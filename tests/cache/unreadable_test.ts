// Why: a place that the cache device cannot read made whole caches impossible to open, check or recover; and taking it for
// "nothing there" would drop flushed records as a torn end.
import { checkCache } from "../../src/cache/check.ts";
import { recoverCache } from "../../src/cache/recover.ts";
import { DamageError, DeviceError } from "../../src/errors.ts";
import { checkpointOffset, superblockOffsets } from "../../src/log/layout.ts";
import { blockBytes } from "../../src/units.ts";
import { assert, assertEquals, assertRejects } from "../assert.ts";
import {
  failing,
  filled,
  hanging,
  readBlocks,
  slotRange,
  turn,
  World,
  writeBlocks,
} from "./fault_devices.ts";

/** Records 1 to 5, one block each, at slots 0, 2, ... 8: block i holds i + 1. Closed clean. */
async function fiveRecords(): Promise<World> {
  const world = await World.make();
  const cache = await world.open();
  for (let i = 0; i < 5; i++) {
    await cache.write(i * blockBytes, filled(i + 1));
    await world.drive(cache.flush());
  }
  await world.drive(cache.close());
  return world;
}

/** Places of which something else says the same. */
const spares = [
  { name: "superblock copy 0", place: { offset: superblockOffsets[0], length: 512 } },
  { name: "superblock copy 1", place: { offset: superblockOffsets[1], length: 512 } },
  { name: "a superblock's copy of entries", place: { offset: superblockOffsets[0] + 4096, length: 512 } },
  { name: "the checkpoint's header", place: { offset: checkpointOffset, length: 512 } },
  { name: "the checkpoint's bitmap", place: { offset: checkpointOffset + 4096, length: 512 } },
  { name: "the first header", place: slotRange(0) },
  { name: "a header", place: slotRange(4) },
  { name: "the last header", place: slotRange(8) },
];
/** Places that hold the only copy of something: block 0, and block 2. */
const needed = [
  { name: "the first record's data", place: slotRange(1), block: 0 },
  { name: "the data of a record in a segment's rest", place: slotRange(5), block: 2 },
];

Deno.test("openCache: a place that cannot be read costs itself at most, after a clean close", async () => {
  for (const { name, place } of spares) {
    const world = await fiveRecords();
    world.cache.onRead = failing(place);
    const cache = await world.open();
    assertEquals(
      [cache.readOnly, cache.recovery.damaged, cache.recovery.lostBlocks],
      [false, false, 0],
      name,
    );
    assertEquals(await readBlocks(cache, 0, 1, 2, 3, 4), [1, 2, 3, 4, 5], name);
    await world.drive(cache.close());
  }
  for (const { name, place, block } of needed) {
    const world = await fiveRecords();
    world.cache.onRead = failing(place);
    const cache = await world.open();
    assertEquals([cache.readOnly, cache.recovery.damaged], [false, false], name);
    const wanted: (number | "EIO")[] = [1, 2, 3, 4, 5];
    wanted[block] = "EIO";
    assertEquals(await readBlocks(cache, 0, 1, 2, 3, 4), wanted, name);
    // Nothing is lost: the device may answer again.
    world.cache.heal();
    assertEquals(await readBlocks(cache, block), [block + 1], name);
    await world.drive(cache.close());
  }
});

Deno.test("checkCache: a place that cannot be read is a problem, and no end of the check", async () => {
  for (const { name, place } of spares) {
    const world = await fiveRecords();
    world.cache.onRead = failing(place);
    const { problems, lostBlocks } = await checkCache({ cache: world.cache, backing: world.backing });
    assertEquals(
      problems.map((problem) => problem.severity),
      ["damage"],
      `${name}: ${JSON.stringify(problems)}`,
    );
    assertEquals(lostBlocks, 0, name);
  }
  for (const { name, place, block } of needed) {
    const world = await fiveRecords();
    world.cache.onRead = failing(place);
    const { problems } = await checkCache({ cache: world.cache, backing: world.backing });
    assertEquals(
      problems.map((problem) => [problem.severity, problem.offset, problem.volumeOffset]),
      [["loss", place.offset, block * blockBytes]],
      name,
    );
  }
});

Deno.test("recoverCache: carries what can be read, and all of it where nothing is missing", async () => {
  for (const { name, place } of spares) {
    const world = await fiveRecords();
    world.cache.onRead = failing(place);
    const report = await recoverCache({ cache: world.cache, backing: world.backing });
    assertEquals([report.wrote, report.lostBlocks], ["backing", 0], name);
    assertEquals(
      [0, 1, 2, 3, 4].map((block) => world.backing.bytes[block * blockBytes]),
      [1, 2, 3, 4, 5],
      name,
    );
  }
  for (const { name, place } of needed) {
    const world = await fiveRecords();
    world.cache.onRead = failing(place);
    const before = world.crash();
    world.cache.writes = [];
    await assertRejects(
      () => recoverCache({ cache: world.cache, backing: world.backing }),
      DamageError,
      "nothing was changed",
    );
    assertEquals(world.cache.writes.length, 0, name);
    assert(world.backing.bytes.every((byte, i) => byte === before.backing.bytes[i]), name);
  }
});

/**
 * After a crash: record 1 is durable, records 2 and 3 (slots 2 and 32) are whole and past the mark, and nothing on the device
 * says that they were synced.
 */
async function pastTheMark(): Promise<World> {
  const world = await World.make();
  const cache = await world.open();
  await cache.write(0, filled(1));
  await world.drive(cache.flush());
  world.cache.onSync = hanging;
  await writeBlocks(cache, 10, 29 + 31 + 1, () => 50);
  await turn();
  const after = world.crash();
  assertEquals([0, 2, 32].map((slot) => after.sequenceAt(slot)), [1, 2, 3]);
  return after;
}

Deno.test("openCache: what cannot be read is not dropped as a torn end", async () => {
  const places = [
    { name: "the header of the next record", place: slotRange(2) },
    { name: "a header behind the end", place: slotRange(32) },
    { name: "data past the mark", place: slotRange(7) },
    { name: "the place where the log ends", place: slotRange(64) },
  ];
  for (const { name, place } of places) {
    const world = await pastTheMark();
    world.cache.onRead = failing(place);
    for (const options of [{}, { acceptDamage: true }, { readOnly: true }]) {
      const error = await assertRejects(() => world.open(options), DeviceError);
      assertEquals(error.code, "EIO", name);
      assert(error.message.includes("might hold flushed data"), error.message);
    }
    const checked = await checkCache({ cache: world.cache });
    assert(checked.problems.some((problem) => problem.severity === "loss"), name);
    await assertRejects(() => recoverCache({ cache: world.cache, backing: world.backing }), DamageError);
    const readOnly = await world.open({ readOnly: true, acceptUnreadable: true });
    await world.drive(readOnly.close());
    assertEquals([world.cache.writes.length, world.backing.writes.length], [0, 0], name);
    world.cache.heal();
    const cache = await world.open();
    assertEquals([cache.recovery.kept, cache.recovery.dropped], [2, 0], name);
    assertEquals(await readBlocks(cache, 0, 10, 38, 39, 69), [1, 50, 50, 50, 50], name);
    await world.drive(cache.close());
  }
});

Deno.test("openCache: a second look that fails calls nothing torn", async () => {
  const { offset: place } = slotRange(7);
  let rejected = 0;
  for (let look = 1; look <= 6; look++) {
    const world = await pastTheMark();
    let seen = 0;
    // One look at the block is at fault, and from the next one on the device cannot read it.
    world.cache.onRead = (offset, length) => {
      if (offset > place || place >= offset + length) return;
      seen++;
      if (seen === look || seen === look + 1) world.cache.flip(place + 100);
      if (seen > look) throw new DeviceError("EIO", "the test fails this call");
    };
    let cache: Awaited<ReturnType<typeof world.open>>;
    try {
      cache = await world.open();
    } catch (error) {
      assert(error instanceof DeviceError && error.code === "EIO", String(error));
      rejected++;
      continue;
    }
    assertEquals(cache.recovery.dropped, 0, `look ${look}`);
    await world.drive(cache.close());
  }
  assert(rejected > 0);
});

Deno.test("openCache: behind a record that a superblock tells of, nothing unreadable is taken for a torn end", async () => {
  const world = await World.make();
  world.backing.bytes.fill(9);
  const cache = await world.open();
  await cache.write(0, filled(1));
  await world.drive(cache.flush());
  // The idle mark, and with it a copy of the record's entries, reaches a superblock.
  await world.pass(50);
  await cache.write(0, filled(2));
  await world.drive(cache.flush());
  const after = world.crash();
  after.cache.onRead = failing(slotRange(0), slotRange(2));
  await assertRejects(() => after.open(), DeviceError, "Cannot tell where the log");
  // When the device answers again, nothing is lost.
  after.cache.heal();
  assertEquals(await readBlocks(await after.open(), 0), [2]);
});
