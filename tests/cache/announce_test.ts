// Why: a hint comes straight from what a client sent, before anybody has looked whether it lies in the volume.
import { formatCache, MemoryDevice, openCache } from "../../mod.ts";
import { blockBytes, mib } from "../../src/units.ts";
import { assertEquals } from "../assert.ts";

Deno.test("Cache.announce: takes any numbers, and changes nothing", async () => {
  const [fast, slow] = [new MemoryDevice(16 * mib), new MemoryDevice(64 * mib)];
  await formatCache({ cache: fast, backing: slow });
  const cache = await openCache({ cache: fast, backing: slow, tunables: { writeback: "off" } });
  const bytes = new Uint8Array(blockBytes);
  for (let block = 0; block < 100; block++) await cache.write(block * blockBytes, bytes.fill(block));
  const size = cache.sizeBytes;
  const odd = [-1, NaN, Infinity, -Infinity, 0.5, size - 1, size, size + 1, 2 ** 32 * blockBytes, 2 ** 64];
  const offsets = new Float64Array(200).map((_, i) => odd[i] ?? i * blockBytes);
  const before = JSON.stringify(cache.status().cache);
  for (const count of [0, 1, odd.length, 64, 65, offsets.length, offsets.length + 1]) {
    cache.announce(offsets, count);
  }
  assertEquals(JSON.stringify(cache.status().cache), before);
  for (let block = 0; block < 100; block++) {
    await cache.read(block * blockBytes, bytes);
    assertEquals(bytes[0], block);
  }
  await cache.close();
  // Nobody is told that it is closed.
  cache.announce(offsets, 64);
});
