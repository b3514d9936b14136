/**
 * `writeback_order=prefix`: write-back goes from point to point. At a point the volume is frozen as a list of the slots that
 * the backing lacks; the step to it writes those versions, whatever clients write meanwhile, and ends with a sync.
 *
 * Invariants:
 * - Between two steps the backing, durably, is the volume as it was at the point `at`: all that had been acknowledged then,
 *   nothing later. Within one every sector is of the point before or of the next one.
 * - A step begins only when the point is durable in the log, and the step before it is settled: written, and covered by a
 *   sync of the backing.
 * - A point is taken between two records, at once: the index of that moment is its image. What lies in the log between
 *   two points is in the later one's step, in its last version there.
 * - Nothing else reaches the backing: nothing goes past the log, and nothing is copied forward in it.
 *
 * ```text
 *   log   ... | versions of step 1 | versions of step 2 | in no step yet ...
 *   backing   at ----------------> sequence of step 1
 * ```
 *
 * @module
 */

import type { LogWriter } from "../log/writer.ts";
import { blockBytes } from "../units.ts";
import type { BackingSync } from "./backing_sync.ts";
import type { Core } from "./core.ts";
import { type Point, Step, type ZeroRun } from "./step.ts";
import type { Sweep } from "./sweep.ts";
import { zeroBlocksMax, type Zeroing } from "./zeroing.ts";

/** Who wants a point waits for a client's flush for so long; then what is acknowledged is taken as it is. */
const flushWaitMs = 1000;
/** A step covers no more of the log than one part of so many. */
const stepPartsMin = 8;
/** Nor less than one of so many: each step that waits costs RAM and time, however little is in it. */
const stepPartsMax = 4096;
/** Where no client flushes a step becomes so many times as long. */
const flushlessSteps = 2;

/** Which moment the backing device shows by itself; see the tunable `writeback_order`. */
export interface PointStatus {
  /** The sequence of the point; null while it is not known, as after an opening, until the first step is done. */
  sequence: number | null;
  /** When that was: ISO 8601, UTC; null as well. */
  at: string | null;
  /** The point that a step under way leads to: every sector is of the one or of the other. Null between two steps. */
  toSequence: number | null;
  /** When that was. */
  toAt: string | null;
  /** Seconds since the first of these, 0 when nothing newer was written: what a dead cache device would cost. */
  behindSeconds: number | null;
  /** Blocks that could not be read for their step: the backing shows something older there. */
  lackingBlocks: number;
}

/** Points and steps of one cache. */
export class PointOrder {
  readonly #core: Core;
  readonly #writer: LogWriter;
  readonly #sync: BackingSync;
  readonly #sweep: Sweep;
  readonly #zeroing: Zeroing;
  #on = false;
  /** What the backing is, once that is known. */
  #at: Point | undefined;
  /** Oldest first; the first is under way once it has begun. */
  readonly #steps: Step[] = [];
  readonly #lacking = new Set<number>();
  /** Where the slots begin that are in no step yet, and what the log had taken by then. */
  #fromSlot = 0;
  #fromBlocks = 0;
  /** Ranges put while steps wait; of which so many were dropped from the front. */
  #rangesDropped = 0;
  /** Since when a point is wanted. */
  #wantedMs: number | undefined;
  #failed = false;
  /** Called when there may be something to do. */
  onWork: () => void = () => {};

  constructor(core: Core, writer: LogWriter, sync: BackingSync, sweep: Sweep, zeroing: Zeroing) {
    this.#core = core;
    this.#writer = writer;
    this.#sync = sync;
    this.#sweep = sweep;
    this.#zeroing = zeroing;
    // While a cache opens nothing is under way.
    if (this.#isWanted) this.#begin();
    sync.onIssue = () => this.#steps[0]?.syncBegins();
    sync.onEnd = (ok) => this.#steps[0]?.syncEnded(ok);
  }

  /** Whether write-back goes from point to point. */
  get isOn(): boolean {
    return this.#on;
  }

  /** Whether there is a step to do, or another order was asked for. */
  get isBusy(): boolean {
    return this.#steps.length > 0 || this.#isWanted !== this.#on;
  }

  /** Whether a round needs {@linkcode begin}. */
  get mustBegin(): boolean {
    return this.#on || this.#isWanted;
  }

  get #isWanted(): boolean {
    return this.#core.tunables.writebackOrder === "prefix";
  }

