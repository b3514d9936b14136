/**
 * How fast clients may fill the log. While it is rather empty nobody waits. Later they go in step with write-back, smoothly,
 * so that nobody ever waits for a whole sweep: a log whose space comes back all at once stalls writers for minutes to hours.
 *
 * With copying forward, space is no matter and dirt is: each block that was written back admits one that becomes dirty.
 * Above the limit (only recovery gets there) it admits a quarter of one.
 *
 * Without it, a segment comes back when the sweep has passed the place where it was when the segment was filled, a lap
 * later. What lies dirty between here and there is what the sweep must write until then. From that follows, for each segment:
 * ```text
 * space   |                  x   free now + segments up to j
 *         |            x  .
 *         |        x .   the steepest line that stays below all x
 *  free --|x   .
 *         +------------------ blocks that the sweep still writes until segment j comes back
 * ```
 * Its slope is what one written block admits. In prefix order the ends of steps are those points.
 *
 * @module
 */

import { segmentsReserved } from "../log/layout.ts";
import type { LogWriter } from "../log/writer.ts";
import type { Core } from "./core.ts";
import type { Sweep } from "./sweep.ts";
import { Zones } from "./zones.ts";

/** What a written block admits while more is dirty than should be. */
const overLimitShare = 0.25;
/** With copying forward: of the log, in parts, and of large ones, in segments, what clients leave alone. */
const copyRoomParts = 32;
const copyRoomSegmentsMax = 64;
/** Without: this share of the log is filled without a wait, and this share kept in reserve. */
const freelyFilledShare = 0.5;
const reserveShare = 0.05;
/** So much later than a lap of the sweep a segment comes back: what was not durable when the sweep came by waits for the next. */
const lateShare = 1.1;
/** Points of the space that comes back at which the line is fitted. */
const horizonPoints = 32;
/** The rate of the clients is taken over at least so long. */
const rateMsMin = 100;
/** Blocks after which it is fitted again. */
const refitBlocks = 64;

/** The pace of the clients. */
export class Pace {
  readonly #core: Core;
  readonly #writer: LogWriter;
  readonly #sweep: Sweep;
  readonly #zones: Zones;
  /** Where the sweep was when each segment was begun. */
  readonly #marks: Float64Array;
  #dirtyLimit = Infinity;
  #appendLimit = Infinity;
  /** What is left of the log is for copying: with next to nothing left each step would gain next to nothing. */
  #leavesRoom = false;
  #rate = 1;
  #sinceFit = 0;
  #lookedAtMs: number;
  #lookedAtBlocks = 0;
  /** Blocks of log that clients have taken lately, a second. */
  blocksPerSecond = 0;
  /** In prefix order: what steps have yet to write, and the blocks of log that they give back at their ends. */
  steps: () => { left: number; span: number }[] = () => [];
  /** The backing takes nothing: clients go on until the log is full. */
  suspended = false;

  constructor(core: Core, writer: LogWriter, sweep: Sweep) {
    this.#core = core;
    this.#writer = writer;
    this.#sweep = sweep;
    this.#lookedAtMs = core.clock.monotonicMs();
    this.#zones = new Zones(core.kernels.dirty, core.versions.backingBlocks);
    this.#marks = new Float64Array(core.segments.count);
    this.#dirtyLimit = core.kernels.dirty.count;
    this.refresh();
  }

  /** Whether clients must wait now. Hot path. */
  get holds(): boolean {
    return !this.suspended &&
      (this.#core.kernels.dirty.count >= this.#dirtyLimit || this.#leavesRoom ||
        this.#writer.appendedBlocks >= this.#appendLimit);
  }

  /** Whether dirt is what counts. In prefix order nothing is copied, and a step gives its space back at its end. */
  get #byDirt(): boolean {
    return this.#core.tunables.copyForward > 0 && !this.#inSteps;
  }

