/**
 * What a recovery did, and what it had noticed until then: the same again is not run again.
 *
 * Recovery is a function of what it reads. So each run is kept as a path: the units in the order in which it looked at them,
 * and what it noticed of each. Runs that noticed the same up to some place look at the same unit next, and so the paths are a
 * tree, which is walked instead of running: what a unit holds is decided only where a path looks at it, and a unit at which
 * no path looks is never decided at all.
 *
 * Invariant: a run that does not fit its tree fails loudly, for then something else than what was read had a say.
 *
 * @module
 */

import { assert } from "../../src/errors.ts";
import { sectorsPerBlock } from "../../src/units.ts";
import type { Change, Watcher } from "./tiny_disk.ts";
import {
  type Content,
  type DeviceName,
  logUnit,
  Look,
  nothing,
  spanOf,
  unitCount,
  unitOf,
  type Units,
} from "./tiny_units.ts";

/** One unit that was looked at, and how. */
interface Glance {
  unit: number;
  look: Look;
  crc: number;
  seen: number;
}

/** Notes what one life looks at, of what it did not write itself. */
export class Recorder {
  readonly glances: Glance[] = [];
  /** Units that this life wrote. */
  readonly written = new Uint8Array(unitCount);
  /** Units of which this life made something durable. */
  readonly settled = new Uint8Array(unitCount);
  readonly #units: Units;
  /** Whether the cache is still being opened. */
  opening = true;
  /** Units of the log that were read. */
  readonly #seen = new Uint8Array(unitCount);
  readonly #known = new Uint8Array(unitCount);
  readonly #glanced = new Set<number>();

  constructor(units: Units) {
    this.#units = units;
  }

  /** For one of the devices. */
  watcher(device: DeviceName): Watcher {
    return {
      read: (sector, count, numbers) => this.#read(device, sector, count, numbers),
      changed: (sector, count, numbers) => this.#changed(device, sector, count, numbers),
      settled: (changes) => this.#settled(device, changes),
    };
  }

  #read(device: DeviceName, sector: number, count: number, numbers: Int32Array): void {
    const first = unitOf(device, sector);
    const last = unitOf(device, sector + count - 1);
    if (device === "cache" && first >= logUnit) return this.#readLog(first, last, numbers);
    for (let unit = first; unit <= last; unit++) {
      const span = spanOf(unit);
      const isCovered = span.sector >= sector && span.sector + span.count <= sector + count;
      const look = isCovered && span.count > sectorsPerBlock ? Look.superblock : Look.whole;
      this.#glance(this.#units.on(unit, numbers), look);
      if (span.count > sectorsPerBlock) unit++;
    }
  }

  /**
   * While a cache is opened the log is read for headers, for which their first half is enough. Only when a record is read once
   * more, from its header on, it is wanted as a whole, and no further than to its first bad part; the second half of another
   * header counts where something is damaged, and that is a failure here. Afterwards blocks are read for their data.
   */
  #readLog(first: number, last: number, numbers: Int32Array): void {
    const again = this.#seen[first] === 1;
    let announced: readonly number[] = [];
    for (let unit = first; unit <= last; unit++) {
      const content = this.#units.on(unit, numbers);
      this.#seen[unit] = 1;
      const crc = announced[unit - first - 1];
      if (!this.opening) this.#glance(content, Look.whole);
      else if (crc === undefined) {
        const isHeader = this.#glance(content, Look.header) !== nothing;
        const isRecord = unit === first && again && isHeader && content.announces!.length === last - first;
        if (isRecord && this.#glance(content, Look.second) !== nothing) announced = content.announces!;
      } else if (this.#glance(content, Look.data, crc) !== content.id) announced = [];
    }
  }

  #glance(content: Content, look: Look, crc = 0): number {
    const { unit } = content;
    const seen = this.#units.observe(content, look, crc);
    if (this.written[unit] || this.#known[unit]) return seen;
    const key = (unit * 8 + look) * 2 ** 32 + crc;
    if (this.#glanced.has(key)) return seen;
    this.#glanced.add(key);
    if (seen === content.id) this.#known[unit] = 1;
    this.glances.push({ unit, look, crc, seen });
    return seen;
  }

  #changed(device: DeviceName, sector: number, count: number, numbers: Int32Array): void {
    for (let at = sector; at < sector + count;) {
      const unit = unitOf(device, at);
      const span = spanOf(unit);
      const isCovered = span.sector === at && at + span.count <= sector + count;
      // What keeps a part of what it held depends on that.
      if (!isCovered) this.#glance(this.#units.on(unit, numbers), Look.whole);
      this.written[unit] = 1;
      at = span.sector + span.count;
    }
  }

  #settled(device: DeviceName, changes: readonly Change[]): void {
    for (const { sector, numbers } of changes) {
      for (let at = sector; at < sector + numbers.length;) {
        const unit = unitOf(device, at);
        const span = spanOf(unit);
        assert(span.sector === at && at + span.count <= sector + numbers.length);
        this.settled[unit] = 1;
        at = span.sector + span.count;
      }
    }
  }
}