  /** Whether a step under way should be done, idle or not, and before the cache closes: it is a short one, and nothing fails. */
  get mustFinish(): boolean {
    const step = this.#current;
    if (!step || this.#failed || this.#core.history.held || this.#writer.failure) return false;
    return !step.isWhole || step.unwritten <= this.#stepBlocks;
  }

  /** Whether zeroes wait for their way to the backing. */
  get zeroesWait(): boolean {
    if (!this.#on) return this.#core.kernels.zeroDirty.count > 0;
    return this.#current !== undefined && !this.#current.zeroesTodo().next().done;
  }

  /** The step under way. One that was taken meanwhile may not be durable yet. */
  get #current(): Step | undefined {
    const [step] = this.#steps;
    return step?.begun ? step : undefined;
  }

  get #stepBlocks(): number {
    const { tunables, geometry } = this.#core;
    const { slotCount } = geometry;
    return Math.max(
      1,
      slotCount / stepPartsMax,
      Math.min(tunables.writebackStep / blockBytes, Math.floor(slotCount / stepPartsMin)),
    );
  }

  get #sinceBlocks(): number {
    return this.#writer.appendedBlocks - this.#fromBlocks;
  }

  /** A client asks for a flush: the best moment there is for a point. */
  noteFlush(): void {
    if (!this.#on || (this.#wantedMs === undefined && this.#sinceBlocks < this.#stepBlocks)) return;
    this.#take();
    this.onWork();
  }

  /** A segment was taken for the head, and nothing was put into it yet. */
  noteSegment(): void {
    if (this.#on && this.#sinceBlocks >= flushlessSteps * this.#stepBlocks) this.#take();
  }

  /**
   * Makes the sweep ready for a round. `eager`: somebody waits for it, so no flush is waited for. Before the order
   * changes nothing must be under way.
   */
  async begin(eager: boolean): Promise<void> {
    await this.#change();
    if (!this.#on) return;
    if (this.#steps.length === 0) this.#consider(eager);
    const [step] = this.#steps;
    if (step) {
      await this.#writer.makeDurable(step.sequence);
      step.begun = true;
    }
    this.#failed = false;
    this.#sweep.step = step ?? null;
  }

  /** Follows the tunable. */
  async #change(): Promise<void> {
    const { bypassed, versions } = this.#core;
    if (this.#isWanted === this.#on) return;
    await this.#sweep.quiesce();
    if (this.#on) {
      for (const step of this.#steps.splice(0)) step.drop();
      this.#sweep.step = versions.rangeLog = this.#wantedMs = undefined;
      this.#on = false;
    } else {
      // What began to go past the log before is in no record, and so in no step.
      if (bypassed.inFlight > 0) return;
      if (this.#sync.wanted) await this.#sync.run();
      this.#begin();
    }
  }

  #begin(): void {
    this.#core.versions.rangeLog = [];
    this.#rangesDropped = 0;
    this.#lacking.clear();
    this.#at = undefined;
    this.#sweep.step = null;
    this.#on = true;
  }

  /** Takes a point if it is time. */
  #consider(eager: boolean): void {
    const { kernels, clock } = this.#core;
    this.noteIdle();
    if (kernels.dirty.count === 0 && kernels.zeroDirty.count === 0) return;
    const now = clock.monotonicMs();
    this.#wantedMs ??= now;
    if (eager || !this.#writer.openHasEntries || now - this.#wantedMs >= flushWaitMs) this.#take();
  }

  /** Where nothing is dirty, the backing is what the volume is. */
  noteIdle(): void {
    const { kernels, bypassed, versions } = this.#core;
    const { dirty, zeroDirty, written, syncing } = kernels;
    if (!this.#on || this.#steps.length > 0 || this.#writer.openHasEntries || versions.poison.any) return;
    if (dirty.count + zeroDirty.count + written.count + syncing.count + bypassed.outstanding > 0) return;
    if (this.#at?.sequence === this.#writer.sealedSequence) return;
    this.#lacking.clear();
    this.#at = this.#point();
    this.#moveOn();
  }

  #point(): Point {
    return { sequence: this.#writer.sealedSequence, wallMs: this.#core.clock.wallMs() };
  }

  #moveOn(): void {
    this.#fromSlot = this.#writer.head.slot;
    this.#fromBlocks = this.#writer.appendedBlocks;
    this.#wantedMs = undefined;
  }

  /** Takes a point, now. */
  #take(): void {
    const { segments, kernels, versions } = this.#core;
    const writer = this.#writer;
    writer.markFlushPoint();
    writer.seal();
    if (writer.openHasEntries) return;
    const isFirst = this.#at === undefined && this.#steps.length === 0;
    let words = isFirst ? this.#allSlots() : this.#newSlots();
    let zeroes = isFirst ? this.#zeroRuns(0, versions.backingBlocks) : this.#newZeroes();
    const isLost = words.length + zeroes.length === 0 && this.#steps.length === 0;
    // Whatever it was that left something dirty behind: it has its turn.
    if (isLost && kernels.dirty.count > 0) words = this.#allSlots();
    if (isLost && kernels.zeroDirty.count > 0) zeroes = this.#zeroRuns(0, versions.backingBlocks);
    const step = new Step(segments, {
      ...this.#point(),
      isWhole: isFirst,
      words,
      zeroes,
      rangesBefore: this.#rangesDropped + versions.rangeLog!.length,
      spanBlocks: this.#sinceBlocks,
    });
    this.#steps.push(step);
    this.#moveOn();
  }

  /** All that is dirty. */
  #allSlots(): Uint32Array {
    const { kernels } = this.#core;
    const words = new Uint32Array(2 * kernels.dirty.count);
    let count = 0;
    for (let block = kernels.dirty.next(0, kernels.dirty.length); block >= 0;) {
      words[2 * count] = kernels.indexGet(block);
      words[2 * count++ + 1] = block;
      block = kernels.dirty.next(block + 1, kernels.dirty.length);
    }
    return words;
  }

  /** What of the log since the point before is the newest version of its block, and not on the backing. */
  #newSlots(): Uint32Array {
    const { kernels, geometry } = this.#core;
    const words = new Uint32Array(2 * Math.max(0, this.#sinceBlocks));
    let count = 0;
    const end = this.#writer.head.slot;
    for (let slot = this.#fromSlot; slot !== end; slot = slot + 1 === geometry.slotCount ? 0 : slot + 1) {
      const block = kernels.reverse[slot]!;
      if (kernels.indexGet(block) !== slot || !kernels.dirty.test(block)) continue;
      words[2 * count] = slot;
      words[2 * count++ + 1] = block;
    }
    const found = words.slice(0, 2 * count);
    // As 64 bits, the block above the slot.
    new BigUint64Array(found.buffer).sort();
    return found;
  }

  #newZeroes(): ZeroRun[] {
    const { segments, geometry } = this.#core;
    const slots = geometry.slotCount;
    const [from, end] = [this.#fromSlot, this.#writer.head.slot];
    const reach = (end - from + slots) % slots;
    const ranges = [...segments.ranges.values()].flat()
      .filter(({ headerSlot }) => (headerSlot - from + slots) % slots < reach)
      .sort((a, b) => a.start - b.start);
    const runs: ZeroRun[] = [];
    let position = 0;
    for (const range of ranges) {
      runs.push(...this.#zeroRuns(Math.max(position, range.start), range.end));
      position = Math.max(position, range.end);
    }
    return runs;
  }

  /** What of [start, end) reads as zeroes, and the backing does not know. */
  #zeroRuns(start: number, end: number): ZeroRun[] {
    const { kernels: { zeroDirty }, versions: { provisioned } } = this.#core;
    const runs: ZeroRun[] = [];
    for (let from = start < end ? zeroDirty.next(start, end) : -1; from >= 0;) {
      // No longer than one request: what has arrived is not zeroed again when the rest fails.
      const most = Math.min(end, from + zeroBlocksMax);
      const clear = zeroDirty.nextClear(from, most);
      const limit = clear < 0 ? most : clear;
      const keepAllocated = provisioned.has(from);
      const other = keepAllocated ? provisioned.nextAbsent(from, limit) : provisioned.next(from, limit);
      const to = other < 0 ? limit : other;
      runs.push({ start: from, end: to, keepAllocated });
      from = to < end ? zeroDirty.next(to, end) : -1;
    }
    return runs;
  }

  /** Applies the step's zeroes, with nothing else under way; tells whether there were any. */
  async applyZeroes(): Promise<boolean> {
    if (!this.#on) return await this.#zeroing.pass();
    const step = this.#current;
    const { history, versions } = this.#core;
    if (!step) return false;
    let applied = false;
    for (const i of step.zeroesTodo()) {
      if (history.held) break;
      history.reached(step.sequence);
      const newer = () => versions.rangeLog!.slice(step.rangesBefore - this.#rangesDropped);
      if (await this.#zeroing.run(step.zeroes[i]!, newer)) step.noteZeroed(i);
      applied = true;
    }
    return applied;
  }

  /** A backing sync may have settled a step. Tells whether one is done. */
  settle(): boolean {
    const step = this.#current;
    if (!step?.isDone || !this.#sweep.idle) return false;
    this.#steps.shift();
    this.#sweep.step = null;
    this.#at = { sequence: step.sequence, wallMs: step.wallMs };
    for (let i = 0; i < step.count && this.#lacking.size > 0; i++) this.#lacking.delete(step.block(i));
    const { versions } = this.#core;
    for (const block of step.givenUp) this.#lacking.add(block);
    const kept = this.#steps[0]?.rangesBefore ?? Infinity;
    const dropped = Math.min(kept - this.#rangesDropped, versions.rangeLog!.length);
    versions.rangeLog!.splice(0, dropped);
    this.#rangesDropped += dropped;
    return true;
  }

  /** For the pace: what is left to be written of each step, the one that clients fill now included. */
  horizon(): { left: number; span: number }[] {
    const steps = this.#steps.map(({ unwritten, spanBlocks }) => ({ left: unwritten, span: spanBlocks }));
    const span = this.#sinceBlocks;
    return [...steps, { left: Math.min(span, this.#core.kernels.dirty.count), span }];
  }

  /** The cache closes: whatever failed before, a step is tried once more. */
  tryAgain(): void {
    this.#failed = false;
    this.onWork();
  }

  /** The round has failed. */
  noteFailure(): void {
    this.#failed = true;
  }

  /** What the backing shows by itself; null in any other order. */
  status(): PointStatus | null {
    if (!this.#on) return null;
    const at = this.#at;
    const to = this.#current;
    const isNewest = at !== undefined && this.#writer.lastNeededSequence <= at.sequence;
    const behindMs = at && (isNewest ? 0 : Math.max(1, this.#core.clock.wallMs() - at.wallMs));
    return {
      sequence: at?.sequence ?? null,
      at: at ? new Date(at.wallMs).toISOString() : null,
      toSequence: to?.sequence ?? null,
      toAt: to ? new Date(to.wallMs).toISOString() : null,
      behindSeconds: behindMs === undefined ? null : Math.ceil(behindMs / 1000),
      lackingBlocks: this.#lacking.size,
    };
  }
}
