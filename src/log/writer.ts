/**
 * The writing end of the log: the open record in RAM, sealing, log writes under way, and what is durable.
 *
 * Invariants:
 * - A record reserves its place before anything in it is acknowledged (log-rules.md 11); it never spans segments; it
 *   starts at the block after its predecessor if at least two blocks remain in the segment, else at the next segment's
 *   first block.
 * - A sealed record never changes (10). Inside the open record a block is overwritten in place only while no later range
 *   entry covers it (3).
 * - `durableSequence` is the largest s such that all records <= s had completed before a sync was issued that then
 *   succeeded (9). At most `unsyncedBlocksMax` of log lies between it and the head (1).
 * - A failed log write or sync is final: nothing is retried and reported good (DESIGN.md 7).
 *
 * ```text
 *   sealed, durable          sealed, in flight     open
 *   ... [H d d d][H d d] | [H d d d d][H d] ... [H d d . . .]
 *                        ^ durableSequence          ^ openSlot
 * ```
 *
 * @module
 */

import { assert, type DeviceError } from "../errors.ts";
import type { BlockDevice } from "../device/block_device.ts";
import type { Clock } from "../clock.ts";
import { blockBytes } from "../units.ts";
import type { Kernels } from "../wasm/kernels.ts";
import { type Appender, type LogStatistics, segmentsLeft, type Wait } from "./appender.ts";
import type { Epoch } from "./codec.ts";
import { Durability } from "./durability.ts";
import type { Geometry } from "./geometry.ts";
import {
  carriesBlock,
  entryBytes,
  entryField,
  entryKind,
  recordDataMax,
  recordEntriesMax,
  recordField,
  segmentsReserved,
  unsyncedBytesMax,
} from "./layout.ts";
import { RamSegments } from "./ram_segments.ts";
import { fillHeader, type HeaderFacts, type LastRecord, noteLast } from "./record_header.ts";
import { RecordWrites } from "./record_writes.ts";
import type { Segments } from "./segments.ts";
import type { LogPosition } from "./superblock.ts";

/** Most log, in blocks, that may be un-synced. */
export const unsyncedBlocksMax = unsyncedBytesMax / blockBytes;

/** The log's writing end. */
export class LogWriter {
  readonly #durability: Durability;
  readonly #ram: RamSegments;
  #records = 0;
  #bytes = 0;

  readonly #recordWrites: RecordWrites;
  readonly #kernels: Kernels;
  readonly #segments: Segments;
  readonly #geometry: Geometry;
  readonly #clock: Clock;
  /** What the next header says; one object for all of them. */
  readonly #facts: HeaderFacts;

  #headSegment: number;
  #headOffset: number;
  #nextSequence: number;
  /** As a signed number, which V8 keeps without an object. */
  #chain: number;
  /** The segment that the tails of both durable superblocks have reached. */
  #reusableTail: number;

  #openSlot = -1;
  #openPointer = 0;
  #entryCount = 0;
  #dataCount = 0;
  #dataCapacity = 0;
  /** Slots below were covered by a range entry of the open record: not to be overwritten in place. */
  #overwriteFloor = 0;

  #appendedBlocks = 0;
  /** Data blocks that an empty segment takes. */
  readonly #segmentDataMax: number;
  readonly #unsyncedMax: number;
  #isFlushPoint = false;
  /** Called when a segment is taken for the head. */
  onSegment: () => void = () => {};
  /** The sequence of the last record that holds anything but clean copies. */
  #neededSequence: number;

