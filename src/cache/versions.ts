/**
 * Which version of each block is the newest, and what of it the backing still lacks. The live engine and the replay of
 * the log at open go through the same functions, in record order, so that they cannot disagree.
 *
 * State of a block b, in five sets:
 * ```text
 * index(b) = slot     the log holds its newest version (mask tells which sectors; the others are the backing's)
 * dirty(b)            the backing lacks it                          => index(b) exists
 * zeroDirty(b)        b reads as zeroes, the backing lacks that     => index(b) does not exist
 * written(b)          written or zeroed since the last good backing sync was issued
 * syncing(b)          the same, for the sync that is under way
 * poison(b)           sectors that are lost
 * ```
 * "Live" is dirty, or written-but-not-yet-synced: a crash may still need it.
 *
 * @module
 */

import { assert } from "../errors.ts";
import { eachEntry, type EntryList } from "../log/codec.ts";
import { entryKind } from "../log/layout.ts";
import { Segments } from "../log/segments.ts";
import { fullMask } from "../units.ts";
import { type Kernels, noSlot } from "../wasm/kernels.ts";
import { BlockSet } from "./block_set.ts";
import { Poison } from "./poison.ts";
import { Touched } from "./touched.ts";

/** The newest version of every block. */
export class Versions {
  readonly kernels: Kernels;
  readonly segments: Segments;
  readonly backingBlocks: number;
  readonly poison: Poison;
  /** What the replay found lost and no poisoned entry in the log says: it would be forgotten with the gap. */
  readonly unrecorded: Poison;
  /** What records touch without an entry in the index. */
  readonly touched: Touched = new Touched();
  /** Zero-dirty blocks that must stay provisioned on the backing (NBD's NO_HOLE). */
  readonly provisioned: BlockSet;
  /** Highest sequence that superseded a zeroed block, or healed a poisoned one. */
  rangeSupersededBy = 0;
  /** Ranges put while zeroes are on their way to the backing; undefined when none are. */
  newRanges: { start: number; end: number }[] | undefined;
  /** Ranges put since a point was taken, in prefix order. */
  rangeLog: { start: number; end: number }[] | undefined;
  /** Sequence of the newest zero or trim entry: zeroes go to the backing only once it is durable. */
  lastRangeSequence = 0;

  constructor(kernels: Kernels, segments: Segments, backingBlocks: number) {
    this.kernels = kernels;
    this.segments = segments;
    this.backingBlocks = backingBlocks;
    this.poison = new Poison(backingBlocks);
    this.unrecorded = new Poison(backingBlocks);
    this.provisioned = new BlockSet(backingBlocks);
  }

  /** Whether a crash may still need the log's (or a range's) version of the block. */
  isLive(block: number): boolean {
    const { dirty, written, syncing } = this.kernels;
    return dirty.test(block) || written.test(block) || syncing.test(block);
  }

  /** Whether a block without a version in the log reads as zeroes that the backing may still lack. */
  readsZero(block: number): boolean {
    const { zeroDirty, written, syncing } = this.kernels;
    if (this.poison.any && this.poison.mask(block) !== 0) return false;
    return zeroDirty.test(block) || written.test(block) || syncing.test(block);
  }

  /** Heals the sectors of `mask`; tells whether any of them had been lost. */
  heal(block: number, mask: number): boolean {
    if (this.unrecorded.any) this.unrecorded.heal(block, mask);
    return this.poison.heal(block, mask);
  }

  /** Makes `slot` the newest version. `dirty` is false only when a checkpoint knows that it was written back. */
  putData(block: number, slot: number, mask: number, sequence: number, dirty = true): void {
    const { kernels, segments } = this;
    const old = kernels.indexPut(block, slot);
    if (old !== noSlot) {
      const segment = segments.of(old);
      if (this.isLive(block)) segments.live[segment]!--;
      segments.supersede(segment, sequence);
    } else if (kernels.zeroDirty.test(block) || kernels.written.test(block) || kernels.syncing.test(block)) {
      kernels.zeroDirty.clear(block);
      this.rangeSupersededBy = sequence;
    }
    if (this.poison.any && this.heal(block, mask)) this.rangeSupersededBy = sequence;
    kernels.masks[slot] = mask;
    if (dirty) {
      kernels.dirty.set(block);
      segments.live[segments.of(slot)]!++;
    } else kernels.dirty.clear(block);
  }

  /** Makes `slot` a copy of what the backing holds. REQUIRES: the log has nothing of the block. */
  putClean(block: number, slot: number): void {
    const old = this.kernels.indexPut(block, slot);
    assert(old === noSlot, "a clean copy supersedes nothing");
    this.kernels.masks[slot] = fullMask;
  }

  /** Makes [start, end) read as zeroes. `dirty` as in {@linkcode putData}. */
  putZeroes(
    range: { start: number; end: number; headerSlot: number },
    keepAllocated: boolean,
    sequence: number,
    dirty = true,
  ): void {
    const { kernels, segments } = this;
    const { start, end } = range;
    this.touched.add(start, end, sequence);
    this.#forget(start, end, sequence);
    if (this.poison.any && this.poison.healRange(start, end)) this.rangeSupersededBy = sequence;
    if (this.unrecorded.any) this.unrecorded.healRange(start, end);
    if (!dirty) {
      kernels.zeroDirty.clearRange(start, end);
      return;
    }
    kernels.zeroDirty.setRange(start, end);
    this.lastRangeSequence = sequence;
    this.newRanges?.push({ start, end });
    this.rangeLog?.push({ start, end });
    if (keepAllocated) this.provisioned.addRange(start, end);
    else this.provisioned.deleteRange(start, end);
    segments.addRange(segments.ranges, segments.of(range.headerSlot), { ...range });
  }

