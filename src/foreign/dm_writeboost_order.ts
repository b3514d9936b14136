/**
 * Puts the slots of a dm-writeboost cache in order, and says which of them count, which are lost, and why.
 *
 * The module believes the largest id, applies what follows it slot by slot, and stops at the first wrong checksum. No checksum
 * covers an id. So here an id is believed only where it is the one that its neighbours imply: in a log whose newest segment
 * is M, slot k holds the largest id up to M that belongs into slot k. M is what agrees with most slots.
 *
 * Invariants:
 * - A layer is applied only if it is whole and its id is implied, so a later layer never holds older data than an earlier.
 * - What might have held newer data than a layer stands above it: as `lost`, with the blocks that it claims to hold, or as
 *   `unknown`, when not even those are known. A segment whose age is not known stands above all.
 * - The one thing that is left out silently is the end of the log that was being written: the slot behind M.
 *
 * @module
 */

import { type EntryRange, noEntries } from "./dm_writeboost_entries.ts";
import { slotOf } from "./dm_writeboost_layout.ts";
import type { Slot, WriteboostScan } from "./dm_writeboost_scan.ts";

/** One segment, newest first in a list of them. */
export interface Layer {
  role: "apply" | "lost" | "unknown";
  id: number;
  slot: number;
  entries: EntryRange;
  /** Of a lost one: its claims may be damaged as well. */
  isUnsure?: boolean;
}

/** Something that is wrong with a slot. */
export interface SlotProblem {
  slot: number;
  /** Data is missing, or may be. */
  loses: boolean;
  /** One sentence. */
  what: string;
}

/** The log, put in order. */
export interface Arrangement {
  /** Why nothing at all can be believed: the rest is empty then. */
  refused?: string;
  /** Slots of the log as it was written; the device may have more, or fewer. */
  slotCount: number;
  /** The newest id; 0 for an empty log. */
  newest: number;
  /** All segments up to this one are on the backing device. */
  writtenBack: number;
  /** Newest first. */
  layers: Layer[];
  problems: SlotProblem[];
  /** What the segment that was being written claims to hold. */
  torn: EntryRange;
  /** What is not as usual, and no cause for worry: sentences. */
  notes: string[];
}

/** Puts a cache in order. */
export function arrange(scan: WriteboostScan): Arrangement {
  const used = scan.slots.filter((slot) => slot.state === "whole" && slot.id > 0);
  const nothing = {
    slotCount: scan.slots.length,
    newest: 0,
    writtenBack: 0,
    layers: [],
    problems: [],
    torn: noEntries,
    notes: [],
  };
  if (scan.slots.length === 0) {
    return { ...nothing, refused: `its ${scan.sizeBytes} bytes have no room for a single segment` };
  }
  const slotCount = findSlotCount(scan.slots, used);
  if (slotCount === undefined) {
    return {
      ...nothing,
      refused:
        `the numbers of its ${used.length} segments fit no log of any length: the device was truncated or ` +
        `grown, or put together from others`,
    };
  }
  return new Arranger(scan, renumbered(scan.slots, slotCount), slotCount).run();
}

const belongs = (slot: Slot, slotCount: number) =>
  Number.isSafeInteger(slot.id) && slot.slot < slotCount && slotOf(slot.id, slotCount) === slot.slot;

/** How many slots the log had when it was written; undefined when no number fits. */
function findSlotCount(slots: readonly Slot[], used: readonly Slot[]): number | undefined {
  const fits = (count: number) => used.filter((slot) => belongs(slot, count)).length;
  const present = slots.length;
  let best = { count: present, fits: fits(present) };
  if (best.fits === used.length) return present;
  // Where the newest segment meets the oldest, the ids say how long the log is.
  const candidates = new Set<number>();
  for (const [i, slot] of slots.entries()) {
    const next = slots[i + 1];
    if (slot.state !== "whole" || next?.state !== "whole" || slot.id === 0 || next.id === 0) continue;
    const count = slot.id + 1 - next.id;
    if (count > 1 && Number.isSafeInteger(count)) candidates.add(count);
    if (candidates.size >= candidatesMax) break;
  }
  for (const count of candidates) {
    const agreeing = fits(count);
    if (agreeing > best.fits) best = { count, fits: agreeing };
  }
  // Another length than the device's must explain every segment; a stray id or two may be damage.
  if (best.count !== present) return best.fits === used.length ? best.count : undefined;
  return best.fits * 2 > used.length ? present : undefined;
}

