/**
 * Writing: full and partial blocks, zero and trim ranges, all into the open record.
 *
 * Invariants:
 * - One version a block: a partial write logs the union of its sectors and those of the previous version that the backing
 *   may still lack (log-rules.md 2). Over zeroes that are not yet on the backing it logs the full block (3).
 * - Requests that overlap one that is waiting go through the range locks, in order.
 * - What the synchronous call cannot do without waiting it does not begin.
 *
 * @module
 */

import { assert, AssertionError, DeviceError } from "../errors.ts";
import { entryKind, recordDataMax } from "../log/layout.ts";
import type { LogWriter } from "../log/writer.ts";
import { blockBytes, fullMask } from "../units.ts";
import { noSlot } from "../wasm/kernels.ts";
import type { Bypass } from "./bypass.ts";
import { blockLength, checkRange, type Core, sectorsTouched } from "./core.ts";
import { copySectors, lostError, type Reads } from "./reads.ts";
import type { Room } from "./room.ts";
import type { WriteOptions } from "./volume.ts";

/** What a block held before a partial write. */
interface Base {
  bytes: Uint8Array<ArrayBuffer>;
  mask: number;
}

const zeroBlock = new Uint8Array(blockBytes);

/** The writing side of a cache. */
export class Writes {
  readonly #core: Core;
  readonly #writer: LogWriter;
  readonly #reads: Reads;
  readonly #room: Room;
  readonly #bypass: Bypass;
  /** Called at a client's flush, before anything else can be put. */
  onFlush: () => void = () => {};

  constructor(core: Core, writer: LogWriter, reads: Reads, room: Room, bypass: Bypass) {
    this.#core = core;
    this.#writer = writer;
    this.#reads = reads;
    this.#room = room;
    this.#bypass = bypass;
  }

  // ---- hot path ----

