// Why: an adversarial reading of recovery found crashes and rot after which the cache returned older data without an error.
// Each test is one of them. The backing holds 0xee wherever nothing was written back: that is what stale data looks like.
import { halfBytes } from "../../src/log/layout.ts";
import { blockBytes, mib } from "../../src/units.ts";
import { assert, assertEquals, assertGreater, assertRejects } from "../assert.ts";
import {
  failing,
  filled,
  hanging,
  headerByte,
  logOffset,
  readBlock,
  readBlocks,
  slotRange,
  turn,
  World,
  writeBlocks,
} from "./fault_devices.ts";
import { openCache } from "../../src/cache/open.ts";
import { DeviceError } from "../../src/errors.ts";
import { SeededRandom } from "../../src/random.ts";

const stale = 0xee;

/** Records of one block each, at slots 0, 2, 4 …: block i holds i + 1. Closed clean. */
async function singleBlockRecords(count = 6): Promise<World> {
  const world = await World.make();
  world.backing.bytes.fill(stale);
  const cache = await world.open();
  for (let i = 0; i < count; i++) {
    await cache.write(i * blockBytes, filled(i + 1));
    await world.drive(cache.flush());
  }
  await world.drive(cache.close());
  return world;
}

/** Records 2 and 3 have lost their headers: record 4 tells what 3 held, and nobody what 2 did. */
async function damaged(): Promise<World> {
  const world = await singleBlockRecords();
  world.cache.flip(headerByte(2));
  world.cache.flip(headerByte(4));
  return world;
}

/** What must be true of any image of a world in which block 1 was lost: it is never read without an error. */
async function assertStillLost(world: World, when: string): Promise<boolean> {
  const cache = await world.open();
  assertEquals(await readBlock(cache, 1), "EIO", when);
  assertEquals(cache.readOnly, cache.recovery.damaged, when);
  const { lostBlocks } = cache.status().cache;
  assertGreater(lostBlocks, 0, when);
  await world.drive(cache.close());
  return cache.recovery.damaged;
}

Deno.test("openCache: accepted damage that a crash kept from being written down is damage again", async () => {
  const world = await damaged();
  const images: World[] = [];
  world.cache.onWritten = () => images.push(world.crash());
  const cache = await world.open({ acceptDamage: true });
  world.cache.onWritten = () => {};
  assertEquals(cache.readOnly, false);
  assertEquals(await readBlocks(cache, 0, 1, 2, 3, 4, 5), ["EIO", "EIO", 3, 4, 5, 6]);
  // Two superblocks, then at least one record that says what is lost.
  assertGreater(images.length, 2);
  const found = [];
  for (const [i, image] of images.entries()) {
    found.push(await assertStillLost(image, `crash after write ${i}`));
  }
  assertEquals(found[1], true, "both superblocks are written, and the loss is not");
  assertEquals(found.at(-1), false, "the loss is written down");
  await world.drive(cache.close());
  assertEquals(await assertStillLost(world, "closed and opened again"), false);
});

Deno.test("openCache: when an accepted loss cannot be written down, nothing is handed out", async () => {
  const world = await damaged();
  world.cache.onWrite = failing({ offset: logOffset, length: mib });
  await assertRejects(() => world.open({ acceptDamage: true }), DeviceError, "nothing more is accepted");
  world.cache.heal();
  assertEquals(await assertStillLost(world, "opened again"), true);
});

Deno.test("Tail.advance: what was lost stays lost when the tail has passed the gap, whenever a crash comes", async () => {
  const world = await damaged();
  const cache = await world.open({ acceptDamage: true });
  const images: World[] = [];
  let writes = 0;
  world.cache.onWritten = (offset) => {
    // Every superblock, and some of the records.
    if (offset < logOffset || ++writes % 8 === 0) images.push(world.crash());
  };
  for (let i = 0; i < 500; i++) {
    await world.drive(cache.write((200 + i) * blockBytes, filled(7)));
    if (i % 20 === 19) await world.drive(cache.flush());
  }
  world.cache.onWritten = () => {};
  assertEquals(await readBlocks(cache, 1, 200, 699), ["EIO", 7, 7]);
  await world.drive(cache.close());
  for (const [i, image] of images.entries()) {
    assertEquals(await assertStillLost(image, `crash image ${i}`), false);
  }
  const again = await world.open();
  assertEquals([again.recovery.gaps, again.recovery.damaged], [[], false]);
  assertEquals(await readBlocks(again, 0, 1, 200), ["EIO", "EIO", 7]);
  // A new write heals, for good.
  await again.write(blockBytes, filled(9));
  await world.drive(again.close());
  assertEquals(await readBlocks(await world.open({ readOnly: true }), 0, 1), ["EIO", 9]);
});

/**
 * After a crash in the first epoch: record 1 (block 0) was durable, record 2 (slot 2, blocks 10 to 38) is torn, records 3 to
 * 5 (slots 32, 64, 96, blocks 39 to 131) lie behind it whole, un-flushed and void, all of value 50.
 */
