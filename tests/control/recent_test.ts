/** Latencies of an interval: only what came in it counts. @module */

import { RecentLatencies } from "../../src/control/recent.ts";
import type { EngineStatus } from "../../src/host/served.ts";
import { Latency } from "../../src/latency.ts";
import { assertEquals } from "../assert.ts";

Deno.test("RecentLatencies: tells of the interval alone, and of nothing after a pause", () => {
  const write = new Latency();
  const others = new Latency();
  const none = others.counts;
  // The very histograms that go on counting, as the portable host hands them out.
  const look = (): EngineStatus["latencies"] => ({
    ...{ read: none, flush: none, trim: none, zero: none, cache: none, status: none },
    write: write.counts,
  });
  const recent = new RecentLatencies();
  write.add(100_000, 1000);
  assertEquals(recent.since(look(), 1000), null);
  write.add(128, 99);
  write.add(1024, 1);
  const { seconds, latencyMicros } = recent.since(look(), 2500)!;
  assertEquals(seconds, 1.5);
  assertEquals(latencyMicros.write, { count: 100, p50: 128, p99: 128 });
  assertEquals(latencyMicros.read, { count: 0, p50: 0, p99: 0 });
  assertEquals(recent.since(look(), 3000)!.latencyMicros.write, { count: 0, p50: 0, p99: 0 });
  assertEquals(recent.since(look(), 60_000), null);
});
