// Why: write-back is what makes a slow disk fast. Its order, its merging, what overlaps and what it leaves alone are promises,
// and none of them shows in the data.
import { DeviceError } from "../../src/errors.ts";
import { blockBytes, mib } from "../../src/units.ts";
import type { Call } from "../sim/sim_disk.ts";
import { Machine, type MachineOptions } from "../sim/machine.ts";
import { assert, assertEquals, assertGreater, assertLess } from "../assert.ts";
import type { Cache } from "../../src/cache/cache.ts";

interface Seen extends Call {
  device: string;
  atMs: number;
}

/** A machine that notes every call to its devices. */
async function machineThatNotes(options: MachineOptions): Promise<{ machine: Machine; calls: Seen[] }> {
  const machine = new Machine(options);
  await machine.format();
  const calls: Seen[] = [];
  machine.fault = (disk, call) => {
    calls.push({ ...call, device: disk.name, atMs: machine.clock.monotonicMs() });
    return undefined;
  };
  return { machine, calls };
}

function backingCalls(calls: Seen[], kind: Call["kind"]): Seen[] {
  return calls.filter((call) => call.device === "backing" && call.kind === kind);
}

const block = (value: number) => new Uint8Array(blockBytes).fill(value);

/** Blocks in an order that has nothing to do with their addresses. */
async function writeScattered(machine: Machine, cache: Cache, blocks: number, step: number): Promise<void> {
  for (let i = 0; i < blocks; i++) {
    await machine.run(cache.write((i * 7919 % blocks) * step * blockBytes, block(i)));
  }
  await machine.run(cache.flush());
}

Deno.test("Sweep: goes upward, merges neighbours into writes of up to 1 MiB, reads nothing and syncs once", async () => {
  const { machine, calls } = await machineThatNotes({
    backingBytes: 8 * mib,
    segmentBlocks: 128,
    segmentCount: 24,
  });
  const cache = await machine.open({ tunables: { writeback: "off" } });
  await writeScattered(machine, cache, 1024, 1);
  calls.length = 0;
  await machine.run(cache.drain());
  const writes = backingCalls(calls, "write");
  assertEquals(writes.map(({ offset, length }) => [offset, length]), [0, 1, 2, 3].map((i) => [i * mib, mib]));
  assertEquals(backingCalls(calls, "read").length, 0);
  assertEquals(backingCalls(calls, "sync").length, 1);
  await machine.run(cache.close());
});

Deno.test("Sweep: written sectors of a block go alone, and the backing is not read for the others", async () => {
  const { machine, calls } = await machineThatNotes({
    backingBytes: mib,
    segmentBlocks: 32,
    segmentCount: 8,
  });
  const cache = await machine.open({ tunables: { writeback: "off" } });
  await machine.run(cache.write(5 * blockBytes + 512, block(1).subarray(0, 1024)));
  await machine.run(cache.write(5 * blockBytes + 3584, block(2).subarray(0, 512)));
  calls.length = 0;
  await machine.run(cache.drain());
  assertEquals(
    backingCalls(calls, "write").map(({ offset, length }) => [offset - 5 * blockBytes, length]),
    [[512, 1024], [3584, 512]],
  );
  assertEquals(backingCalls(calls, "read").length, 0);
  await machine.run(cache.close());
});

Deno.test("Sweep: keeps at most 32 requests in flight, and reads the next batch from the log meanwhile", async () => {
  const { machine, calls } = await machineThatNotes({
    backingBytes: 32 * mib,
    segmentBlocks: 128,
    segmentCount: 24,
  });
  // Two segments in RAM, so that the log must be read.
  const cache = await machine.open({ bufferCount: 4, tunables: { writeback: "off" } });
  await writeScattered(machine, cache, 1024, 7);
  calls.length = 0;
  let inFlight = 0;
  let most = 0;
  let logReadsMeanwhile = 0;
  const note = machine.fault;
  machine.fault = (disk, call) => {
    if (disk.name === "backing" && call.kind === "write") {
      most = Math.max(most, ++inFlight);
      machine.clock.after(4.9, () => inFlight--);
    } else if (disk.name === "cache" && call.kind === "read" && inFlight > 0) logReadsMeanwhile++;
    note(disk, call);
    return disk.name === "backing" ? { slowMs: 5 } : undefined;
  };
  await machine.run(cache.drain());
  assertEquals([most, backingCalls(calls, "write").length], [32, 1024]);
  assertGreater(logReadsMeanwhile, 100);
  assertEquals(machine.violations, []);
  // Never idle between batches: 1024 requests of 5.1 ms, 32 at a time.
  const writes = backingCalls(calls, "write");
  assertLess(writes.at(-1)!.atMs - writes[0]!.atMs, 1024 / 32 * 5.1 * 1.1);
  await machine.run(cache.close());
});

