/**
 * A batch of blocks that leave their place in the log: which, from where, and into which requests to the backing.
 *
 * Invariants: only durable versions are taken for the backing, in ascending order of the blocks; each slot's segment is
 * pinned from `collect` until the block has been read; every block's checksum is verified after it was brought into the
 * batch's part of the staging area, and before it goes anywhere. Each loader has a part of its own, so batches may overlap in
 * time. {@linkcode BatchLoader.isCurrent} tells whether the version that was taken is still the newest.
 *
 * @module
 */

import { readChecked } from "../device/copies.ts";
import { DeviceError } from "../errors.ts";
import type { LogWriter } from "../log/writer.ts";
import { blockBytes, fullMask, mib, sectorBytes } from "../units.ts";
import { blockLength, type Core } from "./core.ts";
import type { Step } from "./step.ts";
import { writebackBatchMax } from "./tunables.ts";

/** Batches that may be under way at once, each with a part of the staging area: all but one are the sweep's. */
export const batchesMax = 8;
/** Bytes that one backing request may merge. */
const requestBytesMax = mib;
/** Blocks that one log read may merge. */
const readBlocksMax = 128;
/** Log reads in flight. */
const readsInFlightMax = 16;

/** A block that cannot be read is lost after so many tries, of which none counts sooner than so long after the other. */
const unreadableTriesMax = 4;
const unreadableMs = 2000;

/** How often a version could not be read. */
export interface Unreadable {
  slot: number;
  tries: number;
  atMs: number;
}

/** Blocks of the staging area of a log with `slotCount` slots. */
export function stagingBlocksOf(slotCount: number): number {
  return batchesMax * Math.min(writebackBatchMax, slotCount);
}

/** The batch, as parallel arrays that are used again for each. */
export interface Batch {
  readonly loader: BatchLoader;
  count: number;
  /** The highest sequence that its blocks may have. */
  reach: number;
  /** The step that its blocks belong to, in prefix order. */
  step: Step | undefined;
  /** Requests that have not ended. */
  pending: number;
  /** Why a block could not be read. */
  failure: unknown;
  /** Failed syncs of the backing when its requests were made. */
  syncFailures: number;
  readonly blocks: Uint32Array;
  /** Which entries of the step. */
  readonly entries: Uint32Array;
  readonly slots: Uint32Array;
  readonly masks: Uint8Array;
  /** The first sequence of each slot's segment: with the slot, it names a version for good. */
  readonly laps: Float64Array;
  /** 1: could not be read; 2: nor ever will be. Not written. */
  readonly skipped: Uint8Array;
  /** The backing refused it. */
  readonly failed: Uint8Array;
  /** Requests of the block that have not ended: a partial block may take several. */
  readonly parts: Uint8Array;
}

/** One write to the backing: blocks `first` to `last` of the batch, or sectors of one. */
export interface BackingRequest {
  batch: Batch;
  offset: number;
  bytes: Uint8Array<ArrayBuffer>;
  first: number;
  last: number;
}

/** Makes and fills batches. */
export class BatchLoader {
  readonly #core: Core;
  readonly #writer: LogWriter;
  /** Blocks that the backing refused, and how often. */
  readonly #failures: Map<number, number>;
  readonly #unreadable: Map<number, Unreadable>;
  /** Address of this loader's part of the staging area, and its blocks. */
  readonly #staging: number;
  readonly #capacity: number;
  readonly #batch: Batch;

