/**
 * Moves the tail of the log forward and gives segments back.
 *
 * Invariants (log-rules.md 3, 4, 11, 12, 13): a segment is passed only when nothing in it is live, its ranges are on the
 * backing and synced, and all that superseded its content is durable. What is still poisoned, or cannot be written to the
 * backing, is re-appended at the head, durable, before. Index entries go, and segments are reused, only after both
 * superblocks durably name the new tail.
 *
 * @module
 */

import { entryKind } from "../log/layout.ts";
import type { LiveRange } from "../log/segments.ts";
import type { LogPosition } from "../log/superblock.ts";
import type { SuperblockStore } from "../log/superblock_store.ts";
import type { LogWriter } from "../log/writer.ts";
import { fullMask } from "../units.ts";
import type { Core } from "./core.ts";
import { recordLoss } from "./losses.ts";
import type { Reads } from "./reads.ts";
import type { Room } from "./room.ts";

/** What failed so often while others succeed is moved out of the tail's way. */
const failuresMax = 3;

/** The tail of a running cache. */
export class Tail {
  readonly #core: Core;
  readonly #writer: LogWriter;
  readonly #store: SuperblockStore;
  readonly #room: Room;
  readonly #reads: Reads;
  #segment: number;

  constructor(core: Core, writer: LogWriter, store: SuperblockStore, room: Room, reads: Reads) {
    this.#core = core;
    this.#writer = writer;
    this.#store = store;
    this.#room = room;
    this.#reads = reads;
    this.#segment = core.segments.of(store.current.tail.slot);
  }

  /** The sequence of the oldest record that recovery would read. */
  get sequence(): number {
    return this.#store.current.tail.sequence;
  }

  /** The oldest segment that may still be needed. */
  get segment(): number {
    return this.#segment;
  }

