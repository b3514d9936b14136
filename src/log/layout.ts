/**
 * Where every field of the on-disk format lies. All integers are little-endian. `docs/format.md` is the prose of
 * this file; `codec.ts` reads and writes what it describes.
 *
 * Invariants: each structure carries a magic, its own address and a CRC-32C over all of it (the CRC field itself
 * taken as zero); a record's header halves are each 2048 bytes with a CRC of their own.
 *
 * @module
 */

import { assert } from "../errors.ts";
import { blockBytes } from "../units.ts";

/** The eight bytes that open a superblock, a record, a checkpoint and a leg's mark. */
export const superblockMagic = "NBDBOOST";
export const recordMagic = "NBDBREC1";
export const checkpointMagic = "NBDBCKPT";
export const legMarkMagic = "NBDBMLEG";

/** The format version that this code writes and reads. */
export const formatVersion = 1;

/** Byte offsets of the two superblock copies on the cache device. */
export const superblockOffsets = [0, 65536] as const;
/** Bytes of a superblock copy: its block, then a copy of the entry list of the record at the durable mark. */
export const superblockBytes = 8192;
/** Byte offset of that copy inside a superblock; laid out as the second half of a record's header. */
export const superblockPreviousOffset = 4096;
/** `ownSlot` of that copy: it stands in no record. */
export const superblockCopySlot = 0xff_ffff_ffff;
/** Byte offsets of the two copies of a leg's mark, a sector each; zeroes where a cache has no mirror. */
export const legMarkOffsets = [16384, 81920] as const;
/** Byte offset of the checkpoint region. */
export const checkpointOffset = 131072;

/** Byte offsets inside the 4096-byte superblock. */
export const superblockField = {
  magic: 0,
  version: 8,
  crc: 12,
  uuid: 16,
  incompatible: 32,
  compatible: 40,
  generation: 48,
  copy: 56,
  state: 60,
  epoch: 64,
  segmentBlocks: 68,
  epochRandom: 72,
  epochFirstSequence: 80,
  cacheBytes: 88,
  logOffset: 96,
  segmentCount: 104,
  checkpointBytes: 112,
  tailSlot: 120,
  tailSequence: 128,
  tailChain: 136,
  durableMark: 144,
  headSlot: 152,
  headSequence: 160,
  headChain: 168,
  historyFlags: 172,
  historyFloor: 176,
  createdMs: 184,
  closedMs: 192,
  backingBytes: 200,
  backingKind: 208,
  backingModifiedMs: 216,
  backingIdLength: 224,
  rewindEpoch: 228,
  unlogged: 232,
  rewoundTo: 240,
  backingId: 256,
  sampleCount: 1536,
  samples: 1544,
} as const;

/** Byte offsets inside the checkpoint's first block; the bitmap over slots follows in the next block. */
export const checkpointField = {
  magic: 0,
  uuid: 8,
  crc: 24,
  epoch: 28,
  headSequence: 32,
  headSlot: 40,
  slotCount: 48,
  bitmapCrc: 56,
} as const;

/** Byte offsets inside a leg's mark of 512 bytes. */
export const legMarkField = {
  magic: 0,
  copy: 8,
  crc: 12,
  uuid: 16,
  generation: 32,
  claim: 40,
  self: 48,
  other: 56,
  legBytes: 64,
  sinceSequence: 72,
  sinceMs: 80,
} as const;
/** `claim` of a leg's mark, from 1 on: both legs count, this one alone does, this one does not. */
export const legStates = ["together", "alone", "copying"] as const;

/** `incompatible` bit of a superblock: the cache device has two legs, and their marks count. */
export const featureMirrored = 1;
/** All bits of `incompatible` that this code knows. */
export const featuresKnown = featureMirrored;

/** `state` of a superblock. */
export const superblockState = { open: 1, clean: 2 } as const;
/** `historyFlags` bit: history is held, nothing newer than the floor may reach the backing. */
export const historyFlagHeld = 1;
/** `backingKind` of a superblock, by `DeviceIdentity.kind`. */
export const backingKinds = ["file", "block", "memory", "nbd"] as const;