  get #inSteps(): boolean {
    return this.#core.tunables.writebackOrder === "prefix";
  }

  /** Dirty blocks up to which nobody waits, with copying forward; the log's size without. */
  get dirtyMax(): number {
    const { tunables, geometry } = this.#core;
    return this.#byDirt
      ? Math.max(1, Math.floor(geometry.slotCount * tunables.copyForward / 100))
      : geometry.slotCount;
  }

  /** A segment was taken for the head. */
  noteSegment(): void {
    this.#measure();
    this.#lookAtRoom();
    this.#marks[this.#writer.headSegment] = this.#sweep.position;
    if (!this.#byDirt) this.refresh();
  }

  /** So many blocks were written back. */
  noteWritten(blocks: number): void {
    this.suspended = false;
    if (this.#byDirt) {
      this.#dirtyLimit = Math.max(this.dirtyMax, this.#dirtyLimit - blocks * (1 - overLimitShare));
      this.#appendLimit = Infinity;
      return;
    }
    if (this.#appendLimit < Infinity) this.#appendLimit += blocks * this.#rate;
    this.#sinceFit += blocks;
    if (this.#sinceFit >= refitBlocks) this.refresh();
  }

  #lookAtRoom(): void {
    const { geometry } = this.#core;
    const left = Math.min(copyRoomSegmentsMax, Math.floor(geometry.segmentCount / copyRoomParts));
    this.#leavesRoom = this.#byDirt && this.#writer.freeSegments <= left;
  }

  /** Looks at everything anew. */
  refresh(): void {
    const { kernels, segments } = this.#core;
    this.#measure();
    this.#lookAtRoom();
    this.#sinceFit = 0;
    if (this.#byDirt) {
      this.#appendLimit = Infinity;
      this.#dirtyLimit = Math.max(this.#dirtyLimit === Infinity ? 0 : this.#dirtyLimit, this.dirtyMax);
      return;
    }
    this.#dirtyLimit = Infinity;
    const free = this.#writer.freeSegments;
    if (kernels.dirty.count === 0 || free > segments.count * (1 - freelyFilledShare)) {
      this.#appendLimit = Infinity;
      return;
    }
    const slack = Math.max(0, free - segmentsReserved - segments.count * reserveShare);
    this.#rate = this.#inSteps ? this.#fitSteps(slack) : this.#fit(free, slack);
    const appended = this.#writer.appendedBlocks;
    const burst = Math.max(1, slack / 4) * segments.blocks;
    this.#appendLimit = Math.min(this.#appendLimit, appended + burst);
  }

  #measure(): void {
    const { clock, statistics } = this.#core;
    const ms = clock.monotonicMs() - this.#lookedAtMs;
    if (ms < rateMsMin) return;
    // What is copied at the tail is no client's doing.
    const blocks = this.#writer.appendedBlocks - statistics.copiedBlocks;
    this.blocksPerSecond = (this.blocksPerSecond + (blocks - this.#lookedAtBlocks) / ms * 1000) / 2;
    this.#lookedAtMs += ms;
    this.#lookedAtBlocks = blocks;
  }

  /** The same line, where the points at which space comes back are the ends of steps. */
  #fitSteps(slack: number): number {
    let rate = Infinity;
    let space = slack * this.#core.segments.blocks;
    let left = 0;
    for (const step of this.steps()) {
      left += step.left;
      rate = Math.min(rate, space / Math.max(1, left));
      space += step.span;
    }
    return rate === Infinity ? 1 : rate;
  }

  /** The slope of the line, in blocks admitted per block written. */
  #fit(free: number, slack: number): number {
    const { segments, versions, clock } = this.#core;
    this.#zones.count(clock.monotonicMs());
    const { position } = this.#sweep;
    const lap = versions.backingBlocks * lateShare;
    const used = segments.count - 1 - free;
    const step = Math.max(1, Math.floor(used / horizonPoints));
    const tail = this.#writer.headSegment - used + segments.count;
    const least = Math.max(refitBlocks, this.#zones.ahead(position, lap) / horizonPoints);
    let rate = Infinity;
    for (let j = step; j <= used; j += step) {
      const way = this.#marks[(tail + j - 1) % segments.count]! + lap - position;
      // What clients write meanwhile lies ahead as well, half of the way on average.
      const share = Math.min(1, this.#rate) * Math.min(1, way / lap) / 2;
      const left = way <= 0 ? least : Math.max(least, this.#zones.ahead(position, way) / (1 - share));
      rate = Math.min(rate, (slack + j) * segments.blocks / left);
    }
    return rate === Infinity ? 1 : rate;
  }
}
