/** The status screen: what each state says, units, alignment, colours. @module */

import { formatMicros, statusLines } from "../../src/cli/status_screen.ts";
import { stateMeaning } from "../../src/control/meaning.ts";
import type { ServerStatus } from "../../src/control/status.ts";
import { formatCount, gib, mib } from "../../src/units.ts";
import { assert, assertEquals, assertMatch, assertStringIncludes } from "../assert.ts";

const latency = { p50: 12, p99: 1500, max: 2_500_000 };
const healthy: ServerStatus = {
  version: "1.2.3",
  uuid: "u",
  state: "serving",
  meaning: "All is well: 3,120 blocks wait in the cache to be written back.",
  io: "ring",
  ioReason: "asked for by --io ring",
  uptimeSeconds: 7500,
  backing: { target: "/dev/sdb", sizeBytes: 1024 * gib, away: null, awaySeconds: null },
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
    waitingWriters: 0,
    headSequence: 9,
    tailSequence: 3,
    durableSequence: 8,
    ramBytes: 70 * mib,
  },
  clients: 1,
  mirror: null,
  requests: { read: 1000, write: 1234567, flush: 20, trim: 0, zero: 0, error: 0 },
  bytes: { read: 4 * mib, written: 5 * gib, log: 6 * gib, writeback: gib },
  blocks: {
    readHit: 750,
    readMiss: 250,
    overwritten: 1,
    writtenBack: 2,
    copied: 0,
    bypassed: 0,
    kept: 0,
    prefetched: 0,
  },
  wear: {
    writtenBytes: 6 * gib,
    writeRequests: 5100,
    amplification: 1.2,
    ratedBytes: 600 * 1024 * gib,
    lifeSeconds: 365 * 86_400 * 12,
  },
  log: { records: 5000, writes: 5000, syncs: 100, flushesPerSync: 2.125 },
  writeback: {
    point: null,
    mode: "auto",
    active: true,
    requests: 10,
    blocksPerRequest: 3.25,
    bytesPerSecond: 10 * mib,
    etaSeconds: 2,
    lastError: null,
    failingSeconds: null,
  },
  history: { held: false, oldestSequence: 3, freeBytes: 1000 * mib, fullInSeconds: null, views: 0 },
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

Deno.test("stateMeaning: says in plain words what each state means for the data", () => {
  const failing = { lastError: "no answer", failingSeconds: 12 };
  const away = { away: "no route", awaySeconds: 12 };
  const cases: [ServerStatus, string][] = [
    [healthy, "All is well: 3,120 blocks wait in the cache to be written back."],
    [changed({ cache: { dirtyBlocks: 1 } }), "All is well: 1 block waits in the cache to be written back."],
    [changed({ cache: { dirtyBlocks: 0 } }), "All is well, and nothing waits to be written back."],
    [
      changed({ writeback: { mode: "off", bytesPerSecond: 0 }, cache: { waitingWriters: 2 } }),
      "All is well: 3,120 blocks wait in the cache to be written back. Write-back is off: it begins when the log fills, " +
      "or with a drain. 2 writes wait for room in the log; nothing is written back just now.",
    ],
    [
      changed({ cache: { waitingWriters: 1 } }),
      "All is well: 3,120 blocks wait in the cache to be written back. 1 write waits for room in the log; the backing " +
      "device takes 10 MiB/s.",
    ],
    [
      changed({ state: "degraded", writeback: failing }),
      "The backing device has failed for 12 s (no answer): 3,120 dirty blocks wait in the cache, and none of them is " +
      "lost. It is tried again.",
    ],
    [
      changed({ state: "degraded", backing: away }),
      "The backing device has not answered for 12 s (no route): 3,120 dirty blocks wait in the cache, and none of them " +
      "is lost. Writes go on as long as the log has room, and so do reads of what the cache holds; other reads wait.",
    ],
    [
      changed({ state: "degraded", backing: { ...away, awaySeconds: 75 }, cache: { dirtyBlocks: 0 } }),
      "The backing device has not answered for 1 min 15 s (no route): nothing waits to be written back. Writes go on as " +
      "long as the log has room, and so do reads of what the cache holds; other reads wait.",
    ],
    [
      changed({ state: "degraded", cache: { lostBlocks: 1 } }),
      "1 block is lost: reading it fails until it is written again; see nbdboost check.",
    ],
    [
      changed({ state: "degraded", cache: { lostBlocks: 2000, dirtyBlocks: 1 }, writeback: failing }),
      "The backing device has failed for 12 s (no answer): 1 dirty block waits in the cache, and it is not lost. It is " +
      "tried again. 2,000 blocks are lost: reading them fails until they are written again; see nbdboost check.",
    ],
    [
      changed({ state: "degraded", mirror: { whole: false, legs: [], copy: null, mendedBlocks: 0 } }),
      "The mirror has one leg alone: if it fails too, what is dirty is lost; give it another leg.",
    ],
    [
      changed({
        state: "degraded",
        mirror: { whole: false, legs: [], copy: { copiedBytes: 666, totalBytes: 1000 }, mendedBlocks: 0 },
      }),
      "The mirror has one leg alone: the other is being copied, 66% done.",
    ],
    [
      changed({ state: "poisoned" }),
      "The log cannot be written any more: writes and flushes fail, reads go on. What was flushed before is safe; see to " +
      "the cache device, then stop this server and start it again.",
    ],
    [
      changed({ state: "read-only" }),
      "Writes are refused, and nothing is written back: 3,120 blocks wait in the cache.",
    ],
    [
      changed({ state: "read-only", cache: { dirtyBlocks: 0, lostBlocks: 3 } }),
      "Writes are refused, and nothing waits to be written back. 3 blocks are lost: reading them fails until they are " +
      "written again; see nbdboost check.",
    ],
    [
      changed({ state: "draining", cache: { dirtyBlocks: 1000, zeroBlocks: 24 } }),
      "Everything is being written back: 1,024 blocks (4 MiB) to go.",
    ],
    [
      changed({ state: "draining", cache: { dirtyBlocks: 0 } }),
      "Everything is being written back: it is about to end.",
    ],
    [
      changed({ state: "stopping" }),
      "It is stopping: clients are refused, and what they wrote is made durable.",
    ],
  ];
  for (const [status, says] of cases) assertEquals(stateMeaning(status), says);
});

Deno.test("statusLines: one screen with units, columns aligned, rates only with an earlier reading", () => {
  for (const [columns, linesMax] of [[60, 30], [80, 24]] as const) {
    const narrow = statusLines(healthy, { colours: false, columns });
    assert(narrow.length <= linesMax, `${narrow.length} lines`);
    for (const line of narrow) assert(line.length <= columns, line);
    assertMatch(narrow.join("\n"), /^log {9}\[#+\.+\] .*\n {12}\S/m);
  }
  const text = statusLines(healthy, { colours: false, columns: 120 }).join("\n");
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

Deno.test("statusLines: held history is said, with what the log has left", () => {
  const history = { ...healthy.history, held: true, fullInSeconds: 7200 };
  const screen = statusLines({ ...healthy, history }, { colours: false, columns: 80 }).join("\n");
  assertStringIncludes(
    screen,
    "held from sequence 3 on; 1000 MiB of log left, full in about 2 h",
  );
  assert(!statusLines(healthy, { colours: false, columns: 80 }).join("\n").includes("held from"));
});
