/**
 * Reads that end in a call instead of a promise: of one block or part of one, or of a longer run that the backing alone
 * has or that lies in one piece in the log. Everything less simple goes through `reads.ts`, and so does a read that
 * fails here.
 *
 * Invariants: which version a read returns is decided when it starts; a log read captures slot and checksum then and pins
 * its segment until it ends (log-rules.md 13); what does not match its checksum is not handed out. A slot's memory is not
 * used again before its `readEnded` has returned.
 *
 * @module
 */

import { type EventDevice, startsTransfers } from "../device/block_device.ts";
import { assert } from "../errors.ts";
import type { TransferEnd } from "../io/io.ts";
import { blockBytes, fullMask, roundDown, roundUp, sectorBytes } from "../units.ts";
import { noSlot } from "../wasm/kernels.ts";
import { type Core, sectorsTouched } from "./core.ts";
import type { Room } from "./room.ts";
import type { ReadEnd } from "./volume.ts";

/** Most reads of up to a block that are under way at once; further ones take promises. */
const smallMax = 256;
/** The same for longer reads, and how long those may be: what fits a connection's buffer. */
const largeMax = 32;
const largeBlocksMax = 65;
const slotsMax = smallMax + largeMax;
/** Blocks of memory that they need in all. */
export const readSlotBlocks = smallMax + largeMax * largeBlocksMax;

/** The segment of a read from the backing. */
const noSegment = -1;

/** Numbers of free slots; a stack. */
class FreeSlots {
  readonly #numbers: Uint16Array;
  #count: number;
  constructor(first: number, count: number) {
    this.#numbers = new Uint16Array(count);
    for (let i = 0; i < count; i++) this.#numbers[i] = first + count - 1 - i;
    this.#count = count;
  }
  /** The next one, without taking it; -1 when there is none. */
  get next(): number {
    return this.#count === 0 ? -1 : this.#numbers[this.#count - 1]!;
  }
  take(): void {
    this.#count--;
  }
  give(slot: number): void {
    this.#numbers[this.#count++] = slot;
  }
}

/** Reads under way. */
export class ReadSlots implements TransferEnd {
  readonly #core: Core;
  readonly #room: Room | undefined;
  readonly #log: EventDevice | null;
  readonly #backing: EventDevice | null;
  readonly #onEnd: () => boolean;
  readonly #small = new FreeSlots(0, smallMax);
  readonly #large = new FreeSlots(smallMax, largeMax);
  readonly #segment = new Int32Array(slotsMax);
  /** Checksums of the blocks of log reads, `largeBlocksMax` a slot. */
  readonly #crcs = new Uint32Array(slotsMax * largeBlocksMax);
  /** What was asked of the device, and where in it the wanted bytes are. */
  readonly #deviceBytes = new Int32Array(slotsMax);
  readonly #offset = new Float64Array(slotsMax);
  readonly #skip = new Int32Array(slotsMax);
  readonly #length = new Int32Array(slotsMax);
  /** Failed syncs of what has gone past the log, when a read of the backing began. */
  readonly #failures = new Int32Array(slotsMax);
  /** The read cache's generation then; negative where nothing is to be kept. */
  readonly #generation = new Float64Array(slotsMax);
  readonly #tag = new Int32Array(slotsMax);
  /** When a read of the backing began. */
  readonly #startedMs = new Float64Array(slotsMax);
  readonly #to: (ReadEnd | null)[] = new Array(slotsMax).fill(null);

  /** `onEnd` is called after each read's end, and tells whether it settled promises. */
  constructor(core: Core, room: Room | undefined, onEnd: () => boolean) {
    this.#core = core;
    this.#room = room;
    this.#onEnd = onEnd;
    this.#log = startsTransfers(core.device) ? core.device : null;
    this.#backing = startsTransfers(core.backing) ? core.backing : null;
  }

  // ---- hot path ----

  /** See `Volume.readSoon`. */
  start(offset: number, length: number, to: ReadEnd, tag: number): boolean {
    const { kernels, versions, writer, backing } = this.#core;
    if (length <= 0 || !(offset >= 0 && offset + length <= backing.sizeBytes)) return false;
    const first = Math.floor(offset / blockBytes);
    const last = Math.floor((offset + length - 1) / blockBytes);
    if (versions.poison.any || last - first >= largeBlocksMax) return false;
    const free = first === last ? this.#small : this.#large;
    if (free.next < 0) return false;
    const slot = kernels.indexGet(first);
    if (slot === noSlot) {
      return this.#backingHasAll(first, last) && this.#startBacking(free, offset, length, to, tag);
    }
    const from = offset - first * blockBytes;
    if (first === last) {
      const mask = kernels.masks[slot]!;
      if (mask !== fullMask && (sectorsTouched(from, from + length) & ~mask) !== 0) return false;
      if (writer && writer.pointerOf(slot) >= 0) return false;
    } else if (!this.#isRun(first, last, slot)) return false;
    return this.#startLog(free, slot, last - first + 1, from, length, to, tag);
  }

  /** Whether the log has nothing of these blocks. */
  #backingHasAll(first: number, last: number): boolean {
    const { kernels } = this.#core;
    for (let block = first; block <= last; block++) {
      if (kernels.zeroDirty.test(block) || (block > first && kernels.indexGet(block) !== noSlot)) {
        return false;
      }
    }
    return true;
  }