  constructor(options: {
    device: BlockDevice;
    kernels: Kernels;
    segments: Segments;
    geometry: Geometry;
    clock: Clock;
    uuid: Uint8Array;
    epoch: Epoch;
    head: LogPosition;
    last: LastRecord | undefined;
    reusableTail: number;
    bufferCount: number;
    /** Less than {@linkcode unsyncedBlocksMax}, at least two segments: for small worlds. */
    unsyncedBlocks?: number;
  }) {
    this.#kernels = options.kernels;
    this.#segments = options.segments;
    this.#geometry = options.geometry;
    this.#clock = options.clock;
    this.#unsyncedMax = options.unsyncedBlocks ?? unsyncedBlocksMax;
    const { segmentBlocks } = options.geometry;
    this.#segmentDataMax = segmentBlocks - Math.ceil(segmentBlocks / (recordDataMax + 1));
    this.#headSegment = Math.floor(options.head.slot / segmentBlocks);
    this.#headOffset = options.head.slot % segmentBlocks;
    // A record that ended with its segment leaves the head in it: the next segment is not ours before it is taken.
    if (this.#headOffset === 0 && options.last) {
      this.#headSegment = Math.floor(options.last.slot / segmentBlocks);
      this.#headOffset = segmentBlocks;
    }
    this.#nextSequence = options.head.sequence;
    this.#neededSequence = options.head.sequence - 1;
    this.#chain = options.head.chain | 0;
    this.#reusableTail = options.reusableTail;
    this.#durability = new Durability(
      options.device,
      { sequence: options.head.sequence - 1, slot: options.last?.slot ?? -1 },
      (wanted) => {
        if (wanted >= this.#nextSequence) this.seal();
        return this.sealedSequence;
      },
    );
    this.#ram = new RamSegments(options.kernels, options.segments, options.bufferCount);
    this.#ram.take(this.#headSegment, this.#headOffset);
    this.#recordWrites = new RecordWrites(options, this.#durability, this.#ram);
    this.#facts = {
      uuid: options.uuid,
      epoch: options.epoch,
      slot: 0,
      sequence: 0,
      chain: 0,
      entryCount: 0,
      dataCount: 0,
      durableMark: 0,
      sealedMs: 0,
      isFlushPoint: false,
      // Where the record before the head is lost, the next one repeats nothing: a copy of another would make it look torn.
      last: options.last?.sequence === options.head.sequence - 1 ? { ...options.last } : undefined,
    };
  }

  /** The first failure of a log write or sync; the log takes nothing any more afterwards. */
  get failure(): DeviceError | undefined {
    return this.#durability.failure;
  }
  /** Called when something happened that a waiting appender may want to know. */
  set onProgress(action: () => boolean) {
    this.#durability.onProgress = action;
  }
  get onProgress(): () => boolean {
    return this.#durability.onProgress;
  }
  /** Called once, with the first failure. */
  set onFailure(action: (error: DeviceError) => void) {
    this.#durability.onFailure = action;
  }
  /** Counters for status. */
  get statistics(): LogStatistics {
    const { syncs, flushes } = this.#durability;
    return { records: this.#records, writes: this.#records, syncs, bytes: this.#bytes, flushes };
  }
  get durableSequence(): number {
    return this.#durability.durable.sequence;
  }
  /** The slot of the last durable record, or -1 when the log held none. */
  get durableSlot(): number {
    return this.#durability.durable.slot;
  }
  /** The sequence of the last sealed record. */
  get sealedSequence(): number {
    return this.#nextSequence - 1;
  }
  /** The sequence that what is put now belongs to. */
  get openSequence(): number {
    return this.#nextSequence;
  }
  /** The sequence of the last record that holds anything. */
  get lastPutSequence(): number {
    return this.openHasEntries ? this.openSequence : this.sealedSequence;
  }
  /** The same, but for clean copies, which nobody waits for. */
  get lastNeededSequence(): number {
    return this.#neededSequence;
  }
  get isWriting(): boolean {
    return this.#durability.isWriting;
  }
  /** Whether the open record holds anything. */
  get openHasEntries(): boolean {
    return this.#entryCount > 0;
  }
  get headSegment(): number {
    return this.#headSegment;
  }
  /** Blocks of log, partly filled segments' rests included, that are not known to be durable. */
  get unsyncedBlocks(): number {
    return this.#appendedBlocks - this.#durability.durable.appended;
  }
  /** Blocks that the log took since it was opened, the open record's included. */
  get appendedBlocks(): number {
    return this.#appendedBlocks + this.#dataCount;
  }
  /** The last sealed record. */
  get last(): LastRecord | undefined {
    return this.#facts.last;
  }
  /** Segments that can be taken, the engine's reserve included. */
  get freeSegments(): number {
    const { segmentCount } = this.#geometry;
    return (this.#reusableTail - this.#headSegment - 1 + segmentCount) % segmentCount;
  }

  /** Where the next record goes if nothing is open. */
  get head(): LogPosition {
    const slot = this.#headSegment * this.#geometry.segmentBlocks + this.#headOffset;
    return { slot: slot % this.#geometry.slotCount, sequence: this.#nextSequence, chain: this.#chain >>> 0 };
  }

  /** Whether a crash would read the segment. */
  isInUse(segment: number): boolean {
    const { segmentCount } = this.#geometry;
    const distance = (at: number) => (at - this.#reusableTail + segmentCount) % segmentCount;
    return distance(segment) <= distance(this.#headSegment);
  }

  /** Tells that both durable superblocks name a tail in `segment`. */
  setReusableTail(segment: number): void {
    this.#reusableTail = segment;
    this.onProgress();
  }

  // ---- hot path: from here to the matching mark nothing is allocated per block ----

  /** The RAM address of a slot's block, or -1 when only the device has it. */
  pointerOf(slot: number): number {
    return this.#ram.pointerOf(slot);
  }

  /** Whether a write to the version at `slot` may go in place: it is in the open record and no later range covers it. */
  isOverwritable(slot: number): boolean {
    return this.#openSlot >= 0 && slot >= this.#overwriteFloor && slot > this.#openSlot &&
      slot <= this.#openSlot + this.#dataCount;
  }

  /** Makes sure that the open record takes one more data block (or range), or says what to wait for. */
  prepare(appender: Appender): Wait {
    if (this.failure) return "failed";
    if (this.#openSlot >= 0) {
      if (this.#dataCount < this.#dataCapacity && this.#entryCount < recordEntriesMax) return "none";
      this.seal();
      if (this.failure) return "failed";
    }
    return this.#open(appender);
  }

  /** Whether `count` blocks can be appended right now without waiting, new records and segments for them included. */
  canTake(count: number): boolean {
    if (this.failure) return false;
    const taken = this.#segmentsFor(count);
    return taken === 0 ||
      (this.#hasSpace(taken) && !this.#isUnsynced(taken) && this.#ram.areNextFree(taken));
  }

  /**
   * Whether `count` blocks cannot be appended just now, and nothing but log writes or a sync under way is the reason; `onProgress`
   * follows.
   */
  isBusy(count: number): boolean {
    const taken = this.#segmentsFor(count);
    if (this.failure || taken === 0 || !this.#hasSpace(taken) || !this.#ram.canHold(taken)) return false;
    if ((taken + 2) * this.#geometry.segmentBlocks > this.#unsyncedMax) return false;
    if (!this.#isUnsynced(taken)) return !this.#ram.areNextFree(taken);
    this.syncSoon();
    return true;
  }

  /** Segments that `count` more blocks take, as if the rest of the head's were lost to a skip. */
  #segmentsFor(count: number): number {
    const room = this.#openSlot < 0
      ? 0
      : Math.min(this.#dataCapacity - this.#dataCount, recordEntriesMax - this.#entryCount);
    return count <= room ? 0 : Math.ceil((count - room) / this.#segmentDataMax);
  }

  /** Whether so many segments can be taken by clients. */
  #hasSpace(count: number): boolean {
    return this.freeSegments >= segmentsReserved + count &&
      !this.#segments.arePinned(this.#headSegment, count);
  }

  /** Whether so many more could leave too much un-synced. */
  #isUnsynced(count: number): boolean {
    return this.unsyncedBlocks + (count + 2) * this.#geometry.segmentBlocks > this.#unsyncedMax;
  }

  /** Appends a block after a successful {@linkcode prepare}; the caller fills the returned slot's RAM. */
  putData(block: number, mask: number, kind: number = entryKind.data): number {
    assert(this.#openSlot >= 0 && this.#dataCount < this.#dataCapacity, "prepare came before putData");
    this.#kernels.recordAddData(this.#openPointer, this.#entryCount, kind, block, mask);
    if (kind === entryKind.data) this.#neededSequence = this.#nextSequence;
    this.#noteEntry();
    this.#dataCount++;
    return this.#openSlot + this.#dataCount;
  }

  /** The record counts for its segment from its first entry on: nothing could ever make an empty one durable. */
  #noteEntry(): void {
    this.#segments.lastSequence[this.#headSegment] = this.#nextSequence;
    this.#entryCount++;
  }

  /** Widens the mask of a block of the open record that is overwritten in place. */
  widenMask(slot: number, mask: number): void {
    // The entry is found by its data index: ranges in between make the entry index larger, never smaller.
    const { bytes } = this.#kernels;
    let data = slot - this.#openSlot;
    for (let at = this.#openPointer + recordField.entries;; at += entryBytes) {
      if (carriesBlock(bytes[at + entryField.kind]!) && --data === 0) {
        bytes[at + entryField.mask] = mask;
        return;
      }
    }
  }
  // ---- end of the hot path ----

  /** Appends a range entry after a successful {@linkcode prepare}; returns the record's header slot. */
  putRange(kind: number, start: number, count: number, mask: number): number {
    assert(this.#openSlot >= 0 && this.#entryCount < recordEntriesMax, "prepare came before putRange");
    this.#kernels.recordAddRange(this.#openPointer, this.#entryCount, kind, start, count, mask);
    this.#neededSequence = this.#nextSequence;
    this.#noteEntry();
    this.#overwriteFloor = this.#openSlot + this.#dataCount + 1;
    return this.#openSlot;
  }

  #open(appender: Appender): Wait {
    const { segmentBlocks } = this.#geometry;
    const segments = this.#segments;
    let segment = this.#headSegment;
    let offset = this.#headOffset;
    let skipped = 0;
    if (segmentBlocks - offset < 2) {
      skipped = segmentBlocks - offset;
      segment = segments.after(segment);
      offset = 0;
      if (
        this.freeSegments <= segmentsLeft[appender] || segments.pins[segment]! > 0
      ) return "space";
    }
    const capacity = Math.min(recordDataMax, segmentBlocks - offset - 1);
    if (this.unsyncedBlocks + skipped + capacity + 1 > this.#unsyncedMax) {
      this.#durability.start(this.sealedSequence);
      return "sync";
    }
    if (offset === 0) {
      if (!this.#ram.take(segment, 0)) return "buffer";
      this.#headSegment = segment;
      this.#headOffset = 0;
      this.onSegment();
      segments.begin(segment * segmentBlocks, this.#nextSequence, this.#chain);
      segments.lastSequence[segment] = this.#nextSequence - 1;
    }
    this.#appendedBlocks += skipped;
    this.#openSlot = segment * segmentBlocks + offset;
    this.#openPointer = this.pointerOf(this.#openSlot);
    this.#entryCount = this.#dataCount = 0;
    this.#dataCapacity = capacity;
    this.#overwriteFloor = this.#openSlot + 1;
    this.#kernels.recordBegin(this.#openPointer);
    return "none";
  }

  /** Notes that a client asks for a flush: the volume is consistent where the open record, or the last sealed one, ends. */
  markFlushPoint(): void {
    if (this.#neededSequence === this.#nextSequence) this.#isFlushPoint = true;
  }

  /** Closes the open record, if it holds anything, and starts writing it. */
  seal(): void {
    if (this.#openSlot < 0 || this.#entryCount === 0 || this.failure) return;
    const kernels = this.#kernels;
    const pointer = this.#openPointer;
    const facts = this.#facts;
    facts.slot = this.#openSlot;
    facts.sequence = this.#nextSequence;
    facts.chain = this.#chain;
    facts.entryCount = this.#entryCount;
    facts.dataCount = this.#dataCount;
    facts.durableMark = this.durableSequence;
    facts.sealedMs = Math.floor(this.#clock.wallMs());
    facts.isFlushPoint = this.#isFlushPoint;
    fillHeader(kernels, pointer, facts);
    const blocks = 1 + this.#dataCount;
    this.#chain = kernels.recordSeal(pointer, this.#openSlot + 1);
    const entries = pointer + recordField.entries;
    kernels.bytes.copyWithin(kernels.map.entries, entries, entries + recordEntriesMax * entryBytes);
    noteLast(facts);
    this.#headOffset += blocks;
    this.#appendedBlocks += blocks;
    const record = this.#durability.begin(this.#nextSequence, this.#openSlot, this.#appendedBlocks);
    this.#nextSequence++;
    this.#openSlot = -1;
    this.#entryCount = this.#dataCount = 0;
    this.#isFlushPoint = false;
    this.#records++;
    this.#bytes += blocks * blockBytes;
    this.#recordWrites.start(record, this.#headSegment, pointer, blocks);
    if (this.unsyncedBlocks > this.#unsyncedMax / 2) this.#durability.startUnlessRunning(this.sealedSequence);
  }

  /** Fails the log from outside: a superblock could not be written, or the engine found a mistake of its own. */
  fail(error: unknown, told?: DeviceError): void {
    this.#durability.fail(error, told);
  }

  /**
   * Resolves when every record up to `sequence` is durable. Calls that arrive while a log write or sync is under way
   * share the next one; a lone caller waits for nobody. A record that holds nothing yet is waited for by nobody either.
   */
  makeDurable(sequence: number): Promise<void> {
    return this.#durability.request(Math.min(sequence, this.lastPutSequence));
  }

  /** Syncs the cache device; what had completed before the call is durable afterwards. Fails the log on an error. */
  syncDevice(): Promise<void> {
    return this.#durability.sync();
  }

  /** Starts making durable what is sealed, and waits for nothing. */
  syncSoon(): void {
    this.#durability.start(this.sealedSequence);
  }

  /** Resolves when no log write, and no sync, is under way. */
  async settle(): Promise<void> {
    while (this.#ram.anyWrite) await this.#durability.nextEnd();
    await this.#durability.syncsEnd();
  }
}
