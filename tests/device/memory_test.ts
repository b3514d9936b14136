import { MemoryDevice } from "../../src/device/memory.ts";
import { UsageError } from "../../src/errors.ts";
import { mib, tib } from "../../src/units.ts";
import { assert, assertEquals, assertThrows } from "../assert.ts";
import { contractBytes, testContract } from "./contract.ts";

testContract("MemoryDevice", (body) => body(new MemoryDevice(contractBytes)));

Deno.test("MemoryDevice: takes memory only for what was written, and gives it back when zeroed", async () => {
  const device = new MemoryDevice(2 * tib, "large");
  await device.write(tib, new Uint8Array(4 * mib).fill(1));
  await device.write(2 * tib - 512, new Uint8Array(512).fill(2));
  assert(device.allocatedBytes <= 5 * mib);
  await device.zero(0, 2 * tib - 512, { keepAllocated: false });
  assert(device.allocatedBytes <= mib);
  const sector = new Uint8Array(512);
  await device.read(tib, sector);
  assertEquals(sector[0], 0);
  await device.read(2 * tib - 512, sector);
  assertEquals(sector[0], 2);
  await device.close();
});

Deno.test("MemoryDevice: is known by its name, which is unique when left out", async () => {
  assertEquals(await new MemoryDevice(512, "mine").identity(), { kind: "memory", id: "mine", modifiedMs: 0 });
  const names = [new MemoryDevice(512).name, new MemoryDevice(512).name];
  assert(names[0] !== names[1]);
});

Deno.test("MemoryDevice: refuses sizes that no device has", () => {
  for (const size of [0, -512, 1000, NaN, 1.5, 2 ** 60]) {
    assertThrows(() => new MemoryDevice(size), UsageError, "expected a multiple of 512 above 0");
  }
});
