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

import { DeviceError } from "../errors.ts";
import { entryKind } from "../log/layout.ts";
import type { LogWriter } from "../log/writer.ts";
import { blockBytes, fullMask } from "../units.ts";
import { noSlot } from "../wasm/kernels.ts";
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

  constructor(core: Core, writer: LogWriter, reads: Reads, room: Room) {
    this.#core = core;
    this.#writer = writer;
    this.#reads = reads;
    this.#room = room;
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
    if (!this.#writer.canTake(last - first + 1)) return false;
    if (!this.#edgeIsReady(first, offset, end) || (last > first && !this.#edgeIsReady(last, offset, end))) {
      return false;
    }
    for (let block = first; block <= last; block++) {
      const start = block * blockBytes;
      const from = block === first ? offset - start : 0;
      const to = block === last ? end - start : blockBytes;
      this.#put(block, from, to, source, at + start + from - offset, undefined);
    }
    statistics.writeRequests++;
    statistics.writtenBytes += length;
    return true;
  }

  /** Whether the request's part of `block` can be put without reading a device. */
  #edgeIsReady(block: number, offset: number, end: number): boolean {
    const start = block * blockBytes;
    const from = Math.max(offset - start, 0);
    const to = Math.min(end - start, blockBytes);
    if (from === 0 && to >= blockLength(this.#core, block)) return true;
    const { kernels, versions } = this.#core;
    const cut = cutSectors(from, to);
    if (cut !== 0 && versions.poison.any && (versions.poison.mask(block) & cut) !== 0) return false;
    const slot = kernels.indexGet(block);
    if (slot === noSlot) return cut === 0 || this.#core.versions.readsZero(block);
    if (this.#writer.pointerOf(slot) >= 0) return (cut & ~kernels.masks[slot]!) === 0;
    // The old version is on the device only: it may be dropped if the backing has it and no sector is cut.
    return cut === 0 && !versions.isLive(block);
  }

  /** Puts bytes [from, to) of `block`. The writer is known to take it; `base` is what had to be fetched. */
  #put(
    block: number,
    from: number,
    to: number,
    source: Uint8Array,
    at: number,
    base: Base | undefined,
  ): void {
    const { kernels, versions, statistics } = this.#core;
    const whole = from === 0 && to >= blockLength(this.#core, block);
    const sectors = whole ? fullMask : sectorsTouched(from, to);
    const old = kernels.indexGet(block);
    if (old !== noSlot && this.#writer.isOverwritable(old)) {
      const pointer = this.#writer.pointerOf(old);
      const mask = kernels.masks[old]! | sectors | (base?.mask ?? 0);
      if (base) {
        copySectors(
          base.bytes,
          kernels.bytes.subarray(pointer, pointer + blockBytes),
          base.mask & ~kernels.masks[old]!,
        );
      }
      kernels.bytes.set(source.subarray(at, at + to - from), pointer + from);
      if (mask !== kernels.masks[old]) {
        kernels.masks[old] = mask;
        this.#writer.widenMask(old, mask);
      }
      if (versions.poison.any && versions.poison.heal(block, sectors)) {
        versions.rangeSupersededBy = this.#writer.openSequence;
      }
      statistics.overwrittenBlocks++;
      return;
    }
    let mask = sectors;
    const { scratch } = kernels.map;
    if (!whole) mask |= this.#gatherBase(block, old, base);
    // May seal and move to a new segment, which may take the RAM of the old version: hence the copy above.
    if (this.#writer.prepare("client") !== "none") {
      throw new Error("the log takes what it said it would take");
    }
    const slot = this.#writer.putData(block, mask);
    const pointer = this.#writer.pointerOf(slot);
    if (!whole) kernels.bytes.copyWithin(pointer, scratch, scratch + blockBytes);
    kernels.bytes.set(source.subarray(at, at + to - from), pointer + from);
    if (whole && to < blockBytes) kernels.bytes.fill(0, pointer + to, pointer + blockBytes);
    versions.putData(block, slot, mask, this.#writer.openSequence);
  }

  /** Copies what a partial write keeps of the previous version into the scratch block; returns its mask. */
  #gatherBase(block: number, old: number, base: Base | undefined): number {
    const { kernels } = this.#core;
    const { scratch } = kernels.map;
    if (base) {
      kernels.bytes.set(base.bytes, scratch);
      return base.mask;
    }
    const pointer = old === noSlot ? -1 : this.#writer.pointerOf(old);
    if (pointer >= 0) {
      kernels.bytes.copyWithin(scratch, pointer, pointer + blockBytes);
      return kernels.masks[old]!;
    }
    kernels.bytes.fill(0, scratch, scratch + blockBytes);
    return old === noSlot && this.#core.versions.readsZero(block) ? fullMask : 0;
  }
  // ---- end of the hot path ----

  /** See `Volume.write`. Returns the sequence that makes it durable. */
  async write(offset: number, bytes: Uint8Array, options: WriteOptions = {}): Promise<void> {
    checkRange(this.#core, offset, bytes.length);
    if (!this.now(offset, bytes, 0, bytes.length)) {
      this.#core.statistics.writeRequests++;
      this.#core.statistics.writtenBytes += bytes.length;
      if (bytes.length > 0) await this.#locked(offset, bytes.length, () => this.#writeSlowly(offset, bytes));
    }
    if (options.fua) await this.durable();
  }

  /** Everything that has been put is durable when this resolves. */
  durable(): Promise<void> {
    const writer = this.#writer;
    return writer.makeDurable(writer.openHasEntries ? writer.openSequence : writer.sealedSequence);
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

  /** Puts block by block, waiting where it must; the blocks are locked. */
  async #writeSlowly(offset: number, source: Uint8Array): Promise<void> {
    const end = offset + source.length;
    for (let position = offset; position < end;) {
      const block = Math.floor(position / blockBytes);
      const start = block * blockBytes;
      const next = Math.min(start + blockBytes, end);
      const [from, to] = [position - start, next - start];
      const base = this.#edgeIsReady(block, offset, end) ? undefined : await this.#fetchBase(block, from, to);
      const at = position - offset;
      await this.#room.take("client", () => {
        // While this waited for room, the RAM of the old version may have gone.
        if (base || this.#edgeIsReady(block, offset, end)) {
          this.#put(block, from, to, source, at, base);
          return true;
        }
        return false;
      }).then(async (done) => {
        if (done) return;
        const late = await this.#fetchBase(block, from, to);
        await this.#room.take("client", () => this.#put(block, from, to, source, at, late));
      });
      position = next;
    }
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
    if (options.fua) await this.durable();
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

  /** Makes everything that has been acknowledged durable. */
  async flush(): Promise<void> {
    if (this.#writer.failure) throw this.#writer.failure;
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
