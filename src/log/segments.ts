/**
 * What the engine knows of each segment of the log. It decides when the tail may pass.
 *
 * Invariants: `live` counts the slots of a segment that hold the newest version of a block whose write-back is not yet
 * covered by a backing sync. A segment may be passed when nothing in it is live, its ranges and poisoned entries are
 * settled, and everything that superseded its content is durable (log-rules.md, "Superseding").
 *
 * @module
 */

/** A range entry that is still live in its segment. */
export interface LiveRange {
  start: number;
  end: number;
  /** The slot of the record's header; the checkpoint marks it. */
  headerSlot: number;
}

/** Sectors of a block that are lost, and no entry in the log says so yet. */
export interface Loss {
  block: number;
  mask: number;
}

/** Per-segment facts, as parallel arrays. */
export class Segments {
  readonly count: number;
  readonly blocks: number;
  /** Live slots. */
  readonly live: Uint32Array;
  /** Highest sequence that superseded anything in the segment. */
  readonly supersededBy: Float64Array;
  /** Slot, sequence and chain value of the first record that is known in the segment in this lap. */
  readonly firstSlot: Uint32Array;
  readonly firstSequence: Float64Array;
  readonly firstChain: Uint32Array;
  /** Highest sequence of a record in the segment. */
  readonly lastSequence: Float64Array;
  /** Log reads under way; a pinned segment is not overwritten (log-rules.md 13). */
  readonly pins: Uint32Array;
  /** Slots that a step of write-back in prefix order still needs, superseded or not. */
  readonly planned: Uint32Array;
  /** The RAM buffer that holds the segment, or -1. */
  readonly buffer: Int16Array;
  /** Zero and trim ranges that may not be on the backing yet. */
  readonly ranges: Map<number, LiveRange[]> = new Map();
  /** Poisoned entries, which must be re-appended before the tail passes if still poisoned. */
  readonly poisoned: Map<number, LiveRange[]> = new Map();
  /** By the segment that held the lost version: it is not passed before an entry at the head says what is lost. */
  readonly losses: Map<number, Loss[]> = new Map();
  /** What was lost in them is not written down yet, while the cache opens: the tail passes none of them. */
  readonly held: Set<number> = new Set();
  /** Called before the content of a segment goes. */
  onReuse: (segment: number) => void = () => {};
  /** Segments that begin with a lost record, and the first of theirs that is known. */
  readonly #lostFirst = new Map<number, { slot: number; sequence: number; chain: number } | null>();

  /** `pins`: of the log that this is another view of. */
  constructor(count: number, blocks: number, pins: Uint32Array = new Uint32Array(count)) {
    this.count = count;
    this.blocks = blocks;
    this.live = new Uint32Array(count);
    this.supersededBy = new Float64Array(count);
    this.firstSlot = new Uint32Array(count);
    this.firstSequence = new Float64Array(count);
    this.firstChain = new Uint32Array(count);
    this.lastSequence = new Float64Array(count);
    this.pins = pins;
    this.planned = new Uint32Array(count);
    this.buffer = new Int16Array(count).fill(-1);
  }

  /** The segment of a slot. */
  of(slot: number): number {
    return Math.floor(slot / this.blocks);
  }

  /** The segment after `segment` in the ring. */
  after(segment: number): number {
    return segment + 1 === this.count ? 0 : segment + 1;
  }

  /** Whether any of the `count` segments after `segment` is pinned. */
  arePinned(segment: number, count: number): boolean {
    for (let i = 0; i < count; i++) {
      segment = this.after(segment);
      if (this.pins[segment]! > 0) return true;
    }
    return false;
  }

  /** Notes that the record `sequence` superseded something in `segment`. */
  supersede(segment: number, sequence: number): void {
    if (this.supersededBy[segment]! < sequence) this.supersededBy[segment] = sequence;
  }

  /** Starts a new lap of a segment with the record `sequence` at `slot`. */
  begin(slot: number, sequence: number, chain: number): void {
    const segment = this.of(slot);
    this.onReuse(segment);
    this.firstSlot[segment] = slot;
    this.live[segment] = 0;
    this.supersededBy[segment] = 0;
    this.firstSequence[segment] = sequence;
    this.firstChain[segment] = chain;
    this.lastSequence[segment] = sequence;
    this.ranges.delete(segment);
    this.poisoned.delete(segment);
  }

  /** Notes the place of a record that recovery found. */
  place(slot: number, sequence: number, chain: number): void {
    const segment = this.of(slot);
    // It may stand where the lost one was: a lost sequence is not used again, its place is.
    if (this.#lostFirst.get(segment) === null) this.#lostFirst.set(segment, { slot, sequence, chain });
    else if (this.#isFirst(slot)) {
      this.begin(slot, sequence, chain);
      return;
    }
    this.lastSequence[segment] = sequence;
  }

  /** Notes the place of a lost record: until the loss is written down the segment begins with it, so that no tail skips it. */
  placeLost(slot: number, sequence: number, chain: number): void {
    const segment = this.of(slot);
    if (this.#isFirst(slot) && !this.#lostFirst.has(segment)) {
      this.begin(slot, sequence, chain);
      this.#lostFirst.set(segment, null);
    } else this.lastSequence[segment] = sequence;
  }

  #isFirst(slot: number): boolean {
    return slot % this.blocks === 0 || this.firstSequence[this.of(slot)] === 0;
  }

  /** What was lost is written down, so no segment is held, and all begin at their first record that is known. */
  forgetLost(): void {
    this.held.clear();
    for (const [segment, known] of this.#lostFirst) {
      if (!known) continue;
      this.firstSlot[segment] = known.slot;
      this.firstSequence[segment] = known.sequence;
      this.firstChain[segment] = known.chain;
    }
    this.#lostFirst.clear();
  }

  /** Adds a live range entry. */
  addRange(kind: Map<number, LiveRange[]>, segment: number, range: LiveRange): void {
    const list = kind.get(segment);
    if (list) list.push(range);
    else kind.set(segment, [range]);
  }
}