/** The end of a path. */
export interface Leaf<Outcome> {
  outcome: Outcome;
}

/** A unit that paths look at next. */
interface Step<Outcome> extends Glance {
  /** Where it goes on for `seen`, which is the most common, and for others. */
  next: Step<Outcome> | Leaf<Outcome>;
  others: Map<number, Step<Outcome> | Leaf<Outcome>> | undefined;
}

/** What units may hold; the first of several is as good as any other until they are told apart. */
export interface Holdings {
  at(unit: number): readonly Content[];
}

/** What units may hold, where some of it was decided by looking. */
export class View implements Holdings {
  readonly base: Holdings;
  readonly decided: Map<number, readonly Content[]>;

  constructor(base: Holdings, decided: Map<number, readonly Content[]> = new Map()) {
    this.base = base;
    this.decided = decided;
  }

  at(unit: number): readonly Content[] {
    return this.decided.get(unit) ?? this.base.at(unit);
  }

  /** The same, which later decisions here do not change. */
  copy(): View {
    return new View(this.base, new Map(this.decided));
  }
}

/** All paths of one kind of run. */
export class Courses<Outcome> {
  readonly #units: Units;
  #root: Step<Outcome> | Leaf<Outcome> | undefined;

  constructor(units: Units) {
    this.#units = units;
  }

  clear(): void {
    this.#root = undefined;
  }

  /**
   * Calls `found` for each outcome that `view` can lead to, and `missed` with what it would be decided to where no run ever
   * came by.
   */
  walk(view: View, found: (outcome: Outcome, view: View) => void, missed: (view: View) => void): void {
    if (this.#root) this.#walk(this.#root, view, found, missed);
    else missed(view.copy());
  }

  #walk(
    from: Step<Outcome> | Leaf<Outcome>,
    view: View,
    found: (outcome: Outcome, view: View) => void,
    missed: (view: View) => void,
  ): void {
    let at = from;
    while (!("outcome" in at)) {
      const step = at;
      const contents = view.at(step.unit);
      const groups = this.#tellApart(contents, step);
      if (typeof groups !== "number") {
        for (const [seen, group] of groups) {
          view.decided.set(step.unit, group);
          const next = branch(step, seen);
          if (next) this.#walk(next, view, found, missed);
          else missed(view.copy());
        }
        view.decided.set(step.unit, contents);
        return;
      }
      const next = branch(step, groups);
      if (!next) return missed(view.copy());
      at = next;
    }
    found(at.outcome, view.copy());
  }

  /** The one observation that all contents lead to, or the contents by observation. */
  #tellApart(contents: readonly Content[], { look, crc }: Glance): number | Map<number, Content[]> {
    const first = this.#units.observe(contents[0]!, look, crc);
    if (contents.length === 1) return first;
    const groups = new Map<number, Content[]>();
    for (const content of contents) {
      const seen = this.#units.observe(content, look, crc);
      const group = groups.get(seen);
      if (group) group.push(content);
      else groups.set(seen, [content]);
    }
    return groups.size === 1 ? first : groups;
  }

  /** Adds what a run looked at, and what came of it. */
  add(glances: readonly Glance[], outcome: Outcome): void {
    if (!this.#root) {
      this.#root = chain(glances, 0, outcome);
      return;
    }
    let at = this.#root;
    for (let i = 0; i < glances.length; i++) {
      const glance = glances[i]!;
      const fits = !("outcome" in at) && at.unit === glance.unit && at.look === glance.look &&
        at.crc === glance.crc;
      if (!fits) break;
      const next = branch(at as Step<Outcome>, glance.seen);
      if (!next) {
        ((at as Step<Outcome>).others ??= new Map()).set(glance.seen, chain(glances, i + 1, outcome));
        return;
      }
      at = next;
    }
    throw new Error(
      "A recovery that read the same as another one went another way: something else had a say",
    );
  }
}

function branch<Outcome>(step: Step<Outcome>, seen: number): Step<Outcome> | Leaf<Outcome> | undefined {
  return seen === step.seen ? step.next : step.others?.get(seen);
}

function chain<Outcome>(
  glances: readonly Glance[],
  from: number,
  outcome: Outcome,
): Step<Outcome> | Leaf<Outcome> {
  let at: Step<Outcome> | Leaf<Outcome> = { outcome };
  for (let i = glances.length - 1; i >= from; i--) {
    const { unit, look, crc, seen } = glances[i]!;
    at = { unit, look, crc, seen, next: at, others: undefined };
  }
  return at;
}
