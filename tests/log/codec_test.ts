// Why: what the codec accepts is taken for the truth by recovery. So what was written comes back as it was, no single
// flipped bit is taken for a header, and nothing that a device may hold makes a decoder throw.
import fc from "../property.ts";
import { MemoryDevice } from "../../src/device/memory.ts";
import { emptySlotBits, readCheckpoint, writeCheckpoint } from "../../src/log/checkpoint.ts";
import {
  type Bytes,
  decodePrevious,
  decodeRecord,
  eachEntry,
  type Entry,
  type EntryList,
  previousEntries,
  putMagic,
  putU64,
  recordEntries,
  type RecordHeader,
  viewOf,
} from "../../src/log/codec.ts";
import { planGeometry } from "../../src/log/geometry.ts";
import {
  carriesBlock,
  checkpointOffset,
  entryKind,
  formatVersion,
  halfBytes,
  previousField,
  recordDataMax,
  recordEntriesMax,
  recordField,
  recordMagic,
  sampleCountMax,
  superblockField,
  superblockMagic,
} from "../../src/log/layout.ts";
import { recordIsWhole } from "../../src/log/recovery.ts";
import { Segments } from "../../src/log/segments.ts";
import { repeatRecord } from "../../src/log/superblock_store.ts";
import {
  decodeSuperblock,
  encodeSuperblock,
  type LogPosition,
  type Superblock,
} from "../../src/log/superblock.ts";
import { LogWriter } from "../../src/log/writer.ts";
import { SeededRandom } from "../../src/random.ts";
import { blockBytes, mib } from "../../src/units.ts";
import { crc32c } from "../../src/wasm/crc32c.ts";
import { Kernels } from "../../src/wasm/kernels.ts";
import { assert, assertEquals } from "../assert.ts";

const clock = { monotonicMs: () => 0, wallMs: () => 1_700_000_000_123.5, after: () => () => {} };
const epoch = { number: 7, randomLow: 0x89ab_cdef, randomHigh: 0xfedc_ba98, firstSequence: 1 };
const uuid = bytesOf(16, 5);

/** What a test appends; ranges have a count. */
interface WantedEntry {
  kind: number;
  block: number;
  mask: number;
  count?: number;
}

const u32 = fc.oneof(fc.nat(0xffff_ffff), fc.constantFrom(0, 0xffff, 0x1_0000, 0xffff_fffe));
const u64 = fc.oneof(
  fc.maxSafeNat(),
  fc.constantFrom(0, 0xffff_ffff, 0x1_0000_0000, Number.MAX_SAFE_INTEGER),
);
const mask = fc.nat(255);
const wantedEntry: fc.Arbitrary<WantedEntry> = fc.oneof(
  fc.record({ kind: fc.constantFrom<number[]>(entryKind.data, entryKind.clean), block: u32, mask }),
  fc.record({
    kind: fc.constantFrom<number[]>(entryKind.zero, entryKind.trim, entryKind.poisoned),
    block: u32,
    mask,
    count: u32,
  }),
);
const noise = (length: number) => fc.integer().map((seed) => bytesOf(length, seed));

function bytesOf(length: number, seed: number): Bytes {
  const bytes = new Uint8Array(length);
  new SeededRandom(seed).fill(bytes);
  return bytes;
}

