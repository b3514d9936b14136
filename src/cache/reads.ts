/**
 * Reading: from RAM at once, from the log with verification, from the backing, or any mixture within one request.
 *
 * Invariants: what a read will return is decided for all of its blocks before the first wait. A log read captures block,
 * slot, mask and checksum at issue and pins its segment (log-rules.md 13). A block whose checksum does not match is
 * never returned: a clean one comes from the backing instead, a dirty one is EIO.
 *
 * @module
 */

import { readChecked } from "../device/copies.ts";
import { DeviceError } from "../errors.ts";
import { blockBytes, fullMask, roundDown, roundUp, sectorBytes } from "../units.ts";
import { noSlot } from "../wasm/kernels.ts";
import { blockLength, checkRange, type Core, sectorsTouched } from "./core.ts";

/** Blocks that one log read may merge. */
const logRunBlocksMax = 256;

/** The reading side of a cache. */
export class Reads {
  readonly #core: Core;
  constructor(core: Core) {
    this.#core = core;
  }

  // ---- hot path ----

  /** See `Volume.readNow`. */
  now(offset: number, into: Uint8Array, at: number, length: number): boolean {
    const { kernels, versions, writer, statistics } = this.#core;
    const end = offset + length;
    if (!(offset >= 0 && end <= this.#core.backing.sizeBytes) || versions.poison.any || !writer) return false;
    for (let position = offset; position < end;) {
      const block = Math.floor(position / blockBytes);
      const next = Math.min((block + 1) * blockBytes, end);
      const slot = kernels.indexGet(block);
      if (slot === noSlot) {
        if (!kernels.zeroDirty.test(block)) return false;
      } else {
        const mask = kernels.masks[slot]!;
        if (mask !== fullMask) {
          const start = block * blockBytes;
          if ((sectorsTouched(position - start, next - start) & ~mask) !== 0) return false;
        }
        if (writer.pointerOf(slot) < 0) return false;
      }
      position = next;
    }
    for (let position = offset; position < end;) {
      const block = Math.floor(position / blockBytes);
      const next = Math.min((block + 1) * blockBytes, end);
      const slot = kernels.indexGet(block);
      const target = at + position - offset;
      if (slot === noSlot) into.fill(0, target, target + next - position);
      else {
        const pointer = writer.pointerOf(slot) + position - block * blockBytes;
        kernels.copyOut(pointer, next - position, into, target);
      }
      statistics.readHitBlocks++;
      position = next;
    }
    statistics.readRequests++;
    statistics.readBytes += length;
    return true;
  }
  // ---- end of the hot path ----

  /** See `Volume.read`. */
  async read(offset: number, into: Uint8Array): Promise<void> {
    const core = this.#core;
    checkRange(core, offset, into.length);
    if (this.now(offset, into, 0, into.length)) return;
    core.statistics.readRequests++;
    core.statistics.readBytes += into.length;
    const jobs: Promise<void>[] = [];
    try {
      this.#plan(offset, into as Uint8Array<ArrayBuffer>, jobs);
    } catch (error) {
      await Promise.allSettled(jobs);
      throw error;
    }
    if (jobs.length === 1) return await jobs[0]!;
    // All of them end before the buffer is the caller's again.
    for (const result of await Promise.allSettled(jobs)) {
      if (result.status === "rejected") throw result.reason;
    }
  }

  #plan(offset: number, into: Uint8Array<ArrayBuffer>, jobs: Promise<void>[]): void {
    const { kernels, versions, writer, statistics } = this.#core;
    const end = offset + into.length;
    // A run of bytes that only the backing has, and a run of whole blocks at consecutive slots of the log.
    let backingFrom = -1;
    let logBlock = -1;
    let logSlot = -1;
    let logCount = 0;
    const endRuns = (position: number) => {
      if (backingFrom >= 0) {
        jobs.push(this.#readBacking(backingFrom, into.subarray(backingFrom - offset, position - offset)));
      }
      backingFrom = -1;
      if (logCount > 0) {
        const start = logBlock * blockBytes - offset;
        jobs.push(
          this.readSlots(logBlock, logSlot, logCount, into.subarray(start, start + logCount * blockBytes)),
        );
      }
      logCount = 0;
    };
    for (let position = offset; position < end;) {
      const block = Math.floor(position / blockBytes);
      const start = block * blockBytes;
      const next = Math.min(start + blockBytes, end);
      const touched = sectorsTouched(position - start, next - start);
      if (versions.poison.any && (versions.poison.mask(block) & touched) !== 0) throw lostError(block);
      const slot = kernels.indexGet(block);
      const pointer = slot === noSlot || !writer ? -1 : writer.pointerOf(slot);
      const part = () => into.subarray(position - offset, next - offset);
      if (slot === noSlot) {
        if (kernels.zeroDirty.test(block)) {
          endRuns(position);
          part().fill(0);
          statistics.readHitBlocks++;
        } else {
          if (logCount > 0) endRuns(position);
          if (backingFrom < 0) backingFrom = position;
          statistics.readMissBlocks++;
        }
      } else if ((touched & ~kernels.masks[slot]!) !== 0) {
        endRuns(position);
        jobs.push(this.#readMerged(block, slot, pointer, position - start, part()));
        statistics.readMissBlocks++;
      } else {
        statistics.readHitBlocks++;
        if (pointer >= 0) {
          endRuns(position);
          part().set(kernels.bytes.subarray(pointer + position - start, pointer + next - start));
        } else if (next - position < blockBytes) {
          endRuns(position);
          jobs.push(this.#readPart(block, slot, position - start, part()));
        } else {
          const follows = logCount > 0 && slot === logSlot + logCount && logCount < logRunBlocksMax;
          if (!follows) {
            endRuns(position);
            logBlock = block;
            logSlot = slot;
          }
          logCount++;
        }
      }
      position = next;
    }
    endRuns(end);
  }

  async #readBacking(offset: number, into: Uint8Array<ArrayBuffer>): Promise<void> {
    const { bypassed, copies } = this.#core;
    const { failures } = bypassed;
    const { generation } = copies;
    await this.#readSectors(offset, into);
    // The backing may have dropped what no sync covered while it was read. What went past the log and is lost says so now, or a
    // clean copy has it that came into the log meanwhile; zeroes are the log's own again.
    if (bypassed.failures !== failures) await this.read(offset, into);
    else if (copies.wants(offset, into.length)) copies.keep(offset, into, 0, into.length, generation);
  }

  async #readSectors(offset: number, into: Uint8Array<ArrayBuffer>): Promise<void> {
    const { foreground } = this.#core;
    const from = roundDown(offset, sectorBytes);
    const to = roundUp(offset + into.length, sectorBytes);
    if (from === offset && to === offset + into.length) return await foreground.read(offset, into);
    const sectors = new Uint8Array(to - from);
    await foreground.read(from, sectors);
    into.set(sectors.subarray(offset - from, offset - from + into.length));
  }

  async #readPart(block: number, slot: number, from: number, into: Uint8Array<ArrayBuffer>): Promise<void> {
    const whole = new Uint8Array(blockBytes);
    await this.readSlots(block, slot, 1, whole);
    into.set(whole.subarray(from, from + into.length));
  }

  /** A block of which the log holds some sectors and the backing the others. */
  async #readMerged(
    block: number,
    slot: number,
    pointer: number,
    from: number,
    into: Uint8Array<ArrayBuffer>,
  ): Promise<void> {
    const { kernels } = this.#core;
    const mask = kernels.masks[slot]!;
    // RAM is copied now: its buffer may be another segment's after the wait.
    const held = pointer >= 0
      ? kernels.bytes.slice(pointer, pointer + blockBytes)
      : new Uint8Array(blockBytes);
    const merged = new Uint8Array(blockBytes);
    const backing = this.#readBacking(block * blockBytes, merged.subarray(0, blockLength(this.#core, block)));
    const log = pointer >= 0 ? Promise.resolve() : this.readSlots(block, slot, 1, held);
    for (const result of await Promise.allSettled([backing, log])) {
      if (result.status === "rejected") throw result.reason;
    }
    copySectors(held, merged, mask);
    into.set(merged.subarray(from, from + into.length));
  }

