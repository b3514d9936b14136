/**
 * A batch of write-back: which blocks, from where in the log, into which requests to the backing.
 *
 * Invariants: blocks ascend; only durable versions are taken; each slot's segment is pinned from `collect` to `release`;
 * every block's checksum is verified after it was brought into the staging area and before it is written.
 *
 * @module
 */

import { DeviceError } from "../errors.ts";
import type { LogWriter } from "../log/writer.ts";
import { blockBytes, fullMask, mib, sectorBytes } from "../units.ts";
import { blockLength, type Core } from "./core.ts";
import { writebackBatchMax } from "./tunables.ts";

/** Bytes that one backing request may merge. */
const requestBytesMax = mib;
/** Blocks that one log read may merge. */
const readBlocksMax = 128;
/** Log reads in flight. */
const readsInFlightMax = 16;

/** The batch, as parallel arrays that are used again for each. */
export interface Batch {
  count: number;
  readonly blocks: Uint32Array;
  readonly slots: Uint32Array;
  readonly masks: Uint8Array;
  /** Could not be verified, or its version went meanwhile: not written. */
  readonly skipped: Uint8Array;
  /** The backing refused it. */
  readonly failed: Uint8Array;
}

/** One write to the backing: blocks `first` to `last` of the batch, or sectors of one. */
export interface BackingRequest {
  offset: number;
  bytes: Uint8Array<ArrayBuffer>;
  first: number;
  last: number;
}

