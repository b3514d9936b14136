// Why: writers that wait for log space must be served in order, must not wait for ever, and must not be told of a full log
// that is none.
import { Room } from "../../src/cache/room.ts";
import { defaultTunables } from "../../src/cache/tunables.ts";
import { DeviceError } from "../../src/errors.ts";
import type { Wait } from "../../src/log/appender.ts";
import type { LogWriter } from "../../src/log/writer.ts";
import { assertEquals, assertRejects } from "../assert.ts";
import { FakeClock } from "../nbd/fake_clock.ts";
import { turn } from "./fault_devices.ts";

/** The part of a log that a room asks: what `prepare` answers, by who asks. */
class FakeLog {
  client: Wait = "space";
  engine: Wait = "space";
  failure: DeviceError | undefined;
  prepared = 0;
  prepare(appender: "client" | "engine"): Wait {
    this.prepared++;
    return this[appender];
  }
}

const timeoutMs = 30_000;

function makeRoom(): { log: FakeLog; room: Room; clock: FakeClock; done: string[]; asked: () => number } {
  const log = new FakeLog();
  const clock = new FakeClock();
  const room = new Room(log as unknown as LogWriter, clock, {
    ...defaultTunables,
    fullTimeout: timeoutMs / 1000,
  });
  let asked = 0;
  room.onSpaceNeeded = () => asked++;
  return { log, room, clock, done: [], asked: () => asked };
}

/** Lets time pass second by second, as timers see it. */
async function pass(clock: FakeClock, milliseconds: number): Promise<void> {
  for (let ms = 0; ms < milliseconds; ms += 500) {
    await turn();
    clock.advance(500);
  }
  await turn();
}

/** Notes what becomes of a promise. */
function note(promise: Promise<unknown>, name: string, done: string[]): void {
  promise.then(() => done.push(name), (error) => done.push(`${name}: ${(error as DeviceError).code}`));
}

Deno.test("Room.take: appends at once, and nobody comes between, when the log takes it", async () => {
  const { log, room, clock } = makeRoom();
  log.client = "none";
  assertEquals(await room.take("client", () => log.prepared), 1);
  assertEquals([room.busy, clock.pending], [false, 0]);
});

Deno.test("Room.take: writers are served in the order in which they came; the engine waits in no line", async () => {
  const { log, room, clock, done, asked } = makeRoom();
  for (const name of ["first", "second", "third"]) note(room.take("client", () => {}), name, done);
  await turn();
  assertEquals([room.busy, done.length], [true, 0]);
  assertEquals(asked(), 1, "only the head of the line asks");
  log.engine = "none";
  note(room.take("engine", () => {}), "engine", done);
  await turn();
  assertEquals(done, ["engine"]);
  // Room for one at a time: what one takes, the next must wait for.
  log.client = "none";
  room.wake();
  await turn();
  assertEquals(done, ["engine", "first", "second", "third"]);
  assertEquals([room.busy, clock.pending], [false, 0]);
});

Deno.test("Room.take: one that fails leaves the line, and the next is served", async () => {
  const { log, room, done } = makeRoom();
  log.client = "none";
  note(
    room.take("client", () => {
      throw new DeviceError("EIO", "the append fails");
    }),
    "first",
    done,
  );
  note(room.take("client", () => {}), "second", done);
  await turn();
  assertEquals([done, room.busy], [["first: EIO", "second"], false]);
});

Deno.test("Room.take: a full log with no write-back fails every writer after the timeout, not one after the other", async () => {
  const { room, clock, done } = makeRoom();
  note(room.take("client", () => {}), "first", done);
  await pass(clock, 10_000);
  note(room.take("client", () => {}), "second", done);
  await pass(clock, timeoutMs - 10_000 - 2000);
  assertEquals(done, []);
  await pass(clock, 4000);
  assertEquals(done, ["first: EIO"]);
  await pass(clock, 10_000);
  assertEquals(done, ["first: EIO", "second: EIO"]);
  assertEquals([room.busy, clock.pending], [false, 0]);
});

Deno.test("Room.take: as long as something is written back, a writer waits", async () => {
  const { log, room, clock, done } = makeRoom();
  note(room.take("client", () => {}), "writer", done);
  for (let i = 0; i < 10; i++) {
    await pass(clock, timeoutMs / 2);
    room.progressMs = clock.monotonicMs();
  }
  assertEquals(done, []);
  log.client = "none";
  room.wake();
  await turn();
  assertEquals(done, ["writer"]);
});

Deno.test("Room.take: a wait for a sync or for RAM is no full log", async () => {
  for (const wait of ["sync", "buffer"] as const) {
    const { log, room, clock, done, asked } = makeRoom();
    log.client = wait;
    note(room.take("client", () => {}), "writer", done);
    await pass(clock, 3 * timeoutMs);
    assertEquals([done, asked()], [[], 0]);
    log.client = "none";
    // Without a wake the clock finds it.
    await pass(clock, 2000);
    assertEquals(done, ["writer"]);
  }
});

Deno.test("Room.take: a failed log fails who waits, with its reason", async () => {
  const { log, room, done } = makeRoom();
  for (const name of ["first", "second"]) note(room.take("client", () => {}), name, done);
  await turn();
  log.failure = new DeviceError("EIO", "a log write failed");
  log.client = log.engine = "failed";
  room.wake();
  await turn();
  assertEquals(done, ["first: EIO", "second: EIO"]);
  await assertRejects(() => room.take("engine", () => {}), DeviceError, "a log write failed");
});

Deno.test("Room.take: once closing, what fits is taken and what would wait is refused", async () => {
  const { log, room, clock, done } = makeRoom();
  note(room.take("client", () => {}), "waiting", done);
  await turn();
  room.closing = true;
  room.wake();
  await turn();
  assertEquals(done, ["waiting: ESHUTDOWN"]);
  log.engine = "none";
  note(room.take("engine", () => {}), "engine", done);
  await turn();
  assertEquals(done, ["waiting: ESHUTDOWN", "engine"]);
  assertEquals(clock.pending, 0);
});