  /**
   * Reads `count` whole blocks, `block` and the following, from consecutive slots of the log, and verifies each. A clean
   * block that fails comes from the backing; a dirty one is reported and rejects with EIO.
   */
  async readSlots(block: number, slot: number, count: number, into: Uint8Array<ArrayBuffer>): Promise<void> {
    const { device, geometry, kernels, segments, writer } = this.#core;
    const crcs = kernels.crcs.slice(slot, slot + count);
    const first = segments.of(slot);
    const last = segments.of(slot + count - 1);
    for (let segment = first; segment <= last; segment++) segments.pins[segment]!++;
    let failure: unknown;
    try {
      await readChecked(
        device,
        geometry.logOffset + slot * blockBytes,
        into,
        blockBytes,
        (i, bytes) => kernels.crc32cOf(bytes) === crcs[i],
      );
    } catch (error) {
      failure = error;
    } finally {
      for (let segment = first; segment <= last; segment++) segments.pins[segment]!--;
      writer?.onProgress();
    }
    for (let i = 0; i < count; i++) {
      const bytes = into.subarray(i * blockBytes, (i + 1) * blockBytes);
      if (failure === undefined && kernels.crc32cOf(bytes) === crcs[i]) continue;
      await this.#replaceBad(block + i, slot + i, bytes, failure);
    }
  }

