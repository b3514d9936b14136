/**
 * `writeback_order=prefix`: what reaches the backing, and when, in worlds so small that each step can be named. The random
 * ones are in tests/sim/prefix_world.ts.
 *
 * @module
 */

import type { Cache } from "../../src/cache/cache.ts";
import { parseTunable } from "../../src/cache/tunables.ts";
import { DeviceError, UsageError } from "../../src/errors.ts";
import { blockBytes, gib, kib } from "../../src/units.ts";
import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "../assert.ts";
import { Machine, type MachineOpenOptions } from "../sim/machine.ts";

const backingBlocks = 64;
const block = (value: number) => new Uint8Array(blockBytes).fill(value);

async function made(options: MachineOpenOptions = {}, segmentCount = 32): Promise<[Machine, Cache]> {
  const machine = new Machine({ backingBytes: backingBlocks * blockBytes, segmentCount });
  await machine.format();
  return [machine, await open(machine, options)];
}

async function open(machine: Machine, { tunables, ...options }: MachineOpenOptions = {}): Promise<Cache> {
  return await machine.open({
    ...options,
    tunables: { writebackOrder: "prefix", writeback: "on", writebackStep: 64 * kib, ...tunables },
  });
}

async function write(machine: Machine, cache: Cache, count: number, value: number): Promise<void> {
  for (let i = 0; i < count; i++) await machine.run(cache.write(i * blockBytes, block(value)));
}

const pointOf = (cache: Cache) => cache.status().writeback.point!;

/** The first byte of each of so many blocks of the backing, as a power cut would leave them. */
function backing(machine: Machine, count: number): number[] {
  const bytes = new Uint8Array(count * blockBytes);
  machine.backingMedium.peekDurable(0, bytes);
  return Array.from({ length: count }, (_, i) => bytes[i * blockBytes]!);
}

/** Lets things happen until `done`. */
async function until(machine: Machine, done: () => boolean): Promise<void> {
  for (let i = 0; i < 20_000 && !done(); i++) await machine.steps(1);
  assert(done(), "it never came to that");
}

/** Opens it with a backing that takes `ms` for a write, and waits for a step from an empty volume to ones. */
async function inAStep(ms = 50): Promise<[Machine, Cache]> {
  const [machine, cache] = await made();
  machine.fault = (device, { kind }) =>
    device.name === "backing" && kind !== "read" ? { slowMs: ms } : undefined;
  await until(machine, () => pointOf(cache).sequence !== null);
  for (let i = 0; i < 4; i++) await machine.run(cache.write(2 * i * blockBytes, block(1)));
  await machine.run(cache.flush());
  await until(machine, () => pointOf(cache).toSequence !== null);
  return [machine, cache];
}

Deno.test("prefix: a step writes the versions of its point, whatever is written meanwhile, and then comes the next", async () => {
  const [machine, cache] = await inAStep();
  const to = pointOf(cache).toSequence;
  for (let i = 0; i < 8; i++) await machine.run(cache.write(i * blockBytes, block(2)));
  await machine.run(cache.trim(0, blockBytes));
  await machine.run(cache.flush());
  await until(machine, () => pointOf(cache).sequence === to);
  assertEquals(backing(machine, 8), [1, 0, 1, 0, 1, 0, 1, 0]);
  await until(machine, () => pointOf(cache).behindSeconds === 0 && pointOf(cache).toSequence === null);
  assertEquals(backing(machine, 8), [0, 2, 2, 2, 2, 2, 2, 2]);
  await machine.run(cache.close());
});

Deno.test("prefix: the cache that is thrown away in a step leaves each sector at one of the two points", async () => {
  const [machine, cache] = await inAStep();
  for (let i = 0; i < 8; i++) await machine.run(cache.write(i * blockBytes, block(2)));
  await machine.run(cache.flush());
  const shown = () => Array.from({ length: 8 }, (_, i) => machine.backing(i * blockBytes, 1)[0]!);
  await until(machine, () => shown().includes(1));
  machine.kill();
  assert(shown().every((value, i) => value === 0 || (value === 1 && i % 2 === 0)));
});