  /**
   * Moves the tail as far as it goes and makes that durable. `toHead`: with nothing left to write back, up to the head
   * itself. What was written to the backing since its last good sync is live, so it stops there. For less than `least`
   * segments it does not move: each time costs two superblocks, each synced.
   */
  async advance(toHead: boolean, least = 1): Promise<boolean> {
    const { segments, versions, copies, history } = this.#core;
    const start = this.#segment;
    let segment = start;
    // What only lacks durability is sealed and synced for the first segment; the others can wait until records are full.
    let gain = 0;
    while (segment !== this.#writer.headSegment && (await this.#settle(segment, segment === start))) {
      segment = segments.after(segment);
      gain++;
    }
    if (!toHead && gain < least) return false;
    let position: LogPosition;
    if (segment !== this.#writer.headSegment) position = this.#firstOf(segment);
    // An entry that says what is lost is moved along to the head, which therefore is never empty with it.
    else if (
      toHead && !versions.poison.any && (await this.#settle(segment, true)) && this.#isEmptyUpToHead()
    ) position = this.#writer.head;
    else if (segments.firstSequence[segment]! > 0 && segment !== start) position = this.#firstOf(segment);
    else return false;
    if (position.sequence <= this.#store.current.tail.sequence) return false;
    // What was superseded in there is gone with it, and so is the past in which it had not been.
    for (let passed = start; passed !== segment; passed = segments.after(passed)) {
      history.reached(segments.supersededBy[passed]!);
    }
    history.reached(position.sequence - 1);
    await this.#store.write({ tail: position });
    versions.touched.passed(position.sequence);
    copies.forget();
    this.#segment = segment;
    for (let passed = start; passed !== segment; passed = segments.after(passed)) {
      history.forgetSegment(passed);
    }
    this.#writer.setReusableTail(segment);
    this.#room.progressMs = this.#core.clock.monotonicMs();
    return true;
  }

  /** Asked without a wait before the head is taken for the tail: a client may have written during the last one. */
  #isEmptyUpToHead(): boolean {
    const writer = this.#writer;
    return !writer.openHasEntries && writer.sealedSequence <= writer.durableSequence &&
      this.#isSettled(writer.headSegment) && this.#isSuperseded(writer.headSegment);
  }

  #firstOf(segment: number): LogPosition {
    const { segments } = this.#core;
    return {
      slot: segments.firstSlot[segment]!,
      sequence: segments.firstSequence[segment]!,
      chain: segments.firstChain[segment]!,
    };
  }

  /**
   * Does what it takes for the tail to pass `segment`, short of writing back; false when it cannot be passed now. Without
   * `seals` the open record is not closed for that: a record that is not full costs the log two requests instead of one.
   */
  async #settle(segment: number, seals: boolean): Promise<boolean> {
    const { segments } = this.#core;
    if (segments.live[segment]! > 0 || segments.planned[segment]! > 0 || segments.held.has(segment)) {
      return false;
    }
    this.#settleRanges(segment);
    if (!this.#rangesSettled(segment)) return false;
    if (!(await this.#moveUnsettled(segment))) return false;
    const needed = Math.max(segments.supersededBy[segment]!, segments.lastSequence[segment]!);
    if (needed > this.#writer.durableSequence) {
      if (needed > this.#writer.sealedSequence && !seals) return false;
      // Only durability is missing, and perhaps nobody else will ask for it (log-rules.md 11).
      await this.#writer.makeDurable(needed);
    }
    return segments.live[segment] === 0 && this.#isSettled(segment) && this.#isSuperseded(segment);
  }

  #isSettled(segment: number): boolean {
    const { segments } = this.#core;
    return segments.live[segment] === 0 && segments.planned[segment] === 0 && this.#rangesSettled(segment) &&
      !segments.poisoned.has(segment) && !segments.losses.has(segment);
  }

  #isSuperseded(segment: number): boolean {
    const { segments } = this.#core;
    const durable = this.#writer.durableSequence;
    return segments.supersededBy[segment]! <= durable && segments.lastSequence[segment]! <= durable;
  }

  #rangesSettled(segment: number): boolean {
    return !this.#core.segments.ranges.has(segment);
  }

  /** Drops the ranges of which no block is zero-dirty, or zeroed but not synced, any more. */
  #settleRanges(segment: number): void {
    const { segments, kernels, versions } = this.#core;
    const ranges = segments.ranges.get(segment);
    if (!ranges) return;
    const left = ranges.filter(({ start, end }) =>
      kernels.zeroDirty.any(start, end) || kernels.written.any(start, end) || kernels.syncing.any(start, end)
    );
    if (left.length < ranges.length) segments.supersede(segment, versions.rangeSupersededBy);
    if (left.length === 0) segments.ranges.delete(segment);
    else segments.ranges.set(segment, left);
  }