/** Makes and fills batches. */
export class BatchLoader {
  readonly #core: Core;
  readonly #writer: LogWriter;
  #failures: Map<number, number> = new Map();
  readonly #batch: Batch = {
    count: 0,
    blocks: new Uint32Array(writebackBatchMax),
    slots: new Uint32Array(writebackBatchMax),
    masks: new Uint8Array(writebackBatchMax),
    skipped: new Uint8Array(writebackBatchMax),
    failed: new Uint8Array(writebackBatchMax),
  };

  constructor(core: Core, writer: LogWriter) {
    this.#core = core;
    this.#writer = writer;
  }

  /** Takes up to `limit` durable dirty blocks from `cursor` upward, wrapping once. */
  collect(cursor: number, limit: number, failures: Map<number, number>): Batch {
    const { kernels, segments, versions } = this.#core;
    const batch = this.#batch;
    batch.count = 0;
    this.#failures = failures;
    const durable = this.#writer.durableSequence;
    const take = (from: number, to: number) => {
      for (let block = kernels.dirty.next(from, to); block >= 0; block = kernels.dirty.next(block + 1, to)) {
        if (batch.count >= limit) return;
        const slot = kernels.indexGet(block);
        const segment = segments.of(slot);
        if (segments.lastSequence[segment]! > durable) continue;
        batch.blocks[batch.count] = block;
        batch.slots[batch.count] = slot;
        batch.masks[batch.count] = kernels.masks[slot]!;
        batch.skipped[batch.count] = batch.failed[batch.count] = 0;
        segments.pins[segment]!++;
        batch.count++;
      }
    };
    take(cursor, versions.backingBlocks);
    if (batch.count === 0) take(0, cursor);
    return batch;
  }

  /** Unpins the batch's segments. */
  release(batch: Batch): void {
    const { segments } = this.#core;
    for (let i = 0; i < batch.count; i++) segments.pins[segments.of(batch.slots[i]!)]!--;
    batch.count = 0;
    this.#writer.onProgress();
  }

  /** Brings the blocks into the staging area, in order, and verifies them. */
  async load(batch: Batch): Promise<void> {
    const { kernels } = this.#core;
    const { staging } = kernels.map;
    let onDevice = 0;
    for (let i = 0; i < batch.count; i++) {
      const pointer = this.#writer.pointerOf(batch.slots[i]!);
      if (pointer >= 0) kernels.bytes.copyWithin(staging + i * blockBytes, pointer, pointer + blockBytes);
      else {
        // Sort key: the slot above the place in the batch, so that neighbours in the log are read together.
        kernels.planWords[2 * onDevice] = i;
        kernels.planWords[2 * onDevice + 1] = batch.slots[i]!;
        onDevice++;
      }
    }
    kernels.sortPlan(onDevice);
    const places = new Uint32Array(onDevice);
    for (let i = 0; i < onDevice; i++) places[i] = kernels.planWords[2 * i]!;
    await this.#readPlaces(batch, places);
    for (let i = 0; i < batch.count; i++) {
      if (
        batch.skipped[i] || kernels.crc32cBlock(staging + i * blockBytes) === kernels.crcs[batch.slots[i]!]
      ) continue;
      batch.skipped[i] = 1;
      if (kernels.indexGet(batch.blocks[i]!) === batch.slots[i]) {
        this.#core.onRot(batch.blocks[i]!, batch.slots[i]!, "its checksum does not match");
      }
    }
  }

  /** Reads the blocks that only the device has; `places` are indices into the batch, in the order of their slots. */
  async #readPlaces(batch: Batch, places: Uint32Array): Promise<void> {
    let next = 0;
    const work = async () => {
      while (next < places.length) {
        const first = next;
        let last = first;
        while (
          last + 1 < places.length && last + 1 - first < readBlocksMax &&
          batch.slots[places[last + 1]!] === batch.slots[places[last]!]! + 1
        ) last++;
        next = last + 1;
        await this.#readRun(batch, places.subarray(first, last + 1));
      }
    };
    await Promise.all(Array.from({ length: Math.min(readsInFlightMax, places.length) }, work));
  }

  async #readRun(batch: Batch, places: Uint32Array): Promise<void> {
    const { device, geometry, kernels } = this.#core;
    const bytes = new Uint8Array(places.length * blockBytes);
    try {
      await device.read(geometry.logOffset + batch.slots[places[0]!]! * blockBytes, bytes);
    } catch (error) {
      await this.#readSingly(batch, places, error);
      return;
    }
    places.forEach((place, i) => {
      kernels.bytes.set(
        bytes.subarray(i * blockBytes, (i + 1) * blockBytes),
        kernels.map.staging + place * blockBytes,
      );
    });
  }

  /** A read failed: one by one, so that a bad place costs only itself. */
  async #readSingly(batch: Batch, places: Uint32Array, error: unknown): Promise<void> {
    const { device, geometry, kernels } = this.#core;
    for (const place of places) {
      const bytes = new Uint8Array(blockBytes);
      try {
        await device.read(geometry.logOffset + batch.slots[place]! * blockBytes, bytes);
        kernels.bytes.set(bytes, kernels.map.staging + place * blockBytes);
      } catch (cause) {
        batch.skipped[place] = 1;
        this.#noteUnreadable(batch, place, cause instanceof DeviceError ? cause : error);
      }
    }
  }

  /** An unreadable block stays dirty for a while, in case the device comes back; then it is lost. */
  #noteUnreadable(batch: Batch, place: number, error: unknown): void {
    const block = batch.blocks[place]!;
    const count = (this.#failures.get(block) ?? 0) + 1;
    this.#failures.set(block, count);
    if (count < 4) return;
    this.#failures.delete(block);
    if (this.#core.kernels.indexGet(block) === batch.slots[place]) {
      this.#core.onRot(block, batch.slots[place]!, error instanceof Error ? error.message : String(error));
    }
  }

  /** The writes that carry the batch to the backing; yielded as workers ask for them. */
  *requests(batch: Batch): Generator<BackingRequest, void, void> {
    const { kernels } = this.#core;
    const { staging } = kernels.map;
    const blocksMax = requestBytesMax / blockBytes;
    for (let i = 0; i < batch.count;) {
      const block = batch.blocks[i]!;
      if (batch.skipped[i]) {
        i++;
        continue;
      }
      const length = blockLength(this.#core, block);
      if (batch.masks[i] !== fullMask) {
        yield* this.#sectorRuns(batch, i, length);
        i++;
        continue;
      }
      let last = i;
      while (last - i + 1 < blocksMax && this.#continues(batch, i, last + 1)) last++;
      const end = staging + last * blockBytes + blockLength(this.#core, batch.blocks[last]!);
      yield {
        offset: block * blockBytes,
        bytes: kernels.bytes.subarray(staging + i * blockBytes, end),
        first: i,
        last,
      };
      i = last + 1;
    }
  }

  #continues(batch: Batch, first: number, next: number): boolean {
    return next < batch.count && batch.masks[next] === fullMask && !batch.skipped[next] &&
      batch.blocks[next] === batch.blocks[next - 1]! + 1 &&
      !this.#failures.has(batch.blocks[next]!) && !this.#failures.has(batch.blocks[first]!);
  }

  /** The written sectors of a partial block: the backing's other sectors are not touched, so they need not be read. */
  *#sectorRuns(batch: Batch, i: number, length: number): Generator<BackingRequest, void, void> {
    const { kernels } = this.#core;
    const base = kernels.map.staging + i * blockBytes;
    const mask = batch.masks[i]!;
    for (let sector = 0; sector < 8;) {
      if (((mask >>> sector) & 1) === 0) {
        sector++;
        continue;
      }
      let end = sector + 1;
      while (end < 8 && (mask >>> end) & 1) end++;
      const from = sector * sectorBytes;
      const to = Math.min(end * sectorBytes, length);
      if (from < to) {
        yield {
          offset: batch.blocks[i]! * blockBytes + from,
          bytes: kernels.bytes.subarray(base + from, base + to),
          first: i,
          last: i,
        };
      }
      sector = end;
    }
  }
}
