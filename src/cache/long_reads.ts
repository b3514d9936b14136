/**
 * Long reads that go straight into the memory of the reply: one transfer for each run of the backing or of the log, a copy for
 * what RAM holds, and no promise for any of them.
 *
 * Invariants: what a read will return is decided for all of its blocks when it starts. A log transfer pins its segment until
 * it ends (log-rules.md 13), so that slot and checksum stay what they were; what does not match its checksum is not handed
 * out. `readEnded` comes once all transfers of a read have ended, whatever became of them: no device touches the memory then.
 *
 * @module
 */

import { type EventDevice, startsTransfers } from "../device/block_device.ts";
import { assert } from "../errors.ts";
import type { TransferEnd } from "../io/io.ts";
import { blockBytes, fullMask, sectorBytes } from "../units.ts";
import { noSlot } from "../wasm/kernels.ts";
import type { Core } from "./core.ts";
import type { Room } from "./room.ts";
import type { ReadEnd } from "./volume.ts";

/** Most reads, and most transfers of them, that are under way at once; further ones take promises. */
const readsMax = 256;
const transfersMax = 2048;

/** Where a run lies, besides a slot of the log. */
const inBacking = -1;

/** A stack of free numbers. */
class Numbers {
  readonly #free: Uint16Array;
  count: number;
  constructor(count: number) {
    this.#free = new Uint16Array(count);
    for (let i = 0; i < count; i++) this.#free[i] = count - 1 - i;
    this.count = count;
  }
  take(): number {
    return this.#free[--this.count]!;
  }
  give(number: number): void {
    this.#free[this.count++] = number;
  }
}

/** The long reads of one cache. */
export class LongReads implements TransferEnd {
  readonly #core: Core;
  readonly #room: Room | undefined;
  readonly #log: EventDevice | null;
  readonly #backing: EventDevice | null;
  readonly #onEnd: () => boolean;

  readonly #reads: Numbers;
  /** By read: transfers under way, and one more while it is being planned. */
  readonly #pending: Int32Array;
  readonly #failed: Uint8Array;
  readonly #length: Int32Array;
  readonly #at: Int32Array;
  readonly #tag: Int32Array;
  readonly #memory: (Uint8Array<ArrayBuffer> | null)[];
  readonly #to: (ReadEnd | null)[];

  readonly #transfers: Numbers;
  /** By transfer: its read, its slot or `inBacking`, where it lies in memory, and how long it is. */
  readonly #read: Uint16Array;
  readonly #slot: Float64Array;
  readonly #pointer: Float64Array;
  readonly #bytes: Int32Array;
  readonly #startedMs: Float64Array;
  /** Failed syncs of what has gone past the log, when a transfer of the backing began. */
  readonly #failures: Int32Array;
  /** Where in the backing it lies, and the read cache's generation then; negative where nothing is to be kept. */
  readonly #offset: Float64Array;
  readonly #generation: Float64Array;

  /** `onEnd` is called after each read's end, and tells whether it settled promises. */
  constructor(core: Core, room: Room | undefined, onEnd: () => boolean) {
    this.#core = core;
    this.#room = room;
    this.#onEnd = onEnd;
    this.#log = startsTransfers(core.device) ? core.device : null;
    this.#backing = startsTransfers(core.backing) ? core.backing : null;
    // Of other devices no read is ever taken, and making all this is a good part of opening a small cache.
    const isUsed = this.#log !== null && this.#backing !== null;
    const reads = isUsed ? readsMax : 0;
    const transfers = isUsed ? transfersMax : 0;
    this.#reads = new Numbers(reads);
    this.#pending = new Int32Array(reads);
    this.#failed = new Uint8Array(reads);
    this.#length = new Int32Array(reads);
    this.#at = new Int32Array(reads);
    this.#tag = new Int32Array(reads);
    this.#memory = new Array(reads).fill(null);
    this.#to = new Array(reads).fill(null);
    this.#transfers = new Numbers(transfers);
    this.#read = new Uint16Array(transfers);
    this.#slot = new Float64Array(transfers);
    this.#pointer = new Float64Array(transfers);
    this.#bytes = new Int32Array(transfers);
    this.#startedMs = new Float64Array(transfers);
    this.#failures = new Int32Array(transfers);
    this.#offset = new Float64Array(transfers);
    this.#generation = new Float64Array(transfers);
  }

  // ---- hot path ----

