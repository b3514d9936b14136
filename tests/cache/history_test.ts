/**
 * History that is held, and what ends it: a full log, a release, write-back without a hold. On simulated devices, so that
 * waits cost nothing; the random worlds are in tests/sim/history_world.ts.
 *
 * @module
 */

import type { Cache } from "../../src/cache/cache.ts";
import { listHistory } from "../../src/cache/flush_points.ts";
import { openCache } from "../../src/cache/open.ts";
import { recoverCache } from "../../src/cache/recover.ts";
import { planRewind, rewindCache } from "../../src/cache/rewind.ts";
import { DeviceError, RefusedError, UsageError } from "../../src/errors.ts";
import { blockBytes } from "../../src/units.ts";
import { assert, assertEquals, assertRejects, assertStringIncludes } from "../assert.ts";
import { Machine } from "../sim/machine.ts";

const backingBlocks = 64;

const block = (value: number) => new Uint8Array(blockBytes).fill(value);

async function made(): Promise<Machine> {
  const machine = new Machine({ backingBytes: backingBlocks * blockBytes, segmentCount: 16 });
  await machine.format();
  return machine;
}

/** Writes `value` to the first `count` blocks, and flushes; returns the flush point. */
async function write(machine: Machine, cache: Cache, count: number, value: number): Promise<number> {
  for (let i = 0; i < count; i++) await machine.run(cache.write(i * blockBytes, block(value)));
  await machine.run(cache.flush());
  return cache.status().cache.durableSequence;
}

async function failure(machine: Machine, promise: Promise<unknown>): Promise<Error> {
  const error: unknown = await machine.run(promise.then(() => undefined, (error) => error));
  assert(error instanceof Error, "it was expected to fail");
  return error;
}

Deno.test("history.hold: nothing reaches the backing, whatever the settings, a restart and a crash", async () => {
  const machine = await made();
  let cache = await machine.open({ tunables: { writeback: "on" } });
  await machine.run(cache.history.hold());
  const point = await write(machine, cache, 4, 1);
  await machine.pass(60_000);
  await machine.run(cache.close());
  cache = await machine.open({ tunables: { writeback: "on" } });
  assertEquals(cache.status().history.held, true);
  await write(machine, cache, 4, 2);
  await machine.pass(60_000);
  machine.powerCut("none");
  cache = await machine.open({ tunables: { writeback: "on" } });
  await machine.pass(60_000);
  assertEquals(machine.backing(0, backingBlocks * blockBytes).some((byte) => byte !== 0), false);
  const view = await machine.run(cache.history.view(point));
  const bytes = new Uint8Array(blockBytes);
  await machine.run(view.read(0, bytes));
  assertEquals(bytes, block(1));
  view.close();
  await machine.run(cache.history.release());
  await machine.run(cache.drain());
  assertEquals(machine.backing(0, blockBytes), block(2));
  assertEquals(cache.status().history.held, false);
  await machine.run(cache.close());
});

Deno.test("history.hold: a full log lets go of it, loudly, and clients go on", async () => {
  const machine = await made();
  const cache = await machine.open();
  await machine.run(cache.history.hold());
  const point = await write(machine, cache, 2, 1);
  const view = await machine.run(cache.history.view(point));
  const { fullInSeconds, freeBytes } = cache.status().history;
  assert(fullInSeconds !== null && freeBytes > 0);
  for (let round = 2; cache.status().history.held; round++) {
    assert(round < 100, "the log never gets full");
    await write(machine, cache, 4, round);
  }
  assertEquals(
    machine.warnings.filter((each) => /is full, so its history is held no longer/.test(each)).length,
    1,
  );
  await machine.pass(5000);
  // What the view would have shown is gone: it says so and shows nothing else.
  const error = await failure(machine, view.read(0, new Uint8Array(blockBytes)));
  assert(error instanceof DeviceError && error.code === "EIO");
  assertStringIncludes(error.message, `The view of flush point ${point} of cache has ended`);
  assertEquals(machine.warnings.filter((each) => /^The view of flush point/.test(each)).length, 1);
  assert((await failure(machine, cache.history.view(point))) instanceof RefusedError);
  await machine.run(cache.close());
});