async function withLeftovers(): Promise<World> {
  const world = await World.make();
  world.backing.bytes.fill(stale);
  const cache = await world.open();
  await cache.write(0, filled(1));
  await world.drive(cache.flush());
  world.cache.onSync = hanging;
  await writeBlocks(cache, 10, 29 + 31 + 31 + 31 + 1, () => 50);
  await turn();
  const after = world.crash();
  after.cache.flip(logOffset + 5 * blockBytes);
  assertEquals([0, 2, 32, 64, 96].map((slot) => after.sequenceAt(slot)), [1, 2, 3, 4, 5]);
  return after;
}

Deno.test("recordIsWhole: a second half that an earlier epoch left at the same place makes no record whole", async () => {
  const world = await withLeftovers();
  let cache = await world.open();
  assertEquals([cache.recovery.kept, cache.recovery.dropped], [0, 4]);
  await writeBlocks(cache, 300, 29, () => 200);
  await world.drive(cache.flush());
  const before = world.crash();
  // The record at slot 32 again, as large as the old one, and of its header only the first half lands.
  world.cache.onSync = hanging;
  await writeBlocks(cache, 400, 32, () => 100);
  await turn();
  const torn = world.crash();
  assertEquals(torn.sequenceAt(32), 3);
  torn.cache.putBack(before.cache, slotRange(32).offset + halfBytes, halfBytes);
  cache = await torn.open();
  assertEquals([cache.recovery.kept, cache.recovery.dropped], [0, 1]);
  assertEquals(await readBlocks(cache, 0, 10, 300, 328, 400), [1, stale, 200, 200, stale]);
  await torn.drive(cache.close());
  torn.cache.flip(headerByte(2));
  cache = await torn.open();
  assertEquals(cache.recovery.damaged, false);
  assertEquals(await readBlocks(cache, 0, 10, 300, 328), [1, stale, 200, 200]);
});

Deno.test("walkLog: a second half that an earlier epoch left does not tell what a lost record held", async () => {
  const world = await withLeftovers();
  let cache = await world.open();
  await writeBlocks(cache, 300, 29, () => 200);
  await world.drive(cache.flush());
  const before = world.crash();
  await writeBlocks(cache, 400, 31, () => 100);
  await world.drive(cache.flush());
  await world.drive(cache.close());
  // Half of record 3's header is the old one's, with a good checksum, the right sequences and the right slots; 2 is lost.
  world.cache.putBack(before.cache, slotRange(32).offset + halfBytes, halfBytes);
  world.cache.flip(headerByte(2));
  cache = await world.open();
  assertEquals(cache.recovery.gaps, [{ firstSequence: 2, lastSequence: 2, slot: 2, lost: true }]);
  assertEquals([cache.recovery.damaged, cache.readOnly], [true, true]);
  assertEquals(await readBlocks(cache, 10, 300, 400), ["EIO", "EIO", 100]);
});

Deno.test("walkLog: behind damage the walk goes on at no record that an epoch between voids", async () => {
  for (const laterWrite of [false, true]) {
    const world = await withLeftovers();
    let cache = await world.open();
    // Records 2 to 8 of the second epoch, at slots 2, 4, ... 14; the leftovers 3 to 5 still lie at 32, 64 and 96.
    for (let i = 0; i < 7; i++) {
      await cache.write((40 + i) * blockBytes, filled(200));
      await world.drive(cache.flush());
    }
    await world.drive(cache.close());
    // The superblock's epoch is a third one, so only the records of the second tell that it was.
    cache = await world.open();
    if (laterWrite) await cache.write(900 * blockBytes, filled(3));
    await world.drive(cache.close());
    assertEquals([4, 6, 8, 32, 64].map((slot) => world.sequenceAt(slot)), [3, 4, 5, 3, 4]);
    world.cache.flip(headerByte(4));
    world.cache.flip(headerByte(6));
    cache = await world.open({ acceptDamage: true });
    assertEquals(cache.recovery.gaps, [{ firstSequence: 3, lastSequence: 4, slot: 4, lost: true }]);
    assertEquals(cache.recovery.records, (laterWrite ? 9 : 8) - 1);
    // 4 is known from 5's copy. Block 71 is of a leftover alone, block 40 of a record before the gap.
    assertEquals(await readBlocks(cache, 40, 42, 43, 46, 71), ["EIO", 200, 200, 200, "EIO"]);
    if (laterWrite) assertEquals(await readBlock(cache, 900), 3);
    await world.drive(cache.close());
  }
});

