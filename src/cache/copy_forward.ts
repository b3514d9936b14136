/**
 * Copies live blocks from the tail of the log to its head, so that the tail can pass their old places before the sweep has
 * come to them: what is superseded or written back in between is space at once, not after a whole sweep.
 *
 * Invariants (log-rules.md 12): each copy is verified before it is put; the old place is passed only when the copy is
 * durable, which the tail sees to. No lock is taken: a client's write that holds the block's lock may be waiting for
 * the very space that this gives back, and the content is the same. What is under way to the backing is copied too and stays
 * dirty: waiting for it would take longer.
 *
 * @module
 */

import type { LogWriter } from "../log/writer.ts";
import { blockBytes } from "../units.ts";
import { type Batch, batchesMax, BatchLoader, type Unreadable } from "./batch.ts";
import type { Core } from "./core.ts";
import type { Room } from "./room.ts";

/** Copies forward what is live in the oldest segments. */
export class CopyForward {
  readonly #core: Core;
  readonly #writer: LogWriter;
  readonly #room: Room;
  readonly #loader: BatchLoader;

  constructor(
    core: Core,
    writer: LogWriter,
    room: Room,
    sweep: { failures: Map<number, number>; unreadable: Map<number, Unreadable> },
  ) {
    this.#core = core;
    this.#writer = writer;
    this.#room = room;
    this.#loader = new BatchLoader(core, writer, batchesMax - 1, sweep.failures, sweep.unreadable);
  }

  /**
   * Copies what is dirty in `count` segments from `tail` on, as far as the log has room for it. Afterwards only a backing
   * sync may be missing for the tail to pass them.
   */
  async run(tail: number, count: number): Promise<void> {
    const { segments } = this.#core;
    let segment = tail;
    for (let i = 0; i < count && segment !== this.#writer.headSegment; i++) {
      if (segments.live[segment]! > 0 && !(await this.#segment(segment))) return;
      segment = segments.after(segment);
    }
  }

  /** Copies what is dirty in a segment; false when the log took no more. */
  async #segment(segment: number): Promise<boolean> {
    const { segments } = this.#core;
    const end = (segment + 1) * segments.blocks;
    for (let from = segment * segments.blocks; from < end;) {
      const batch = this.#loader.collectSlots(from, end);
      if (batch.count === 0) break;
      from = batch.slots[batch.count - 1]! + 1;
      await this.#loader.load(batch);
      for (let i = 0; i < batch.count; i++) {
        if (!batch.skipped[i] && !(await this.#put(batch, i))) return false;
      }
    }
    return true;
  }

  async #put(batch: Batch, i: number): Promise<boolean> {
    const { kernels, versions, statistics } = this.#core;
    const block = batch.blocks[i]!;
    return await this.#room.takeUnlessFull("engine", () => {
      // Superseded, written back, or found rotten meanwhile.
      if (!this.#loader.isCurrent(i) || !kernels.dirty.test(block)) return;
      const mask = kernels.masks[batch.slots[i]!]!;
      const slot = this.#writer.putData(block, mask);
      const source = this.#loader.pointerOf(i);
      kernels.bytes.copyWithin(this.#writer.pointerOf(slot), source, source + blockBytes);
      versions.putData(block, slot, mask, this.#writer.openSequence);
      statistics.copiedBlocks++;
    });
  }
}
