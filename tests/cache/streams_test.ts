import { Runs } from "../../src/cache/runs.ts";
import { Streams } from "../../src/cache/streams.ts";
import { Touched } from "../../src/cache/touched.ts";
import { SeededRandom } from "../../src/random.ts";
import { kib, mib } from "../../src/units.ts";
import { assert, assertEquals } from "../assert.ts";

Deno.test("Streams: several at once are told apart, whoever sends them", () => {
  const streams = new Streams(mib);
  for (let i = 0; i < 16; i++) {
    for (let stream = 0; stream < 4; stream++) {
      assertEquals(streams.note(stream * 100 * mib + i * 64 * kib, 64 * kib), (i + 1) * 64 * kib);
    }
  }
});

Deno.test("Streams: a request that is asked about twice counts once", () => {
  const streams = new Streams(mib);
  assertEquals(streams.note(0, 4096), 4096);
  assertEquals(streams.note(0, 4096), 4096);
  assertEquals(streams.note(4096, 4096), 8192);
});

Deno.test("Streams: some disorder is a stream still", () => {
  const streams = new Streams(mib);
  let run = 0;
  for (let i = 0; i < 64; i += 4) {
    for (const j of [1, 0, 3, 2]) run = streams.note((i + j) * 64 * kib, 64 * kib);
  }
  assertEquals(run, 4 * mib);
});

Deno.test("Streams: writing one place again, or leaving gaps, is none", () => {
  const random = new SeededRandom(1);
  const again = new Streams(mib);
  const gaps = new Streams(mib);
  for (let i = 0; i < 1000; i++) {
    assert(again.note(random.below(8) * 64 * kib + 1, 64 * kib) < 2 * mib);
    assert(gaps.note(i * 512 * kib, 64 * kib) < 2 * mib);
  }
});

Deno.test("Runs: agrees with a plain set", () => {
  const random = new SeededRandom(2);
  for (let round = 0; round < 50; round++) {
    const runs = new Runs();
    const plain = new Set<number>();
    for (let i = 0; i < 30; i++) {
      const start = random.below(100);
      const end = start + 1 + random.below(8);
      runs.add(start, end);
      for (let block = start; block < end; block++) plain.add(block);
      assertEquals(runs.count, plain.size);
      const from = random.below(100);
      const to = from + 1 + random.below(5);
      const some = Array.from({ length: to - from }, (_, at) => plain.has(from + at)).includes(true);
      assertEquals(runs.any(from, to), some);
    }
    const listed = [...runs].flatMap(({ start, end }) =>
      Array.from({ length: end - start }, (_, i) => start + i)
    );
    assertEquals(listed, [...plain].sort((a, b) => a - b));
  }
});

Deno.test("Touched: keeps what the tail has not passed, and drops the rest within a lap", () => {
  const touched = new Touched();
  touched.add(10, 20, 5);
  touched.passed(5);
  assert(touched.any(19, 25) && !touched.any(20, 25) && !touched.any(0, 10));
  touched.add(30, 40, 9);
  touched.passed(6);
  assert(touched.any(35, 36));
  touched.passed(10);
  touched.passed(11);
  assert(!touched.any(0, 100));
});
