/**
 * When free segments are few: from when on the tail follows the head, how much is copied out of its way, and what a step
 * of it must gain.
 *
 * @module
 */

import { segmentsReserved } from "../log/layout.ts";
import type { LogWriter } from "../log/writer.ts";
import type { Core } from "./core.ts";
import type { Pace } from "./pace.ts";

/** Of the log, in parts: when no more is free than this, the tail follows, until so much more is. */
const lowParts = 16;
const gainParts = 8;
/** But enough for so long at the present rate, and never more than a quarter: copying and a sync take their time. */
const followSeconds = 1;
const lowPartsMin = 4;
/** The same in segments, for large logs. */
const lowSegmentsMax = 256;
const gainSegmentsMax = 1024;
/** Copying forward goes on to this share of the log above what may be dirty: just there is where a full log stays. */
const copyMarginShare = 0.08;

/** Looks at the free segments of a log. */
export class Shortage {
  readonly #core: Core;
  readonly #writer: LogWriter;
  readonly #pace: Pace;

  constructor(core: Core, writer: LogWriter, pace: Pace) {
    this.#core = core;
    this.#writer = writer;
    this.#pace = pace;
  }

  /** Whether the tail should follow now. */
  get isTight(): boolean {
    return this.#writer.freeSegments <= this.#lowSegments;
  }

  /** Segments of which no more are free when the tail is to follow: as many as are taken while it does. */
  get #lowSegments(): number {
    const { geometry: { segmentCount, segmentBlocks }, tunables } = this.#core;
    // Without copying, only what the sweep has done gives space, and the pace needs to know of it early.
    const least = tunables.copyForward === 0
      ? Math.max(segmentsReserved + 1, Math.floor(segmentCount / gainParts))
      : Math.max(segmentsReserved + 1, Math.min(lowSegmentsMax, Math.floor(segmentCount / lowParts)));
    const taken = segmentsReserved + Math.ceil(this.#pace.blocksPerSecond * followSeconds / segmentBlocks);
    return Math.max(least, Math.min(Math.floor(segmentCount / lowPartsMin), taken));
  }

  /** Segments for which the tail moves while nobody waits for space: without copying a step often gains next to nothing. */
  get leastGain(): number {
    const { geometry: { segmentCount }, tunables } = this.#core;
    if (tunables.copyForward > 0 || this.#writer.freeSegments * 2 < this.#lowSegments) return 1;
    return Math.min(gainSegmentsMax, Math.max(1, Math.floor(segmentCount / lowParts)));
  }

  /** How many of the oldest segments are to be emptied by copying; `isNeeded`: a writer waits for space. */
  segmentsToCopy(isNeeded: boolean): number {
    const { tunables, geometry, kernels } = this.#core;
    // A copy is one more version, which a step has to write; and what holds the tail are steps.
    if (tunables.copyForward === 0 || tunables.writebackOrder === "prefix") return 0;
    // Far above what may be dirty, copying costs more than it gives; but nobody shall wait for the whole sweep.
    const dirtyMax = this.#pace.dirtyMax + copyMarginShare * geometry.slotCount;
    if (kernels.dirty.count > dirtyMax && !isNeeded) return 0;
    // Where the live blocks fill what is used, copying would go round and round, and gain nothing.
    const free = this.#writer.freeSegments;
    const used = geometry.segmentCount - 1 - free;
    if (used <= Math.ceil(kernels.dirty.count / (geometry.segmentBlocks - 1)) + 1) return 0;
    const gain = Math.min(gainSegmentsMax, Math.max(1, Math.floor(geometry.segmentCount / gainParts)));
    return this.#lowSegments + gain - free;
  }
}
