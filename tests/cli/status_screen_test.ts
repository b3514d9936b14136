/** The status screen: what each state says, units, alignment, colours. @module */

import { formatCount, formatMicros, stateSentence, statusLines } from "../../src/cli/status_screen.ts";
import type { ServerStatus } from "../../src/control/status.ts";
import { gib, mib } from "../../src/units.ts";
import { assert, assertEquals, assertStringIncludes } from "../assert.ts";

const latency = { p50: 12, p99: 1500, max: 2_500_000 };
const healthy: ServerStatus = {
  version: "1.2.3",
  uuid: "u",
  state: "serving",
  io: "ring",
  ioReason: "asked for by --io ring",
  uptimeSeconds: 7500,
  backing: { target: "/dev/sdb", sizeBytes: 1024 * gib, away: null },
  cache: {
    path: "/dev/nvme0n1p3",
    sizeBytes: 4 * gib,
    segmentBytes: mib / 2,
    segments: 8000,
    freeSegments: 2000,
    cachedBlocks: 5000,
    dirtyBlocks: 3120,
    zeroBlocks: 0,
    lostBlocks: 0,
    headSequence: 9,
    tailSequence: 3,
    durableSequence: 8,
    ramBytes: 70 * mib,
  },
  clients: 1,
  mirror: null,
  requests: { read: 1000, write: 1234567, flush: 20, trim: 0, zero: 0, error: 0 },
  bytes: { read: 4 * mib, written: 5 * gib, log: 6 * gib, writeback: gib },
  blocks: { readHit: 750, readMiss: 250, overwritten: 1, writtenBack: 2, copied: 0, bypassed: 0 },
  log: { records: 5000, writes: 5000, syncs: 100, flushesPerSync: 2.125 },
  writeback: {
    mode: "auto",
    active: true,
    requests: 10,
    blocksPerRequest: 3.25,
    bytesPerSecond: 10 * mib,
    etaSeconds: 2,
    lastError: null,
    failingSeconds: null,
  },
  latencyMicros: { read: latency, write: latency, flush: latency, trim: latency, zero: latency },
  tunables: { writeback: "auto", writebackBatch: 1024 } as ServerStatus["tunables"],
};

function changed(
  change: {
    [Key in keyof ServerStatus]?: ServerStatus[Key] extends object ? Partial<ServerStatus[Key]>
      : ServerStatus[Key];
  },
): ServerStatus {
  const copy = structuredClone(healthy) as unknown as Record<string, unknown>;
  for (const [key, value] of Object.entries(change)) {
    copy[key] = typeof value === "object" ? { ...copy[key] as object, ...value } : value;
  }
  return copy as unknown as ServerStatus;
}

Deno.test("stateSentence: says in plain words what each state means for the data", () => {
  const failing = { lastError: "no answer", failingSeconds: 12 };
  const cases: [ServerStatus, string[]][] = [
    [healthy, ["All is well", "3,120 blocks wait"]],
    [changed({ cache: { dirtyBlocks: 0 } }), ["nothing waits"]],
    [changed({ state: "degraded", writeback: failing }), [
      "failed for 12 s",
      "no answer",
      "3,120",
      "none of them is lost",
    ]],
    [changed({ state: "degraded", backing: { away: "no route" } }), [
      "cannot be reached (no route)",
      "none of them is lost",
    ]],
    [changed({ state: "degraded", cache: { lostBlocks: 1 } }), ["1 block is lost", "nbdboost check"]],
    [changed({ state: "degraded", cache: { lostBlocks: 2 }, writeback: failing }), [
      "failed for",
      "2 blocks are lost",
    ]],
    [changed({ state: "poisoned" }), ["reads go on", "flushed before is safe"]],
    [changed({ state: "read-only" }), ["Writes are refused", "3,120"]],
    [changed({ state: "draining" }), ["3,120 blocks to go"]],
    [changed({ state: "stopping" }), ["made durable"]],
  ];
  for (const [status, says] of cases) {
    const sentence = stateSentence(status);
    for (const text of says) assertStringIncludes(sentence, text);
    assert(/^[A-Z0-9].*\.$/.test(sentence), sentence);
  }
});

Deno.test("statusLines: one screen with units, columns aligned, rates only with an earlier reading", () => {
  const lines = statusLines(healthy, { colours: false, columns: 80 });
  assert(lines.length <= 24, `${lines.length} lines`);
  const text = lines.join("\n");
  for (
    const part of [
      "nbdboost 1.2.3  serving  up 2 h 05 min  1 client",
      "backing     /dev/sdb, 1 TiB",
      "log         [###############.....] 75% in use, 1000 MiB free; wrote 6 GiB in 5,000 records, 2.1 flushes a sync",
      "dirty       3,120 blocks (12.2 MiB), written back in 2 s at this rate",
      "write-back  auto: at work, 10 MiB/s to the backing device; 1 GiB so far, 3.3 blocks a request",
      "reads       75% of 1,000 blocks came from RAM or log",
      "settings    writeback=auto writeback_batch=1024",
      "requests      count  half in  99% in  slowest",
      "write     1,234,567    12 µs  1.5 ms    2.5 s",
      "trim              0        -       -        -",
      "clients read 4 MiB and wrote 5 GiB; no errors",
    ]
  ) assertStringIncludes(text, part);
  assert(!text.includes("\x1b") && !text.includes("per second"));
  const earlier = {
    status: changed({ requests: { write: 1230567 }, bytes: { written: 4 * gib } }),
    seconds: 2,
  };
  const rates = statusLines(healthy, { colours: false, columns: 80, earlier }).join("\n");
  assertStringIncludes(rates, "write     1,234,567       2,000");
  assertStringIncludes(rates, "wrote 5 GiB (512 MiB/s)");
});

Deno.test("statusLines: colours only when asked for, errors and the last failure shown", () => {
  const bad = changed({
    state: "degraded",
    requests: { error: 3 },
    writeback: { lastError: "no answer", failingSeconds: 3 },
  });
  const text = statusLines(bad, { colours: true, columns: 80 }).join("\n");
  for (const part of ["\x1b[31mdegraded\x1b[0m", "\x1b[31mno answer\x1b[0m", "\x1b[31m3 errors\x1b[0m"]) {
    assertStringIncludes(text, part);
  }
});

Deno.test("formatCount, formatMicros: as people write them", () => {
  assertEquals([0, 999, 1000, 1234567].map(formatCount), ["0", "999", "1,000", "1,234,567"]);
  assertEquals([0, 999, 1000, 12_345, 1e6, 61.5e6].map(formatMicros), [
    "0 µs",
    "999 µs",
    "1 ms",
    "12.3 ms",
    "1 s",
    "61.5 s",
  ]);
});
