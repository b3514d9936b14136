/** What a cache tells of ranges: marks for the contexts of its own, and zeroes that nobody needs to send. */

import { type Cache, formatCache, MemoryDevice, openCache } from "../../mod.ts";
import { SeededRandom } from "../../src/random.ts";
import { assert, assertEquals, assertRejects } from "../assert.ts";

const kib = 1024;
const mib = 1024 * kib;

async function withCache(body: (cache: Cache) => Promise<void>, backingBytes = 64 * mib): Promise<void> {
  const [cache, backing] = [new MemoryDevice(16 * mib), new MemoryDevice(backingBytes)];
  await formatCache({ cache, backing });
  const opened = await openCache({ cache, backing, tunables: { writeback: "off" } });
  try {
    await body(opened);
  } finally {
    await opened.close();
  }
}

/** The runs of a range, asked for as often as needed: [offset, length] of what is marked. */
async function marked(cache: Cache, kind: "dirty" | "cached", limit = 1000): Promise<number[][]> {
  const runs: number[][] = [];
  for (let at = 0; at < cache.sizeBytes;) {
    const found = await cache.marks(kind, at, cache.sizeBytes - at, limit);
    assert(found.length > 0 && found.length <= limit);
    for (const { length, marked } of found) {
      assert(length > 0);
      const last = runs.at(-1);
      if (marked && last && last[0]! + last[1]! === at) last[1]! += length;
      else if (marked) runs.push([at, length]);
      at += length;
    }
  }
  return runs;
}

Deno.test("Cache.marks: dirty is what the backing lacks, zeroes too; cached is what reads find in the log", async () => {
  await withCache(async (cache) => {
    assertEquals([await marked(cache, "dirty"), await marked(cache, "cached")], [[], []]);
    await cache.write(8 * kib, new Uint8Array(8 * kib).fill(1));
    await cache.trim(16 * kib, 16 * kib);
    await cache.write(63 * mib + 100, new Uint8Array(1));
    assertEquals(await marked(cache, "dirty"), [[8 * kib, 24 * kib], [63 * mib, 4 * kib]]);
    assertEquals(await marked(cache, "cached"), [[8 * kib, 8 * kib], [63 * mib, 4 * kib]]);
    assertEquals(await marked(cache, "dirty", 1), [[8 * kib, 24 * kib], [63 * mib, 4 * kib]]);
    await cache.drain();
    assertEquals(await marked(cache, "dirty"), []);
  });
});

Deno.test("Cache.marks: matches a model over random writes and trims, whatever the range and the limit", async () => {
  await withCache(async (cache) => {
    const random = new SeededRandom(11);
    const blocks = 8 * mib / (4 * kib);
    const model = { dirty: new Uint8Array(blocks), cached: new Uint8Array(blocks) };
    for (let round = 0; round < 200; round++) {
      const first = random.below(blocks - 16);
      const count = 1 + random.below(16);
      const write = random.chance(0.6);
      if (write) await cache.write(first * 4 * kib, new Uint8Array(count * 4 * kib).fill(round));
      else await cache.trim(first * 4 * kib, count * 4 * kib);
      model.dirty.fill(1, first, first + count);
      model.cached.fill(write ? 1 : 0, first, first + count);
    }
    for (const kind of ["dirty", "cached"] as const) {
      for (let round = 0; round < 50; round++) {
        const offset = random.below(8 * mib - 1);
        const length = 1 + random.below(8 * mib - offset);
        let at = offset;
        for (const run of await cache.marks(kind, offset, length, 1 + random.below(30))) {
          for (const byte of [at, at + run.length - 1]) {
            assertEquals(model[kind][Math.floor(byte / 4096)] === 1, run.marked, `${kind} at ${byte}`);
          }
          const [from, to] = [Math.floor(at / 4096), Math.ceil((at + run.length) / 4096)];
          assert(model[kind].subarray(from, to).every((value) => (value === 1) === run.marked));
          at += run.length;
        }
        assert(at <= offset + length);
      }
    }
  });
});

Deno.test("Cache.marks: one call on a huge volume looks at a bounded part of it", async () => {
  await withCache(async (cache) => {
    const [first] = await cache.marks("cached", 0, cache.sizeBytes, 100);
    assertEquals(first, { length: 256 * mib, marked: false });
    assertEquals(await cache.marks("dirty", 0, cache.sizeBytes, 100), [{
      length: cache.sizeBytes,
      marked: false,
    }]);
  }, 1024 * 1024 * mib);
});

Deno.test("Cache.marks: refuses ranges outside of the volume", async () => {
  await withCache(async (cache) => {
    await assertRejects(async () => await cache.marks("dirty", 64 * mib, 1, 1));
  });
});

Deno.test("Cache.zeroesNow: true for what was trimmed or zeroed, all of it, and nothing else", async () => {
  await withCache(async (cache) => {
    assertEquals(cache.zeroesNow(0, 4096), false, "only the backing knows");
    await cache.write(0, new Uint8Array(mib).fill(1));
    await cache.trim(64 * kib, 64 * kib);
    await cache.zero(128 * kib, 64 * kib);
    assertEquals(cache.zeroesNow(64 * kib, 128 * kib), true);
    assertEquals(cache.zeroesNow(64 * kib + 1, 100), true);
    assertEquals(cache.zeroesNow(64 * kib - 1, 100), false);
    assertEquals(cache.zeroesNow(128 * kib, 64 * kib + 1), false);
    assertEquals(cache.zeroesNow(64 * kib, 0), false);
    assertEquals(cache.zeroesNow(64 * mib, 4096), false, "past the end");
    await cache.write(100 * kib, new Uint8Array(1).fill(1));
    assertEquals(cache.zeroesNow(64 * kib, 64 * kib), false);
    const bytes = new Uint8Array(64 * kib).fill(9);
    await cache.read(128 * kib, bytes);
    assertEquals(bytes, new Uint8Array(64 * kib));
  });
});