/** Writes records through a writer, and reads them back from the device, one array of header and blocks each. */
async function written(records: WantedEntry[][]): Promise<{ slot: number; bytes: Bytes }[]> {
  const device = new MemoryDevice(4 * mib);
  const geometry = planGeometry(device.sizeBytes, 128);
  const { slotCount, segmentBlocks } = geometry;
  const kernels = Kernels.create({
    slotCount,
    segmentBlocks,
    backingBlocks: 1000,
    bufferCount: 4,
    stagingBlocks: 1,
  });
  const segments = new Segments(geometry.segmentCount, segmentBlocks);
  const head = { slot: 0, sequence: 1, chain: 0 };
  const writer = new LogWriter({
    ...{ device, kernels, segments, geometry, clock, uuid, epoch, head },
    ...{ last: undefined, reusableTail: 0, bufferCount: 4 },
  });
  const places: { slot: number; dataCount: number }[] = [];
  for (const [i, record] of records.entries()) {
    for (const entry of record) {
      assertEquals(writer.prepare("client"), "none");
      if (carriesBlock(entry.kind)) {
        const pointer = writer.pointerOf(writer.putData(entry.block, entry.mask, entry.kind));
        kernels.bytes.set(bytesOf(blockBytes, entry.block + i), pointer);
      } else writer.putRange(entry.kind, entry.block, entry.count!, entry.mask);
    }
    await writer.makeDurable(writer.openSequence);
    places.push({ slot: writer.last!.slot, dataCount: writer.last!.dataCount });
  }
  return await Promise.all(places.map(async ({ slot, dataCount }) => {
    const bytes = new Uint8Array((1 + dataCount) * blockBytes);
    await device.read(geometry.logOffset + slot * blockBytes, bytes);
    return { slot, bytes };
  }));
}

function entriesOf(list: EntryList): WantedEntry[] {
  return Array.from(
    eachEntry(list),
    ({ kind, block, mask, count }: Entry) =>
      carriesBlock(kind) ? { kind, block, mask } : { kind, block, mask, count },
  );
}

/** A record with all kinds of entries, and its successor. */
async function twoRecords(): Promise<{ slot: number; bytes: Bytes }[]> {
  return await written([
    [
      { kind: entryKind.data, block: 77, mask: 0xff },
      { kind: entryKind.zero, block: 5, count: 9, mask: 0xff },
      { kind: entryKind.data, block: 0xffff_fffe, mask: 0x18 },
      { kind: entryKind.poisoned, block: 1, count: 1, mask: 0x80 },
      { kind: entryKind.trim, block: 0, count: 0xffff_ffff, mask: 0xff },
    ],
    [{ kind: entryKind.data, block: 3, mask: 1 }],
  ]);
}

function eachFlip(bytes: Uint8Array, from: number, to: number, look: (bit: number) => void): void {
  for (let bit = from * 8; bit < to * 8; bit++) {
    bytes[bit >>> 3]! ^= 1 << (bit & 7);
    look(bit);
    bytes[bit >>> 3]! ^= 1 << (bit & 7);
  }
}

function exampleSuperblock(previous: Superblock["previous"]): Superblock {
  return {
    uuid,
    mirrored: false,
    generation: 12,
    clean: true,
    epoch,
    geometry: planGeometry(64 * mib, 128),
    cacheBytes: 64 * mib,
    tail: { slot: 128, sequence: 40, chain: 0xdead_beef },
    durableMark: 99,
    head: { slot: 300, sequence: 100, chain: 1 },
    history: { floor: 0, held: true, rewind: { epoch: 2, to: 17 }, unlogged: 31 },
    createdMs: 1_700_000_000_000,
    closedMs: 1_700_000_000_001,
    backingBytes: mib,
    backing: { kind: "file", id: "/srv/disk.img 1234", modifiedMs: 1_700_000_000_002 },
    samples: [{ block: 5, crc: 6 }, { block: 0xffff_ffff, crc: 0xffff_ffff }],
    previous,
  };
}

