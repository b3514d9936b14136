/** Columns of entries and pieces, and their order. */

import { EntryTable, PieceList, sortedOrder } from "../../src/foreign/dm_writeboost_entries.ts";
import { SeededRandom } from "../../src/random.ts";
import { assertEquals } from "../assert.ts";

Deno.test("sortedOrder: sorts keys of any size below 2^53, and leaves equal ones in their order", () => {
  const random = new SeededRandom(77);
  for (const limit of [1, 2, 1000, 65536, 65537, 2 ** 32, 2 ** 53]) {
    const keys = Float64Array.from(
      { length: 5000 },
      () => Math.floor(random.below(2 ** 30) / 2 ** 30 * limit),
    );
    keys[17] = limit - 1;
    keys[4000] = limit - 1;
    const expected = [...keys.keys()].sort((a, b) => keys[a]! - keys[b]! || a - b);
    assertEquals([...sortedOrder(keys)], expected, `limit ${limit}`);
  }
  assertEquals([...sortedOrder(new Float64Array(0))], []);
});

Deno.test("EntryTable: keeps its columns while it grows, and takes the last entries back", () => {
  const table = new EntryTable();
  for (let i = 0; i < 5000; i++) table.add(i * 2 ** 20, i & 255, i % 127, i * 0xffff);
  const first = table.count;
  table.add(1, 2, 3, 4);
  table.add(5, 6, 7, 8);
  assertEquals(table.rangeFrom(first), { first: 5000, count: 2 });
  table.truncate(first + 1);
  assertEquals(table.rangeFrom(first), { first: 5000, count: 1 });
  for (const i of [0, 1023, 1024, 4999]) {
    const entry = [table.block(i), table.dirtyBits(i), table.index(i), table.crc(i)];
    assertEquals(entry, [i * 2 ** 20, i & 255, i % 127, i * 0xffff]);
  }
  assertEquals([table.block(5000), table.crc(5000)], [1, 4]);
});

Deno.test("PieceList: gives back what was added, in the order of blocks", () => {
  const pieces = new PieceList();
  for (let i = 0; i < 3000; i++) {
    pieces.add({ block: (i * 7919) % 3001, mask: 1 + i % 255, slot: i, entry: i * 2 });
  }
  const both = new PieceList();
  both.add({ block: 5, mask: 1, slot: 9, entry: 9 });
  both.addAll(pieces);
  assertEquals([both.count, both.at(1)], [3001, { block: 0, mask: 1, slot: 0, entry: 0 }]);
  const blocks = [...both.order()].map((at) => both.at(at).block);
  assertEquals(blocks, blocks.toSorted((a, b) => a - b));
});
