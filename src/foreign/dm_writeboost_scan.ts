/**
 * Reads every slot of a dm-writeboost cache and says what each is by itself; how they belong together is for
 * `dm_writeboost_order.ts`.
 *
 * Invariants: nothing is written; nothing that a device says makes this throw, but a read that fails other than by EIO; a
 * `whole` segment's checksum is right for its length, every metablock is one that the module writes, no block comes twice.
 *
 * @module
 */

import type { BlockDevice } from "../device/block_device.ts";
import { DeviceError } from "../errors.ts";
import { blockBytes } from "../units.ts";
import { crc32c } from "../wasm/crc32c.ts";
import { type EntryRange, EntryTable, noEntries } from "./dm_writeboost_entries.ts";
import {
  lastWritebackOffset,
  lengthMax,
  magic,
  readHeader,
  readMetablock,
  segmentBytes,
  segmentField,
  slotBytes,
  slotCountOf,
  slotOffset,
} from "./dm_writeboost_layout.ts";
import { findSingleBit, type FlippedBit } from "./single_bit.ts";

/** Slots read at the same time. */
const slotsInFlight = 4;

/** What reading needs of a device. */
export type ReadableDevice = Pick<BlockDevice, "sizeBytes" | "read">;

/** A slot, looked at by itself. */
export interface Slot {
  slot: number;
  /** The id that it gives; 0 for none. Nothing covers it. */
  id: number;
  /**
   * `blank`: never used; `whole`: the checksum is right; `bad`: it is not, for no length at all, or what is in it is not what a
   * module writes; `unreadable`: the device says EIO.
   */
  state: "blank" | "whole" | "bad" | "unreadable";
  /** What it holds; of a bad slot, what it claims to hold. Undefined when not even that can be told. */
  entries: EntryRange | undefined;
  /** The length that the header gives, where the checksum is right for another one. */
  wrongLength?: number;
  /** Its first sector is all zeroes: as a slot that was never used may be. */
  hasNoHead?: boolean;
  /**
   * One flipped bit explains the wrong checksum: it was whole once and has gone bad since, and `entries`, where that bit is in
   * them, are those before the flip and those after it.
   */
  isRotten?: boolean;
  /** Why it is bad: part of a sentence. */
  why?: string;
}

/** A cache device as it was found. */
export interface WriteboostScan {
  /** The magic is there. */
  marked: boolean;
  sizeBytes: number;
  /** Up to which id all is written back, as the device says; 0 when it says nothing. */
  lastWriteback: number;
  slots: Slot[];
  /** What the slots' ranges of entries are ranges of. */
  table: EntryTable;
}

/** Whether a device begins with the magic. */
export async function hasWriteboostMagic(device: ReadableDevice): Promise<boolean> {
  const bytes = new Uint8Array(blockBytes);
  if (device.sizeBytes < bytes.length) return false;
  await device.read(0, bytes);
  return new DataView(bytes.buffer).getUint32(0, true) === magic;
}

/** Reads all of it. Progress is in bytes. */
export async function scanWriteboost(
  device: ReadableDevice,
  onProgress?: (done: number, total: number) => void,
): Promise<WriteboostScan> {
  const count = slotCountOf(device.sizeBytes);
  const slots: Slot[] = new Array(count);
  const table = new EntryTable();
  let next = 0;
  let done = 0;
  const work = async () => {
    const bytes = new Uint8Array(slotBytes);
    while (next < count) {
      const slot = next++;
      slots[slot] = await readSlot(device, slot, bytes, table);
      onProgress?.(++done * slotBytes, count * slotBytes);
    }
  };
  await Promise.all(Array.from({ length: slotsInFlight }, work));
  return {
    marked: await hasWriteboostMagic(device),
    sizeBytes: device.sizeBytes,
    lastWriteback: await readLastWriteback(device),
    slots,
    table,
  };
}

async function readLastWriteback(device: ReadableDevice): Promise<number> {
  const bytes = new Uint8Array(blockBytes);
  const start = lastWritebackOffset - lastWritebackOffset % blockBytes;
  if (device.sizeBytes < start + blockBytes) return 0;
  await device.read(start, bytes);
  const view = new DataView(bytes.buffer);
  const at = lastWritebackOffset - start;
  return view.getUint32(at + 4, true) * 2 ** 32 + view.getUint32(at, true);
}

async function readSlot(
  device: ReadableDevice,
  slot: number,
  bytes: Uint8Array<ArrayBuffer>,
  table: EntryTable,
): Promise<Slot> {
  try {
    await device.read(slotOffset(slot), bytes.subarray(0, blockBytes));
    const { length } = readHeader(bytes);
    // What the header claims is read first; all of it only when that does not fit.
    const claimed = segmentBytes(Math.min(length, lengthMax));
    if (claimed > blockBytes) {
      await device.read(slotOffset(slot) + blockBytes, bytes.subarray(blockBytes, claimed));
    }
    const found = judge(slot, bytes.subarray(0, claimed), table);
    if (found.state !== "bad") return found;
    await device.read(slotOffset(slot), bytes);
    return judge(slot, bytes, table);
  } catch (error) {
    if (!(error instanceof DeviceError) || error.code !== "EIO") throw error;
    return { slot, id: 0, state: "unreadable", entries: undefined, why: "cannot be read" };
  }
}