/** Lengths that are tried: one is right, stray ids give others. */
const candidatesMax = 64;

/** A slot whose number is not its own but can only be one: in the first lap each slot holds one segment ever. */
interface Numbered extends Slot {
  /** The number that the header gives, where another is taken. */
  wrongId?: number;
}

function renumbered(slots: readonly Slot[], slotCount: number): Numbered[] {
  const whole = slots.filter((slot) => slot.state === "whole");
  const right = whole.filter((slot) => slot.id > 0 && belongs(slot, slotCount));
  const isFirstLap = right.length > 0 && right.every(({ id }) => id <= slotCount);
  const ids = new Map(right.map((slot) => [slot.id, slot]));
  return slots.map((slot) => {
    if (slot.state !== "whole" || (slot.id > 0 && belongs(slot, slotCount))) return slot;
    // One that another slot rightly holds too was written to the wrong place.
    if (!isFirstLap || slot.slot >= slotCount || ids.has(slot.id)) return slot;
    return { ...slot, id: slot.slot + 1, wrongId: slot.id };
  });
}

class Arranger {
  readonly #scan: WriteboostScan;
  readonly #slots: readonly Numbered[];
  readonly #slotCount: number;
  readonly #newest: number;
  readonly #layers: Layer[] = [];
  readonly #problems: SlotProblem[] = [];
  readonly #notes: string[] = [];
  #torn: EntryRange = noEntries;

  constructor(scan: WriteboostScan, slots: readonly Numbered[], slotCount: number) {
    this.#scan = scan;
    this.#slots = slots;
    this.#slotCount = slotCount;
    this.#newest = findNewest(slots, slotCount);
  }