Deno.test("Sweep: what is overwritten while it is under way is not called clean", async () => {
  const { machine } = await machineThatNotes({ backingBytes: mib, segmentBlocks: 32, segmentCount: 8 });
  const cache = await machine.open({ tunables: { writeback: "off" } });
  await machine.run(cache.write(0, block(1)));
  await machine.run(cache.flush());
  let overwritten = false;
  machine.fault = (disk, { kind }) => {
    if (disk.name !== "backing" || kind !== "write" || overwritten) return undefined;
    overwritten = true;
    assert(cache.writeNow(0, block(2), 0, blockBytes));
    return { slowMs: 5 };
  };
  await machine.run(cache.drain());
  assert(overwritten);
  assertEquals(machine.backing(0, 1)[0], 2);
  await machine.run(cache.close());
});

Deno.test("Sweep: a write that is under way when a backing sync fails is written again", async () => {
  const { machine } = await machineThatNotes({
    backingBytes: 4 * mib,
    segmentBlocks: 32,
    segmentCount: 16,
  });
  const cache = await machine.open({ tunables: { writeback: "on" } });
  const note = machine.fault;
  let failed = false;
  machine.fault = (disk, call) => {
    note(disk, call);
    if (disk.name !== "backing") return undefined;
    if (call.kind === "sync" && !failed) {
      failed = true;
      return { error: new DeviceError("EIO", "simulated"), drop: true, slowMs: 20 };
    }
    // Block 100 is under way for as long as the sync, and much longer than all others.
    return { slowMs: call.offset === 100 * blockBytes && !failed ? 30 : 1 };
  };
  for (let i = 0; i < 200; i++) await machine.run(cache.write((i * 2) * blockBytes, block(i + 1)));
  await machine.run(cache.flush());
  for (let tries = 0;; tries++) {
    try {
      await machine.run(cache.drain());
      break;
    } catch (error) {
      assert(error instanceof DeviceError && tries < 5, `${error}`);
    }
  }
  assert(failed);
  machine.powerCut("none");
  for (let i = 0; i < 200; i++) assertEquals(machine.backing(i * 2 * blockBytes, 1)[0], (i + 1) & 255);
});

Deno.test("WriteBack: with nothing dirty both devices are left alone, so that a disk may spin down", async () => {
  const { machine, calls } = await machineThatNotes({
    backingBytes: 4 * mib,
    segmentBlocks: 32,
    segmentCount: 16,
  });
  for (const writeback of ["auto", "on", "off"] as const) {
    const cache = await machine.open({ tunables: { writeback } });
    await writeScattered(machine, cache, 200, 1);
    if (writeback === "off") await machine.run(cache.drain());
    else await machine.pass(10_000);
    assertEquals(cache.status().cache.dirtyBlocks, 0, writeback);
    calls.length = 0;
    await machine.pass(3_600_000);
    assertEquals(calls, [], `an idle hour with writeback=${writeback}`);
    await machine.run(cache.close());
  }
});

Deno.test("BackingSync: a backing that lets its sync wait for all writes gets fewer of them between two syncs", async () => {
  const { machine } = await machineThatNotes({
    backingBytes: 64 * mib,
    segmentBlocks: 128,
    segmentCount: 96,
  });
  const cache = await machine.open({ tunables: { writeback: "off" } });
  await writeScattered(machine, cache, 6000, 2);
  let unsynced = 0;
  const synced: number[] = [];
  machine.fault = (disk, { kind }) => {
    if (disk.name !== "backing") return undefined;
    if (kind === "write") unsynced++;
    if (kind !== "sync") return undefined;
    synced.push(unsynced);
    const slowMs = 4 * unsynced;
    unsynced = 0;
    return { slowMs };
  };
  await machine.run(cache.drain());
  // 125 writes take such a device half a second.
  assertGreater(synced.length, 6);
  assertLess(Math.max(...synced.slice(-3)), 500);
  // The first sync is not waited for long either: what is in flight comes on top.
  assertLess(synced[0]!, 128 + 256);
  await machine.run(cache.close());
});

Deno.test("BackingSync: quick syncs of a few writes do not let many go without one", async () => {
  const { machine, calls } = await machineThatNotes({
    backingBytes: 64 * mib,
    segmentBlocks: 128,
    segmentCount: 96,
  });
  const cache = await machine.open({ tunables: { writeback: "off" } });
  for (let i = 0; i < 50; i++) {
    await machine.run(cache.write(i * blockBytes, block(i)));
    await machine.run(cache.drain());
  }
  await writeScattered(machine, cache, 4000, 3);
  calls.length = 0;
  await machine.run(cache.drain());
  const first = calls.findIndex(({ device, kind }) => device === "backing" && kind === "sync");
  assertGreater(first, 0);
  const writes = calls.slice(0, first).filter(({ device, kind }) => device === "backing" && kind === "write");
  assertLess(writes.length, 128 + 256);
  await machine.run(cache.close());
});