const position = fc.record({ slot: u64, sequence: u64, chain: u32 });
const superblock: fc.Arbitrary<Superblock> = fc.record({
  uuid: noise(16),
  mirrored: fc.boolean(),
  generation: u64,
  clean: fc.boolean(),
  epoch: fc.record({ number: u32, randomLow: u32, randomHigh: u32, firstSequence: u64 }),
  place: fc.record({
    cacheBytes: fc.integer({ min: 64 * mib, max: 2 ** 41 }).map((bytes) => bytes - bytes % 512),
    segmentBlocks: fc.constantFrom(32, 64, 128, 256, 512, 1024, 2048),
  }),
  tail: position,
  durableMark: u64,
  head: position,
  history: fc.record({
    floor: fc.option(u64.map((value) => Math.min(value, Number.MAX_SAFE_INTEGER - 1)), { nil: undefined }),
    held: fc.boolean(),
    rewind: fc.record({ epoch: u32, to: u64 }),
    unlogged: u64,
  }).map((history) => ({ ...history, held: history.held && history.floor !== undefined })),
  createdMs: u64,
  closedMs: u64,
  backingBytes: u64,
  backing: fc.record({
    kind: fc.constantFrom("file" as const, "block" as const, "memory" as const, "nbd" as const),
    // Four bytes of UTF-8 each at most: 1024 in all.
    id: fc.string({ unit: "binary", maxLength: 256 }),
    modifiedMs: u64,
  }),
  samples: fc.array(fc.record({ block: u64, crc: u32 }), { maxLength: sampleCountMax }),
}).map(({ place, ...fields }) => {
  const geometry = planGeometry(place.cacheBytes, place.segmentBlocks);
  const inLog = (at: LogPosition) => ({ ...at, slot: at.slot % geometry.slotCount });
  return {
    ...fields,
    geometry,
    tail: inLog(fields.tail),
    head: inLog(fields.head),
    cacheBytes: place.cacheBytes,
    previous: undefined,
  };
});

Deno.test("encodeSuperblock, decodeSuperblock: what was written comes back, as either copy", async () => {
  const [record] = await twoRecords();
  const previous = repeatRecord(decodeRecord(record!.bytes, record!.slot, uuid)!);
  fc.assert(
    fc.property(superblock, fc.nat(1), fc.boolean(), (fields, copy, withPrevious) => {
      const wanted = { ...fields, previous: withPrevious ? previous : undefined };
      const bytes = encodeSuperblock(wanted, copy);
      assertEquals(decodeSuperblock(bytes, copy), wanted);
      assertEquals(
        "problem" in decodeSuperblock(bytes, 1 - copy),
        true,
        "a copy is good in its own place only",
      );
    }),
    { numRuns: 200 },
  );
});

Deno.test("decodeSuperblock: every single flipped bit of its block is refused, whatever it is in", () => {
  const bytes = encodeSuperblock(exampleSuperblock(undefined), 1);
  assert(!("problem" in decodeSuperblock(bytes, 1)));
  eachFlip(bytes, 0, blockBytes, (bit) => {
    assert("problem" in decodeSuperblock(bytes, 1), `accepted with bit ${bit} flipped`);
  });
});

Deno.test("decodeSuperblock: a flipped bit in the copy of an entry list costs that copy and nothing else", async () => {
  const [record] = await twoRecords();
  const previous = repeatRecord(decodeRecord(record!.bytes, record!.slot, uuid)!);
  const bytes = encodeSuperblock(exampleSuperblock(previous), 0);
  eachFlip(bytes, blockBytes, blockBytes + halfBytes, (bit) => {
    const decoded = decodeSuperblock(bytes, 0);
    assert(!("problem" in decoded) && decoded.previous === undefined, `used with bit ${bit} flipped`);
  });
});

Deno.test("decodeSuperblock: an unknown incompatible feature and another version are told from damage", () => {
  const problemWith = (field: number, value: number) => {
    const bytes = encodeSuperblock(exampleSuperblock(undefined), 0);
    const view = viewOf(bytes);
    view.setUint32(field, value, true);
    view.setUint32(superblockField.crc, 0, true);
    view.setUint32(superblockField.crc, crc32c(bytes.subarray(0, blockBytes)), true);
    const decoded = decodeSuperblock(bytes, 0);
    return "problem" in decoded ? decoded.problem : undefined;
  };
  assertEquals(problemWith(superblockField.version, formatVersion + 1), "version");
  assertEquals(problemWith(superblockField.incompatible, 2), "feature");
  assertEquals(problemWith(superblockField.incompatible + 4, 0x8000_0000), "feature");
  assertEquals(problemWith(superblockField.compatible, 1), undefined);
  assertEquals(problemWith(superblockField.segmentBlocks, 129), "geometry");
  assertEquals(problemWith(superblockField.logOffset, 4096), "geometry");
});