Deno.test("prefix: a close in mid-step ends it first, so that what is at rest is at a point", async () => {
  const [machine, cache] = await inAStep();
  await machine.run(cache.write(0, block(2)));
  await machine.run(cache.close());
  assertEquals(pointOf(cache).toSequence, null);
  assertEquals(backing(machine, 8), [1, 0, 1, 0, 1, 0, 1, 0]);
  const again = await open(machine);
  await machine.run(again.drain());
  assertEquals(backing(machine, 2), [2, 0]);
  await machine.run(again.close());
});

Deno.test("prefix: a drain ends at the newest point, and says so", async () => {
  const [machine, cache] = await made({ tunables: { writeback: "off" } });
  await write(machine, cache, 16, 1);
  await machine.run(cache.flush());
  await write(machine, cache, 4, 2);
  await machine.run(cache.drain());
  assertEquals(backing(machine, 6), [2, 2, 2, 2, 1, 1]);
  const { sequence, toSequence, behindSeconds, lackingBlocks } = pointOf(cache);
  assertEquals({ toSequence, behindSeconds, lackingBlocks }, {
    toSequence: null,
    behindSeconds: 0,
    lackingBlocks: 0,
  });
  assertEquals(sequence, cache.status().cache.durableSequence);
  await machine.run(cache.close());
});

Deno.test("prefix: a log that is written over many times lets writers go on, step by step", async () => {
  const [machine, cache] = await made({}, 16);
  for (let round = 1; round <= 40; round++) {
    await write(machine, cache, 12, round);
    await machine.run(cache.trim((12 + round % 8) * blockBytes, blockBytes));
    if (round % 3 === 0) await machine.run(cache.flush());
  }
  await machine.run(cache.drain());
  assertEquals(backing(machine, 13), [...new Array(12).fill(40), 0]);
  await machine.run(cache.close());
});

Deno.test("prefix: a failed sync of the backing lets the step be written again before its point is claimed", async () => {
  const [machine, cache] = await made();
  let failures = 0;
  machine.fault = (device, { kind }) =>
    device.name === "backing" && kind === "sync" && failures < 2 && ++failures > 0
      ? { error: new DeviceError("EIO", "planned"), drop: true }
      : undefined;
  await write(machine, cache, 4, 1);
  await machine.run(cache.flush());
  await until(machine, () => failures === 2);
  assert(pointOf(cache).sequence === null || pointOf(cache).toSequence !== null);
  await until(machine, () => pointOf(cache).behindSeconds === 0 && pointOf(cache).toSequence === null);
  const durable = new Uint8Array(4 * blockBytes);
  machine.backingMedium.peekDurable(0, durable);
  assert(durable.every((byte) => byte === 1));
  await machine.run(cache.close());
});

Deno.test("prefix: a version that rotted before its step came is said to lack, until a newer one is written back", async () => {
  const [machine, cache] = await made({ bufferCount: 2, tunables: { writeback: "off" } });
  await write(machine, cache, 1, 1);
  for (let i = 1; i < 16; i++) await machine.run(cache.write(i * blockBytes, block(1)));
  await machine.run(cache.flush());
  // In a record of its own, behind so many that the first is in no buffer any more.
  for (let round = 2; round < 4; round++) {
    await write(machine, cache, 16, round);
    await machine.run(cache.flush());
  }
  for (let slot = 0; slot < 40; slot++) {
    if (machine.slot(slot).every((byte) => byte === 1)) machine.flip((1 << 20) + slot * blockBytes);
  }
  const lacking: number[] = [];
  cache.tune({ writeback: "on" });
  await until(machine, () => {
    lacking.push(pointOf(cache).lackingBlocks);
    return pointOf(cache).behindSeconds === 0 && pointOf(cache).toSequence === null;
  });
  assert(Math.max(...lacking) > 0, "nothing was missed");
  assertEquals(pointOf(cache).lackingBlocks, 0);
  assertEquals(backing(machine, 16), new Array(16).fill(3));
  await machine.run(cache.close());
});

