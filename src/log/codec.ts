/**
 * Encodes and decodes what the cache device holds; `layout.ts` says where each field lies.
 *
 * Invariants: whatever is decoded has passed its magic, its checksum and its own address; a decoder never throws for
 * what a device says, it returns undefined (or the reason). Numbers are u64 on disk and safe integers here.
 *
 * @module
 */

import { assert } from "../errors.ts";
import { blockBytes } from "../units.ts";
import { crc32c } from "../wasm/crc32c.ts";
import {
  carriesBlock,
  entryBytes,
  entryField,
  entryKind,
  halfBytes,
  previousField,
  recordDataMax,
  recordEntriesMax,
  recordField,
  recordMagic,
} from "./layout.ts";

/** Bytes that I/O may use. */
export type Bytes = Uint8Array<ArrayBuffer>;

/** A `DataView` over all of `bytes`. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** Reads a u64 as a Number; values beyond 2^53 come back inexact and must be refused by the caller. */
export function getU64(view: DataView, offset: number): number {
  return view.getUint32(offset + 4, true) * 0x1_0000_0000 + view.getUint32(offset, true);
}

/** Writes a safe integer as a u64. */
export function putU64(view: DataView, offset: number, value: number): void {
  // This is on the hot path. A division makes an object in code that is not optimized yet, and so would the sentence.
  if (value === value >>> 0) {
    view.setUint32(offset, value, true);
    view.setUint32(offset + 4, 0, true);
    return;
  }
  if (!Number.isSafeInteger(value) || value < 0) assert(false, `u64 field out of range: ${value}`);
  view.setUint32(offset, value >>> 0, true);
  view.setUint32(offset + 4, Math.floor(value / 0x1_0000_0000), true);
}

/** Reads a u40, the width of a block number on disk. */
export function getU40(view: DataView, offset: number): number {
  return view.getUint8(offset + 4) * 0x1_0000_0000 + view.getUint32(offset, true);
}

/** Writes eight ASCII bytes. */
export function putMagic(bytes: Uint8Array, offset: number, magic: string): void {
  for (let i = 0; i < 8; i++) bytes[offset + i] = magic.charCodeAt(i);
}

/** Whether the eight ASCII bytes are there. */
export function hasMagic(bytes: Uint8Array, offset: number, magic: string): boolean {
  for (let i = 0; i < 8; i++) if (bytes[offset + i] !== magic.charCodeAt(i)) return false;
  return true;
}

/** The CRC-32C of `bytes` with the four bytes at `field` taken as zero; `bytes` is as before afterwards. */
export function crcWithout(bytes: Uint8Array, field: number): number {
  const view = viewOf(bytes);
  const stored = view.getUint32(field, true);
  view.setUint32(field, 0, true);
  const crc = crc32c(bytes);
  view.setUint32(field, stored, true);
  return crc;
}

/** Names the life of a cache during which a record was written. The random value is never shown outside. */
export interface Epoch {
  /** Counts up by one at each open. */
  number: number;
  /** A random u64 in two halves. */
  randomLow: number;
  randomHigh: number;
  /** The sequence of the first record of this epoch. */
  firstSequence: number;
}

/** A record's header, checked; its entries stay in `bytes`. */
export interface RecordHeader {
  /** The header block, 4096 bytes. */
  bytes: Bytes;
  slot: number;
  sequence: number;
  epoch: Epoch;
  durableMark: number;
  sealedMs: number;
  flags: number;
  entryCount: number;
  dataCount: number;
  /** Its own checksum, which the next record repeats as `chain`. */
  crc: number;
  chain: number;
}

/** What a header's second half, or a superblock, repeats of an earlier record. */
export interface PreviousRecord {
  /** 2048 bytes: the half as it lies on disk. */
  bytes: Bytes;
  slot: number;
  sequence: number;
  epoch: number;
  entryCount: number;
  dataCount: number;
  /** The header checksum of the repeated record. */
  crc: number;
  ownSequence: number;
  ownSlot: number;
}

/** A record's entries, wherever they were read: from its own header or from a copy. */
export interface EntryList {
  bytes: Uint8Array;
  /** Offset of the first entry in `bytes`. */
  offset: number;
  count: number;
}

/**
 * Decodes the header block that was read at `slot`, or returns undefined when it is not a whole header of this
 * cache at this place.
 */
