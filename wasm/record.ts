/**
 * Record packing: entries and checksums of a record that lies in memory as it will lie in the log. The layout is
 * src/log/layout.ts, whose names stand in the comments; docs/format.md is its prose.
 */

import { crc32cBlock, crc32cBlockCopy, crc32cHalf } from "./crc32c";

const blockBytes: usize = 4096;
const halfBytes: usize = 2048;
/** recordField.crc */
const headerCrc: usize = 16;
/** recordField.entryCount */
const entryCount: usize = 44;
/** recordField.entries, entryBytes */
const entries: usize = 128;
const entryBytes: usize = 12;
/** entryField.kind, entryField.crc */
const entryKind: usize = 5;
const entryCrc: usize = 8;
/** entryKind.data, entryKind.clean */
const dataKind: u32 = 1;
const cleanKind: u32 = 5;
/** knownMask of src/wasm/memory_map.ts: a record has fewer blocks, so that each has a byte of its own. */
const knownMask: u32 = 255;
/** previousField.crc */
const previousCrc: usize = 2068;

function entryAt(record: usize, index: u32): usize {
  return record + entries + <usize> index * entryBytes;
}

/** Writes the entry of a block, data or a clean copy: block u40, kind u8, mask u8, zero u8, crc u32. The checksum is left 0 until the seal. */
export function recordAddData(record: usize, index: u32, kind: u32, block: u32, mask: u32): void {
  const entry = entryAt(record, index);
  store<u64>(entry, <u64> block | (<u64> (kind & 255) << 40) | (<u64> (mask & 255) << 48));
  store<u32>(entry, 0, entryCrc);
}

/** Writes a range entry: block u40, kind u8, count u40, mask u8. */
export function recordAddRange(
  record: usize,
  index: u32,
  kind: u32,
  block: u32,
  count: u32,
  mask: u32,
): void {
  const entry = entryAt(record, index);
  store<u64>(entry, <u64> block | (<u64> (kind & 255) << 40) | (<u64> (count & 0xffff) << 48));
  store<u32>(entry, (count >>> 16) | (mask << 24), entryCrc);
}

/**
 * Copies a block into the open record at `data`, and computes its checksum on the way, into `crc`; the byte at `known` says that it
 * is there. So a block is read once, while it is in the nearest cache, and not again when its record is sealed.
 */
export function recordTakeBlock(data: usize, source: usize, crc: usize, known: usize): void {
  store<u32>(crc, crc32cBlockCopy(data, source));
  store<u8>(known, 1);
}

/**
 * Computes every checksum of a record: that of each data block, which lie behind the header in the order of their
 * entries and from `firstSlot` on, into its entry and into the array at `crcs`; that of the header's second half; last that of
 * its first half, which is returned. A checksum that is `known` is taken from the array.
 */
export function recordSeal(record: usize, firstSlot: u32, crcs: usize, known: usize): u32 {
  const count = <u32> load<u16>(record, entryCount);
  let slot = firstSlot;
  let data = record;
  for (let index: u32 = 0; index < count; index++) {
    const entry = entryAt(record, index);
    const kind = <u32> load<u8>(entry, entryKind);
    if (kind != dataKind && kind != cleanKind) continue;
    data += blockBytes;
    const ownCrc = crcs + (<usize> slot << 2);
    if (!load<u8>(known + <usize> (slot & knownMask))) store<u32>(ownCrc, crc32cBlock(data));
    store<u32>(entry, load<u32>(ownCrc), entryCrc);
    slot++;
  }
  store<u32>(record, 0, previousCrc);
  store<u32>(record, crc32cHalf(record + halfBytes), previousCrc);
  store<u32>(record, 0, headerCrc);
  const crc = crc32cHalf(record);
  store<u32>(record, crc, headerCrc);
  return crc;
}
