/** Zeroes on the backing that a failed sync drops, while somebody reads them there. @module */

import { DeviceError } from "../../src/errors.ts";
import { blockBytes } from "../../src/units.ts";
import { assert, assertEquals } from "../assert.ts";
import { Machine } from "../sim/machine.ts";

Deno.test("zeroes: a read under way when a backing sync drops them does not show what was there before", async () => {
  const m = new Machine({ backingBytes: 64 * blockBytes });
  await m.format();
  const cache = await m.open({ tunables: { writeback: "on" } });
  const length = 8 * blockBytes;
  await m.run(cache.write(0, new Uint8Array(length).fill(7)));
  await m.run(cache.drain());
  let zeroed = false;
  m.fault = (disk, { kind }) => {
    if (disk.name !== "backing") return undefined;
    zeroed ||= kind === "zero";
    return kind === "sync"
      ? { error: new DeviceError("EIO", "a sync that fails"), drop: true, unseen: true, slowMs: 500 }
      : undefined;
  };
  await m.run(cache.zero(0, length));
  await m.run(cache.flush());
  for (let i = 0; i < 1000 && !zeroed; i++) await m.pass(1);
  assert(zeroed, "nothing was zeroed");
  await m.pass(5);
  const syncFault = m.fault;
  m.fault = () => ({ slowMs: 2000 });
  const slow = Array.from({ length: 8 }, () => new Uint8Array(blockBytes));
  const reading = Promise.all(slow.map((into, block) => cache.read(block * blockBytes, into)));
  m.fault = syncFault;
  await m.run(reading);
  assertEquals(slow.map((bytes) => bytes[0]), Array(8).fill(0));
  m.fault = () => undefined;
  await m.run(cache.drain());
  assertEquals(m.backing(0, length), new Uint8Array(length));
  await m.run(cache.close());
});
