/** What fio's report says. @module */

import { parseFio } from "../../bench/e2e/fio.ts";
import { NbdboostError } from "../../src/errors.ts";
import { assertEquals, assertThrows } from "../assert.ts";

function direction(total: number, iops: number, p50Ns: number, p99Ns: number) {
  const percentile = { "50.000000": p50Ns, "99.000000": p99Ns, "99.900000": 2 * p99Ns };
  return { total_ios: total, iops, bw_bytes: iops * 4096, clat_ns: total > 0 ? { percentile } : { N: 0 } };
}

function report(read: object, write: object, sync: object = { total_ios: 0, lat_ns: { N: 0 } }, error = 0) {
  return JSON.stringify({ jobs: [{ error, read, write, sync, usr_cpu: 20.5, sys_cpu: 30 }] });
}

Deno.test("parseFio: reads and writes together, the slower one for the latency", () => {
  const facts = parseFio(report(direction(700, 350, 1000, 9000), direction(300, 150, 2000, 8000)));
  assertEquals(facts, {
    operations: 1000,
    iops: 500,
    megabytesPerSecond: 2.048,
    latencyMicros: { p50: 2, p99: 9, p999: 18 },
    flushMicros: null,
    clientCpuPercent: 50.5,
  });
});

Deno.test("parseFio: flushes have a latency of their own, and are no operations", () => {
  const percentile = { "50.000000": 400_000, "99.000000": 1_234_567, "99.900000": 2_000_000 };
  const sync = { total_ios: 10, lat_ns: { percentile } };
  const facts = parseFio(report(direction(0, 0, 0, 0), direction(320, 100, 1000, 2000), sync));
  assertEquals(facts.operations, 320);
  assertEquals(facts.flushMicros, { p50: 400, p99: 1234.6, p999: 2000 });
});

Deno.test("parseFio: passes over what fio says before the JSON", () => {
  const text = "fio: connected to NBD server\nfio: connected {2}\n" +
    report(direction(0, 0, 0, 0), direction(1, 1, 1000, 1000));
  assertEquals(parseFio(text).operations, 1);
});

Deno.test("parseFio: what is no good report is refused, with what it says", () => {
  const none = direction(0, 0, 0, 0);
  const cases: [string, string][] = [
    ["fio: connect: refused\n", 'it begins with "fio: connect: refused"'],
    ['{"jobs": []}', "0 groups"],
    [report(none, direction(1, 1, 1, 1), undefined, 5), "errno 5"],
    [report(none, none), "did not finish a single request"],
  ];
  for (const [text, says] of cases) assertThrows(() => parseFio(text), NbdboostError, says);
});
