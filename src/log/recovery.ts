/**
 * Walks the log from the tail to its end and decides what belongs to the present (log-rules.md 1, 5, 6, 14).
 *
 * Invariants:
 * - A record is accepted only with sequence = previous + 1, matching chain, and an epoch that no later one voids.
 * - Up to the durable mark headers are enough; past it a record counts only if all of it verifies, and the walk ends at
 *   the first that does not: that is a torn end.
 * - A bad record at or before the mark is damage, never an end. What its successor's copy tells of it is rebuilt; what
 *   nobody can tell any more makes every block lost that no later record holds.
 *
 * @module
 */

import { blockBytes } from "../units.ts";
import { crc32c } from "../wasm/crc32c.ts";
import {
  decodePrevious,
  eachEntry,
  type EntryList,
  previousEntries,
  type PreviousRecord,
  recordEntries,
  type RecordHeader,
} from "./codec.ts";
import { carriesBlock, halfBytes } from "./layout.ts";
import type { LogReader } from "./reader.ts";
import type { LogPosition, Superblock } from "./superblock.ts";
import type { LastRecord } from "./record_header.ts";

/** Receives the accepted records in order. */
export interface RecoverySink {
  /** A record's place, before its entries: the first of its segment tells where the segment begins. */
  placed(slot: number, sequence: number, chain: number): void;
  /** A record's entries. `rebuilt`: its own header is lost, these come from a copy. */
  apply(entries: EntryList, slot: number, sequence: number, rebuilt: boolean): void;
  /** A place where a record should be that is lost. */
  lost(slot: number, sequence: number, chain: number): void;
  /** Records are lost and nobody knows what they held. */
  loseAll(sequence: number): void;
  /** An accepted record's header, before its entries; not called for one that is rebuilt. */
  header?(header: RecordHeader): void;
  /** How far the walk has come, in segments. */
  progress?(segments: number): void;
  /** A whole record has been read and verified (only past the mark, or with `verifyAll`). */
  problem?(message: string, slot: number, blocks: number): void;
}

/** Records that could not be read, at or before the durable mark. */
export interface Gap {
  /** The sequence of the first of them. */
  firstSequence: number;
  /** The sequence of the last of them. */
  lastSequence: number;
  /** Where the first was expected: blocks of 4096 bytes from the start of the log. */
  slot: number;
  /** False when everything that they held is known from copies. */
  lost: boolean;
}

/** What the walk found. */
export interface Walk {
  head: LogPosition;
  last: LastRecord | undefined;
  /** The entry list of `last`. */
  lastEntries: EntryList | undefined;
  /** The highest durable mark seen. */
  mark: number;
  records: number;
  /** Records past the mark that were whole, to be written again in place (log-rules.md 7). */
  rewrites: { slot: number; bytes: Uint8Array<ArrayBuffer> }[];
  /** Headers at or before the mark that one copy of the log has and another has not, to be written again in place. */
  mends: { slot: number; bytes: Uint8Array<ArrayBuffer> }[];
  /** Records past the mark that were not whole, or came after one that was not. */
  dropped: number;
  gaps: Gap[];
}

/**
 * Walks the log of `superblock`, to its end or, with `until`, up to the record of that sequence, which must be in it. Device
 * errors while reading pass through.
 */
export async function walkLog(
  reader: LogReader,
  superblock: Superblock,
  sink: RecoverySink,
  until = Infinity,
): Promise<Walk> {
  const walker = new Walker(reader, superblock, sink, until);
  try {
    return await walker.run();
  } finally {
    await reader.settle();
  }
}

class Walker {
  readonly #reader: LogReader;
  readonly #superblock: Superblock;
  readonly #sink: RecoverySink;
  readonly #walk: Walk;
  /** Accepted by its header, but past the mark as known so far. */
  readonly #pending: RecordHeader[] = [];
  /** Accepted from another copy than the first. */
  readonly #fromOtherCopy: RecordHeader[] = [];
  #segment: number;
  #offset: number;
  #sequence: number;
  #chain: number;
  #epoch = 0;
  /** The first sequence of each epoch that any header told of: it voids what earlier epochs left from there on. */
  readonly #epochStarts = new Map<number, number>();
  /** A record of whose header the superblock knows the checksum: another with its sequence was left by a dropped epoch. */
  readonly #known: { sequence: number; crc: number } | undefined;
  readonly #until: number;