  /** Which ranges of the log are still unsettled, over all segments; the checkpoint asks. */
  unsettledRanges(): LiveRange[] {
    for (const segment of [...this.#core.segments.ranges.keys()]) this.#settleRanges(segment);
    return [...this.#core.segments.ranges.values()].flat();
  }

  /** Appends at the head what is lost and only this segment says or shows so; false when there is no room for it. */
  async #moveUnsettled(segment: number): Promise<boolean> {
    const { segments, versions } = this.#core;
    while (segments.losses.has(segment)) {
      if (!(await this.#room.takeUnlessFull("tail", () => recordLoss(this.#core, this.#writer, segment)))) {
        return false;
      }
    }
    const entries = segments.poisoned.get(segment);
    if (!entries) return true;
    for (const { start, end } of entries) {
      const left = [...versions.poison.ranges(start, end)];
      for (let range = left.pop(); range; range = left.pop()) {
        const { start: from, end: to } = range;
        const put = await this.#room.takeUnlessFull("tail", () => {
          // Clients may have healed some of it during the wait.
          const now = [...versions.poison.ranges(from, to)];
          if (now.length > 1) left.push(...now);
          else if (now[0]) this.#putPoison(now[0].start, now[0].end, now[0].mask);
        });
        if (!put) return false;
      }
    }
    segments.poisoned.delete(segment);
    segments.supersede(segment, Math.max(versions.rangeSupersededBy, this.#writer.lastPutSequence));
    return true;
  }

  /** Appends a poisoned entry: the sectors of `mask` in [start, end) are lost. */
  async poison(start: number, end: number, mask: number): Promise<void> {
    await this.#room.take("engine", () => this.#putPoison(start, end, mask));
  }

  #putPoison(start: number, end: number, mask: number): void {
    const headerSlot = this.#writer.putRange(entryKind.poisoned, start, end - start, mask);
    this.#core.versions.putPoison({ start, end, headerSlot }, mask, this.#writer.openSequence);
  }

  /**
   * Copies a live block from the tail to the head, so that the tail can pass its old place. No lock is taken: a client's
   * write that holds the block's lock may be waiting for the very space that this gives back, and the content is the same.
   */
  async relocate(block: number): Promise<void> {
    const { kernels, versions } = this.#core;
    if (!kernels.dirty.test(block)) return;
    const slot = kernels.indexGet(block);
    const { bytes, mask } = await this.#reads.fetch(block);
    await this.#room.takeUnlessFull("engine", () => {
      // Superseded, or found rotten, while this waited.
      if (kernels.indexGet(block) !== slot || !kernels.dirty.test(block)) return;
      const target = this.#writer.putData(block, mask);
      kernels.bytes.set(bytes, this.#writer.pointerOf(target));
      versions.putData(block, target, mask, this.#writer.openSequence);
    });
  }

  /**
   * Moves what the backing refuses out of the way (log-rules.md 12), as long as it is little: blocks by how often they failed,
   * and ranges.
   */
  async relocateRefused(failures: ReadonlyMap<number, number>, zeroingFailures: number): Promise<void> {
    if (failures.size > 0 && failures.size <= this.#core.geometry.segmentBlocks) {
      for (const block of [...this.dirtyInTail()]) {
        if ((failures.get(block) ?? 0) >= failuresMax) await this.relocate(block);
      }
    }
    if (zeroingFailures >= failuresMax) await this.relocateRanges();
  }

  /** Re-appends at the head the zero-dirty rest of the tail segment's ranges, which cannot be zeroed where they are. */
  async relocateRanges(): Promise<void> {
    const { segments, versions, kernels } = this.#core;
    const segment = this.#segment;
    if (segment === this.#writer.headSegment) return;
    for (const range of segments.ranges.get(segment) ?? []) {
      for (let start = kernels.zeroDirty.next(range.start, range.end); start >= 0;) {
        let end = kernels.zeroDirty.nextClear(start, range.end);
        if (end < 0) end = range.end;
        const keep = versions.provisioned.has(start);
        const limit = keep
          ? versions.provisioned.nextAbsent(start, end)
          : versions.provisioned.next(start, end);
        if (limit >= 0) end = limit;
        const tried = await this.#room.takeUnlessFull("engine", () => {
          if (kernels.zeroDirty.nextClear(start, end) >= 0) return;
          const headerSlot = this.#writer.putRange(
            keep ? entryKind.zero : entryKind.trim,
            start,
            end - start,
            fullMask,
          );
          versions.putZeroes({ start, end, headerSlot }, keep, this.#writer.openSequence);
        });
        if (!tried) return;
        start = kernels.zeroDirty.next(end, range.end);
      }
    }
    // What is zeroed but not synced keeps a range here; the rest lives at the head now.
    const left = (segments.ranges.get(segment) ?? []).filter(({ start, end }) =>
      kernels.written.any(start, end) || kernels.syncing.any(start, end)
    );
    if (left.length === 0) segments.ranges.delete(segment);
    else segments.ranges.set(segment, left);
    segments.supersede(segment, Math.max(versions.rangeSupersededBy, this.#writer.lastPutSequence));
  }

  /** Dirty blocks whose newest version lies in the tail's segment. */
  *dirtyInTail(): Generator<number> {
    const { kernels, segments } = this.#core;
    const first = this.#segment * segments.blocks;
    for (let slot = first; slot < first + segments.blocks; slot++) {
      const block = kernels.reverse[slot]!;
      if (kernels.indexGet(block) === slot && kernels.dirty.test(block)) yield block;
    }
  }
}