  async #replaceBad(
    block: number,
    slot: number,
    bytes: Uint8Array<ArrayBuffer>,
    failure: unknown,
  ): Promise<void> {
    const { versions, kernels, backing } = this.#core;
    const current = kernels.indexGet(block) === slot;
    if (current && !versions.isLive(block)) {
      // Clean: the backing has the same content, durably, and all other sectors besides.
      kernels.indexRemove(block);
      versions.touched.add(block, block + 1, this.#core.writer?.openSequence ?? 0);
      bytes.fill(0);
      return await backing.read(block * blockBytes, bytes.subarray(0, blockLength(this.#core, block)));
    }
    if (failure !== undefined) throw failure;
    if (current) this.#core.onRot(block, slot, "its checksum does not match");
    throw lostError(block);
  }

  /** The newest version of a block, as far as the log holds it, for merging into a write; the block is locked. */
  async fetch(block: number): Promise<{ bytes: Uint8Array<ArrayBuffer>; mask: number }> {
    const { kernels, writer } = this.#core;
    const bytes = new Uint8Array(blockBytes);
    const slot = kernels.indexGet(block);
    if (slot === noSlot) return { bytes, mask: 0 };
    const mask = kernels.masks[slot]!;
    const pointer = writer ? writer.pointerOf(slot) : -1;
    if (pointer >= 0) {
      bytes.set(kernels.bytes.subarray(pointer, pointer + blockBytes));
      return { bytes, mask };
    }
    try {
      await this.readSlots(block, slot, 1, bytes);
      // A clean version that was rotten is gone, and the backing has all of it.
      return kernels.indexGet(block) === noSlot ? { bytes: bytes.fill(0), mask: 0 } : { bytes, mask };
    } catch (error) {
      const current = kernels.indexGet(block);
      if (current === slot) throw error;
      // Moved to the head meanwhile, out of the tail's way: it is as dirty as before.
      if (current !== noSlot) return await this.fetch(block);
      // A rotten version is poisoned by now, and a write to other sectors of the block may go on without it.
      return { bytes: bytes.fill(0), mask: 0 };
    }
  }

  /** Fills the sectors of `mask` from the backing. */
  async fetchSectors(block: number, mask: number, into: Uint8Array<ArrayBuffer>): Promise<void> {
    const bytes = new Uint8Array(blockBytes);
    await this.#core.foreground.read(block * blockBytes, bytes.subarray(0, blockLength(this.#core, block)));
    copySectors(bytes, into, mask);
  }
}

/** Copies the sectors of `mask` from one block to another. */
export function copySectors(source: Uint8Array, target: Uint8Array, mask: number): void {
  for (let sector = 0; sector < 8; sector++) {
    if ((mask >>> sector) & 1) {
      target.set(source.subarray(sector * sectorBytes, (sector + 1) * sectorBytes), sector * sectorBytes);
    }
  }
}

/** What a client gets for a block whose only copy is lost. */
export function lostError(block: number): DeviceError {
  return new DeviceError(
    "EIO",
    `Bytes ${block * blockBytes} to ${
      (block + 1) * blockBytes
    } are lost: the cache held their only copy and it is damaged; ` +
      `a new write there heals them`,
    { offset: block * blockBytes },
  );
}
