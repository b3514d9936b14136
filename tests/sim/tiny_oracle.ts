/**
 * Knows what each sector of a tiny volume may be. One client, one operation after the other: no more is needed than an order.
 *
 * Only two sectors of each block ever hold anything, so that a block is two sector writes and not eight, and every subset of
 * what is un-synced can be tried.
 *
 * @module
 */

import { sectorBytes, sectorsPerBlock } from "../../src/units.ts";
import { Violation } from "./oracle.ts";
import { Contents } from "./tiny_disk.ts";

/** Blocks of the volume. */
export const volumeBlocks = 2;
/** Sectors of the volume. */
export const volumeSectors = volumeBlocks * sectorsPerBlock;
/** The sectors of a block that are used. A partial write takes the second one. */
export const usedSectors = [0, 5] as const;

/** All contents of this process. */
export const contents = new Contents();

/** What a version of a sector holds; version 0 is zeroes, as is every sector that is not used. */
function contentOf(version: number, sector: number): Uint8Array {
  const bytes = new Uint8Array(sectorBytes);
  if (version === 0 || !(usedSectors as readonly number[]).includes(sector % sectorsPerBlock)) return bytes;
  new Uint32Array(bytes.buffer).fill(Math.imul(version, 0x9e3779b1) ^ Math.imul(sector + 1, 0x85ebca6b));
  return bytes;
}

/** The number of what version `version` puts into a sector. */
export function numberOf(version: number, sector: number): number {
  return contents.numberOf(contentOf(version, sector), 0);
}

/** Whether `numbers` have a sector of version `version`. */
function holdVersion(numbers: ReadonlySet<number>, version: number): boolean {
  for (let sector = 0; sector < volumeSectors; sector++) {
    if (
      (usedSectors as readonly number[]).includes(sector % sectorsPerBlock) &&
      numbers.has(numberOf(version, sector))
    ) {
      return true;
    }
  }
  return false;
}

/** One thing that a sector was asked to hold. */
interface Held {
  /** Counts up over all that was asked. */
  turn: number;
  number: number;
}

/** What each sector of the volume may show after a crash. */
export class TinyOracle {
  /** By sector, oldest first: the last one known to be durable and all later ones. */
  readonly #held: Held[][];
  /** By sector: the newest that was answered. */
  readonly #answered: Held[];
  #turn = 0;
  #version: number;
  #changes = 0;

  /** All of the volume is known, and `version` was the last one written. */
  constructor(newest: readonly number[], version: number) {
    this.#answered = newest.map((number) => ({ turn: 0, number }));
    this.#held = this.#answered.map((held) => [held]);
    this.#version = version;
  }

  /** The last version that was written. */
  get version(): number {
    return this.#version;
  }

  /** Counts up whenever something else may be shown. */
  get changes(): number {
    return this.#changes;
  }

  /** Numbers of contents that may be shown, by sector. */
  get allowed(): number[][] {
    return this.#held.map((list) => [...new Set(list.map(({ number }) => number))]);
  }

  /** The newest content, when nothing is under way. */
  get newest(): number[] {
    return this.#answered.map(({ number }) => number);
  }

  /** Sectors [first, end) are asked to become a new version. */
  ask(
    first: number,
    end: number,
    zero: boolean,
  ): { bytes: Uint8Array<ArrayBuffer>; answer: (durable: boolean) => void } {
    const version = zero ? 0 : ++this.#version;
    const turn = ++this.#turn;
    this.#changes++;
    const bytes = new Uint8Array((end - first) * sectorBytes);
    const asked: Held[] = [];
    for (let sector = first; sector < end; sector++) {
      bytes.set(contentOf(version, sector), (sector - first) * sectorBytes);
      const held = { turn, number: numberOf(version, sector) };
      asked.push(held);
      this.#held[sector]!.push(held);
    }
    const answer = (durable: boolean) =>
      asked.forEach((held, i) => {
        this.#answered[first + i] = held;
        if (durable) this.#settle(first + i, held);
      });
    return { bytes, answer };
  }

  /** What was answered by now is durable once the result is called. */
  askFlush(): () => void {
    const covered = [...this.#answered];
    return () => covered.forEach((held, sector) => this.#settle(sector, held));
  }

  #settle(sector: number, durable: Held): void {
    this.#changes++;
    this.#held[sector] = this.#held[sector]!.filter(({ turn }) => turn >= durable.turn);
  }

  /**
   * The machine is off, and `media` is all that is left of it: versions of which nothing is left are counted anew. So equal
   * states go on equally, however they came about.
   */
  renumber(media: readonly Int32Array[]): void {
    const numbers = new Set<number>();
    for (const each of media) for (const number of each) numbers.add(number);
    while (this.#version > 0 && !holdVersion(numbers, this.#version)) this.#version--;
  }

  /** The content was seen after a crash; it is that from now on. */
  recovered(numbers: number[]): void {
    this.#changes++;
    for (const [sector, number] of numbers.entries()) {
      const held = { turn: ++this.#turn, number };
      this.#held[sector] = [held];
      this.#answered[sector] = held;
    }
  }
}

/** Fails unless `numbers` are allowed. `what` is asked for then only. */
export function checkAllowed(
  what: () => string,
  numbers: readonly number[],
  allowed: readonly (readonly number[])[],
): void {
  for (const [sector, number] of numbers.entries()) {
    if (allowed[sector]!.includes(number)) continue;
    throw new Violation(
      `${what()} sector ${sector} (block ${
        Math.floor(sector / sectorsPerBlock)
      }) is content ${number}, allowed: ${allowed[sector]!.join(", ")} (0 is zeroes, higher is newer)`,
    );
  }
}