Deno.test("prefix: the order changes while the cache is in use", async () => {
  const [machine, cache] = await made({ tunables: { writebackOrder: "elevator" } });
  assertEquals(cache.status().writeback.point, null);
  await write(machine, cache, 8, 1);
  cache.tune({ writebackOrder: "prefix" });
  await machine.run(cache.flush());
  await until(machine, () => cache.status().writeback.point?.behindSeconds === 0);
  assertEquals(backing(machine, 8), new Array(8).fill(1));
  await write(machine, cache, 8, 2);
  cache.tune({ writebackOrder: "elevator" });
  await machine.run(cache.drain());
  assertEquals(backing(machine, 8), new Array(8).fill(2));
  assertEquals(cache.status().writeback.point, null);
  await machine.run(cache.close());
});

Deno.test("prefix: what would go past the log is refused, at opening and later, and changes nothing", async () => {
  const [machine, cache] = await made();
  const error = assertThrows(() => cache.tune({ bypassSequential: 64 * kib }), UsageError);
  assertStringIncludes(error.message, "bypass_sequential");
  assertEquals(cache.tunables.bypassSequential, 0);
  await machine.run(cache.close());
  await assertRejects(() => open(machine, { tunables: { bypassSequential: 64 * kib } }), UsageError);
});

Deno.test("prefix: the tunables are parsed", () => {
  assertEquals(parseTunable("writeback_order=prefix"), { writebackOrder: "prefix" });
  assertEquals(parseTunable("writeback_step=1M"), { writebackStep: 1024 * kib });
  assertThrows(() => parseTunable("writeback_order=newest"), UsageError);
  assertThrows(() => parseTunable("writeback_step=4K"), UsageError);
});

// What had arrived of a run was zeroed again with the rest, when nothing kept clean copies out of it any more: a copy then
// counted as live without having been counted, and the tail stood still for ever.
Deno.test("prefix: of a long range that fails half-way, what has arrived is not zeroed again", async () => {
  const backingBytes = 2 * gib;
  const machine = new Machine({ backingBytes, segmentCount: 32 });
  await machine.format();
  const cache = await open(machine, { tunables: { writeback: "off" } });
  const zeroed: number[] = [];
  let refuses = true;
  machine.fault = (device, { kind, offset }) => {
    if (device.name !== "backing" || kind !== "zero") return undefined;
    zeroed.push(offset);
    return refuses && offset > 0 ? { error: new DeviceError("EIO", "a range that fails") } : undefined;
  };
  await machine.run(cache.trim(0, backingBytes));
  await assertRejects(() => machine.run(cache.drain()), DeviceError, "a range that fails");
  refuses = false;
  await machine.run(cache.drain());
  assertEquals(zeroed.filter((offset) => offset === 0).length, 1);
  await machine.run(cache.close());
});

// Each step costs some hundred bytes of RAM and a look at every change of pace, however little is in it: a million of them, which
// a large log has room for, would stop the engine.
Deno.test("prefix: a large log takes longer steps than the smallest that may be asked for", async () => {
  const machine = new Machine({ backingBytes: 64 * blockBytes, segmentBlocks: 128, segmentCount: 2048 });
  await machine.format();
  const cache = await open(machine, { tunables: { writeback: "off" } });
  let syncs = 0;
  machine.fault = (device, { kind }) => {
    if (device.name === "backing" && kind === "sync") syncs++;
    return undefined;
  };
  for (let i = 0; i < 16; i++) {
    await write(machine, cache, 16, i + 1);
    await machine.run(cache.flush());
  }
  await machine.run(cache.drain());
  assertEquals(backing(machine, 2), [16, 16]);
  assert(syncs >= 4 && syncs <= 6, `${syncs} syncs of the backing`);
  await machine.run(cache.close());
});
