import fc from "../property.ts";
import { entryKind, recordDataMax, recordEntriesMax, recordField } from "../../src/log/layout.ts";
import { SeededRandom } from "../../src/random.ts";
import { blockBytes } from "../../src/units.ts";
import { assertEquals } from "../assert.ts";
import { smallKernels } from "./small_kernels.ts";
import { crc32cTwin } from "./twins/crc32c.ts";
import { addEntryTwin, type Entry, sealTwin } from "./twins/record.ts";

const kernels = smallKernels({ slotCount: 256 });
const record = kernels.map.buffers;
const recordBytes = 128 * blockBytes;

const u32 = fc.oneof(fc.nat(0xffff_ffff), fc.constantFrom(0, 0xffff, 0x1_0000, 0x7fff_ffff, 0xffff_ffff));
const mask = fc.nat(255);
const entry: fc.Arbitrary<Entry> = fc.oneof(
  fc.record({ kind: fc.constantFrom(entryKind.data, entryKind.clean), block: u32, mask }),
  fc.record({
    kind: fc.constantFrom(entryKind.zero, entryKind.trim, entryKind.poisoned),
    block: u32,
    count: u32,
    mask,
  }),
);

function check(entries: Entry[], seed: number): void {
  // The record lies on leftovers, as it does in a buffer that is used again.
  const expected = new Uint8Array(recordBytes);
  new SeededRandom(seed).fill(expected);
  kernels.bytes.set(expected, record);
  kernels.crcs.fill(0);
  kernels.recordBegin(record);
  expected.fill(0, 0, blockBytes);
  entries.forEach((entry, index) => {
    addEntryTwin(expected, index, entry);
    if ("count" in entry) {
      kernels.recordAddRange(record, index, entry.kind, entry.block, entry.count, entry.mask);
    } else kernels.recordAddData(record, index, entry.kind, entry.block, entry.mask);
  });
  new DataView(expected.buffer).setUint16(recordField.entryCount, entries.length, true);
  kernels.view.setUint16(record + recordField.entryCount, entries.length, true);
  const { crcs, crc } = sealTwin(expected);
  assertEquals(kernels.recordSeal(record, 5) >>> 0, crc);
  const sealed = kernels.bytes.subarray(record, record + recordBytes);
  const wrong = sealed.findIndex((byte, i) => byte !== expected[i]);
  assertEquals(wrong, -1, `byte ${wrong} of the record differs`);
  assertEquals([...kernels.crcs.subarray(0, 5 + crcs.length + 1)], [0, 0, 0, 0, 0, ...crcs, 0]);
}

Deno.test("recordAddData, recordAddRange, recordSeal: the bytes of the layout, for any entries", () => {
  fc.assert(
    fc.property(fc.array(entry, { maxLength: 40 }), fc.nat(), (entries, seed) => check(entries, seed)),
    { numRuns: 40 },
  );
});

Deno.test("recordSeal: a record that is full of data and ranges", () => {
  const entries = Array.from(
    { length: recordEntriesMax },
    (_, index): Entry =>
      index < recordDataMax
        ? { kind: entryKind.data, block: index * 7, mask: 0xff }
        : { kind: entryKind.zero, block: index * 7, count: 3, mask: 0 },
  );
  check(entries, 1);
  check(entries.reverse(), 2);
});

Deno.test("takeBlock: the block and its checksum, from any alignment, until it is changed", () => {
  const size = blockBytes;
  const source = kernels.bytes.subarray(kernels.map.scratch, kernels.map.scratch + 2 * size);
  for (let at = 0; at < 64; at++) {
    new SeededRandom(at).fill(source);
    kernels.recordBegin(record);
    // Three blocks: one that is taken and stays, one that is taken and changed, one that comes from other memory.
    const taken = source.slice(at, at + size);
    const expected = [taken, taken.slice(), new Uint8Array(size).fill(at)];
    expected[1]![at]! ^= 1;
    const header = kernels.view;
    for (const [index, bytes] of expected.entries()) {
      const data = record + (index + 1) * size;
      kernels.recordAddData(record, index, entryKind.data, index, 0xff);
      kernels.bytes.fill(0xee, data, data + size);
      if (index < 2) kernels.takeBlock(data, 9 + index, source, at);
      else kernels.takeBlock(data, 9 + index, bytes, 0);
      if (index === 1) {
        kernels.changeBlock(9 + index);
        kernels.bytes[data + at]! ^= 1;
      }
      assertEquals(kernels.bytes.subarray(data, data + size), bytes);
    }
    header.setUint16(record + recordField.entryCount, 3, true);
    kernels.recordSeal(record, 9);
    assertEquals([...kernels.crcs.subarray(9, 12)], expected.map((bytes) => crc32cTwin(bytes)));
    const inEntries = expected.map((_, i) =>
      header.getUint32(record + recordField.entries + 12 * i + 8, true)
    );
    assertEquals(inEntries, expected.map((bytes) => crc32cTwin(bytes)));
  }
});

Deno.test("recordBegin: what was known of the record before does not count", () => {
  const source = kernels.bytes.subarray(kernels.map.scratch, kernels.map.scratch + blockBytes).fill(1);
  kernels.recordBegin(record);
  kernels.takeBlock(record + blockBytes, 9, source, 0);
  kernels.recordBegin(record);
  kernels.recordAddData(record, 0, entryKind.data, 0, 0xff);
  kernels.bytes.fill(2, record + blockBytes, record + 2 * blockBytes);
  kernels.view.setUint16(record + recordField.entryCount, 1, true);
  kernels.recordSeal(record, 9);
  assertEquals(kernels.crcs[9], crc32cTwin(new Uint8Array(blockBytes).fill(2)));
});

Deno.test("recordSeal: a record without entries", () => check([], 3));
