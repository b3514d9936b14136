/**
 * Fills the header of a record that is about to be sealed, in the memory of the kernels, which then add the checksums.
 *
 * Invariant: every field of `layout.ts` but the checksums and the entries is written here, and nowhere else.
 *
 * @module
 */

import { blockBytes } from "../units.ts";
import type { Kernels } from "../wasm/kernels.ts";
import { encodePrevious, type Epoch, putMagic, putU64 } from "./codec.ts";
import { entryBytes, recordEntriesMax, recordField, recordFlagFlushPoint, recordMagic } from "./layout.ts";

/** What the writer knows of the record before the next one. */
export interface LastRecord {
  slot: number;
  sequence: number;
  epoch: number;
  entryCount: number;
  dataCount: number;
}

/** What a header says of its record. */
export interface HeaderFacts {
  uuid: Uint8Array;
  epoch: Epoch;
  slot: number;
  sequence: number;
  /** As 32 bits, signed or not. */
  chain: number;
  entryCount: number;
  dataCount: number;
  durableMark: number;
  sealedMs: number;
  isFlushPoint: boolean;
  /** Whose entry list, kept in the memory's `entries` region, the second half repeats. */
  last: LastRecord | undefined;
}

/** Notes the record that a header was just written for as the one before the next. */
export function noteLast(facts: HeaderFacts): void {
  const last = facts.last ??= { slot: 0, sequence: 0, epoch: 0, entryCount: 0, dataCount: 0 };
  last.slot = facts.slot;
  last.sequence = facts.sequence;
  last.epoch = facts.epoch.number;
  last.entryCount = facts.entryCount;
  last.dataCount = facts.dataCount;
}

/** What the first record's second half says: the slot is its own, which no reader takes for a place. */
function noneBefore({ slot, sequence }: HeaderFacts): LastRecord {
  return { slot, sequence: sequence - 1, epoch: 0, entryCount: 0, dataCount: 0 };
}

/** Writes the header at `pointer`. */
export function fillHeader(kernels: Kernels, pointer: number, facts: HeaderFacts): void {
  const { view, bytes } = kernels;
  const { epoch, last } = facts;
  putMagic(bytes, pointer, recordMagic);
  for (let i = 0; i < 8; i++) bytes[pointer + recordField.uuidPart + i] = facts.uuid[i]!;
  view.setUint32(pointer + recordField.chain, facts.chain, true);
  putU64(view, pointer + recordField.sequence, facts.sequence);
  putU64(view, pointer + recordField.slot, facts.slot);
  view.setUint32(pointer + recordField.epoch, epoch.number, true);
  view.setUint16(pointer + recordField.entryCount, facts.entryCount, true);
  view.setUint16(pointer + recordField.dataCount, facts.dataCount, true);
  view.setUint32(pointer + recordField.epochRandom, epoch.randomLow, true);
  view.setUint32(pointer + recordField.epochRandom + 4, epoch.randomHigh, true);
  putU64(view, pointer + recordField.epochFirstSequence, epoch.firstSequence);
  putU64(view, pointer + recordField.durableMark, facts.durableMark);
  putU64(view, pointer + recordField.sealedMs, facts.sealedMs);
  view.setUint32(pointer + recordField.flags, facts.isFlushPoint ? recordFlagFlushPoint : 0, true);
  encodePrevious(view, pointer, last ?? noneBefore(facts), facts.chain, facts.sequence, facts.slot);
  const target = pointer + blockBytes - recordEntriesMax * entryBytes;
  const { entries } = kernels.map;
  if (last) bytes.copyWithin(target, entries, entries + recordEntriesMax * entryBytes);
}