  run(): Arrangement {
    const slotCount = this.#slotCount;
    const present = this.#slots.length;
    if (slotCount !== present) {
      this.#notes.push(`the log was written on a device of ${slotCount} slots, and this one has ${present}`);
    }
    for (let index = 0; index < Math.max(slotCount, present); index++) {
      if (index < slotCount) this.#place(index, this.#slots[index]);
      else this.#beyond(this.#slots[index]!);
    }
    if (this.#newest > 0 && this.#newest % present === 0) {
      this.#notes.push(
        `the log ends in the device's last slot: if the device was truncated, newer segments are gone ` +
          `without a trace`,
      );
    }
    const layers = this.#layers.sort((a, b) => b.id - a.id);
    return {
      slotCount,
      newest: this.#newest,
      writtenBack: this.#writtenBack(),
      layers,
      problems: this.#problems,
      torn: this.#torn,
      notes: this.#notes,
    };
  }

  /** The id that slot `index` should hold; 0 or less: none yet. */
  #expected(index: number): number {
    const slotCount = this.#slotCount;
    return this.#newest - ((this.#newest - 1 - index) % slotCount + slotCount) % slotCount;
  }

  #place(index: number, slot: Numbered | undefined): void {
    const expected = this.#expected(index);
    // Where the next segment goes, what is gone may be the oldest segment or one that was the newest.
    const gone = index === this.#nextSlot ? this.#nextId(index) : expected;
    if (!slot) {
      if (expected > 0) this.#unknown(index, gone, `segment ${expected} was behind the device's end`);
    } else if (slot.state === "whole") this.#placeWhole(slot, expected);
    else if (slot.state === "blank") {
      if (expected > 0) this.#unknown(index, gone, `segment ${expected} is missing: its place is blank`);
    } else this.#placeBad(slot, expected);
  }

  #placeWhole(slot: Numbered, expected: number): void {
    const { id, entries, wrongId, wrongLength } = slot;
    const slotCount = this.#slotCount;
    if (id === expected) {
      this.#layers.push({ role: "apply", id, slot: slot.slot, entries: entries! });
      if (wrongId !== undefined) {
        this.#problem(
          slot,
          false,
          `segment ${id} gives its number as ${wrongId}; it can be no other, and is used`,
        );
      }
      if (wrongLength !== undefined) {
        this.#problem(
          slot,
          false,
          `segment ${id} gives its length as ${wrongLength}; its checksum is right for ${entries!.count}`,
        );
      }
      return;
    }
    if (id === 0 || !belongs(slot, slotCount)) {
      const says = id === 0 ? "has no number" : `has the number ${id}, which does not belong there`;
      if (expected > 0 && slot.slot !== this.#nextSlot) {
        const isCopy = this.#slots.some((other) =>
          other !== slot && other.id === id && belongs(other, slotCount)
        );
        if (id > 0 && isCopy) {
          this.#unknown(slot.slot, expected, `segment ${expected} is missing: its place ${says}`);
        } else this.#lost(slot, expected, `segment ${expected} ${says}; it is not used`);
      } else {
        this.#lost(slot, Infinity, `a segment ${says}, so its age is not known; it is not used`);
        if (id > 0) {
          this.#unknown(slot.slot, this.#nextId(slot.slot), `what slot ${slot.slot} held is missing`);
        }
      }
      return;
    }
    if (id > this.#newest) {
      this.#lost(
        slot,
        Infinity,
        `segment ${id} is ahead of the newest one that its neighbours confirm, ${this.#newest}: a leftover of an ` +
          `earlier log, or a damaged number; it is not used`,
      );
    } else if (id === expected - slotCount) {
      this.#unknown(
        slot.slot,
        expected,
        `segment ${expected} never reached its place, which still holds ${id}`,
      );
    } else {
      this.#lost(
        slot,
        Infinity,
        `segment ${id} is older than its neighbours, by more than a lap, or newer than all: it is not used`,
      );
      if (expected > 0) this.#unknown(slot.slot, expected, `segment ${expected} is missing`);
    }
  }

  /** The slot that is written next. */
  get #nextSlot(): number {
    return this.#newest % this.#slotCount;
  }

  #placeBad(slot: Numbered, expected: number): void {
    if (this.#isTornEnd(slot)) {
      if (slot.id === this.#nextId(slot.slot)) this.#torn = slot.entries ?? noEntries;
      this.#notes.push(
        `slot ${slot.slot} holds segment ${
          this.#nextId(slot.slot)
        } as it was being written when the machine stopped` +
          (expected > 0 ? `; segment ${expected}, which was there before, is on the backing device` : ""),
      );
      return;
    }
    // A slot may keep what was there before the device was formatted, but for its first sector.
    if (expected <= 0 && slot.hasNoHead) return;
    const isNext = slot.slot === this.#nextSlot;
    // In the first lap a slot behind the end can hold one segment only.
    const isOldest = expected > 0 && slot.id === expected;
    const id = expected > 0 && (!isNext || isOldest) ? expected : this.#nextId(slot.slot);
    const isKnown = !isNext || isOldest || expected <= 0 || slot.id === id;
    const name = isKnown ? `segment ${id}` : `segment ${expected} or ${id}`;
    if (slot.entries) this.#lost(slot, isKnown ? id : Infinity, `${name} ${slot.why}`);
    else this.#unknown(slot.slot, id, `${name} ${slot.why}, and what it held is not known`);
  }

  /** The id that slot `index` gets next. */
  #nextId(index: number): number {
    return this.#expected(index) + this.#slotCount;
  }

  /** The one place that may be bad and no loss: where the next segment was being written. Two such are none. */
  #isTornEnd(slot: Numbered): boolean {
    if (slot.state !== "bad" || slot.slot !== this.#nextSlot || slot.isRotten) return false;
    // A sector is written whole or not at all: the number is the new one, or what was there before.
    const next = this.#nextId(slot.slot);
    if (slot.id !== next && slot.id !== Math.max(0, this.#expected(slot.slot))) return false;
    const after = this.#slots[(slot.slot + 1) % this.#slotCount];
    return after === slot || after?.state !== "bad" || after.id !== this.#nextId(after.slot);
  }

  #beyond(slot: Numbered): void {
    if (slot.state === "blank") return;
    this.#problem(slot, false, `slot ${slot.slot}, behind the end of the log, is not blank; it is not used`);
  }

  #lost(slot: Numbered, id: number, what: string): void {
    this.#layers.push({
      role: "lost",
      id,
      slot: slot.slot,
      entries: slot.entries ?? noEntries,
      ...(slot.state === "whole" || slot.isRotten ? {} : { isUnsure: true }),
    });
    this.#problem(slot, id > this.#markWritten, what);
  }

  #unknown(index: number, id: number, what: string): void {
    this.#layers.push({ role: "unknown", id, slot: index, entries: noEntries });
    this.#problems.push({ slot: index, loses: id > this.#markWritten, what });
  }

  #problem(slot: Slot, loses: boolean, what: string): void {
    this.#problems.push({ slot: slot.slot, loses, what });
  }

  /** What the device says is written back, where that can be. */
  get #markWritten(): number {
    return this.#scan.lastWriteback <= this.#newest ? this.#scan.lastWriteback : 0;
  }

  #writtenBack(): number {
    const { lastWriteback } = this.#scan;
    const newest = this.#newest;
    if (lastWriteback <= newest) return lastWriteback;
    // Either the mark is wrong, or the segments up to it were there, are on the backing device, and have gone bad since.
    const missing = lastWriteback - newest;
    const wentBad = missing <= this.#slotCount &&
      Array.from({ length: missing }, (_, i) => this.#slots[slotOf(newest + 1 + i, this.#slotCount)]?.state)
        .every((state) => state === "bad");
    this.#problems.push({
      slot: -1,
      loses: !wentBad,
      what:
        `the device says that everything up to segment ${lastWriteback} is written back, and its newest good segment ` +
        `is ${newest}: ` + (wentBad ? "those behind it are damaged, and not needed" : "that is not believed"),
    });
    return wentBad ? newest : 0;
  }
}

/** The id that most slots agree with as the newest; of equals the largest. */
function findNewest(slots: readonly Numbered[], slotCount: number): number {
  // Slots by lap, in order; lap -1 for those that are blank.
  const laps = new Map<number, number[]>();
  for (const slot of slots) {
    if (slot.slot >= slotCount) continue;
    const isUsed = slot.state === "whole" && slot.id > 0 && belongs(slot, slotCount);
    if (!isUsed && slot.state !== "blank") continue;
    const lap = isUsed ? (slot.id - 1 - slot.slot) / slotCount : -1;
    const list = laps.get(lap);
    if (list) list.push(slot.slot);
    else laps.set(lap, [slot.slot]);
  }
  let best = { newest: 0, agreeing: 0 };
  for (const [lap, places] of laps) {
    if (lap < 0) continue;
    const before = laps.get(lap - 1) ?? [];
    let passed = 0;
    for (const [i, place] of places.entries()) {
      while (passed < before.length && before[passed]! < place) passed++;
      const newest = lap * slotCount + place + 1;
      const agreeing = i + 1 + before.length - passed;
      if (agreeing > best.agreeing || (agreeing === best.agreeing && newest > best.newest)) {
        best = { newest, agreeing };
      }
    }
  }
  return best.newest;
}