  constructor(reader: LogReader, superblock: Superblock, sink: RecoverySink, until: number) {
    this.#until = until;
    this.#reader = reader;
    this.#superblock = superblock;
    this.#sink = sink;
    const { tail, durableMark, clean, head, previous, history: { rewind } } = superblock;
    if (rewind.epoch > 0) this.#epochStarts.set(rewind.epoch, rewind.to + 1);
    this.#segment = Math.floor(tail.slot / reader.geometry.segmentBlocks);
    this.#offset = tail.slot % reader.geometry.segmentBlocks;
    this.#sequence = tail.sequence;
    this.#chain = tail.chain;
    if (clean) this.#known = { sequence: head.sequence - 1, crc: head.chain };
    else if (previous?.sequence === durableMark) this.#known = { sequence: durableMark, crc: previous.crc };
    this.#walk = {
      head: tail,
      last: undefined,
      lastEntries: undefined,
      mark: clean ? head.sequence - 1 : durableMark,
      records: 0,
      rewrites: [],
      mends: [],
      dropped: 0,
      gaps: [],
    };
  }

  async run(): Promise<Walk> {
    const { geometry } = this.#reader;
    for (let segments = 0; segments <= geometry.segmentCount;) {
      if (geometry.segmentBlocks - this.#offset < 2) {
        this.#segment = (this.#segment + 1) % geometry.segmentCount;
        this.#offset = 0;
        this.#sink.progress?.(++segments);
        continue;
      }
      if (this.#atEnd()) break;
      await this.#acceptSegment();
      if (geometry.segmentBlocks - this.#offset < 2) continue;
      // Once more before anything is concluded, from another copy where there is one: a read may have been at fault, and not
      // what is stored.
      const reached = this.#sequence;
      if (!this.#atEnd()) await this.#acceptSegment(1);
      if (this.#sequence > reached) continue;
      if (this.#atEnd() || !(await this.#passGap())) break;
    }
    await this.#verifyPending();
    const walk = this.#walk;
    for (const header of this.#fromOtherCopy) {
      const copy = decodePrevious(header.bytes);
      const isWhole = copy !== undefined && repeatsPredecessorOf(header, copy);
      if (isWhole && header.sequence <= walk.mark) {
        walk.mends.push({ slot: header.slot, bytes: header.bytes });
      }
    }
    walk.head = {
      slot: (this.#segment * geometry.segmentBlocks + this.#offset) % geometry.slotCount,
      sequence: this.#sequence,
      chain: this.#chain,
    };
    return walk;
  }

  /** After a clean close the log ends where the superblock says, and nothing is torn; so it does where that was asked for. */
  #atEnd(): boolean {
    return (this.#superblock.clean && this.#sequence === this.#superblock.head.sequence) ||
      this.#sequence > this.#until;
  }

  get #slot(): number {
    return this.#segment * this.#reader.geometry.segmentBlocks + this.#offset;
  }

  /** Accepts headers of the present segment up to the first that is not the next record. */
  async #acceptSegment(copy = 0): Promise<void> {
    for (const header of await this.#reader.headers(this.#segment, this.#offset, copy)) {
      if (header.slot !== this.#slot || this.#atEnd() || !this.#follows(header)) return;
      if (copy > 0 && this.#reader.copyCount > 1) this.#fromOtherCopy.push(header);
      this.#sink.placed(header.slot, header.sequence, header.chain);
      this.#epochStarts.set(header.epoch.number, header.epoch.firstSequence);
      this.#pending.push(header);
      this.#raiseMark(header.durableMark);
      this.#advance(header.slot, header.sequence, header.dataCount, header.crc, header.epoch.number);
    }
  }

  #advance(slot: number, sequence: number, dataCount: number, crc: number, epoch: number): void {
    const { segmentBlocks } = this.#reader.geometry;
    this.#segment = Math.floor(slot / segmentBlocks);
    this.#offset = slot % segmentBlocks + 1 + dataCount;
    this.#sequence = sequence + 1;
    this.#chain = crc;
    this.#epoch = epoch;
  }

  #follows(header: RecordHeader): boolean {
    if (header.sequence !== this.#sequence || header.chain !== this.#chain) return false;
    if (this.#isDenied(header)) return false;
    const { epoch } = header;
    if (epoch.number < this.#epoch || !this.#epochFits(header)) return false;
    // The record before belongs to an older epoch, so it must not be void by this one: this one begins here.
    return epoch.number === this.#epoch || this.#epoch === 0 || epoch.firstSequence === header.sequence;
  }

  #isDenied(header: RecordHeader): boolean {
    return header.sequence === this.#known?.sequence && header.crc !== this.#known.crc;
  }

  /** A record of an epoch with a sequence at or after the first of a later epoch is void. */
  #epochFits(header: RecordHeader): boolean {
    const present = this.#superblock.epoch;
    const { epoch } = header;
    if (epoch.number > present.number || header.sequence < epoch.firstSequence) return false;
    if (epoch.number < present.number) return header.sequence < present.firstSequence;
    return this.#isPresent(header);
  }

  #isPresent(header: RecordHeader): boolean {
    const present = this.#superblock.epoch;
    return header.epoch.number === present.number && header.epoch.randomLow === present.randomLow &&
      header.epoch.randomHigh === present.randomHigh && header.epoch.firstSequence === present.firstSequence;
  }

  /** Records at or before the mark are durable, so their headers are enough. */
  #raiseMark(mark: number): void {
    if (mark > this.#walk.mark) this.#walk.mark = mark;
    while (this.#pending.length > 0 && this.#pending[0]!.sequence <= this.#walk.mark) {
      this.#apply(this.#pending.shift()!);
    }
  }

  #apply(header: RecordHeader): void {
    const entries = recordEntries(header);
    this.#sink.header?.(header);
    this.#sink.apply(entries, header.slot, header.sequence, false);
    this.#accepted(header.slot, header.sequence, header.epoch.number, entries, header.dataCount);
  }

  #accepted(slot: number, sequence: number, epoch: number, entries: EntryList, dataCount: number): void {
    this.#walk.records++;
    this.#walk.last = { slot, sequence, epoch, entryCount: entries.count, dataCount };
    this.#walk.lastEntries = entries;
  }

  /** Blocks in which whatever was written behind the mark lies. */
  get #window(): number {
    const { segmentBlocks, slotCount } = this.#reader.geometry;
    return Math.min(this.#reader.unsyncedBlocks + segmentBlocks, slotCount - 1);
  }

  /** At a place without the next record: torn end (false), or damage that is passed (true). */
  async #passGap(): Promise<boolean> {
    const { geometry } = this.#reader;
    const expected = this.#sequence;
    const window = this.#window;
    const start = this.#slot;
    const candidates = await this.#look(start, window);
    if (this.#walk.mark < expected) {
      // What the device could not read might have said otherwise, so nothing is called torn for want of it.
      this.#reader.refuseUnreadable(start, window);
      this.#walk.dropped += candidates.filter((header) => this.#isPresent(header)).length;
      return false;
    }
    // Damage. Everything accepted so far precedes it, so it is at or before the mark as well.
    let next = this.#firstValid(candidates);
    const rest = geometry.slotCount - window;
    if (!next && rest > 0) {
      next = this.#firstValid(await this.#look((start + window) % geometry.slotCount, rest));
    }
    return next ? this.#resumeAt(next) : this.#endDamaged();
  }

  /** The headers in [slot, slot + count) that may come after the expected one. Their marks and epochs count as facts. */
  async #look(slot: number, count: number): Promise<RecordHeader[]> {
    const candidates: RecordHeader[] = [];
    const expected = this.#sequence;
    for await (const header of this.#reader.scan(slot, count)) {
      if (!this.#epochFits(header)) continue;
      this.#epochStarts.set(header.epoch.number, header.epoch.firstSequence);
      if (header.sequence <= expected || this.#isDenied(header)) continue;
      if (this.#isPresent(header)) this.#raiseMark(header.durableMark);
      candidates.push(header);
    }
    return candidates;
  }

  /** The candidate with the lowest sequence that no later epoch voids. */
  #firstValid(candidates: RecordHeader[]): RecordHeader | undefined {
    let first: RecordHeader | undefined;
    for (const header of candidates) {
      if (first && first.sequence <= header.sequence) continue;
      let isVoid = false;
      for (const [epoch, start] of this.#epochStarts) {
        if (epoch > header.epoch.number && header.sequence >= start) isVoid = true;
      }
      if (!isVoid) first = header;
    }
    return first;
  }

  /** The walk goes on at `next`; what lies before it is rebuilt from its copy or lost. */
  #resumeAt(next: RecordHeader): boolean {
    const copy = decodePrevious(next.bytes);
    const usable = copy !== undefined && repeatsPredecessorOf(next, copy);
    this.#rebuild(usable ? copy : undefined, next.sequence - 1);
    this.#advance(next.slot, next.sequence - 1, -1, next.chain, usable ? copy.epoch : 0);
    return true;
  }

  /** No later header is left: only the superblock may know what the last record held. */
  #endDamaged(): boolean {
    const { previous, clean, head } = this.#superblock;
    const last = this.#walk.mark;
    const copy = previous && previous.sequence === last ? previous : undefined;
    this.#rebuild(copy, last);
    if (copy) {
      this.#advance(copy.slot, copy.sequence, copy.dataCount, copy.crc, copy.epoch);
      // What follows the mark may be flushed as well, and nothing of it is lost by name here: so it must have been readable.
      if (!clean) this.#reader.refuseUnreadable(this.#slot % this.#reader.geometry.slotCount, this.#window);
    }
    if (clean) this.#advance(head.slot, head.sequence - 1, -1, head.chain, this.#epoch);
    // Lost sequences are not used again: the mark of the next superblock must cover them, or a crash forgets the damage.
    else if (!copy) this.#sequence = last + 1;
    return false;
  }

  /** Accounts for the lost records from the expected one to `lastSequence`, of which `copy` tells the last. */
  #rebuild(copy: PreviousRecord | undefined, lastSequence: number): void {
    const expected = this.#sequence;
    const { segmentBlocks, slotCount } = this.#reader.geometry;
    const placeFits = copy !== undefined && copy.slot !== copy.ownSlot &&
      copy.slot + copy.dataCount < slotCount &&
      copy.slot % segmentBlocks + copy.dataCount < segmentBlocks &&
      (copy.sequence > expected || copy.slot === this.#slot);
    const lost = !placeFits || lastSequence > expected;
    this.#walk.gaps.push({ firstSequence: expected, lastSequence, slot: this.#slot, lost });
    if (lost) {
      this.#sink.lost(this.#slot, expected, this.#chain);
      this.#sink.loseAll(placeFits ? lastSequence - 1 : lastSequence);
    }
    if (!placeFits) return;
    this.#sink.placed(copy.slot, copy.sequence, copy.slot === this.#slot ? this.#chain : 0);
    this.#sink.apply(previousEntries(copy), copy.slot, copy.sequence, true);
    this.#accepted(copy.slot, copy.sequence, copy.epoch, previousEntries(copy), copy.dataCount);
  }

  /** Verifies the records past the mark whole, and cuts the log at the first that is not. */
  async #verifyPending(): Promise<void> {
    const pending = this.#pending.splice(0);
    for (let i = 0; i < pending.length; i++) {
      const header = pending[i]!;
      let bytes = await this.#reader.readable(header.slot, 1 + header.dataCount);
      this.#reader.refuseUnreadable(header.slot, 1 + header.dataCount);
      // As for headers: a second look before a record is called torn. It may fail where the first did not.
      if (!recordIsWhole(header, bytes)) {
        bytes = await this.#reader.readable(header.slot, 1 + header.dataCount, 1);
        this.#reader.refuseUnreadable(header.slot, 1 + header.dataCount);
      }
      if (recordIsWhole(header, bytes)) {
        this.#apply(header);
        this.#walk.rewrites.push({ slot: header.slot, bytes });
        continue;
      }
      this.#walk.dropped += pending.length - i;
      const { segmentBlocks } = this.#reader.geometry;
      this.#segment = Math.floor(header.slot / segmentBlocks);
      this.#offset = header.slot % segmentBlocks;
      this.#sequence = header.sequence;
      this.#chain = header.chain;
      return;
    }
  }
}

/**
 * Whether a second half belongs to this first half. The chain value tells it from one that an earlier epoch left at the same
 * place for a record of the same sequence.
 */
export function repeatsPredecessorOf(header: RecordHeader, previous: PreviousRecord): boolean {
  return previous.ownSequence === header.sequence && previous.ownSlot === header.slot &&
    previous.sequence === header.sequence - 1 && previous.crc === header.chain;
}

/**
 * Whether a record's bytes are what its header says: both halves of the header, and every block. The second half is judged by
 * itself: where the bytes come from another copy than the header did, the header's may be damaged there.
 */
export function recordIsWhole(header: RecordHeader, bytes: Uint8Array): boolean {
  for (let i = 0; i < halfBytes; i++) if (bytes[i] !== header.bytes[i]) return false;
  const previous = decodePrevious(bytes);
  if (!previous || !repeatsPredecessorOf(header, previous)) return false;
  let block = 0;
  for (const entry of eachEntry(recordEntries(header))) {
    if (!carriesBlock(entry.kind)) continue;
    block++;
    if (crc32c(bytes.subarray(block * blockBytes, (block + 1) * blockBytes)) !== entry.crc) return false;
  }
  return true;
}
