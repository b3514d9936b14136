// Why: until a durable mark is on the device, rot in the newest records looks like a torn end. But a mark costs a write, and a
// record that is being filled carries the next one for nothing.
import { IdleMark } from "../../src/cache/idle_mark.ts";
import type { SuperblockStore } from "../../src/log/superblock_store.ts";
import type { LogWriter } from "../../src/log/writer.ts";
import { assertEquals, assertGreater } from "../assert.ts";
import { FakeClock } from "../nbd/fake_clock.ts";
import { filled, World } from "./fault_devices.ts";

function make() {
  const clock = new FakeClock();
  const log = {
    sealedSequence: 1,
    durableSequence: 1,
    openHasEntries: false,
    isWriting: false,
    failure: undefined,
  };
  const marks: number[] = [];
  const store = {
    current: { durableMark: 0 },
    writeMark: () => {
      marks.push(clock.monotonicMs());
      store.current.durableMark = log.durableSequence;
      return Promise.resolve();
    },
  };
  const mark = new IdleMark(clock, log as unknown as LogWriter, store as unknown as SuperblockStore);
  return { clock, log, marks, mark };
}

/** Lets time pass in steps of a millisecond. */
function pass(clock: FakeClock, ms: number): void {
  for (let i = 0; i < ms; i++) clock.advance(1);
}

Deno.test("IdleMark: is written once, 10 ms after the last record", () => {
  const { clock, marks, mark } = make();
  mark.noteProgress();
  pass(clock, 9);
  assertEquals(marks.length, 0);
  pass(clock, 1);
  assertEquals(marks.length, 1);
  mark.noteProgress();
  pass(clock, 5000);
  assertEquals([marks.length, clock.pending], [1, 0]);
});

Deno.test("IdleMark: is not written while records follow each other, and waits two seconds for one that is being filled", () => {
  const { clock, log, marks, mark } = make();
  log.openHasEntries = true;
  mark.noteProgress();
  for (let i = 0; i < 20; i++) {
    pass(clock, 500);
    log.sealedSequence++;
    log.durableSequence++;
    mark.noteProgress();
  }
  assertEquals(marks.length, 0);
  pass(clock, 1900);
  assertEquals(marks.length, 0);
  pass(clock, 200);
  assertEquals(marks.length, 1);
  assertEquals(clock.pending, 0);
});

Deno.test("IdleMark: nothing is left to happen once it is stopped", () => {
  const { clock, marks, mark } = make();
  mark.noteProgress();
  mark.stop();
  mark.noteProgress();
  pass(clock, 100);
  assertEquals([marks.length, clock.pending], [0, 0]);
});

Deno.test("IdleMark: is not written while a log write or a sync is under way, but soon after the last", () => {
  const { clock, log, marks, mark } = make();
  log.isWriting = true;
  mark.noteProgress();
  pass(clock, 2000);
  assertEquals(marks.length, 0);
  log.isWriting = false;
  pass(clock, 200);
  assertEquals([marks.length, clock.pending], [1, 0]);
});

Deno.test("Cache: a device that syncs slowly gets no superblock write among its flushes, and one soon after the last", async () => {
  const world = await World.make();
  const cache = await world.open();
  await cache.write(0, filled(1));
  await world.drive(cache.flush());
  await world.pass(500);
  const before = world.cache.superblockWrites;
  let syncs = 0;
  let finish = () => {};
  world.cache.onSync = () => {
    syncs++;
    return new Promise((resolve) => finish = resolve);
  };
  for (let i = 1; i <= 5; i++) {
    await cache.write(0, filled(1 + i));
    const flushed = cache.flush();
    await world.pass(1);
    assertEquals(syncs, i);
    // Longer than any wait for idleness.
    for (let ms = 0; ms < 500; ms += 10) await world.pass(10);
    finish();
    await flushed;
  }
  assertEquals(world.cache.superblockWrites, before, "superblock writes among the syncs");
  world.cache.heal();
  for (let ms = 0; ms < 400; ms += 10) await world.pass(10);
  assertGreater(world.cache.superblockWrites, before, "superblock writes afterwards");
  await world.drive(cache.close());
});