export function decodeRecord(bytes: Bytes, slot: number, uuid: Uint8Array): RecordHeader | undefined {
  if (bytes.length < blockBytes || !hasMagic(bytes, 0, recordMagic)) return undefined;
  for (let i = 0; i < 8; i++) if (bytes[recordField.uuidPart + i] !== uuid[i]) return undefined;
  const view = viewOf(bytes);
  if (getU64(view, recordField.slot) !== slot) return undefined;
  const crc = view.getUint32(recordField.crc, true);
  if (crcWithout(bytes.subarray(0, halfBytes), recordField.crc) !== crc) return undefined;
  const header: RecordHeader = {
    bytes,
    slot,
    sequence: getU64(view, recordField.sequence),
    epoch: {
      number: view.getUint32(recordField.epoch, true),
      randomLow: view.getUint32(recordField.epochRandom, true),
      randomHigh: view.getUint32(recordField.epochRandom + 4, true),
      firstSequence: getU64(view, recordField.epochFirstSequence),
    },
    durableMark: getU64(view, recordField.durableMark),
    sealedMs: getU64(view, recordField.sealedMs),
    flags: view.getUint32(recordField.flags, true),
    entryCount: view.getUint16(recordField.entryCount, true),
    dataCount: view.getUint16(recordField.dataCount, true),
    crc,
    chain: view.getUint32(recordField.chain, true),
  };
  const entries = recordEntries(header);
  if (!Number.isSafeInteger(header.sequence) || !Number.isSafeInteger(header.durableMark)) return undefined;
  if (header.durableMark >= header.sequence) return undefined;
  return entriesFit(entries, header.dataCount) ? header : undefined;
}

/** Decodes a header's second half (or the copy in a superblock); undefined when its checksum does not match. */
export function decodePrevious(block: Uint8Array): PreviousRecord | undefined {
  const half = block.slice(halfBytes, blockBytes);
  const at = (field: number) => field - halfBytes;
  const view = viewOf(half);
  if (crcWithout(half, at(previousField.crc)) !== view.getUint32(at(previousField.crc), true)) {
    return undefined;
  }
  const previous: PreviousRecord = {
    bytes: half,
    slot: getU64(view, at(previousField.slot)),
    sequence: getU64(view, at(previousField.sequence)),
    epoch: view.getUint32(at(previousField.epoch), true),
    entryCount: view.getUint16(at(previousField.entryCount), true),
    dataCount: view.getUint16(at(previousField.dataCount), true),
    crc: view.getUint32(at(previousField.chain), true),
    ownSequence: getU64(view, at(previousField.ownSequence)),
    ownSlot: getU64(view, at(previousField.ownSlot)),
  };
  return entriesFit(previousEntries(previous), previous.dataCount) ? previous : undefined;
}

/** Writes the fields of a second half, but for its checksum, into the header block at `at` of `bytes`. Hot path. */
export function encodePrevious(
  view: DataView,
  at: number,
  previous: Pick<PreviousRecord, "slot" | "sequence" | "epoch" | "entryCount" | "dataCount">,
  crc: number,
  ownSequence: number,
  ownSlot: number,
): void {
  putU64(view, at + previousField.slot, previous.slot);
  putU64(view, at + previousField.sequence, previous.sequence);
  view.setUint16(at + previousField.entryCount, previous.entryCount, true);
  view.setUint16(at + previousField.dataCount, previous.dataCount, true);
  view.setUint32(at + previousField.crc, 0, true);
  putU64(view, at + previousField.ownSequence, ownSequence);
  putU64(view, at + previousField.ownSlot, ownSlot);
  view.setUint32(at + previousField.chain, crc, true);
  view.setUint32(at + previousField.epoch, previous.epoch, true);
}

/** The entries of a record, in its own header. */
export function recordEntries(header: RecordHeader): EntryList {
  return { bytes: header.bytes, offset: recordField.entries, count: header.entryCount };
}

/** The entries of a record, in the copy that another one keeps. */
export function previousEntries(previous: PreviousRecord): EntryList {
  return { bytes: previous.bytes, offset: previousField.entries - halfBytes, count: previous.entryCount };
}

/** Counts and kinds are such as a writer of this format makes. */
function entriesFit(entries: EntryList, dataCount: number): boolean {
  if (entries.count > recordEntriesMax || dataCount > recordDataMax) return false;
  let data = 0;
  for (const entry of eachEntry(entries)) {
    if (carriesBlock(entry.kind)) data++;
    else if (entry.kind < entryKind.data || entry.kind > entryKind.clean) return false;
  }
  return data === dataCount;
}

/** One entry, decoded. The same object is reused for each step of an iteration. */
export interface Entry {
  kind: number;
  block: number;
  /** Data and poisoned: the sectors that it speaks of. */
  mask: number;
  /** Blocks; 1 for data and clean copies. */
  count: number;
  /** Data and clean copies: the checksum of the block. */
  crc: number;
}

/** Walks the entries in order. The yielded object is reused. */
export function* eachEntry(list: EntryList): Generator<Entry, void, void> {
  const view = viewOf(list.bytes);
  const entry: Entry = { kind: 0, block: 0, mask: 0, count: 0, crc: 0 };
  for (let i = 0; i < list.count; i++) {
    const at = list.offset + i * entryBytes;
    entry.kind = view.getUint8(at + entryField.kind);
    entry.block = getU40(view, at + entryField.block);
    if (carriesBlock(entry.kind)) {
      entry.mask = view.getUint8(at + entryField.mask);
      entry.count = 1;
      entry.crc = view.getUint32(at + entryField.crc, true);
    } else {
      entry.mask = view.getUint8(at + entryField.rangeMask);
      entry.count = getU40(view, at + entryField.count);
      entry.crc = 0;
    }
    yield entry;
  }
}