Deno.test("decodeSuperblock: a tail or head outside the log is refused, though its checksum is right", () => {
  const { geometry, tail, head } = exampleSuperblock(undefined);
  const decodedWith = (changes: Partial<Superblock>) =>
    decodeSuperblock(encodeSuperblock({ ...exampleSuperblock(undefined), ...changes }, 0), 0);
  for (const slot of [geometry.slotCount, geometry.slotCount + 1, Number.MAX_SAFE_INTEGER]) {
    for (const changes of [{ tail: { ...tail, slot } }, { head: { ...head, slot } }]) {
      const decoded = decodedWith(changes);
      assert("problem" in decoded && decoded.problem === "geometry", `slot ${slot} is accepted`);
    }
  }
  const last = { ...tail, slot: geometry.slotCount - 1 };
  assertEquals((decodedWith({ tail: last }) as Superblock).tail, last);
});

Deno.test("LogWriter, decodeRecord, decodePrevious: records come back, and each repeats the one before", async () => {
  // Five of 24 data blocks and a header each fit into one segment, so that none is cut in two by the segment's end.
  const record = fc.array(wantedEntry, { minLength: 1, maxLength: 24 });
  await fc.assert(
    fc.asyncProperty(fc.array(record, { minLength: 1, maxLength: 5 }), async (records) => {
      let before: { header: RecordHeader; entries: WantedEntry[] } | undefined;
      for (const [i, { slot, bytes }] of (await written(records)).entries()) {
        const header = decodeRecord(bytes.slice(0, blockBytes), slot, uuid)!;
        assertEquals(entriesOf(recordEntries(header)), records[i]!);
        assertEquals([header.sequence, header.slot, header.durableMark], [i + 1, slot, i]);
        assertEquals([header.epoch, header.sealedMs], [epoch, 1_700_000_000_123]);
        assertEquals(header.dataCount, records[i]!.filter((entry) => carriesBlock(entry.kind)).length);
        assertEquals(header.chain, before?.header.crc ?? 0);
        assert(recordIsWhole(header, bytes));
        const previous = decodePrevious(bytes)!;
        assertEquals([previous.ownSequence, previous.ownSlot, previous.sequence], [i + 1, slot, i]);
        assertEquals(previous.crc, header.chain);
        assertEquals(entriesOf(previousEntries(previous)), before?.entries ?? []);
        // Without a record before it, the slot is its own, which no reader takes for a place.
        assertEquals(previous.slot, before?.header.slot ?? slot);
        before = { header, entries: records[i]! };
      }
    }),
    { numRuns: 100 },
  );
});

Deno.test("LogWriter, decodeRecord: a record that is full of data and ranges", async () => {
  const full = Array.from(
    { length: recordEntriesMax },
    (_, i): WantedEntry =>
      i % 5 < 4 && i / 5 * 4 < recordDataMax - 4
        ? { kind: entryKind.data, block: i, mask: i & 255 }
        : { kind: entryKind.trim, block: i, count: 2 * i, mask: 0xff },
  );
  const [first, second] = await written([full, [{ kind: entryKind.data, block: 1, mask: 2 }]]);
  assertEquals(entriesOf(recordEntries(decodeRecord(first!.bytes, first!.slot, uuid)!)), full);
  assertEquals(entriesOf(previousEntries(decodePrevious(second!.bytes)!)), full);
});

Deno.test("decodeRecord, decodePrevious: every single flipped bit of a header is refused by its half's decoder", async () => {
  const [, record] = await twoRecords();
  const { slot } = record!;
  const bytes = record!.bytes.slice(0, blockBytes);
  assert(decodeRecord(bytes, slot, uuid) && decodePrevious(bytes));
  eachFlip(bytes, 0, halfBytes, (bit) => {
    assertEquals(decodeRecord(bytes, slot, uuid), undefined, `accepted with bit ${bit} flipped`);
  });
  eachFlip(bytes, halfBytes, blockBytes, (bit) => {
    assertEquals(decodePrevious(bytes), undefined, `accepted with bit ${bit} flipped`);
  });
});

Deno.test("recordIsWhole: every single flipped bit of a block is refused", async () => {
  const [, record] = await twoRecords();
  const bytes = record!.bytes;
  const header = decodeRecord(bytes.slice(0, blockBytes), record!.slot, uuid)!;
  assertEquals(bytes.length, 2 * blockBytes);
  eachFlip(bytes, 0, bytes.length, (bit) => {
    assert(!recordIsWhole(header, bytes), `accepted with bit ${bit} flipped`);
  });
});

