/**
 * Where things lie on a cache device of dm-writeboost 2.2, and how one segment's header is read. Known from images that the
 * Linux module made, and from nothing else. All integers are little-endian.
 *
 * ```text
 * byte 0     u32 magic; else zeroes up to 1 MiB, but for a u64 at byte 0xFFE00: the last segment id written back, if kept
 * 1 MiB      slot 0, slot 1, ...: 512 KiB each; a tail that is shorter is not used
 *
 * slot       header block (4096 bytes), then up to 127 data blocks
 * header     u64 id, u32 checksum, u8 length, zeroes up to 511; from 512 on `length` metablocks of 16 bytes
 * metablock  u64 sector (a multiple of 8), u8 dirty bits (bit j: sector j of the block is new data), 7 zero bytes
 * ```
 *
 * Segment id n (from 1, one more each) lies in slot (n - 1) mod number of slots. The checksum is a CRC-32C over bytes
 * [512, 4096 + 4096 x length): it leaves out the id and the length, hence every check below that looks at them.
 *
 * @module
 */

import { blockBytes, kib, mib, sectorBytes, sectorsPerBlock } from "../units.ts";

/** The first four bytes. */
export const magic = 0x57427374;
/** Where the u64 lies that says up to which segment id all is written back. */
export const lastWritebackOffset = 0xffe00;
/** Where slot 0 begins. */
export const slotsOffset = mib;
/** Bytes of a slot. */
export const slotBytes = 512 * kib;
/** Most data blocks of a segment. */
export const lengthMax = 127;

/** Byte offsets inside a segment's header. */
export const segmentField = { id: 0, checksum: 8, length: 12, metablocks: 512 } as const;
/** Byte offsets inside a metablock. */
export const metablockField = { sector: 0, dirtyBits: 8 } as const;
/** Bytes of a metablock. */
export const metablockBytes = 16;

/** One block of a segment. */
export interface Metablock {
  /** Block of the backing device. */
  block: number;
  /** Bit j: sector j of it is new data; 0: a clean copy of the backing's block. */
  dirtyBits: number;
}

/** A header's fields, whatever they say. */
export interface SegmentHeader {
  /** Exact up to 2^53; beyond that it is no id that any cache ever came to. */
  id: number;
  checksum: number;
  length: number;
}

/** How many slots a device of `sizeBytes` has. */
export function slotCountOf(sizeBytes: number): number {
  return Math.max(0, Math.floor((sizeBytes - slotsOffset) / slotBytes));
}

/** The slot of segment `id`. */
export function slotOf(id: number, slotCount: number): number {
  return (id - 1) % slotCount;
}

/** Where slot `slot` begins. */
export function slotOffset(slot: number): number {
  return slotsOffset + slot * slotBytes;
}

/** Bytes of a segment that count. */
export function segmentBytes(length: number): number {
  return (1 + length) * blockBytes;
}

/** Reads the fields of a header block. */
export function readHeader(block: Uint8Array): SegmentHeader {
  const view = new DataView(block.buffer, block.byteOffset, block.byteLength);
  return {
    id: view.getUint32(segmentField.id + 4, true) * 2 ** 32 + view.getUint32(segmentField.id, true),
    checksum: view.getUint32(segmentField.checksum, true),
    length: view.getUint8(segmentField.length),
  };
}

/** Reads metablock `index` of a header block; undefined where it is none that a module writes. */
export function readMetablock(block: Uint8Array, index: number): Metablock | undefined {
  const view = new DataView(block.buffer, block.byteOffset, block.byteLength);
  const at = segmentField.metablocks + index * metablockBytes;
  const sector = view.getUint32(at + metablockField.sector + 4, true) * 2 ** 32 +
    view.getUint32(at + metablockField.sector, true);
  if (sector % sectorsPerBlock !== 0 || !Number.isSafeInteger(sector * sectorBytes)) return undefined;
  return { block: sector / sectorsPerBlock, dirtyBits: view.getUint8(at + metablockField.dirtyBits) };
}