/** Says what a slot is; `bytes` is all of it, or as much as its header claims to use. */
function judge(slot: number, bytes: Uint8Array<ArrayBuffer>, table: EntryTable): Slot {
  const { id, checksum, length } = readHeader(bytes);
  const block = bytes.subarray(0, blockBytes);
  if (block.every((byte) => byte === 0)) return { slot, id: 0, state: "blank", entries: noEntries };
  const right = lengthFor(bytes, checksum, length);
  if (right === undefined) {
    const flipped = findFlip(bytes, checksum, length);
    const claimed = claimedEntries(table, block, id, length, flipped);
    return {
      slot,
      id,
      state: "bad",
      entries: claimed,
      ...(flipped ? { isRotten: true } : {}),
      ...(block.subarray(0, segmentField.metablocks).every((byte) => byte === 0) ? { hasNoHead: true } : {}),
      why: length > lengthMax ? `has the length ${length}, over ${lengthMax}` : "does not match its checksum",
    };
  }
  const first = table.count;
  const seen = new Set<number>();
  for (let index = 0; index < right; index++) {
    const metablock = readMetablock(block, index);
    if (!metablock || seen.has(metablock.block)) {
      table.truncate(first);
      return { slot, id, state: "bad", entries: undefined, why: "names a block as no module does" };
    }
    seen.add(metablock.block);
    const data = bytes.subarray((1 + index) * blockBytes, (2 + index) * blockBytes);
    table.add(metablock.block, metablock.dirtyBits, index, crc32c(data));
  }
  const entries = table.rangeFrom(first);
  return { slot, id, state: "whole", entries, ...(right === length ? {} : { wrongLength: length }) };
}

/** The length for which the checksum is right: the one given, or, as nothing covers that byte, any other. */
function lengthFor(bytes: Uint8Array<ArrayBuffer>, checksum: number, length: number): number | undefined {
  const { metablocks } = segmentField;
  if (length <= lengthMax && segmentBytes(length) <= bytes.length) {
    if (crc32c(bytes.subarray(metablocks, segmentBytes(length))) === checksum) return length;
  }
  let crc = crc32c(bytes.subarray(metablocks, blockBytes));
  for (let other = 0; segmentBytes(other) <= bytes.length; other++) {
    if (other > 0) crc = crc32c(bytes.subarray(other * blockBytes, (1 + other) * blockBytes), crc);
    if (crc === checksum) return other;
  }
  return undefined;
}

/** The one flipped bit that explains a wrong checksum, with its byte in the slot. */
function findFlip(bytes: Uint8Array<ArrayBuffer>, checksum: number, length: number): FlippedBit | undefined {
  const end = segmentBytes(length);
  if (length > lengthMax || end > bytes.length) return undefined;
  const covered = bytes.subarray(segmentField.metablocks, end);
  const found = findSingleBit(crc32c(covered), checksum, covered.length);
  return found &&
    { byte: found.byte < 0 ? segmentField.checksum : found.byte + segmentField.metablocks, bit: found.bit };
}

/**
 * What a header claims whose checksum cannot be trusted; undefined unless every metablock is such as a module writes. Where the
 * flipped bit is known to be among them, the claims are those of either reading.
 */
function claimedEntries(
  table: EntryTable,
  block: Uint8Array,
  id: number,
  length: number,
  flipped: FlippedBit | undefined,
): EntryRange | undefined {
  if (!flipped || flipped.byte >= blockBytes || flipped.byte < segmentField.metablocks) {
    return readClaims(table, block, id, length);
  }
  const mended = block.slice();
  mended[flipped.byte]! ^= 1 << flipped.bit;
  const claims = readClaims(table, mended, id, length);
  if (!claims) return undefined;
  readClaims(table, block, id, length);
  return table.rangeFrom(claims.first);
}

/** Adds what a header claims; nothing when it claims what no module writes. */
function readClaims(
  table: EntryTable,
  block: Uint8Array,
  id: number,
  length: number,
): EntryRange | undefined {
  const first = table.count;
  const seen = new Set<number>();
  const isKnown = length > 0 && length <= lengthMax;
  for (let index = 0; index < (isKnown ? length : lengthMax); index++) {
    const at = segmentField.metablocks + index * 16;
    const isEmpty = block.subarray(at, at + 16).every((byte) => byte === 0);
    // Nothing at all, or block 0 as a clean copy: neither claims anything.
    if (isEmpty && !isKnown) continue;
    const metablock = readMetablock(block, index);
    const padding = block.subarray(at + 9, at + 16);
    if (!metablock || seen.has(metablock.block) || padding.some((byte) => byte !== 0)) {
      table.truncate(first);
      return undefined;
    }
    seen.add(metablock.block);
    table.add(metablock.block, metablock.dirtyBits, index, 0);
  }
  // A flush leaves segments that hold nothing; without an id nothing says that this was one.
  return table.count > first || id > 0 ? table.rangeFrom(first) : undefined;
}

/** Slots that are looked at when there is no magic. */
const slotsLookedAt = 8;

/** The start of a device, as a device. */
class FirstBytes implements ReadableDevice {
  constructor(readonly device: ReadableDevice, readonly sizeBytes: number) {}
  read(offset: number, into: Uint8Array<ArrayBuffer>): Promise<void> {
    return this.device.read(offset, into);
  }
}

/** How many whole segments there are in the first slots of a device that no magic marks. */
export async function findHiddenSegments(
  device: ReadableDevice,
): Promise<{ whole: number; slots: number }> {
  const start = Math.min(device.sizeBytes, slotOffset(slotsLookedAt));
  const { slots } = await scanWriteboost(new FirstBytes(device, start));
  const whole = slots.filter(({ state, id, slot }) => state === "whole" && id % 1 === 0 && id > slot).length;
  return { whole, slots: slots.length };
}