  /** Whether the log alone, and not RAM, has all of these blocks, one behind the other. */
  #isRun(first: number, last: number, slot: number): boolean {
    const { kernels, segments, writer } = this.#core;
    for (let block = first; block <= last; block++) {
      const at = slot + block - first;
      if (kernels.indexGet(block) !== at || kernels.masks[at] !== fullMask) return false;
    }
    // A segment is in RAM as a whole, or from some block on.
    const end = slot + last - first;
    return segments.of(slot) === segments.of(end) && !(writer && writer.pointerOf(end) >= 0);
  }

  #startLog(
    free: FreeSlots,
    slot: number,
    blocks: number,
    from: number,
    length: number,
    to: ReadEnd,
    tag: number,
  ): boolean {
    const { kernels, segments, geometry } = this.#core;
    const place = free.next;
    const offset = geometry.logOffset + slot * blockBytes;
    const bytes = blocks * blockBytes;
    if (!this.#log?.startRead(offset, kernels.bytes, this.#pointer(place), bytes, this, place)) return false;
    const segment = segments.of(slot);
    segments.pins[segment]!++;
    this.#segment[place] = segment;
    for (let i = 0; i < blocks; i++) this.#crcs[place * largeBlocksMax + i] = kernels.crcs[slot + i]!;
    this.#begun(free, place, bytes, from, length, to, tag);
    return true;
  }

  #startBacking(free: FreeSlots, offset: number, length: number, to: ReadEnd, tag: number): boolean {
    const { kernels } = this.#core;
    const place = free.next;
    const { copies, backing } = this.#core;
    const keeps = copies.wants(offset, length);
    // To be kept, a block must be read whole.
    const unit = keeps ? blockBytes : sectorBytes;
    const start = roundDown(offset, unit);
    const bytes = Math.min(roundUp(offset + length, unit), backing.sizeBytes) - start;
    if (!this.#backing?.startRead(start, kernels.bytes, this.#pointer(place), bytes, this, place)) {
      return false;
    }
    this.#segment[place] = noSegment;
    this.#failures[place] = this.#core.bypassed.failures;
    this.#startedMs[place] = this.#core.foreground.begin();
    this.#generation[place] = keeps ? copies.generation : -1;
    this.#offset[place] = start;
    this.#begun(free, place, bytes, offset - start, length, to, tag);
    return true;
  }

  /** Where the memory of a slot is. */
  #pointer(place: number): number {
    const before = place < smallMax ? place : smallMax + (place - smallMax) * largeBlocksMax;
    return this.#core.kernels.map.reads + before * blockBytes;
  }

  #begun(
    free: FreeSlots,
    place: number,
    deviceBytes: number,
    skip: number,
    length: number,
    to: ReadEnd,
    tag: number,
  ): void {
    free.take();
    assert(this.#to[place] === null, "a free slot has no read");
    this.#to[place] = to;
    this.#tag[place] = tag;
    this.#deviceBytes[place] = deviceBytes;
    this.#skip[place] = skip;
    this.#length[place] = length;
  }

  /** The devices' part; not to be called. */
  transferred(result: number, place: number): boolean {
    const { kernels, segments, statistics, bypassed } = this.#core;
    const pointer = this.#pointer(place);
    const segment = this.#segment[place]!;
    const length = this.#length[place]!;
    const skip = this.#skip[place]!;
    let good = result === this.#deviceBytes[place];
    let settled = false;
    if (segment === noSegment) {
      this.#core.foreground.end(this.#startedMs[place]!);
      good = good && this.#failures[place] === bypassed.failures;
    } else {
      good = good && this.#verify(place, pointer, result);
      if (--segments.pins[segment]! === 0 && this.#room !== undefined) settled = this.#room.wake();
    }
    if (good) {
      const blocks = Math.ceil((skip + length) / blockBytes);
      if (segment === noSegment) statistics.readMissBlocks += blocks;
      else statistics.readHitBlocks += blocks;
      statistics.readRequests++;
      statistics.readBytes += length;
      if (segment === noSegment && this.#generation[place]! >= 0) {
        this.#core.copies.keep(
          this.#offset[place]!,
          kernels.bytes,
          pointer,
          result,
          this.#generation[place]!,
        );
      }
    }
    const to = this.#to[place]!;
    this.#to[place] = null;
    to.readEnded(this.#tag[place]!, kernels.bytes, good ? pointer + skip : -1);
    (place < smallMax ? this.#small : this.#large).give(place);
    return this.#onEnd() || settled;
  }

  #verify(place: number, pointer: number, bytes: number): boolean {
    const { kernels } = this.#core;
    const crcs = place * largeBlocksMax;
    for (let i = 0; i * blockBytes < bytes; i++) {
      if (kernels.crc32cBlock(pointer + i * blockBytes) !== this.#crcs[crcs + i]) return false;
    }
    return true;
  }
  // ---- end of the hot path ----
}