  /** See `Volume.writeNow`. */
  now(offset: number, source: Uint8Array, at: number, length: number): boolean {
    const { locks, backing, statistics } = this.#core;
    const end = offset + length;
    if (!(offset >= 0 && end <= backing.sizeBytes) || this.#room.busy || this.#room.closing) return false;
    if (length === 0) return true;
    const first = Math.floor(offset / blockBytes);
    const last = Math.floor((end - 1) / blockBytes);
    if (locks.any && locks.overlaps(first, last)) return false;
    if (this.#bypass.wants(offset, length)) return false;
    if (!this.#writer.canTake(last - first + 1)) return false;
    if (!this.#edgeIsReady(first, offset, end) || (last > first && !this.#edgeIsReady(last, offset, end))) {
      return false;
    }
    // Both edges are gathered before anything is put: a put may seal, move to a new segment, and take the RAM of an old
    // version for it.
    const { scratch } = this.#core.kernels.map;
    const firstMask = this.#isWhole(first, offset, end) ? 0 : this.#gather(first, scratch, undefined);
    const lastMask = last === first || this.#isWhole(last, offset, end)
      ? 0
      : this.#gather(last, scratch + blockBytes, undefined);
    for (let block = first; block <= last; block++) {
      const start = block * blockBytes;
      const from = block === first ? offset - start : 0;
      const to = block === last ? end - start : blockBytes;
      const kept = block === first ? scratch : scratch + blockBytes;
      const keptMask = block === first ? firstMask : block === last ? lastMask : 0;
      this.#put(block, from, to, source, at + start + from - offset, kept, keptMask);
    }
    statistics.writeRequests++;
    statistics.writtenBytes += length;
    return true;
  }

  /** See `Volume.whenWritable`. */
  whenWritable(length: number, again: () => void): boolean {
    // A stream that goes past the log waits for none of this.
    if (this.#room.busy || this.#room.closing || this.#core.tunables.bypassSequential > 0) return false;
    if (!this.#writer.isBusy(Math.ceil(length / blockBytes) + 1)) return false;
    this.#room.whenWoken(again);
    return true;
  }

  /** Whether the request covers all of `block` that the volume has. */
  #isWhole(block: number, offset: number, end: number): boolean {
    const start = block * blockBytes;
    return offset <= start && end - start >= blockLength(this.#core, block);
  }

  /** Whether the request's part of `block` can be put without reading a device. */
  #edgeIsReady(block: number, offset: number, end: number): boolean {
    const start = block * blockBytes;
    const from = Math.max(offset - start, 0);
    const to = Math.min(end - start, blockBytes);
    if (this.#isWhole(block, offset, end)) return true;
    const { kernels, versions } = this.#core;
    const cut = cutSectors(from, to);
    if (cut !== 0 && versions.poison.any && (versions.poison.mask(block) & cut) !== 0) return false;
    const slot = kernels.indexGet(block);
    if (slot === noSlot) return cut === 0 || this.#core.versions.readsZero(block);
    if (this.#writer.pointerOf(slot) >= 0) return (cut & ~kernels.masks[slot]!) === 0;
    // The old version is on the device only: it may be dropped if the backing has it and no sector is cut.
    return cut === 0 && !versions.isLive(block);
  }

  /**
   * Puts bytes [from, to) of `block`. The writer is known to take it. A partial write goes over the block at `kept`, of
   * which the sectors of `keptMask` count.
   */
  #put(
    block: number,
    from: number,
    to: number,
    source: Uint8Array,
    at: number,
    kept: number,
    keptMask: number,
  ): void {
    const { kernels, versions, statistics } = this.#core;
    const { bytes, masks } = kernels;
    const whole = from === 0 && to >= blockLength(this.#core, block);
    const sectors = whole ? fullMask : sectorsTouched(from, to);
    const old = kernels.indexGet(block);
    // A clean copy stays one, and is forgotten by a crash: what is not dirty is not overwritten.
    if (old !== noSlot && this.#writer.isOverwritable(old) && kernels.dirty.test(block)) {
      const pointer = this.#writer.pointerOf(old);
      const missing = whole ? 0 : keptMask & ~masks[old]! & ~sectors;
      if (missing !== 0) {
        copySectors(
          bytes.subarray(kept, kept + blockBytes),
          bytes.subarray(pointer, pointer + blockBytes),
          missing,
        );
      }
      if (!whole && (from & 511 || to & 511)) {
        this.#keepCut(kept, keptMask, pointer, cutSectors(from, to) & ~masks[old]!);
      }
      kernels.changeBlock(old);
      kernels.copyIn(pointer + from, source, at, to - from);
      const mask = masks[old]! | sectors | missing;
      if (mask !== masks[old]) {
        masks[old] = mask;
        this.#writer.widenMask(old, mask);
      }
      if (versions.poison.any && versions.heal(block, sectors)) {
        versions.rangeSupersededBy = this.#writer.openSequence;
      }
      statistics.overwrittenBlocks++;
      return;
    }
    if (this.#writer.prepare("client") !== "none") {
      throw new AssertionError("the log takes what it said it would take");
    }
    const mask = whole ? fullMask : sectors | keptMask;
    const slot = this.#writer.putData(block, mask);
    const pointer = this.#writer.pointerOf(slot);
    if (to - from === blockBytes) kernels.takeBlock(pointer, slot, source, at);
    else {
      if (!whole) bytes.copyWithin(pointer, kept, kept + blockBytes);
      kernels.copyIn(pointer + from, source, at, to - from);
      if (whole) bytes.fill(0, pointer + to, pointer + blockBytes);
    }
    versions.putData(block, slot, mask, this.#writer.openSequence);
  }

  /** Brings sectors that a write cuts, and that the open version lacks, from the kept block. */
  #keepCut(kept: number, keptMask: number, pointer: number, cut: number): void {
    const { bytes } = this.#core.kernels;
    assert((cut & ~keptMask) === 0, "the sectors that a write cuts were fetched");
    copySectors(bytes.subarray(kept, kept + blockBytes), bytes.subarray(pointer, pointer + blockBytes), cut);
  }

  /**
   * Copies into the block at `target` what a partial write of `block` keeps: `base` if it had to be fetched, else what RAM
   * holds, else nothing. Returns the mask of the sectors that count; the others are zero.
   */
  #gather(block: number, target: number, base: Base | undefined): number {
    const { kernels, versions } = this.#core;
    if (base) {
      kernels.bytes.set(base.bytes, target);
      return base.mask;
    }
    const old = kernels.indexGet(block);
    const pointer = old === noSlot ? -1 : this.#writer.pointerOf(old);
    if (pointer >= 0) {
      kernels.bytes.copyWithin(target, pointer, pointer + blockBytes);
      return kernels.masks[old]!;
    }
    kernels.bytes.fill(0, target, target + blockBytes);
    return old === noSlot && versions.readsZero(block) ? fullMask : 0;
  }
  // ---- end of the hot path ----

  /** See `Volume.write`. */
  async write(offset: number, bytes: Uint8Array, options: WriteOptions = {}): Promise<void> {
    checkRange(this.#core, offset, bytes.length);
    if (!this.now(offset, bytes, 0, bytes.length)) {
      this.#core.statistics.writeRequests++;
      this.#core.statistics.writtenBytes += bytes.length;
      if (bytes.length > 0) await this.#writeWaiting(offset, bytes);
    }
    if (options.fua) await this.flush();
  }

  async #writeWaiting(offset: number, bytes: Uint8Array): Promise<void> {
    // Asked before any wait: others of the stream may come meanwhile.
    const isPast = this.#bypass.wants(offset, bytes.length);
    await this.#locked(offset, bytes.length, async () => {
      const byLog = (at: number, part: Uint8Array) => this.#writeSlowly(at, part);
      if (isPast && await this.#bypass.write(offset, bytes, byLog)) return;
      await this.#writeSlowly(offset, bytes);
    });
  }

  /** Everything that has been put is durable when this resolves. For the engine itself: no client asked. */
  durable(): Promise<void> {
    const log = this.#writer.makeDurable(this.#writer.lastNeededSequence);
    return this.#core.bypassed.outstanding === 0 ? log : this.#both(log, this.#bypass.durable());
  }

  async #both(...parts: Promise<void>[]): Promise<void> {
    for (const result of await Promise.allSettled(parts)) {
      if (result.status === "rejected") throw result.reason;
    }
  }

  async #locked(offset: number, length: number, action: () => Promise<void>): Promise<void> {
    if (this.#writer.failure) throw this.#writer.failure;
    const last = Math.floor((offset + length - 1) / blockBytes);
    const release = await this.#core.locks.acquire(Math.floor(offset / blockBytes), last);
    try {
      await action();
    } finally {
      release();
    }
  }

  /** Puts run by run, waiting where it must; the blocks are locked. */
  async #writeSlowly(offset: number, source: Uint8Array): Promise<void> {
    const end = offset + source.length;
    for (let position = offset; position < end;) {
      const block = Math.floor(position / blockBytes);
      const start = block * blockBytes;
      const [from, to] = [position - start, Math.min(blockBytes, end - start)];
      const { bypassed } = this.#core;
      const { failures } = bypassed;
      const base = this.#edgeIsReady(block, offset, end) ? undefined : await this.#fetchBase(block, from, to);
      // Stops where it began when the RAM of the old version has gone while this waited for room, or a backing sync has failed:
      // what the base was made of may have been dropped, and zeroes be the log's own again.
      position = await this.#room.take(
        "client",
        () => bypassed.failures === failures ? this.#putRun(position, offset, source, base) : position,
      );
    }
  }

  /**
   * Puts what can be put without waiting from `position` on, of which the log is known to take one block; returns how far it
   * came. At most a record's worth, so that others in the line get their turn.
   */
  #putRun(position: number, offset: number, source: Uint8Array, base: Base | undefined): number {
    const end = offset + source.length;
    for (let count = 0; position < end && count < recordDataMax; count++) {
      const block = Math.floor(position / blockBytes);
      const start = block * blockBytes;
      const next = Math.min(start + blockBytes, end);
      if (count > 0 && this.#writer.prepare("client") !== "none") break;
      const kept = count === 0 ? base : undefined;
      // After the log has made room, for which it may have taken the RAM of an old version.
      if (!kept && !this.#edgeIsReady(block, offset, end)) break;
      this.#putOver(block, position - start, next - start, source, position - offset, kept);
      position = next;
    }
    return position;
  }

  #putOver(
    block: number,
    from: number,
    to: number,
    source: Uint8Array,
    at: number,
    base: Base | undefined,
  ): void {
    const { scratch } = this.#core.kernels.map;
    const whole = from === 0 && to >= blockLength(this.#core, block);
    const keptMask = whole ? 0 : this.#gather(block, scratch, base);
    this.#put(block, from, to, source, at, scratch, keptMask);
  }

  /** Fetches what a partial write must keep: the previous version, and the rest of sectors that it cuts. */
  async #fetchBase(block: number, from: number, to: number): Promise<Base> {
    const { versions } = this.#core;
    const cut = cutSectors(from, to);
    const zero = this.#core.kernels.indexGet(block) === noSlot && this.#core.versions.readsZero(block);
    const base = zero
      ? { bytes: new Uint8Array(blockBytes), mask: fullMask }
      : await this.#reads.fetch(block);
    if ((versions.poison.mask(block) & cut) !== 0) throw lostError(block);
    const missing = cut & ~base.mask;
    if (missing !== 0) {
      await this.#reads.fetchSectors(block, missing, base.bytes);
      base.mask |= missing;
    }
    return base;
  }

  /** Makes [offset, offset + length) read as zeroes: one range entry, and zero sectors at its ends. */
  async zero(
    offset: number,
    length: number,
    keepAllocated: boolean,
    options: WriteOptions = {},
  ): Promise<void> {
    const core = this.#core;
    checkRange(core, offset, length);
    if (length > 0) {
      await this.#locked(offset, length, () => this.#zeroLocked(offset, offset + length, keepAllocated));
    }
    if (options.fua) await this.flush();
  }

  async #zeroLocked(offset: number, end: number, keepAllocated: boolean): Promise<void> {
    const { backing, versions } = this.#core;
    const start = Math.ceil(offset / blockBytes);
    const stop = end === backing.sizeBytes ? Math.ceil(end / blockBytes) : Math.floor(end / blockBytes);
    if (start >= stop) return await this.#zeroBytes(offset, end);
    await this.#zeroBytes(offset, start * blockBytes);
    await this.#zeroBytes(stop * blockBytes, end);
    await this.#room.take("client", () => {
      const kind = keepAllocated ? entryKind.zero : entryKind.trim;
      const headerSlot = this.#writer.putRange(kind, start, stop - start, fullMask);
      versions.putZeroes({ start, end: stop, headerSlot }, keepAllocated, this.#writer.openSequence);
    });
  }

  /** Writes zeroes into part of one or two blocks. */
  async #zeroBytes(offset: number, end: number): Promise<void> {
    for (let position = offset; position < end;) {
      const next = Math.min((Math.floor(position / blockBytes) + 1) * blockBytes, end);
      await this.#writeSlowly(position, zeroBlock.subarray(0, next - position));
      position = next;
    }
  }

  /** Makes everything that has been acknowledged durable, as a client asked: the record that ends with it says so. */
  async flush(): Promise<void> {
    if (this.#writer.failure) throw this.#writer.failure;
    this.#writer.markFlushPoint();
    this.onFlush();
    await this.durable();
  }
}

/** The sectors that bytes [from, to) of a block touch without covering them. */
function cutSectors(from: number, to: number): number {
  let cut = 0;
  if ((from & 511) !== 0) cut |= 1 << (from >>> 9);
  if ((to & 511) !== 0) cut |= 1 << (to >>> 9);
  return cut;
}

/** What every writing call of a read-only cache gets. */
export function readOnlyError(name: string): DeviceError {
  return new DeviceError("EROFS", `Cannot write: the cache of ${name} is open read-only`);
}
