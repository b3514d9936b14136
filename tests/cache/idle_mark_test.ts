// Why: until a durable mark is on the device, rot in the newest records looks like a torn end. But a mark costs a write, and a
// record that is being filled carries the next one for nothing.
import { IdleMark } from "../../src/cache/idle_mark.ts";
import type { SuperblockStore } from "../../src/log/superblock_store.ts";
import type { LogWriter } from "../../src/log/writer.ts";
import { assertEquals } from "../assert.ts";
import { FakeClock } from "../nbd/fake_clock.ts";

function make() {
  const clock = new FakeClock();
  const log = { sealedSequence: 1, durableSequence: 1, openHasEntries: false, failure: undefined };
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
