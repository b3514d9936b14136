/**
 * The index against a Map, through random sequences in small tables where clusters wrap around the end.
 *
 * @module
 */

import fc from "../property.ts";
import { SeededRandom } from "../../src/random.ts";
import { noSlot } from "../../src/wasm/kernels.ts";
import { assert, assertEquals } from "../assert.ts";
import { smallKernels } from "./small_kernels.ts";
import { IndexTwin } from "./twins/index_table.ts";

Deno.test("indexPut, indexGet, indexRemove: answer as a Map does, through any sequence", () => {
  const operation = fc.record({
    what: fc.constantFrom("put", "put", "put", "get", "remove", "remove"),
    // Few neighbours, some at the far end, and any: full tables and long clusters.
    block: fc.oneof(fc.nat(40), fc.integer({ min: 0xffff_ffd0, max: 0xffff_ffff }), fc.nat(0xffff_ffff)),
    slot: fc.nat(),
  });
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 40 }),
      fc.array(operation, { maxLength: 300 }),
      (slotCount, operations) => {
        const kernels = smallKernels({ slotCount, stagingBlocks: 1, bufferCount: 0, backingBlocks: 1 });
        const twin = new IndexTwin();
        for (const { what, block, slot } of operations) {
          if (what === "get") assertEquals(kernels.indexGet(block), twin.get(block));
          if (what === "remove") assertEquals(kernels.indexRemove(block), twin.remove(block));
          if (what === "put") {
            // As the log does it: a slot that another block holds is taken from that block first.
            const target = slot % slotCount;
            for (const [other, held] of twin.slots) {
              if (held === target && other !== block) {
                assertEquals(kernels.indexRemove(other), twin.remove(other));
              }
            }
            assertEquals(kernels.indexPut(block, target), twin.put(block, target));
            assertEquals(kernels.reverse[target], block);
          }
          assertEquals(kernels.count, twin.count);
        }
        for (const [block, slot] of twin.slots) assertEquals(kernels.indexGet(block), slot);
        for (const { block } of operations) assertEquals(kernels.indexGet(block), twin.get(block));
      },
    ),
    { numRuns: 200 },
  );
});

Deno.test("indexPut: a full table of every slot is found again, and emptied again", () => {
  const slotCount = 20_000;
  const kernels = smallKernels({ slotCount });
  for (const stride of [1, 7, 4096, 1 << 20, 0x9e37_79b1]) {
    const block = (slot: number) => Math.imul(slot, stride) >>> 0;
    const distinct = new Set(Array.from({ length: slotCount }, (_, slot) => block(slot))).size;
    const holders = new IndexTwin();
    for (let slot = 0; slot < slotCount; slot++) {
      assertEquals(kernels.indexPut(block(slot), slot), holders.put(block(slot), slot));
    }
    assertEquals(kernels.count, distinct);
    for (const [held, slot] of holders.slots) assertEquals(kernels.indexGet(held), slot);
    const order = [...holders.slots.keys()];
    const random = new SeededRandom(stride);
    for (let i = order.length - 1; i > 0; i--) {
      const j = random.below(i + 1);
      [order[i], order[j]] = [order[j]!, order[i]!];
    }
    for (const held of order) assertEquals(kernels.indexRemove(held), holders.remove(held));
    assertEquals(kernels.count, 0);
  }
});

Deno.test("indexRemove: a stale reverse entry of a slot that left the table does no harm", () => {
  const kernels = smallKernels();
  kernels.indexPut(5, 3);
  assertEquals(kernels.indexPut(5, 4), 3);
  assertEquals(kernels.reverse[3], 5);
  assertEquals(kernels.indexGet(5), 4);
  assertEquals(kernels.indexPut(6, 3), noSlot);
  assertEquals(kernels.indexRemove(5), 4);
  assertEquals(kernels.indexGet(6), 3);
  assertEquals(kernels.indexRemove(5), noSlot);
});

Deno.test("indexClear: forgets everything", () => {
  const kernels = smallKernels();
  for (let slot = 0; slot < 64; slot++) kernels.indexPut(slot * 3, slot);
  kernels.indexClear();
  assertEquals(kernels.count, 0);
  for (let slot = 0; slot < 64; slot++) assertEquals(kernels.indexGet(slot * 3), noSlot);
});

Deno.test("planMemory: at most 14 bytes a slot", () => {
  const slotCount = 1_000_000;
  const { map } = smallKernels({ slotCount, backingBlocks: 1 });
  const { map: without } = smallKernels({ slotCount: 0, backingBlocks: 1 });
  const bytes = map.totalBytes - without.totalBytes;
  assert(bytes <= 14 * slotCount, `${bytes / slotCount} bytes a slot`);
});

Deno.test("indexWarm: changes nothing, for blocks that are there and blocks that are not", () => {
  const kernels = smallKernels({ slotCount: 100 });
  for (let slot = 0; slot < 100; slot++) kernels.indexPut(slot * 9, slot);
  const before = kernels.bytes.slice();
  for (let count = 0; count <= kernels.ahead.length; count++) {
    for (let i = 0; i < count; i++) kernels.ahead[i] = (i * 7 + count) % 1000;
    const ahead = kernels.ahead.slice();
    kernels.indexWarm(count);
    assertEquals(kernels.ahead, ahead);
    kernels.ahead.fill(0);
    assertEquals(kernels.bytes.findIndex((byte, i) => byte !== before[i]), -1);
  }
});
