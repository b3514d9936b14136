/**
 * Reads of one block, or part of one, that end in a call instead of a promise: from the log with verification, or from the
 * backing. Everything that is less simple goes through `reads.ts`, which is also where a read goes that fails here.
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

/** Most such reads under way at once; further ones take promises. */
export const readSlotsMax = 256;

/** The segment of a read from the backing. */
const noSegment = -1;

/** Reads under way. */
export class ReadSlots implements TransferEnd {
  readonly #core: Core;
  readonly #room: Room | undefined;
  readonly #log: EventDevice | null;
  readonly #backing: EventDevice | null;
  readonly #onEnd: () => boolean;
  readonly #free = new Uint16Array(readSlotsMax);
  #freeCount = readSlotsMax;
  readonly #segment = new Int32Array(readSlotsMax);
  readonly #crc = new Uint32Array(readSlotsMax);
  /** What was asked of the device, and where in it the wanted bytes are. */
  readonly #deviceBytes = new Int32Array(readSlotsMax);
  readonly #skip = new Int32Array(readSlotsMax);
  readonly #length = new Int32Array(readSlotsMax);
  readonly #tag = new Int32Array(readSlotsMax);
  readonly #to: (ReadEnd | null)[] = new Array(readSlotsMax).fill(null);

  /** `onEnd` is called after each read's end, and tells whether it settled promises. */
  constructor(core: Core, room: Room | undefined, onEnd: () => boolean) {
    this.#core = core;
    this.#room = room;
    this.#onEnd = onEnd;
    this.#log = startsTransfers(core.device) ? core.device : null;
    this.#backing = startsTransfers(core.backing) ? core.backing : null;
    for (let i = 0; i < readSlotsMax; i++) this.#free[i] = i;
  }

  // ---- hot path ----

  /** See `Volume.readSoon`. */
  start(offset: number, length: number, to: ReadEnd, tag: number): boolean {
    const { kernels, versions, writer, backing } = this.#core;
    const block = Math.floor(offset / blockBytes);
    const from = offset - block * blockBytes;
    if (length <= 0 || from + length > blockBytes || !(offset >= 0 && offset + length <= backing.sizeBytes)) {
      return false;
    }
    if (this.#freeCount === 0 || versions.poison.any) return false;
    const slot = kernels.indexGet(block);
    if (slot === noSlot) return this.#startBacking(offset, length, to, tag);
    const mask = kernels.masks[slot]!;
    if (mask !== fullMask && (sectorsTouched(from, from + length) & ~mask) !== 0) return false;
    if (writer && writer.pointerOf(slot) >= 0) return false;
    return this.#startLog(slot, from, length, to, tag);
  }

  #startLog(slot: number, from: number, length: number, to: ReadEnd, tag: number): boolean {
    const { kernels, segments, geometry } = this.#core;
    const place = this.#free[this.#freeCount - 1]!;
    const at = kernels.map.reads + place * blockBytes;
    const offset = geometry.logOffset + slot * blockBytes;
    if (this.#log === null || !this.#log.startRead(offset, kernels.bytes, at, blockBytes, this, place)) {
      return false;
    }
    const segment = segments.of(slot);
    segments.pins[segment]!++;
    this.#segment[place] = segment;
    this.#crc[place] = kernels.crcs[slot]!;
    this.#begun(place, blockBytes, from, length, to, tag);
    return true;
  }

  #startBacking(offset: number, length: number, to: ReadEnd, tag: number): boolean {
    const { kernels } = this.#core;
    if (kernels.zeroDirty.test(Math.floor(offset / blockBytes))) return false;
    const place = this.#free[this.#freeCount - 1]!;
    const at = kernels.map.reads + place * blockBytes;
    const start = roundDown(offset, sectorBytes);
    const bytes = roundUp(offset + length, sectorBytes) - start;
    if (this.#backing === null || !this.#backing.startRead(start, kernels.bytes, at, bytes, this, place)) {
      return false;
    }
    this.#segment[place] = noSegment;
    this.#begun(place, bytes, offset - start, length, to, tag);
    return true;
  }

  #begun(place: number, deviceBytes: number, skip: number, length: number, to: ReadEnd, tag: number): void {
    this.#freeCount--;
    assert(this.#to[place] === null, "a free slot has no read");
    this.#to[place] = to;
    this.#tag[place] = tag;
    this.#deviceBytes[place] = deviceBytes;
    this.#skip[place] = skip;
    this.#length[place] = length;
  }

  /** The devices' part; not to be called. */
  transferred(result: number, place: number): boolean {
    const { kernels, segments, statistics } = this.#core;
    const pointer = kernels.map.reads + place * blockBytes;
    const segment = this.#segment[place]!;
    let good = result === this.#deviceBytes[place];
    let settled = false;
    if (segment === noSegment) {
      if (good) statistics.readMissBlocks++;
    } else {
      good = good && kernels.crc32cBlock(pointer) === this.#crc[place];
      if (good) statistics.readHitBlocks++;
      if (--segments.pins[segment]! === 0 && this.#room !== undefined) settled = this.#room.wake();
    }
    if (good) {
      statistics.readRequests++;
      statistics.readBytes += this.#length[place]!;
    }
    const to = this.#to[place]!;
    this.#to[place] = null;
    to.readEnded(this.#tag[place]!, kernels.bytes, good ? pointer + this.#skip[place]! : -1);
    this.#free[this.#freeCount++] = place;
    return this.#onEnd() || settled;
  }
  // ---- end of the hot path ----
}
