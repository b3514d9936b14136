/**
 * Where on the volume the dirty blocks lie, roughly: counts by zone, a few of them looked at again each time.
 *
 * Invariant: a count costs a bounded time, however large the volume is; none is much older than a second while somebody asks.
 *
 * @module
 */

/** Zones of a volume. */
const zonesMax = 64;
/** So many are counted anew at a time, and no sooner than so long after the last time. */
const zonesAtOnce = 4;
const countMsMin = 20;

/** The part of a bitmap that is asked. */
interface Countable {
  countRange(start: number, end: number): number;
}

/** The dirty blocks of a volume, by zone. */
export class Zones {
  readonly #dirty: Countable;
  readonly #blocks: number;
  readonly #zoneBlocks: number;
  readonly #counts: Float64Array;
  #next = 0;
  #countedMs = -Infinity;

  constructor(dirty: Countable, blocks: number) {
    this.#dirty = dirty;
    this.#blocks = blocks;
    this.#zoneBlocks = Math.ceil(blocks / zonesMax);
    this.#counts = new Float64Array(Math.ceil(blocks / this.#zoneBlocks));
  }

  /** Counts some of the zones anew; the first time all of them. */
  count(nowMs: number): void {
    if (nowMs - this.#countedMs < countMsMin) return;
    const zones = this.#countedMs === -Infinity ? this.#counts.length : zonesAtOnce;
    for (let i = 0; i < zones; i++) {
      const start = this.#next * this.#zoneBlocks;
      this.#counts[this.#next] = this.#dirty.countRange(
        start,
        Math.min(start + this.#zoneBlocks, this.#blocks),
      );
      this.#next = (this.#next + 1) % this.#counts.length;
    }
    this.#countedMs = nowMs;
  }

  /** About how many blocks are dirty in the `way` blocks from `position` on, beyond the end from the start again. */
  ahead(position: number, way: number): number {
    let sum = 0;
    let from = position % this.#blocks;
    for (let left = way; left > 0;) {
      const zone = Math.floor(from / this.#zoneBlocks);
      const start = zone * this.#zoneBlocks;
      const end = Math.min(start + this.#zoneBlocks, this.#blocks);
      const part = Math.min(left, end - from);
      sum += this.#counts[zone]! * part / (end - start);
      left -= part;
      from = end === this.#blocks ? 0 : end;
    }
    return sum;
  }
}