  /** See `Volume.readInto`. */
  start(
    offset: number,
    memory: Uint8Array<ArrayBuffer>,
    at: number,
    length: number,
    to: ReadEnd,
    tag: number,
  ): boolean {
    const { kernels, versions, backing } = this.#core;
    if (this.#log === null || this.#backing === null || memory.buffer !== kernels.bytes.buffer) return false;
    if (length <= 0 || !(offset >= 0 && offset + length <= backing.sizeBytes)) return false;
    if (offset % sectorBytes !== 0 || length % sectorBytes !== 0 || versions.poison.any) return false;
    if (this.#reads.count === 0) return false;
    const read = this.#reads.take();
    this.#pending[read] = 1;
    this.#failed[read] = 0;
    const begun = this.#plan(read, offset, memory.byteOffset + at, length);
    if (this.#pending[read] === 1 && (begun === 0 || this.#failed[read] !== 0)) {
      this.#reads.give(read);
      return false;
    }
    this.#memory[read] = memory;
    this.#at[read] = at;
    this.#length[read] = length;
    this.#to[read] = to;
    this.#tag[read] = tag;
    // Something is under way, which ends later: the end is never told from in here.
    assert(--this.#pending[read]! > 0, "a read that was begun has a transfer");
    return true;
  }

  /**
   * Starts what is to be started, up to what cannot be had this way, which makes it a failure. Returns how many transfers
   * there are; when there are none, all that was copied does not count.
   */
  #plan(read: number, offset: number, pointer: number, length: number): number {
    const { kernels, writer } = this.#core;
    const end = offset + length;
    let begun = 0;
    // The run at hand: where it begins, and in what it lies.
    let from = offset;
    let slot = noSlot;
    let isRun = false;
    if (kernels.count === 0 && kernels.zeroDirty.count === 0) {
      return this.#begin(read, offset, noSlot, pointer, length);
    }
    for (let position = offset; position < end;) {
      const block = Math.floor(position / blockBytes);
      const next = Math.min((block + 1) * blockBytes, end);
      const found = kernels.indexGet(block);
      const ram = found === noSlot || !writer ? -1 : writer.pointerOf(found);
      if (!this.#canTake(block, found, ram, position, next)) {
        // Whoever reads all of it again also reads the run at hand.
        this.#failed[read] = 1;
        return begun;
      }
      const joins = isRun && ram < 0 &&
        (found === noSlot
          ? slot === noSlot
          : slot !== noSlot && found - slot === (position - from) / blockBytes);
      if (!joins) {
        if (isRun) begun += this.#begin(read, from, slot, pointer + from - offset, position - from);
        from = position;
        slot = found;
        isRun = ram < 0;
      }
      if (ram >= 0) {
        kernels.copyWithin(pointer + position - offset, ram + position - block * blockBytes, next - position);
      }
      position = next;
    }
    if (isRun) begun += this.#begin(read, from, slot, pointer + from - offset, end - from);
    return begun;
  }

  /** Whether a block, or the part [position, next) of it, is to be had from one place. */
  #canTake(block: number, slot: number, ram: number, position: number, next: number): boolean {
    const { kernels } = this.#core;
    // Zeroes are left to whoever can send them as a hole.
    if (slot === noSlot) return !kernels.zeroDirty.test(block);
    if (kernels.masks[slot] !== fullMask) return false;
    // What comes from the log is verified, for which it has to be whole.
    return ram >= 0 || next - position === blockBytes;
  }

  #begin(read: number, offset: number, slot: number, pointer: number, bytes: number): number {
    const { kernels, segments, geometry, foreground, bypassed, copies } = this.#core;
    const isBacking = slot === noSlot;
    const device = isBacking ? this.#backing! : this.#log!;
    const place = isBacking ? offset : geometry.logOffset + slot * blockBytes;
    if (this.#transfers.count === 0) {
      this.#failed[read] = 1;
      return 0;
    }
    const transfer = this.#transfers.take();
    if (!device.startRead(place, kernels.bytes, pointer, bytes, this, transfer)) {
      this.#transfers.give(transfer);
      this.#failed[read] = 1;
      return 0;
    }
    if (isBacking) {
      this.#startedMs[transfer] = foreground.begin();
      this.#failures[transfer] = bypassed.failures;
      this.#offset[transfer] = offset;
      this.#generation[transfer] = copies.wants(offset, bytes) ? copies.generation : -1;
    } else segments.pins[segments.of(slot)]!++;
    this.#read[transfer] = read;
    this.#slot[transfer] = isBacking ? inBacking : slot;
    this.#pointer[transfer] = pointer;
    this.#bytes[transfer] = bytes;
    this.#pending[read]!++;
    return 1;
  }

  /** The devices' part; not to be called. */
  transferred(result: number, transfer: number): boolean {
    const { kernels, segments, statistics, foreground, bypassed, copies } = this.#core;
    const read = this.#read[transfer]!;
    const slot = this.#slot[transfer]!;
    const bytes = this.#bytes[transfer]!;
    const blocks = Math.ceil(bytes / blockBytes);
    this.#transfers.give(transfer);
    let good = result === bytes;
    let settled = false;
    if (slot === inBacking) {
      foreground.end(this.#startedMs[transfer]!);
      good = good && this.#failures[transfer] === bypassed.failures;
      if (good) statistics.readMissBlocks += blocks;
      const generation = this.#generation[transfer]!;
      if (good && generation >= 0) {
        copies.keep(this.#offset[transfer]!, kernels.bytes, this.#pointer[transfer]!, bytes, generation);
      }
    } else {
      good = good && this.#verify(slot, this.#pointer[transfer]!, blocks);
      if (--segments.pins[segments.of(slot)]! === 0 && this.#room !== undefined) settled = this.#room.wake();
      if (good) statistics.readHitBlocks += blocks;
    }
    if (!good) this.#failed[read] = 1;
    if (--this.#pending[read]! > 0) return settled;
    return this.#end(read) || settled;
  }

  #verify(slot: number, pointer: number, blocks: number): boolean {
    const { kernels } = this.#core;
    for (let i = 0; i < blocks; i++) {
      if (kernels.crc32cBlock(pointer + i * blockBytes) !== kernels.crcs[slot + i]) return false;
    }
    return true;
  }

  #end(read: number): boolean {
    const { statistics } = this.#core;
    const good = this.#failed[read] === 0;
    if (good) {
      statistics.readRequests++;
      statistics.readBytes += this.#length[read]!;
    }
    const to = this.#to[read]!;
    const memory = this.#memory[read]!;
    this.#to[read] = this.#memory[read] = null;
    const [tag, at] = [this.#tag[read]!, this.#at[read]!];
    this.#reads.give(read);
    to.readEnded(tag, memory, good ? at : -1);
    return this.#onEnd();
  }
  // ---- end of the hot path ----
}
