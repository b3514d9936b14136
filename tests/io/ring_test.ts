import { RingClock } from "../../src/io/ring/clock.ts";
import { Libc } from "../../src/io/ring/libc.ts";
import { openReactor, probeRing, type Reactor, reactorIo, ringIo } from "../../src/io/ring/mod.ts";
import { prepareNop, Ring } from "../../src/io/ring/ring.ts";
import { Waker, WakeUp } from "../../src/io/ring/wake_up.ts";
import { assert, assertEquals, assertGreaterOrEqual, assertMatch } from "../assert.ts";
import { mustRun, withDirectory } from "../device/temp.ts";
import { ringDescriptors, skipRingTests as ignore } from "./ring.ts";

/** Runs `body` beside the loop of a dedicated reactor, which blocks this thread while nothing happens on the ring. */
async function dedicated(body: (reactor: Reactor) => Promise<void>): Promise<void> {
  const reactor = openReactor({ dedicated: true });
  const running = reactor.run();
  try {
    await body(reactor);
  } finally {
    reactor.stop();
    await running;
  }
}

const sleep = (clock: RingClock, ms: number) => new Promise<void>((resolve) => clock.after(ms, resolve));

Deno.test("probeRing: says why when Deno may not call the C library", async () => {
  const program = `
    import { probeRing } from ${JSON.stringify(new URL("../../src/io/ring/mod.ts", import.meta.url).href)};
    console.log(JSON.stringify(probeRing()));`;
  const path = await Deno.makeTempFile({ suffix: ".ts" });
  await Deno.writeTextFile(path, program);
  const text = await mustRun(Deno.execPath(), "run", "--no-prompt", "--no-lock", "--quiet", path);
  await Deno.remove(path);
  assertMatch(text, /"usable":false,"why":"(Deno was not given the permission|io_uring is Linux's)/);
});

Deno.test("probeRing: leaves nothing open", { ignore }, () => {
  const before = ringDescriptors();
  assertEquals(probeRing(), { usable: true });
  assertEquals(ringDescriptors(), before);
});

for (const dedicated of [false, true]) {
  Deno.test(`Ring: every operation comes back once, in batches of any size (dedicated: ${dedicated})`, {
    ignore,
  }, () => {
    const libc = Libc.open();
    assert(typeof libc !== "string");
    const ring = new Ring(libc, { dedicated });
    let ended = 0;
    const completion = { completed: (result: number) => ended += result === 0 ? 1 : NaN };
    let wanted = 0;
    // More than the queue takes at once, and more than all completions that find room.
    for (const count of [1, 2, 511, 512, 513, 2000, 9000]) {
      for (let i = 0; i < count; i++) prepareNop(ring, completion);
      wanted += count;
      while (ended < wanted) {
        ring.enter(1);
        ring.reap();
      }
      assertEquals(ended, wanted);
      assertEquals(ring.inFlight, 0);
    }
    ring.close();
    libc.close();
  });
}

Deno.test(
  "RingClock: actions run when due and in order, cancelled ones never",
  { ignore },
  () =>
    dedicated(async ({ clock }) => {
      const done: string[] = [];
      const begin = clock.monotonicMs();
      const due = (name: string, ms: number) =>
        clock.after(ms, () => {
          assertGreaterOrEqual(clock.monotonicMs() - begin, ms);
          done.push(name);
        });
      due("c", 30);
      due("a", 5);
      const cancel = due("never", 10);
      due("b", 20);
      due("now", 0);
      cancel();
      cancel();
      assertEquals(done, []);
      await sleep(clock, 40);
      assertEquals(done, ["now", "a", "b", "c"]);
      assertEquals(clock.pending, 0);
    }),
);

Deno.test(
  "RingClock: the wrapped microseconds go with the monotonic milliseconds",
  { ignore },
  () =>
    dedicated(async ({ clock }) => {
      const [beginMs, begin] = [clock.monotonicMs(), clock.microsWrapped()];
      await sleep(clock, 20);
      const end = clock.microsWrapped();
      const elapsedMs = clock.monotonicMs() - beginMs;
      assert(Number.isInteger(end) && end === (end | 0), "a signed 32-bit number");
      const micros = (end - begin) | 0;
      assertGreaterOrEqual(micros, 20_000 - 1);
      // What was measured lies within what was measured around it.
      assertGreaterOrEqual(elapsedMs * 1000 + 1, micros);
    }),
);

Deno.test(
  "RingClock: thousands of timers, set and cancelled",
  { ignore },
  () =>
    dedicated(async ({ clock }) => {
      let fired = 0;
      for (let i = 0; i < 5000; i++) {
        const cancel = clock.after(1 + i % 7, () => fired++);
        if (i % 2 === 0) cancel();
        clock.after(1_000_000, () => {})();
      }
      await sleep(clock, 20);
      assertEquals(fired, 2500);
      assertEquals(clock.pending, 0);
    }),
);

Deno.test(
  "Reactor.run: all that follows from a completion is done before it waits again",
  { ignore },
  () =>
    dedicated(async ({ clock }) => {
      await sleep(clock, 1);
      let steps = 0;
      let fired = false;
      const cancel = clock.after(60_000, () => fired = true);
      for (let i = 0; i < 1000; i++) {
        await null;
        steps++;
      }
      cancel();
      assertEquals([steps, fired], [1000, false]);
    }),
);

Deno.test(
  "Reactor.run: files work in the dedicated loop",
  { ignore },
  () =>
    withDirectory((directory) =>
      dedicated(async (reactor) => {
        const io = reactorIo(reactor);
        const file = await io.openFile(`${directory}/file`, { write: true, create: true, direct: true });
        await Promise.all(
          Array.from({ length: 100 }, (_, i) => file.write(i * 4096, new Uint8Array(4096).fill(i))),
        );
        await file.sync();
        const bytes = new Uint8Array(4096);
        await file.read(99 * 4096, bytes);
        assert(bytes.every((byte) => byte === 99));
        await file.close();
      })
    ),
);

Deno.test(
  "WakeUp: another thread's wake-ups are all counted",
  { ignore },
  () =>
    dedicated(async (reactor) => {
      const counts: number[] = [];
      const woken = new Promise<void>((resolve) => {
        const wakeUp = new WakeUp(reactor, (count) => {
          counts.push(count);
          if (count < 6) return;
          wakeUp.close();
          resolve();
        });
        const code = `
        import { Waker } from ${
          JSON.stringify(new URL("../../src/io/ring/wake_up.ts", import.meta.url).href)
        };
        const waker = new Waker(${wakeUp.descriptor});
        for (let i = 0; i < 5; i++) waker.wake();
        waker.close();
        self.close();`;
        const other = new Worker(`data:application/typescript,${encodeURIComponent(code)}`, {
          type: "module",
        });
        other.onerror = (event) => console.error(event.message);
        const waker = new Waker(wakeUp.descriptor);
        waker.wake();
        waker.close();
      });
      await woken;
      assertEquals(counts.at(-1), 6);
    }),
);

Deno.test(
  "ringIo: its ring is gone when nothing uses it",
  { ignore },
  () =>
    withDirectory(async (directory) => {
      const before = ringDescriptors();
      for (let round = 0; round < 20; round++) {
        const files = await Promise.all(
          ["a", "b", "c"].map((name) =>
            ringIo.openFile(`${directory}/${name}${round}`, { write: true, create: true })
          ),
        );
        await Promise.all(files.map((file) => file.write(0, new Uint8Array(512))));
        await Promise.all(files.map((file) => file.close()));
      }
      await new Promise((resolve) => setTimeout(resolve, 5));
      assertEquals(ringDescriptors(), before);
    }),
);
