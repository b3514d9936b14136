/** The maps: what they show of a log and a backing device of every size, and what they cost. @module */

import { formatCache, MemoryDevice, openCache } from "../../mod.ts";
import { backingCellsMax, MapMaker, perCellOf, segmentCellsMax } from "../../src/cache/map.ts";
import { Segments } from "../../src/log/segments.ts";
import type { Superblock } from "../../src/log/superblock.ts";
import { blockBytes, kib, mib } from "../../src/units.ts";
import type { Kernels } from "../../src/wasm/kernels.ts";
import { assert, assertEquals } from "../assert.ts";

async function openPair(): Promise<{ fast: MemoryDevice; slow: MemoryDevice }> {
  const pair = { fast: new MemoryDevice(16 * mib), slow: new MemoryDevice(64 * mib) };
  await formatCache({ cache: pair.fast, backing: pair.slow, segmentSize: 128 * kib });
  return pair;
}

Deno.test("Cache.map: dirty and live cells come with writes, and dirty ones go with a drain", async () => {
  const { fast, slow } = await openPair();
  const cache = await openCache({ cache: fast, backing: slow, tunables: { writeback: "off" } });
  const empty = cache.map();
  assertEquals([empty.segments.count, empty.segments.perCell, empty.segments.blocks], [120, 1, 32]);
  assertEquals([empty.backing.blocks, empty.backing.perCell], [16_384, 8]);
  assert(
    empty.segments.dirty.every((share) => share === 0) && empty.backing.dirty.every((share) => share === 0),
  );

  const block = new Uint8Array(blockBytes);
  // Two laps over the same blocks: what is superseded is not live.
  for (let lap = 0; lap < 2; lap++) {
    for (let i = 0; i < 320; i++) await cache.write((8000 + i) * blockBytes, block);
  }
  await cache.trim(0, 8 * 4 * blockBytes);
  await cache.flush();
  const full = cache.map();
  const { segments } = full;
  const used = (segments.head - segments.tail + segments.count) % segments.count + 1;
  // 31 blocks and a header fill a segment.
  assert(used >= 2 * Math.floor(320 / 31), `${used} segments`);
  const sum = (cells: Uint8Array) => cells.reduce((total, share) => total + share, 0);
  const blocksOf = (cells: Uint8Array, perCell: number) => Math.round(sum(cells) / 255 * perCell);
  assertEquals(blocksOf(segments.dirty, 32), 320);
  assertEquals(blocksOf(segments.live, 32), 320);
  assertEquals(segments.dirty[segments.tail], 0);
  assertEquals([...full.backing.dirty].filter((share) => share === 255).length, 4 + 40);
  assertEquals(full.backing.dirty.indexOf(255, 4), 1000);

  await cache.drain();
  const drained = cache.map();
  assertEquals([sum(drained.segments.dirty), sum(drained.backing.dirty)], [0, 0]);
  assert(drained.segments.tail === drained.segments.head);
  await cache.close();
});

Deno.test("Cache.map: a cache that is read-only after a crash shows the log that recovery found", async () => {
  const { fast, slow } = await openPair();
  const cache = await openCache({ cache: fast, backing: slow, tunables: { writeback: "off" } });
  for (let i = 0; i < 200; i++) await cache.write(i * blockBytes, new Uint8Array(blockBytes));
  await cache.flush();
  const { head, tail } = cache.map().segments;
  const image = new MemoryDevice(fast.sizeBytes);
  const bytes = new Uint8Array(fast.sizeBytes);
  await fast.read(0, bytes);
  await image.write(0, bytes);
  await cache.close();
  const found = await openCache({ cache: image, backing: slow, readOnly: true, warn: () => {} });
  assertEquals([found.map().segments.head, found.map().segments.tail], [head, tail]);
  assert(head > tail);
  await found.close();
});

Deno.test("MapMaker: a map of any size has few cells, and one call looks at a bounded part of it", () => {
  const counts = { blocks: 0, probes: 0 };
  const blocks = 2 ** 32 - 1;
  const bitmap = {
    length: blocks,
    countRange(start: number, end: number) {
      assert(start < end && end <= blocks);
      counts.blocks += end - start;
      return end - start;
    },
  };
  const segments = new Segments(3_000_001, 32);
  segments.live.fill(1);
  const kernels = {
    dirty: bitmap,
    zeroDirty: { ...bitmap, countRange: () => 0 },
    reverse: new Proxy([], { get: () => 5 }),
    indexGet(_block: number) {
      counts.probes++;
      return -1;
    },
  } as unknown as Kernels;
  const maker = new MapMaker({ kernels, segments });
  const map = maker.make(7, 5, {} as Superblock);
  assert(map.segments.dirty.length <= segmentCellsMax && map.backing.dirty.length <= backingCellsMax);
  assertEquals(map.segments.perCell, perCellOf(3_000_001, segmentCellsMax));
  assert(
    counts.blocks <= 2 ** 25 && counts.probes <= 8192,
    `${counts.blocks} blocks, ${counts.probes} probes`,
  );
  let calls = 1;
  for (; calls < 400 && maker.make(7, 5, {} as Superblock).backing.dirty.includes(0); calls++);
  // 2^32 blocks at 2^25 a call.
  assert(calls >= 120 && calls < 160, `${calls} calls`);
  const { dirty } = maker.make(7, 5, {} as Superblock).segments;
  assert(dirty.every((share) => share === 8), "one block in 32 is a share of 8 of 255");
});
