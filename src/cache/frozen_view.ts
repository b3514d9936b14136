/**
 * The volume as it was at a flush point, beside the running cache: read-only, with an index of its own.
 *
 * Invariants:
 * - What a read returns was true at the flush point: the floor of history has not risen above that when it returns. Else it
 *   fails with EIO, and so does every later one.
 * - A log read pins its segment in the running cache; what the tail passes is forgotten here before it is used again.
 *
 * @module
 */

import { DeviceError } from "../errors.ts";
import { recordFlagFlushPoint } from "../log/layout.ts";
import { LogReader } from "../log/reader.ts";
import { walkLog } from "../log/recovery.ts";
import { Segments } from "../log/segments.ts";
import type { Superblock } from "../log/superblock.ts";
import { Kernels } from "../wasm/kernels.ts";
import { CleanCopies } from "./clean_copies.ts";
import { Changes } from "./changes.ts";
import { checkRange, type Core } from "./core.ts";
import { eachExtent } from "./extents.ts";
import type { PastView } from "./history.ts";
import { overwrittenError, unknownError } from "./past.ts";
import { Reads } from "./reads.ts";
import { Statistics } from "./statistics.ts";
import { Versions } from "./versions.ts";
import type { Extent, MarkedExtent, Volume } from "./volume.ts";
import { readOnlyError } from "./writes.ts";

/** A flush point of a running cache. */
export class FrozenView implements Volume, PastView {
  readonly sequence: number;
  readonly readOnly = true;
  readonly #core: Core;
  /** The running cache's. */
  readonly #live: Core;
  readonly #reads: Reads;
  readonly #superblock: Superblock;
  /** Segments that the tail passed while the log was read. */
  #passed: number[] | undefined = [];
  #changes = new Map<number, Promise<Changes>>();