/** Longest backing identity, in bytes of UTF-8. */
export const backingIdBytesMax = 1024;
/** Most sampled backing blocks that a superblock remembers; 12 bytes each (u64 block, u32 crc). */
export const sampleCountMax = 64;

/** Byte offsets inside the first half of a record's header block. */
export const recordField = {
  magic: 0,
  uuidPart: 8,
  crc: 16,
  chain: 20,
  sequence: 24,
  slot: 32,
  epoch: 40,
  entryCount: 44,
  dataCount: 46,
  epochRandom: 48,
  epochFirstSequence: 56,
  durableMark: 64,
  sealedMs: 72,
  flags: 80,
  entries: 128,
} as const;

/** Byte offsets inside the header block of its second half, which repeats the previous record's entry list. */
export const previousField = {
  slot: 2048,
  sequence: 2056,
  entryCount: 2064,
  dataCount: 2066,
  crc: 2068,
  ownSequence: 2072,
  ownSlot: 2080,
  chain: 2088,
  epoch: 2092,
  entries: 2176,
} as const;

/** Bytes of each half of a header block. */
export const halfBytes = 2048;
/** Bytes of an entry. */
export const entryBytes = 12;
/** Most entries of a record, of which at most {@linkcode recordDataMax} are data. */
export const recordEntriesMax = 160;
/** Most data blocks of a record. */
export const recordDataMax = 127;

/** `flags` bit: a client's flush or FUA asked for this record's end, so the volume is consistent here. */
export const recordFlagFlushPoint = 1;

/**
 * Byte offsets inside an entry. Data and clean copies: block u40, kind u8, mask u8, zero u8, crc u32. Ranges: block u40, kind u8,
 * count u40, mask u8.
 */
export const entryField = { block: 0, kind: 5, mask: 6, crc: 8, count: 6, rangeMask: 11 } as const;

/** What an entry says. */
export const entryKind = {
  /** A block's content; its mask tells which sectors count. */
  data: 1,
  /** The range reads as zeroes; the backing stays provisioned. */
  zero: 2,
  /** The range reads as zeroes; the backing may give the space back. */
  trim: 3,
  /** The sectors of the mask in the range are lost: reading them is EIO. */
  poisoned: 4,
  /** A copy of what the backing holds: a reader of the log may forget it, and a recovery does. */
  clean: 5,
} as const;

/** Whether an entry of this kind describes a block behind the header. */
export function carriesBlock(kind: number): boolean {
  return kind === entryKind.data || kind === entryKind.clean;
}

/** Limits of the segment size in blocks: 128 KiB to 8 MiB. */
export const segmentBlocksMin = 32;
export const segmentBlocksMax = 2048;
/** 512 KiB. */
export const segmentBlocksDefault = 128;
/** Segments that only the engine itself may take: to seal, to poison, to re-append (log-rules.md 11, 12). */
export const segmentsReserved = 2;
/** Fewest segments with which a log works: the reserve, the head, the tail, and two for clients. */
export const segmentCountMin = 6;
/** Most log that may be un-synced at any time; recovery verifies at most this much (log-rules.md 1). */
export const unsyncedBytesMax = 32 * 1024 * 1024;
/** Blocks are u32 in this engine, u40 on disk. */
export const backingBlocksMax = 0xffff_fff0;

assert(
  superblockOffsets[0] + superblockBytes <= legMarkOffsets[0] && legMarkOffsets[0] < superblockOffsets[1] &&
    superblockOffsets[1] + superblockBytes <= legMarkOffsets[1] && legMarkOffsets[1] < checkpointOffset,
  "marks lie between the superblocks and the checkpoint",
);
assert(recordField.entries + recordEntriesMax * entryBytes === halfBytes, "entries fill the first half");
assert(previousField.entries + recordEntriesMax * entryBytes === blockBytes, "entries fill the second half");
assert(recordEntriesMax > recordDataMax, "room for ranges beside a full record");
assert(superblockField.backingId + backingIdBytesMax <= superblockField.sampleCount);
assert(superblockField.samples + sampleCountMax * 12 <= blockBytes);
