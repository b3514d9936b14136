/**
 * The kernels beside their plain twins: `deno bench -A bench/kernels_bench.ts`.
 *
 * An iteration of a checksum takes 1 MB (10^6 bytes, in whole pieces), so "iter/s" divided by 1000 is GB/s. An
 * iteration of an index or bitmap benchmark does 1000 operations, so microseconds read as nanoseconds each.
 *
 * @module
 */

import { SeededRandom } from "../src/random.ts";
import { blockBytes } from "../src/units.ts";
import { Kernels } from "../src/wasm/kernels.ts";
import { crc32cTwin } from "../tests/wasm/twins/crc32c.ts";

const slotCount = 1 << 20;
const backingBlocks = 1 << 28;
const keyCount = 4064;
const plan = { slotCount, backingBlocks, segmentBlocks: 128, bufferCount: 4, stagingBlocks: 8192 };
const kernels = Kernels.create(plan);
const random = new SeededRandom(1);
const area = kernels.map.buffers;
random.fill(kernels.bytes.subarray(area, area + 128 * blockBytes));

let sink = 0;

{
  const group = "crc32c, 1 MB";
  Deno.bench("kernel, 4 KiB blocks", { group, baseline: true }, () => {
    for (let i = 0; i < 244; i++) sink ^= kernels.crc32cBlock(area + (i & 15) * blockBytes);
  });
  Deno.bench("kernel, 512 KiB pieces", { group }, () => {
    sink ^= kernels.crc32c(area, 128 * blockBytes);
    sink ^= kernels.crc32c(area, 1_000_000 - 128 * blockBytes);
  });
  Deno.bench("kernel, 256 B pieces", { group }, () => {
    for (let i = 0; i < 3906; i++) sink ^= kernels.crc32c(area + (i & 255) * 256, 256);
  });
  const blocks = Array.from(
    { length: 16 },
    (_, i) => kernels.bytes.subarray(area + i * blockBytes, area + (i + 1) * blockBytes),
  );
  Deno.bench("plain twin, 4 KiB blocks", { group }, () => {
    for (let i = 0; i < 244; i++) sink ^= crc32cTwin(blocks[i & 15]!);
  });
}

{
  const group = "index, 1000 operations, 1 Mi blocks";
  const map = new Map<number, number>();
  const blocks = new Uint32Array(slotCount);
  for (let slot = 0; slot < slotCount; slot++) {
    do blocks[slot] = random.next(); while (map.has(blocks[slot]!));
    map.set(blocks[slot]!, slot);
    kernels.indexPut(blocks[slot]!, slot);
  }
  const order = Uint32Array.from({ length: slotCount }, () => random.below(slotCount));
  let at = 0;
  const each = (operation: (block: number, slot: number) => void) => () => {
    for (let i = 0; i < 1000; i++) {
      at = (at + 1) % slotCount;
      operation(blocks[order[at]!]!, order[at]!);
    }
  };
  Deno.bench("get", { group, baseline: true }, each((block) => sink ^= kernels.indexGet(block)));
  Deno.bench("get, absent", { group }, each((block) => sink ^= kernels.indexGet(block ^ 1)));
  Deno.bench(
    "remove + put",
    { group },
    each((block, slot) => {
      kernels.indexRemove(block);
      kernels.indexPut(block, slot);
    }),
  );
  Deno.bench("Map.get", { group }, each((block) => sink ^= map.get(block)!));
  Deno.bench(
    "Map.delete + set",
    { group },
    each((block, slot) => {
      map.delete(block);
      map.set(block, slot);
    }),
  );
}

{
  const group = "bitmap, 1000 operations, 256 Mi bits";
  for (let i = 0; i < 1_000_000; i++) kernels.dirty.set(random.below(backingBlocks));
  kernels.written.set(backingBlocks - 1);
  let at = 0;
  Deno.bench("next, 1 Mi bits set", { group, baseline: true }, () => {
    for (let i = 0; i < 1000; i++) {
      at = kernels.dirty.next(at + 1, backingBlocks);
      if (at < 0) at = 0;
    }
  });
  Deno.bench("set + clear", { group }, () => {
    for (let i = 0; i < 1000; i++) {
      kernels.zeroDirty.set(i * 77);
      kernels.zeroDirty.clear(i * 77);
    }
  });
  Deno.bench("bitmap, next over 256 Mi clear bits, once", () => {
    sink ^= kernels.written.next(0, backingBlocks);
  });
  kernels.syncing.setRange(0, backingBlocks);
  Deno.bench("bitmap, clear and set all of 256 Mi bits, once", () => {
    kernels.syncing.clearRange(0, backingBlocks);
    kernels.syncing.setRange(0, backingBlocks);
  });
}

{
  const group = `sort of ${keyCount} u64 keys`;
  const keys = new BigUint64Array(kernels.bytes.buffer, kernels.map.plan, keyCount);
  const input = BigUint64Array.from(
    { length: keyCount },
    (_, slot) => (BigInt(random.below(backingBlocks)) << 32n) | BigInt(slot),
  );
  Deno.bench("radix kernel", { group, baseline: true }, () => {
    keys.set(input);
    kernels.sortPlan(keyCount);
  });
  const other = new BigUint64Array(keyCount);
  Deno.bench("BigUint64Array.sort", { group }, () => {
    other.set(input);
    other.sort();
  });
  const doubles = Float64Array.from(input, Number);
  const others = new Float64Array(keyCount);
  Deno.bench("Float64Array.sort", { group }, () => {
    others.set(doubles);
    others.sort();
  });
}

Deno.bench("Kernels.create, small", () => {
  sink ^= Kernels.create({ ...plan, slotCount: 1024, backingBlocks: 65536 }).map.totalBytes;
});

// Nothing may be optimized away.
addEventListener("unload", () => sink === 0.5 && console.log(sink));