  private constructor(live: Core, superblock: Superblock, sequence: number) {
    this.sequence = sequence;
    this.#live = live;
    this.#superblock = superblock;
    const { geometry, versions: { backingBlocks } } = live;
    const kernels = Kernels.create({
      slotCount: geometry.slotCount,
      backingBlocks,
      segmentBlocks: geometry.segmentBlocks,
      bufferCount: 1,
      stagingBlocks: 1,
    });
    const segments = new Segments(geometry.segmentCount, geometry.segmentBlocks, live.segments.pins);
    const parts = {
      ...live,
      kernels,
      segments,
      versions: new Versions(kernels, segments, backingBlocks),
      writer: undefined,
      statistics: new Statistics(),
    };
    this.#core = {
      ...parts,
      // The past is not copied into the present.
      copies: new CleanCopies(parts),
      onRot: (block, _slot, why) =>
        live.warn(`Block ${block} of flush point ${sequence} of ${live.device.name} cannot be shown: ${why}`),
    };
    this.#reads = new Reads(this.#core);
  }

  /**
   * Makes the view of flush point `sequence`. `superblock` says where the log of the running cache begins and which of its
   * records are durable.
   *
   * @throws {RefusedError} when there is no such flush point, or it cannot be had any more
   */
  static async open(live: Core, superblock: Superblock, sequence: number): Promise<FrozenView> {
    const { history, device } = live;
    if (sequence < history.floor) throw overwrittenError(device.name, sequence, history.floor);
    if (sequence > superblock.durableMark) throw unknownError(device.name, sequence, "");
    const view = new FrozenView(live, superblock, sequence);
    history.views.add(view);
    try {
      await view.#replay();
    } catch (error) {
      view.close();
      throw error;
    }
    return view;
  }

  async #replay(): Promise<void> {
    const { device, geometry, versions } = this.#core;
    const reader = new LogReader(device, geometry, this.#superblock.uuid);
    let isFlushPoint = false;
    const walk = await walkLog(reader, this.#superblock, {
      placed() {},
      lost() {},
      loseAll() {},
      header: ({ sequence, flags }) => {
        if (sequence === this.sequence) isFlushPoint = (flags & recordFlagFlushPoint) !== 0;
      },
      apply: (entries, slot, sequence) => versions.replay(entries, slot, sequence, () => true),
    }, this.sequence);
    this.#refuseEnded();
    if (walk.gaps.length > 0) {
      throw new DeviceError(
        "EIO",
        `Cannot show ${device.name} as of flush point ${this.sequence}: a record before it cannot be read`,
      );
    }
    if (!isFlushPoint) throw unknownError(device.name, this.sequence, "");
    const passed = this.#passed ?? [];
    this.#passed = undefined;
    for (const segment of passed) versions.forgetSegment(segment);
  }

  #refuseEnded(): void {
    const { history, device } = this.#live;
    if (this.sequence >= history.floor) return;
    throw new DeviceError(
      "EIO",
      `The view of flush point ${this.sequence} of ${device.name} has ended: content newer than it has reached the ` +
        `backing device; hold history before (nbdboost hold) so that it stays`,
    );
  }

  /** See `PastView`. */
  ended(): void {
    this.#live.warn(
      `The view of flush point ${this.sequence} of ${this.#live.device.name} ends: newer content is written back, and ` +
        `reads of it get EIO from now on; nbdboost hold keeps a flush point`,
      "error",
    );
  }

  /** See `PastView`. */
  forgetSegment(segment: number): void {
    if (this.#passed) this.#passed.push(segment);
    else this.#core.versions.forgetSegment(segment);
  }

  /** Nobody looks at it any more. */
  close(): void {
    this.#live.history.views.delete(this);
  }

  get sizeBytes(): number {
    return this.#core.backing.sizeBytes;
  }

  /** See `Volume.readNow`: whatever a view reads may turn out to be too new, so nothing is done at once. */
  readNow(): boolean {
    return false;
  }

  writeNow(): boolean {
    return false;
  }

  /** See `Volume.read`. */
  async read(offset: number, into: Uint8Array): Promise<void> {
    this.#refuseEnded();
    try {
      await this.#reads.read(offset, into);
    } finally {
      // A segment that was read may be wanted for the head.
      this.#live.writer?.onProgress();
      this.#refuseEnded();
    }
  }

  /** See `Volume.extents`. */
  extents(offset: number, length: number, limit: number): Promise<Extent[]> {
    checkRange(this.#core, offset, length);
    this.#refuseEnded();
    return Promise.resolve(eachExtent(this.#core, offset, length, limit));
  }

  /** See `Volume.knowsChangesSince`. */
  knowsChangesSince(sequence: number): boolean {
    return sequence <= this.sequence && sequence >= this.#live.history.unlogged &&
      sequence + 1 >= this.#superblock.tail.sequence;
  }

  /** See `Volume.changesSince`. */
  async changesSince(
    sequence: number,
    offset: number,
    length: number,
    limit: number,
  ): Promise<MarkedExtent[]> {
    checkRange(this.#core, offset, length);
    let changes = this.#changes.get(sequence);
    if (!changes) {
      changes = Changes.of(this.#core, this.#superblock, sequence, this.sequence);
      changes.catch(() => this.#changes.delete(sequence));
      this.#changes.set(sequence, changes);
    }
    const runs = (await changes).runs(offset, length, limit);
    this.#refuseEnded();
    return runs;
  }

  prefetch(offset: number, length: number): Promise<void> {
    checkRange(this.#core, offset, length);
    return Promise.resolve();
  }

  flush(): Promise<void> {
    return Promise.resolve();
  }

  write(): Promise<void> {
    return Promise.reject(readOnlyError(this.#core.device.name));
  }

  trim(): Promise<void> {
    return Promise.reject(readOnlyError(this.#core.device.name));
  }

  zero(): Promise<void> {
    return Promise.reject(readOnlyError(this.#core.device.name));
  }
}