Deno.test("walkLog: when every record of the epoch between is lost, its leftovers are not taken for them", async () => {
  for (const crash of [false, true]) {
    const world = await withLeftovers();
    let cache = await world.open();
    for (let i = 0; i < 3; i++) {
      await cache.write((40 + i) * blockBytes, filled(200));
      await world.drive(cache.flush());
    }
    await world.drive(cache.close());
    // Of the second epoch only the superblock knows now, by the checksum of its last record.
    cache = await world.open();
    if (!crash) await world.drive(cache.close());
    const after = world.crash();
    assertEquals([2, 4, 6, 32, 64].map((slot) => after.sequenceAt(slot)), [2, 3, 4, 3, 4]);
    for (const slot of [2, 4, 6]) after.cache.flip(headerByte(slot));
    cache = await after.open();
    assertEquals([cache.recovery.damaged, cache.readOnly], [true, true]);
    assertEquals(await readBlocks(cache, 39, 40, 42, 71), ["EIO", "EIO", "EIO", "EIO"]);
  }
});

Deno.test("walkLog: a lost header of the only record, at the log's first slot, loses nothing", async () => {
  for (const end of ["clean close", "idle mark"]) {
    const world = await World.make();
    world.backing.bytes.fill(stale);
    const cache = await world.open();
    await cache.write(0, filled(7));
    await world.drive(cache.flush());
    if (end === "clean close") await world.drive(cache.close());
    else await world.pass(20);
    const after = world.crash();
    after.cache.flip(headerByte(0));
    const again = await after.open();
    assertEquals(again.recovery.clean, end === "clean close");
    assertEquals(again.recovery.gaps, [{ firstSequence: 1, lastSequence: 1, slot: 0, lost: false }]);
    assertEquals([again.recovery.damaged, again.recovery.lostBlocks], [false, 0], end);
    assertEquals(await readBlocks(again, 0, 1), [7, stale], end);
    // The chain goes on from the copy.
    await again.write(blockBytes, filled(8));
    await after.drive(again.close());
    assertEquals(await readBlocks(await after.open({ readOnly: true }), 0, 1), [7, 8], end);
  }
});

Deno.test("Tail.advance: a segment whose start is lost begins at its first record that is known", async () => {
  const world = await World.make({ cacheBytes: 8 * mib });
  let cache = await world.open();
  for (let i = 0; i < 24; i++) {
    await cache.write(i * blockBytes, filled(i + 1));
    await world.drive(cache.flush());
  }
  await world.drive(cache.close());
  // The first two records of segment 1. The third one's copy tells of the second.
  assertEquals([world.sequenceAt(32), world.sequenceAt(34)], [17, 18]);
  world.cache.flip(headerByte(32));
  world.cache.flip(headerByte(34));
  cache = await world.open({ acceptDamage: true });
  assertEquals(cache.recovery.gaps, [{ firstSequence: 17, lastSequence: 18, slot: 32, lost: true }]);
  for (let i = 0; i < 1024; i++) {
    if (i !== 22 && i !== 23) await world.drive(cache.write(i * blockBytes, filled(99)));
  }
  await world.drive(cache.flush());
  // What lies further on in segment 1 is refused, so the tail comes to rest there.
  const images: World[] = [];
  world.backing.onWrite = failing({ offset: 22 * blockBytes, length: 2 * blockBytes });
  world.cache.onWritten = (offset) => {
    if (offset < logOffset) images.push(world.crash());
  };
  await assertRejects(() => world.drive(cache.drain()), DeviceError);
  world.cache.onWritten = () => {};
  const tails = new Set<number>();
  for (const image of images) {
    const again = await image.open();
    assertEquals([again.recovery.damaged, again.recovery.lostBlocks], [false, 0]);
    assertEquals(again.recovery.gaps.filter((gap) => gap.lost), []);
    assertEquals(await readBlocks(again, 0, 17, 21, 22, 23, 1023), [99, 99, 99, 23, 24, 99]);
    tails.add(again.status().cache.tailSequence);
    await image.drive(again.close());
  }
  assert(tails.has(18), `no tail at the first record known in the segment, but at ${[...tails]}`);
});

Deno.test("Tail.advance: a loss that is not written down yet is not skipped inside its segment", async () => {
  const world = await singleBlockRecords(20);
  // The first record of the log is lost, and the second, of which the third one's copy tells.
  world.cache.flip(headerByte(0));
  world.cache.flip(headerByte(2));
  // The log takes nothing, so the loss cannot be written down; meanwhile everything else is written back.
  world.cache.onWrite = (offset) => offset >= logOffset ? hanging() : undefined;
  const opening = openCache({
    cache: world.cache,
    backing: world.backing,
    clock: world.clock,
    random: new SeededRandom(9).fill,
    acceptDamage: true,
    warn: () => {},
    tunables: { writeback: "on" },
  });
  opening.catch(() => {});
  for (let i = 0; i < 100; i++) await world.pass(50);
  assertEquals([1, 2, 3, 4, 5].map((block) => world.backing.bytes[block * blockBytes]), [2, 3, 4, 5, 6]);
  const after = world.crash();
  const again = await after.open();
  assertEquals(await readBlocks(again, 0, 1, 2), ["EIO", 2, 3]);
  assert(again.recovery.damaged);
});