Deno.test("history.hold: with history_full=wait a full log fails writes with EIO, and keeps the past", async () => {
  const machine = await made();
  const cache = await machine.open({ tunables: { historyFull: "wait", fullTimeout: 3 } });
  await machine.run(cache.history.hold());
  const point = await write(machine, cache, 2, 1);
  let error: Error | undefined;
  for (let round = 0; error === undefined; round++) {
    assert(round < 1000, "the log never gets full");
    error = await machine.run(
      cache.write(0, block(2)).then(() => cache.flush()).then(() => undefined, (e) => e),
    );
  }
  assert(error instanceof DeviceError && error.code === "EIO");
  assertStringIncludes(error.message, "nbdboost hold --release");
  const view = await machine.run(cache.history.view(point));
  const bytes = new Uint8Array(blockBytes);
  await machine.run(view.read(0, bytes));
  assertEquals(bytes, block(1));
  view.close();
  await machine.run(cache.history.release());
  await machine.run(cache.write(0, block(3)));
  await machine.run(cache.close());
});

Deno.test("history.view: four flush points at once, each by anybody; drain is refused while history is held", async () => {
  const machine = await made();
  const cache = await machine.open({ tunables: { writeback: "off" } });
  await machine.run(cache.history.hold());
  const points: number[] = [];
  for (let value = 1; value <= 5; value++) points.push(await write(machine, cache, 1, value));
  const views = [];
  for (const point of points.slice(0, 4)) views.push(await machine.run(cache.history.view(point)));
  const again = await machine.run(cache.history.view(points[0]!));
  const fifth = await failure(machine, cache.history.view(points[4]!));
  assertStringIncludes(fifth.message, "4 flush points are being looked at");
  views[0]!.close();
  // Somebody else still looks at that one.
  assert((await failure(machine, cache.history.view(points[4]!))) instanceof RefusedError);
  again.close();
  again.close();
  (await machine.run(cache.history.view(points[4]!))).close();
  for (const [i, view] of views.entries()) {
    if (i === 0) continue;
    const bytes = new Uint8Array(blockBytes);
    await machine.run(view.read(0, bytes));
    assertEquals(bytes, block(i + 1));
    assert((await failure(machine, view.write(0, bytes))) instanceof DeviceError);
    view.close();
  }
  assertEquals(cache.status().history.views, 0);
  assertStringIncludes((await failure(machine, cache.drain())).message, "hold --release");
  await machine.run(cache.close());
});

Deno.test("history: after a crash without a hold no flush point can be had, and nothing is rewound", async () => {
  const machine = await made();
  const cache = await machine.open({ tunables: { writeback: "off" } });
  const point = await write(machine, cache, 2, 1);
  await write(machine, cache, 2, 2);
  machine.powerCut("all");
  const { points } = await machine.run(listHistory({ cache: machine.cacheDisk() }));
  assertEquals(points.map(({ servable }) => servable), [false, false]);
  const at = machine.begin((both) => openCache({ ...both, readOnly: true, at: point }));
  assertStringIncludes((await failure(machine, at)).message, "may have reached the backing");
  const rewind = machine.begin((both) => rewindCache({ ...both, to: point }));
  assert((await failure(machine, rewind)) instanceof RefusedError);
});

Deno.test("planRewind: tells what would be undone; a sequence that is no flush point has neighbours named", async () => {
  const machine = await made();
  const cache = await machine.open({ tunables: { writeback: "off" } });
  const first = await write(machine, cache, 2, 1);
  const second = await write(machine, cache, 6, 2);
  const third = await write(machine, cache, 1, 3);
  await machine.run(cache.close());
  const plan = await machine.run(planRewind({ cache: machine.cacheDisk(), to: first }));
  assertEquals([plan.undoneFlushPoints, plan.undoneBlocks], [2, 7]);
  assert(second > first + 1, "six blocks do not fit into one segment of four");
  const between = await failure(machine, planRewind({ cache: machine.cacheDisk(), to: first + 1 }));
  assertStringIncludes(between.message, `the nearest are ${first} and ${second}`);
  assert(
    (await failure(machine, planRewind({ cache: machine.cacheDisk(), to: third + 1 }))) instanceof
      RefusedError,
  );
});

Deno.test("recoverCache: carries everything to the backing though history was held, and lets go of it", async () => {
  const machine = await made();
  const cache = await machine.open();
  await machine.run(cache.history.hold());
  await write(machine, cache, 3, 1);
  await machine.run(cache.close());
  // It checks first, without a clock, and closes nothing of what it was given before that.
  const report = await machine.run(machine.begin(({ cache, backing }) => recoverCache({ cache, backing })));
  assertEquals([report.wrote, report.dirtyBlocks], ["backing", 3]);
  assertEquals(machine.backing(0, blockBytes), block(1));
  assertEquals((await machine.run(listHistory({ cache: machine.cacheDisk() }))).held, false);
});

Deno.test("openCache: the past is not opened for writing", async () => {
  const machine = await made();
  await assertRejects(() => machine.open({ at: 1 }), UsageError, "readOnly");
});
