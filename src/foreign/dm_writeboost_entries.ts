/**
 * What the segments of a dm-writeboost cache hold, as columns of numbers: a full cache of 64 GiB has 16.6 million blocks, which
 * as objects would take gigabytes, and as keys of a set not fit at all.
 *
 * Invariants: entries and pieces are only added, but for the last ones, which may be taken back; a range of entries never
 * changes.
 *
 * @module
 */

import { assert } from "../errors.ts";

/** Room at first, in entries. */
const capacityMin = 1024;

/** Consecutive entries of an {@linkcode EntryTable}. */
export interface EntryRange {
  readonly first: number;
  readonly count: number;
}

/** No entries. */
export const noEntries: EntryRange = { first: 0, count: 0 };

/** Numbers of one kind; its capacity doubles when it is full. */
class Column<T extends Float64Array<ArrayBuffer> | Uint32Array<ArrayBuffer> | Uint8Array<ArrayBuffer>> {
  values: T;
  readonly #make: (length: number) => T;

  constructor(make: (length: number) => T) {
    this.#make = make;
    this.values = make(capacityMin);
  }

  put(at: number, value: number): void {
    if (at === this.values.length) {
      const larger = this.#make(at * 2);
      larger.set(this.values);
      this.values = larger;
    }
    this.values[at] = value;
  }
}

const doubles = () => new Column((length) => new Float64Array(length));
const words = () => new Column((length) => new Uint32Array(length));
const octets = () => new Column((length) => new Uint8Array(length));

/** The blocks of all segments: what their metablocks say, and the checksums of their data when they were scanned. */
export class EntryTable {
  readonly #blocks = doubles();
  readonly #dirtyBits = octets();
  readonly #indexes = octets();
  readonly #crcs = words();
  #count = 0;

  get count(): number {
    return this.#count;
  }

  /** Adds data block `index` of a segment. */
  add(block: number, dirtyBits: number, index: number, crc: number): void {
    const at = this.#count++;
    this.#blocks.put(at, block);
    this.#dirtyBits.put(at, dirtyBits);
    this.#indexes.put(at, index);
    this.#crcs.put(at, crc);
  }

  /** Takes back all from entry `count` on. */
  truncate(count: number): void {
    assert(count <= this.#count);
    this.#count = count;
  }

  /** The entries from `first` to the last. */
  rangeFrom(first: number): EntryRange {
    return { first, count: this.#count - first };
  }

  /** Block of the backing device. */
  block(entry: number): number {
    return this.#blocks.values[entry]!;
  }

  /** Bit j: sector j of the block is new data; 0: a clean copy. */
  dirtyBits(entry: number): number {
    return this.#dirtyBits.values[entry]!;
  }

  /** Which data block of its segment it is. */
  index(entry: number): number {
    return this.#indexes.values[entry]!;
  }

  crc(entry: number): number {
    return this.#crcs.values[entry]!;
  }
}

/** Sectors of one block of one segment. */
export interface Piece {
  block: number;
  /** Sectors that count. */
  mask: number;
  slot: number;
  /** Its number in the table. */
  entry: number;
}

/** Many pieces. */
export class PieceList {
  readonly #blocks = doubles();
  readonly #masks = octets();
  readonly #slots = words();
  readonly #entries = words();
  #count = 0;

  get count(): number {
    return this.#count;
  }

  add({ block, mask, slot, entry }: Piece): void {
    const at = this.#count++;
    this.#blocks.put(at, block);
    this.#masks.put(at, mask);
    this.#slots.put(at, slot);
    this.#entries.put(at, entry);
  }

  addAll(others: PieceList): void {
    for (let at = 0; at < others.count; at++) this.add(others.at(at));
  }

  at(at: number): Piece {
    return {
      block: this.#blocks.values[at]!,
      mask: this.#masks.values[at]!,
      slot: this.#slots.values[at]!,
      entry: this.#entries.values[at]!,
    };
  }

  /** The places of all pieces, by ascending block; of one block in the order in which they were added. */
  order(): Uint32Array<ArrayBuffer> {
    return sortedOrder(this.#blocks.values.subarray(0, this.#count));
  }
}

const digitBits = 16;
const digitValues = 1 << digitBits;

/** A stable radix sort of keys that are whole numbers below 2^53: the places of the keys in ascending order. */
export function sortedOrder(keys: Float64Array): Uint32Array<ArrayBuffer> {
  let order = Uint32Array.from({ length: keys.length }, (_, i) => i);
  let spare = new Uint32Array(keys.length);
  let largest = 0;
  for (const key of keys) largest = Math.max(largest, key);
  for (let unit = 1; unit <= largest; unit *= digitValues) {
    const digit = (place: number) => Math.floor(keys[place]! / unit) % digitValues;
    const next = new Uint32Array(digitValues);
    for (const place of order) next[digit(place)]!++;
    for (let value = 0, before = 0; value < digitValues; value++) {
      const count = next[value]!;
      next[value] = before;
      before += count;
    }
    for (const place of order) spare[next[digit(place)]!++] = place;
    [order, spare] = [spare, order];
  }
  return order;
}
