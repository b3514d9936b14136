// Why: the README states what things cost; these are the figures.
import { assert, assertEquals } from "../assert.ts";
import { formatCache, MemoryDevice, openCache } from "../../mod.ts";
import { gib, tib } from "../../src/units.ts";
import { planMemory } from "../../src/wasm/memory_map.ts";

Deno.test("Cache.flush: a lone 4 KiB write and its flush cost 8 KiB of log, an empty flush nothing", async () => {
  const [fast, slow] = [new MemoryDevice(16 * 1024 * 1024), new MemoryDevice(64 * 1024 * 1024)];
  await formatCache({ cache: fast, backing: slow });
  const cache = await openCache({ cache: fast, backing: slow, tunables: { writeback: "off" } });
  await cache.write(8192, new Uint8Array(4096).fill(1));
  await cache.flush();
  assertEquals(cache.status().bytes.log, 8192);
  const { syncs } = cache.status().log;
  await cache.flush();
  assertEquals(cache.status().bytes.log, 8192);
  assertEquals(cache.status().log.syncs, syncs);
  await cache.close();
});

Deno.test("Cache.trim: a range of any length costs one entry and no data block", async () => {
  const [fast, slow] = [new MemoryDevice(16 * 1024 * 1024), new MemoryDevice(2 * tib)];
  await formatCache({ cache: fast, backing: slow });
  const cache = await openCache({ cache: fast, backing: slow, tunables: { writeback: "off" } });
  await cache.trim(0, 2 * tib, { fua: true });
  assertEquals(cache.status().bytes.log, 4096);
  const bytes = new Uint8Array(4096).fill(1);
  await cache.read(tib, bytes);
  assert(bytes.every((byte) => byte === 0));
  await cache.close();
});

Deno.test("planMemory: the index takes at most 14 bytes a cached block, checksum included", () => {
  const plan = (slotCount: number) =>
    planMemory({
      slotCount,
      backingBlocks: tib / 4096,
      segmentBlocks: 128,
      bufferCount: 16,
      stagingBlocks: 1024,
    });
  const slots = 16 * gib / 4096;
  const perBlock = (plan(2 * slots).totalBytes - plan(slots).totalBytes) / slots;
  assert(perBlock <= 14, `${perBlock} bytes a block`);
});

Deno.test("planMemory: each dirty bitmap takes 32 MiB per TiB of backing, and 1/64 of that for its summary", () => {
  const { dirty } = planMemory({
    slotCount: 4096,
    backingBlocks: tib / 4096,
    segmentBlocks: 128,
    bufferCount: 4,
    stagingBlocks: 16,
  });
  assertEquals(dirty.summary - dirty.bits, 32 * 1024 * 1024);
});