  /** `index`: which part of the staging area, below {@linkcode batchesMax}. */
  constructor(
    core: Core,
    writer: LogWriter,
    index: number,
    failures: Map<number, number>,
    unreadable: Map<number, Unreadable>,
  ) {
    this.#core = core;
    this.#writer = writer;
    this.#failures = failures;
    this.#unreadable = unreadable;
    const capacity = Math.min(writebackBatchMax, core.geometry.slotCount);
    this.#capacity = capacity;
    this.#staging = core.kernels.map.staging + index * capacity * blockBytes;
    this.#batch = {
      loader: this,
      count: 0,
      reach: 0,
      step: undefined,
      pending: 0,
      failure: undefined,
      syncFailures: 0,
      blocks: new Uint32Array(capacity),
      entries: new Uint32Array(capacity),
      slots: new Uint32Array(capacity),
      masks: new Uint8Array(capacity),
      laps: new Float64Array(capacity),
      skipped: new Uint8Array(capacity),
      failed: new Uint8Array(capacity),
      parts: new Uint8Array(capacity),
    };
  }

  #begin(step?: Step): Batch {
    const batch = this.#batch;
    batch.count = batch.pending = batch.reach = 0;
    batch.failure = undefined;
    batch.step = step;
    return batch;
  }

  /** Takes up to `limit` durable dirty blocks in [from, to), without those that `isTaken`. */
  collect(from: number, to: number, limit: number, isTaken: (block: number) => boolean): Batch {
    const { kernels, segments } = this.#core;
    const batch = this.#begin();
    const durable = this.#writer.durableSequence;
    const countMax = Math.min(limit, this.#capacity);
    for (
      let block = kernels.dirty.next(from, to);
      block >= 0 && batch.count < countMax;
      block = kernels.dirty.next(block + 1, to)
    ) {
      const slot = kernels.indexGet(block);
      if (segments.lastSequence[segments.of(slot)]! > durable || isTaken(block)) continue;
      this.#add(block, slot);
    }
    return batch;
  }

  /** Takes up to `limit` entries of the step that are not written yet, from its cursor on, in the step's own versions. */
  collectStep(step: Step, limit: number, isTaken: (block: number) => boolean): Batch {
    const batch = this.#begin(step);
    const countMax = Math.min(limit, this.#capacity);
    for (; step.cursor < step.count && batch.count < countMax; step.cursor++) {
      const block = step.block(step.cursor);
      if (!step.isTodo(step.cursor) || isTaken(block)) continue;
      batch.entries[batch.count] = step.cursor;
      this.#add(block, step.slot(step.cursor));
    }
    // Nothing newer than the step's point is in it, whatever else its segments hold.
    batch.reach = step.sequence;
    return batch;
  }

  /** Takes the dirty blocks whose newest version is at slots [from, to), as many as fit. */
  collectSlots(from: number, to: number): Batch {
    const { kernels } = this.#core;
    const batch = this.#begin();
    for (let slot = from; slot < to && batch.count < this.#capacity; slot++) {
      const block = kernels.reverse[slot]!;
      if (kernels.indexGet(block) !== slot || !kernels.dirty.test(block)) continue;
      this.#add(block, slot);
    }
    return batch;
  }

  #add(block: number, slot: number): void {
    const { kernels, segments } = this.#core;
    const batch = this.#batch;
    const i = batch.count++;
    batch.blocks[i] = block;
    batch.slots[i] = slot;
    batch.masks[i] = kernels.masks[slot]!;
    batch.skipped[i] = batch.failed[i] = batch.parts[i] = 0;
    batch.laps[i] = segments.firstSequence[segments.of(slot)]!;
    batch.reach = Math.max(batch.reach, segments.lastSequence[segments.of(slot)]!);
    segments.pins[segments.of(slot)]!++;
  }

  /** Whether the index still holds the version that was taken as block `i` (log-rules.md 10). */
  isCurrent(i: number): boolean {
    const { kernels, segments } = this.#core;
    const slot = this.#batch.slots[i]!;
    return kernels.indexGet(this.#batch.blocks[i]!) === slot &&
      segments.firstSequence[segments.of(slot)] === this.#batch.laps[i];
  }

  /** The address of the batch's block `i` after {@linkcode load}. */
  pointerOf(i: number): number {
    return this.#staging + i * blockBytes;
  }

  /** Brings the blocks into the staging area, in order, and verifies them; unpins their segments, however it ends. */
  async load(batch: Batch): Promise<void> {
    const { segments } = this.#core;
    try {
      await this.#load(batch);
    } finally {
      for (let i = 0; i < batch.count; i++) segments.pins[segments.of(batch.slots[i]!)]!--;
      this.#writer.onProgress();
    }
  }

  async #load(batch: Batch): Promise<void> {
    const { kernels } = this.#core;
    const staging = this.#staging;
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
      batch.skipped[i] = 2;
      if (this.isCurrent(i)) {
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
      await readChecked(
        device,
        geometry.logOffset + batch.slots[places[0]!]! * blockBytes,
        bytes,
        blockBytes,
        (i, block) => kernels.crc32cOf(block) === kernels.crcs[batch.slots[places[i]!]!],
      );
    } catch (error) {
      await this.#readSingly(batch, places, error);
      return;
    }
    places.forEach((place, i) => {
      kernels.bytes.set(
        bytes.subarray(i * blockBytes, (i + 1) * blockBytes),
        this.pointerOf(place),
      );
    });
  }

  /** A read failed: one by one, so that a bad place costs only itself. */
  async #readSingly(batch: Batch, places: Uint32Array, error: unknown): Promise<void> {
    const { device, geometry, kernels } = this.#core;
    for (const place of places) {
      const bytes = new Uint8Array(blockBytes);
      try {
        const slot = batch.slots[place]!;
        await readChecked(
          device,
          geometry.logOffset + slot * blockBytes,
          bytes,
          blockBytes,
          (_, block) => kernels.crc32cOf(block) === kernels.crcs[slot],
        );
        kernels.bytes.set(bytes, this.pointerOf(place));
      } catch (cause) {
        batch.skipped[place] = 1;
        this.#noteUnreadable(batch, place, cause instanceof DeviceError ? cause : error);
      }
    }
  }

  /** An unreadable block stays dirty for a while, in case the device comes back; then it is lost. */
  #noteUnreadable(batch: Batch, place: number, error: unknown): void {
    const block = batch.blocks[place]!;
    const slot = batch.slots[place]!;
    const now = this.#core.clock.monotonicMs();
    batch.failure = error;
    const known = this.#unreadable.get(block);
    if (known?.slot !== slot) {
      this.#unreadable.set(block, { slot, tries: 1, atMs: now });
      return;
    }
    if (now - known.atMs < unreadableMs) return;
    known.atMs = now;
    if (++known.tries < unreadableTriesMax) return;
    this.#unreadable.delete(block);
    batch.skipped[place] = 2;
    if (this.isCurrent(place)) {
      this.#core.onRot(block, batch.slots[place]!, error instanceof Error ? error.message : String(error));
    }
  }

  /** The writes that carry the batch to the backing. */
  *requests(batch: Batch): Generator<BackingRequest, void, void> {
    const { kernels } = this.#core;
    const staging = this.#staging;
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
        batch,
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
    const base = this.pointerOf(i);
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
          batch,
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
