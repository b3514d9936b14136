/** Histograms against sorted lists, and rates. @module */

import fc from "./property.ts";
import { Rate } from "../src/cache/statistics.ts";
import { Latency, latencyAtMost, latencyQuantile } from "../src/latency.ts";
import { assert, assertAlmostEquals, assertEquals } from "./assert.ts";

Deno.test("Latency: quantiles are at most an eighth above those of the sorted list, and never below", () => {
  fc.assert(fc.property(
    fc.array(fc.double({ min: 0, max: 1e9, noNaN: true }), { minLength: 1, maxLength: 200 }),
    fc.constantFrom(0.5, 0.9, 0.99, 1),
    (values, p) => {
      const latency = new Latency();
      for (const value of values) latency.add(value);
      const sorted = [...values].sort((a, b) => a - b);
      const exact = sorted[Math.ceil(values.length * p - 1e-9) - 1]!;
      const found = latencyQuantile(latency.counts, p);
      assert(
        found >= Math.round(exact) - 1 && found <= Math.max(1, exact * 9 / 8 + 1),
        `${found} for ${exact}`,
      );
      assert(found <= Math.round(sorted[sorted.length - 1]!));
    },
  ));
});

Deno.test("Latency: a power of two is the upper end of a bucket and belongs to it", () => {
  for (let power = 0; power <= 30; power++) {
    const latency = new Latency();
    latency.add(2 ** power);
    latency.add(2 ** power + 0.5);
    assertEquals(latencyAtMost(latency.counts, 2 ** power), 1, `2^${power}`);
    assertEquals(latencyAtMost(latency.counts, 2 ** power * 2), 2);
  }
});

Deno.test("Latency: counts, sum and longest; nothing measured is all 0; too long is in the last bucket", () => {
  const latency = new Latency();
  assertEquals(latency.summary(), { p50: 0, p99: 0, max: 0 });
  latency.add(10, 3);
  latency.add(1e13);
  assertEquals([latency.counts.count, latency.counts.sumMicros, latency.counts.maxMicros], [
    4,
    1e13 + 30,
    1e13,
  ]);
  assertEquals(latency.summary().p50, 10);
});

Deno.test("Rate: follows the counter, starts anew after a pause, and falls while nothing is noted", () => {
  const rate = new Rate();
  assertEquals(rate.at(0), 0);
  for (let ms = 0; ms <= 20_000; ms += 100) rate.note(ms * 5, ms);
  assertAlmostEquals(rate.at(20_000), 5000, 1);
  for (let ms = 20_000; ms <= 80_000; ms += 100) rate.note(100_000 + (ms - 20_000), ms);
  assertAlmostEquals(rate.at(80_000), 1000, 20);
  assert(rate.at(110_000) < 200);
  assertEquals(rate.at(1_000_000), 0);
  rate.note(1e9, 1_000_000);
  assertEquals(rate.at(1_000_000), 0);
});
