/** Medians, and ratios within rounds. @module */

import { judge } from "../../bench/e2e/bars.ts";
import { median, medianKnown, ratio, summarize } from "../../bench/e2e/result.ts";
import { assert, assertEquals } from "../assert.ts";
import { sampleResult, sampleRun } from "./sample.ts";

Deno.test("median: the middle one, the mean of two, and of nothing NaN", () => {
  assertEquals(median([3, 1, 2]), 2);
  assertEquals(median([4, 1, 3, 2]), 2.5);
  assertEquals(median([10, 9, 100]), 10);
  assert(Number.isNaN(median([])));
});

Deno.test("medianKnown: leaves out what is not known", () => {
  assertEquals(medianKnown([null, 5, null, 1, 3]), 3);
  assertEquals(medianKnown([null]), null);
});

Deno.test("ratio: is taken in each round, and only where both are", () => {
  // The machine is ten times slower in round 2; the ratio of medians would be 300/100.
  const result = sampleResult([
    sampleRun(1, "j", "a", 300),
    sampleRun(1, "j", "b", 100),
    sampleRun(2, "j", "a", 20),
    sampleRun(2, "j", "b", 10),
    sampleRun(3, "j", "a", 400),
    sampleRun(3, "j", "b", 200),
    sampleRun(4, "j", "a", 1),
  ]);
  assertEquals(ratio(result, "j", "a", "b"), 2);
  assertEquals(ratio(result, "j", "a", "c"), undefined);
});

Deno.test("summarize: medians of one job against one peer", () => {
  const result = sampleResult([1, 2, 3].map((round) => sampleRun(round, "sync-1", "device", round * 100)));
  const summary = summarize(result, "sync-1", "device")!;
  assertEquals([summary.iops, summary.rounds, summary.cpuMicrosPerOp], [200, 3, null]);
  assertEquals(summary.flushMicros, { p50: 400, p99: 500, p999: 600 });
  assertEquals(summarize(result, "sync-1", "nbdkit-file"), undefined);
});

Deno.test("judge: the fastest rival counts, and what was not measured is neither met nor missed", () => {
  const rates = { "nbdboost-ring": 100, "qemu-nbd-writeback": 20, "qemu-nbd-uring": 40, "nbdkit-file": 90 };
  const runs = Object.entries(rates).map(([peer, iops]) => sampleRun(1, "randwrite-qd64", peer, iops));
  const bars = judge(sampleResult(runs));
  const find = (words: string) => bars.find(({ what }) => what.includes(words))!;
  assertEquals(find("faster qemu-nbd").measured, "2.50 × (qemu-nbd, none + io_uring)");
  assertEquals(find("faster qemu-nbd").met, false);
  assertEquals(find("QD64, against nbdkit file").met, true);
  assertEquals(find("QD64, against nbd-server").met, undefined);
  assertEquals(find("crc32c").met, true);
  assertEquals(find("in-process").met, false);
  // 100 MiB in all, of which the index may take 56.
  assertEquals([find("less its index of 56 MiB").measured, find("less its index").met], ["44 MiB", true]);
});
