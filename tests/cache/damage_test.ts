/**
 * Damage at the very end of the log, and crashes after it: found by the simulator, each bug reduced to a short story.
 *
 * @module
 */

import type { Cache } from "../../src/cache/cache.ts";
import { superblockOffsets, superblockPreviousOffset } from "../../src/log/layout.ts";
import { DamageError, DeviceError } from "../../src/errors.ts";
import { mib } from "../../src/units.ts";
import { assert, assertEquals, assertRejects } from "../assert.ts";
import { Machine } from "../sim/machine.ts";

const block = (value: number) => new Uint8Array(4096).fill(value);
const tunables = { writeback: "off" } as const;
/** Slot of the header of the second record, after a header and a block. */
const secondSlot = 2;

/** A machine whose log holds two records of one block each, closed in order or not. */
async function withTwoRecords(end: "closed" | "crashed"): Promise<Machine> {
  const machine = new Machine({ backingBytes: 8 * 4096 });
  await machine.format();
  const cache = await machine.open({ tunables });
  for (const index of [0, 1]) {
    await machine.run(cache.write(index * 4096, block(index + 1)));
    await machine.run(cache.flush());
  }
  // The idle mark covers both.
  await machine.pass(50);
  if (end === "closed") await machine.run(cache.close());
  machine.powerCut("all");
  return machine;
}

/** The header of the second record rots; `copies` as in {@linkcode rotHeader}. */
function rotSecond(machine: Machine, copies: boolean): void {
  rotHeader(machine, secondSlot, copies);
}

/** The header at `slot` rots; with `copies` also what the superblocks repeat of it. */
function rotHeader(machine: Machine, slot: number, copies: boolean): void {
  machine.flip(mib + slot * 4096 + 100);
  if (copies) {
    for (const offset of superblockOffsets) {
      machine.flip(offset + superblockPreviousOffset + 100);
    }
  }
}

async function contentOf(machine: Machine, cache: Cache, index: number): Promise<number> {
  const bytes = new Uint8Array(4096);
  await machine.run(cache.read(index * 4096, bytes));
  return bytes[0]!;
}

Deno.test("Segments.place: the record that says what was lost is not skipped where the lost one stood", async () => {
  const machine = new Machine({ backingBytes: 8 * 4096 });
  await machine.format();
  const cache = await machine.open({ tunables });
  // The third record begins a segment.
  for (const index of [0, 1, 2]) {
    await machine.run(cache.write(index * 4096, block(index + 1)));
    await machine.run(cache.flush());
  }
  await machine.pass(50);
  machine.powerCut("all");
  machine.flip(mib + 4 * 4096 + 100);
  for (const offset of superblockOffsets) machine.flip(offset + superblockPreviousOffset + 100);
  const accepted = await machine.open({ tunables, acceptDamage: true });
  await machine.run(accepted.write(0, block(9)));
  await machine.run(accepted.flush());
  machine.powerCut("all");
  const drained = await machine.open();
  await assertRejects(() => machine.run(drained.drain()), DamageError);
  machine.powerCut("all");
  const last = await machine.open();
  await assertRejects(() => contentOf(machine, last, 2), DeviceError, "lost");
});

Deno.test("openCache: a crash before losses are written down does not make them forgotten", async () => {
  const machine = await withTwoRecords("crashed");
  rotSecond(machine, true);
  machine.fault = (_, { kind, offset }) =>
    kind === "write" && offset >= mib ? { error: new DeviceError("EIO", "too early") } : undefined;
  await assertRejects(() => machine.open({ tunables, acceptDamage: true }), DeviceError);
  machine.powerCut("all");
  machine.fault = () => undefined;
  const cache = await machine.open({ tunables, acceptDamage: true });
  assert(cache.recovery.damaged);
  await assertRejects(() => contentOf(machine, cache, 1), DeviceError, "lost");
});

Deno.test("openCache: what is written into the segment of a lost record keeps the tail from passing it", async () => {
  const machine = new Machine({ backingBytes: 8 * 4096 });
  await machine.format();
  let cache = await machine.open({ tunables });
  for (const index of [0, 1, 2]) {
    await machine.run(cache.write(index * 4096, block(index + 1)));
    await machine.run(cache.flush());
  }
  await machine.pass(50);
  machine.powerCut("all");
  // The third record, the first of its segment, is lost: the head begins that segment anew.
  rotHeader(machine, 4, true);
  cache = await machine.open({ tunables, acceptDamage: true });
  machine.fault = (disk, { kind }) =>
    disk.name === "backing" && kind === "write" ? { error: new DeviceError("EIO", "simulated") } : undefined;
  await machine.run(cache.write(5 * 4096, block(6)));
  for (let i = 0; i < 40; i++) {
    await machine.run(cache.write(6 * 4096, block(100 + i)));
    await machine.run(cache.flush());
  }
  assertEquals(await contentOf(machine, cache, 5), 6);
  machine.powerCut("none");
  machine.fault = () => undefined;
  cache = await machine.open({ tunables, acceptDamage: true });
  assertEquals(await contentOf(machine, cache, 5), 6);
});

for (const end of ["closed", "crashed"] as const) {
  Deno.test(`openCache: what is flushed behind a lost record survives, ${end} before`, async () => {
    const machine = await withTwoRecords(end);
    rotSecond(machine, true);
    const cache = await machine.open({ tunables, acceptDamage: true });
    await machine.run(cache.write(2 * 4096, block(3)));
    await machine.run(cache.flush());
    machine.powerCut("none");
    const again = await machine.open({ tunables, acceptDamage: true });
    assertEquals(await contentOf(machine, again, 2), 3);
    await assertRejects(() => contentOf(machine, again, 1), DeviceError, "lost");
  });

  Deno.test(`openCache: the record behind a lost one does not look torn, ${end} before`, async () => {
    const machine = await withTwoRecords(end);
    rotSecond(machine, true);
    await machine.open({ tunables, acceptDamage: true });
    machine.powerCut("none");
    const { recovery } = await machine.open({ tunables, acceptDamage: true });
    assertEquals({ kept: recovery.kept, dropped: recovery.dropped }, { kept: 1, dropped: 0 });
  });

  Deno.test(`openCache: a record rebuilt from a superblock is rebuilt again, ${end} before`, async () => {
    const machine = await withTwoRecords(end);
    rotSecond(machine, false);
    for (let times = 0; times < 3; times++) {
      const cache = await machine.open({ tunables });
      assertEquals(cache.recovery.gaps.map(({ lost }) => lost), [false]);
      assertEquals(await contentOf(machine, cache, 1), 2);
      machine.powerCut("none");
    }
  });
}