  /** Declares the sectors of `mask` in [start, end) lost. */
  putPoison(range: { start: number; end: number; headerSlot: number }, mask: number, sequence: number): void {
    const { segments } = this;
    const { start, end } = range;
    this.touched.add(start, end, sequence);
    this.losePart(start, end, mask, sequence);
    // Only these sectors are recorded by that: of a block that a lost record may have held, the others still are not.
    if (mask === fullMask) this.unrecorded.healRange(start, end);
    else if (this.unrecorded.any) {
      for (let block = start; block < end; block++) this.unrecorded.heal(block, mask);
    }
    segments.addRange(segments.poisoned, segments.of(range.headerSlot), { ...range });
  }

  /** Declares everything lost that no later record holds: records are missing, and nobody knows what they held. */
  loseAll(sequence: number): void {
    this.losePart(0, this.backingBlocks, fullMask, sequence);
    this.unrecorded.addRange(0, this.backingBlocks);
  }

  /** As {@linkcode putPoison}, without an entry in the log that says so. */
  losePart(start: number, end: number, mask: number, sequence: number): void {
    const { kernels, segments } = this;
    if (kernels.zeroDirty.any(start, end)) this.rangeSupersededBy = sequence;
    if (mask === fullMask) {
      this.#forget(start, end, sequence);
      kernels.zeroDirty.clearRange(start, end);
      this.poison.addRange(start, end);
      return;
    }
    for (let block = start; block < end; block++) {
      const slot = kernels.indexGet(block);
      if (slot !== noSlot) {
        const left = kernels.masks[slot]! & ~mask;
        if (left === 0) this.forgetSlot(block, slot, sequence);
        else {
          kernels.masks[slot] = left;
          segments.supersede(segments.of(slot), sequence);
        }
      }
      if (kernels.zeroDirty.clear(block)) {
        // Zeroes are lost as a whole, which is more than an entry with this mask says.
        this.poison.add(block, fullMask);
        this.unrecorded.add(block, fullMask & ~mask);
      } else this.poison.add(block, mask);
    }
  }

  /** Removes the version of a block that `sequence` superseded. */
  forgetSlot(block: number, slot: number, sequence: number): void {
    const { kernels, segments } = this;
    kernels.indexRemove(block);
    const segment = segments.of(slot);
    if (this.isLive(block)) segments.live[segment]!--;
    segments.supersede(segment, sequence);
    kernels.dirty.clear(block);
  }

  /** Drops every version in [start, end): by block where the range is short, by slot where it is longer than the log. */
  #forget(start: number, end: number, sequence: number): void {
    const { kernels } = this;
    if (kernels.count === 0) return;
    if (end - start <= kernels.reverse.length) {
      for (let block = start; block < end; block++) {
        const slot = kernels.indexGet(block);
        if (slot !== noSlot) this.forgetSlot(block, slot, sequence);
      }
      return;
    }
    for (let slot = 0; slot < kernels.reverse.length; slot++) {
      const block = kernels.reverse[slot]!;
      if (block >= start && block < end && kernels.indexGet(block) === slot) {
        this.forgetSlot(block, slot, sequence);
      }
    }
  }

  /** Drops what the index still holds of a segment that is used again: the durable tail has passed it (log-rules.md 13). */
  forgetSegment(segment: number): void {
    const { kernels, segments } = this;
    const first = segment * segments.blocks;
    for (let slot = first; slot < first + segments.blocks; slot++) {
      const block = kernels.reverse[slot]!;
      if (kernels.indexGet(block) === slot) kernels.indexRemove(block);
    }
  }

  /**
   * Applies a record's entries in order. `isDirty` tells, by slot, what a checkpoint knows. What reaches past the
   * backing is cut off.
   */
  replay(
    entries: EntryList,
    headerSlot: number,
    sequence: number,
    isDirty: (slot: number) => boolean,
  ): void {
    let slot = headerSlot;
    for (const entry of eachEntry(entries)) {
      const end = Math.min(entry.block + entry.count, this.backingBlocks);
      if (entry.kind === entryKind.data) {
        slot++;
        if (entry.block >= this.backingBlocks) continue;
        this.kernels.crcs[slot] = entry.crc;
        this.putData(entry.block, slot, entry.mask, sequence, isDirty(slot));
        continue;
      }
      if (entry.kind === entryKind.clean) {
        // Forgotten: nothing tells whether the backing was written past the log since.
        slot++;
        this.kernels.crcs[slot] = entry.crc;
        this.kernels.reverse[slot] = entry.block;
        continue;
      }
      if (entry.block >= end) continue;
      const range = { start: entry.block, end, headerSlot };
      if (entry.kind === entryKind.poisoned) this.putPoison(range, entry.mask, sequence);
      else this.putZeroes(range, entry.kind === entryKind.zero, sequence, isDirty(headerSlot));
    }
  }
}