Deno.test("decodeRecord: a header in another place, or of another cache, is none", async () => {
  const [record] = await twoRecords();
  const { slot, bytes } = record!;
  assertEquals(decodeRecord(bytes, slot + 1, uuid), undefined);
  assertEquals(decodeRecord(bytes, slot, bytesOf(16, 6)), undefined);
});

Deno.test("decoders: noise never throws, with good magics and checksums neither", () => {
  fc.assert(
    fc.property(noise(2 * blockBytes), fc.nat(200), fc.boolean(), (bytes, count, sealed) => {
      const view = viewOf(bytes);
      decodeRecord(bytes, 1, uuid);
      decodePrevious(bytes);
      decodeSuperblock(bytes, 0);
      // A plausible count brings noise as far as the entries.
      view.setUint16(recordField.entryCount, count, true);
      view.setUint16(previousField.entryCount, count, true);
      putMagic(bytes, 0, recordMagic);
      bytes.set(uuid.subarray(0, 8), recordField.uuidPart);
      putU64(view, recordField.slot, 1);
      if (sealed) seal(bytes, recordField.crc, 0, halfBytes);
      if (sealed) seal(bytes, previousField.crc, halfBytes, blockBytes);
      assert(sealed || decodeRecord(bytes, 1, uuid) === undefined);
      decodeRecord(bytes, 1, uuid);
      decodePrevious(bytes);
      putMagic(bytes, 0, superblockMagic);
      view.setUint32(superblockField.version, formatVersion, true);
      putU64(view, superblockField.incompatible, 0);
      view.setUint32(superblockField.copy, 0, true);
      view.setUint32(superblockField.segmentBlocks, 128, true);
      if (sealed) seal(bytes, superblockField.crc, 0, blockBytes);
      assert("problem" in decodeSuperblock(bytes, 0), "noise describes no layout");
    }),
    { numRuns: 300 },
  );
});

function seal(bytes: Bytes, field: number, from: number, to: number): void {
  const view = viewOf(bytes);
  view.setUint32(field, 0, true);
  view.setUint32(field, crc32c(bytes.subarray(from, to)), true);
}

Deno.test("writeCheckpoint, readCheckpoint: bits come back for the close that they belong to, and no other", async () => {
  const device = new MemoryDevice(64 * mib);
  const closed = exampleSuperblock(undefined);
  await fc.assert(
    fc.asyncProperty(noise(closed.geometry.checkpointBytes - blockBytes), async (noisy) => {
      const bits = emptySlotBits(closed.geometry);
      bits.bytes.set(noisy);
      await writeCheckpoint(device, closed, bits);
      assertEquals((await readCheckpoint(device, closed)).bits, bits);
      const later = { ...closed, head: { ...closed.head, sequence: 101 } };
      assertEquals((await readCheckpoint(device, later)).bits, undefined);
      assertEquals((await readCheckpoint(device, { ...closed, clean: false })).bits, undefined);
    }),
    { numRuns: 20 },
  );
});

Deno.test("readCheckpoint: a flipped bit anywhere means that nothing is known to be written back", async () => {
  const device = new MemoryDevice(64 * mib);
  const closed = exampleSuperblock(undefined);
  await writeCheckpoint(device, closed, emptySlotBits(closed.geometry));
  const bytes = new Uint8Array(closed.geometry.checkpointBytes);
  await device.read(checkpointOffset, bytes);
  const bits = bytes.length * 8;
  // Every bit that is a field, and some of all the others.
  for (let bit = 0; bit < bits; bit += bit < 8 * 64 ? 1 : 97) {
    bytes[bit >>> 3]! ^= 1 << (bit & 7);
    await device.write(checkpointOffset, bytes);
    const found = await readCheckpoint(device, closed);
    assert(found.bits === undefined && found.problem !== undefined, `used with bit ${bit} flipped`);
    bytes[bit >>> 3]! ^= 1 << (bit & 7);
  }
});
