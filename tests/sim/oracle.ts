/**
 * Knows what every byte of the volume may be: now, after a crash, and on the backing alone.
 *
 * The volume is divided into cells: whole sectors, or a few odd parts of each, when a world writes at odd offsets. A
 * write fills whole cells with a pattern of its id; id 0 is zeroes. Each cell keeps the versions that it may still show.
 *
 * Rules, per cell. `x before y` means that x was answered before y was asked for.
 * - A read that begins now shows a version that none, answered before the read began, is wholly after.
 * - After a crash any version is right that no flushed one is wholly after. What is then read is the content from then on,
 *   durably, for opening makes durable what it found (log-rules.md 7).
 * - Never a mixture in one sector: if a cell shows y, and y covers a cell that shows x, then not x before y.
 *
 * @module
 */

import { sectorBytes } from "../../src/units.ts";

/** A write, trim or zeroing, as the oracle sees it. */
export interface Version {
  /** Its pattern; 0 reads as zeroes. */
  id: number;
  /** Cells [first, end). */
  first: number;
  end: number;
  /** Ticks of being asked for and answered; infinity until then, or when it failed. */
  asked: number;
  answered: number;
  /** A flush, or its own FUA, covers it. */
  flushed: boolean;
  /** Of a version that outlived a crash: what it was before. */
  origin?: Version;
}

/** What a check found wrong. */
export class Violation extends Error {
  override name = "Violation";
}

/** Where cells begin inside a sector, when a world uses parts of sectors. */
const oddCuts = [0, 1, 200, 509];

/** The content of a volume, with everything that it may still be. */
export class Oracle {
  readonly sizeBytes: number;
  readonly cellCount: number;
  readonly #cuts: readonly number[];
  readonly #cells: Version[][];
  /** Answered and not known to be durable. */
  readonly #unflushed = new Set<Version>();
  /** Reads under way, by when they were asked for; oldest first. */
  readonly #reads = new Set<number>();
  #tick = 1;
  #lastId = 0;
  readonly #words = new Uint32Array(sectorBytes / 4);
  readonly #pattern = new Uint8Array(this.#words.buffer);

  constructor(sizeBytes: number, odd: boolean) {
    this.sizeBytes = sizeBytes;
    this.#cuts = odd ? oddCuts : [0];
    this.cellCount = sizeBytes / sectorBytes * this.#cuts.length;
    const base: Version = { id: 0, first: 0, end: this.cellCount, asked: 0, answered: 0, flushed: true };
    this.#cells = Array.from({ length: this.cellCount }, () => [base]);
  }

  /** The byte at which `cell` begins; `cellCount` gives the size. */
  offsetOf(cell: number): number {
    const count = this.#cuts.length;
    const sector = Math.floor(cell / count);
    return sector * sectorBytes + (cell === this.cellCount ? 0 : this.#cuts[cell - sector * count]!);
  }

  /** The first cell of a sector. */
  cellOf(sector: number): number {
    return sector * this.#cuts.length;
  }

  /** Bytes of the version `id` for cells [first, end). */
  content(id: number, first: number, end: number): Uint8Array<ArrayBuffer> {
    const from = this.offsetOf(first);
    const bytes = new Uint8Array(this.offsetOf(end) - from);
    if (id === 0) return bytes;
    for (let at = 0; at < bytes.length;) {
      const position = from + at;
      const start = position % sectorBytes;
      const length = Math.min(sectorBytes - start, bytes.length - at);
      const word = wordOf(id, (position - start) / sectorBytes);
      if (length === sectorBytes && (at & 3) === 0) {
        new Uint32Array(bytes.buffer, at, sectorBytes / 4).fill(word);
        at += length;
        continue;
      }
      this.#words.fill(word);
      bytes.set(this.#pattern.subarray(start, start + length), at);
      at += length;
    }
    return bytes;
  }

  /** A new version is asked for. */
  ask(first: number, end: number, zero: boolean): Version {
    const id = zero ? 0 : ++this.#lastId;
    const version: Version = { id, first, end, asked: ++this.#tick, answered: Infinity, flushed: false };
    for (let cell = first; cell < end; cell++) this.#cells[cell]!.push(version);
    return version;
  }

  /** Grows with all that is asked and answered. */
  get tick(): number {
    return this.#tick;
  }

  /** It was answered with success. */
  answer(version: Version, durable: boolean): void {
    version.answered = ++this.#tick;
    if (durable) this.#settle(version);
    else this.#unflushed.add(version);
  }

  /** A flush is asked for: returns what it will cover. */
  askFlush(): Version[] {
    ++this.#tick;
    return [...this.#unflushed];
  }

  /** That flush was answered with success. */
  answerFlush(covered: Version[]): void {
    ++this.#tick;
    for (const version of covered) if (this.#unflushed.has(version)) this.#settle(version);
  }

  #settle(version: Version): void {
    version.flushed = true;
    this.#unflushed.delete(version);
    // A read that began earlier may still show what this one replaced.
    for (const asked of this.#reads) if (asked < version.answered) return;
    for (let cell = version.first; cell < version.end; cell++) {
      const list = this.#cells[cell]!;
      let kept = 0;
      for (const other of list) if (!(other.answered < version.asked)) list[kept++] = other;
      list.length = kept;
    }
  }

  /** A read begins; pass the result to {@linkcode checkRead}. */
  askRead(): number {
    this.#reads.add(++this.#tick);
    return this.#tick;
  }

  /** A read failed. */
  endRead(asked: number): void {
    this.#reads.delete(asked);
  }

  /** Checks what a read of cells [first, end), which began at `asked`, got. */
  checkRead(first: number, end: number, bytes: Uint8Array, asked: number): void {
    const now = ++this.#tick;
    this.#reads.delete(asked);
    const from = this.offsetOf(first);
    for (let cell = first; cell < end; cell++) {
      const at = this.offsetOf(cell) - from;
      const list = this.#cells[cell]!;
      let latest = 0;
      for (const version of list) {
        if (version.answered < asked && version.asked > latest) latest = version.asked;
      }
      let shown: Version | undefined;
      let count = 0;
      for (const version of list) {
        if (version.answered < latest || !this.#matches(version.id, cell, bytes, at)) continue;
        shown = version;
        count++;
      }
      if (!shown) this.#fail("a read shows", cell, bytes, at, (version) => !(version.answered < latest));
      // What was seen cannot be unseen.
      if (count === 1 && shown.answered === Infinity) {
        list[list.indexOf(shown)] = { ...shown, answered: now, origin: shown };
      }
    }
  }

  /** Whether the cell may read as zeroes at this moment. */
  mayBeZero(cell: number): boolean {
    const list = this.#cells[cell]!;
    let latest = 0;
    for (const version of list) {
      if (version.answered !== Infinity && version.asked > latest) latest = version.asked;
    }
    return list.some((version) => version.id === 0 && !(version.answered < latest));
  }

  /** The machine crashed: from now on each cell has one of the versions that it may have, and no request is under way. */
  crash(): void {
    const now = ++this.#tick;
    this.#unflushed.clear();
    this.#reads.clear();
    for (let cell = 0; cell < this.cellCount; cell++) {
      const list = this.#cells[cell]!;
      if (list.length === 1 && list[0]!.asked === 0) continue;
      this.#cells[cell] = this.#afterCrash(list).map((version) => ({
        ...version,
        asked: 0,
        answered: now,
        flushed: true,
        origin: version.origin ?? version,
      }));
    }
  }

  /** Versions that no flushed one is wholly after. */
  #afterCrash(list: Version[]): Version[] {
    let latest = 0;
    for (const version of list) {
      const flushed = version.flushed || (version.origin?.flushed ?? false);
      if (flushed && version.asked > latest) latest = version.asked;
    }
    return list.filter((version) => !(version.answered < latest));
  }

  /**
   * Checks the whole volume after a crash, and takes what it shows as its content. Unless it is `durable`: what a cache that
   * opened read-only shows was not written anew, so the next crash may decide otherwise (log-rules.md 7).
   */
  recovered(
    bytes: Uint8Array,
    unreadable: (cell: number) => boolean = () => false,
    durable = true,
  ): void {
    const now = ++this.#tick;
    const perSector = this.#cuts.length;
    const shown: Version[][] = [];
    for (let cell = 0; cell < this.cellCount; cell++) {
      const list = this.#cells[cell]!;
      if (unreadable(cell)) {
        shown.push([]);
        continue;
      }
      const at = this.offsetOf(cell);
      const matching = list.filter((version) => this.#matches(version.id, cell, bytes, at));
      if (matching.length === 0) this.#fail("after a crash the volume shows", cell, bytes, at, () => true);
      shown.push(matching);
    }
    if (perSector > 1) {
      for (let cell = 0; cell < this.cellCount; cell += perSector) {
        this.#checkMixture(cell, shown.slice(cell, cell + perSector));
      }
    }
    if (!durable) return;
    for (let cell = 0; cell < this.cellCount; cell++) {
      if (shown[cell]!.length === 0) continue;
      // Several that look the same stay, lest a mixture be seen where there is none.
      this.#cells[cell] = shown[cell]!.map((version) => ({
        ...version,
        asked: 0,
        answered: now,
        flushed: true,
        origin: version.origin ?? version,
      }));
    }
  }

  #checkMixture(first: number, shown: Version[][]): void {
    for (const [i, olds] of shown.entries()) {
      for (const [j, news] of shown.entries()) {
        if (i === j || olds.length === 0 || news.length === 0) continue;
        const torn = olds.every((old) => news.every((young) => isTorn(old, young, first + i)));
        if (!torn) continue;
        throw new Violation(
          `sector ${first / shown.length} is a mixture: cell ${first + j} shows ${
            describe(news[0]!)
          }, which also covers ` +
            `cell ${first + i}, and that shows the older ${describe(olds[0]!)}`,
        );
      }
    }
  }

  /** Checks a device that should hold the newest content, with no request under way. */
  checkCopy(what: string, bytes: Uint8Array, excuse: (cell: number) => boolean = () => false): void {
    for (let cell = 0; cell < this.cellCount; cell++) {
      const list = this.#cells[cell]!;
      let latest = 0;
      for (const version of list) {
        if (version.answered !== Infinity && version.asked > latest) latest = version.asked;
      }
      const at = this.offsetOf(cell);
      const fits = (version: Version) => !(version.answered < latest);
      if (list.some((version) => fits(version) && this.#matches(version.id, cell, bytes, at))) continue;
      if (!excuse(cell)) this.#fail(what, cell, bytes, at, fits);
    }
  }

  /** Whether `bytes[at…]` is what version `id` puts into `cell`. */
  #matches(id: number, cell: number, bytes: Uint8Array, at: number): boolean {
    const position = this.offsetOf(cell);
    const length = this.offsetOf(cell + 1) - position;
    const word = id === 0 ? 0 : wordOf(id, Math.floor(position / sectorBytes));
    let i = 0;
    if (length >= 8 && ((bytes.byteOffset + at) & 3) === 0 && (position & 3) === 0) {
      const count = length >>> 2;
      const words = new Uint32Array(bytes.buffer, bytes.byteOffset + at, count);
      for (let w = 0; w < count; w++) if (words[w] !== word) return false;
      i = count * 4;
    }
    for (; i < length; i++) {
      if (bytes[at + i] !== ((word >>> (((position + i) & 3) * 8)) & 0xff)) return false;
    }
    return true;
  }

  #fail(
    what: string,
    cell: number,
    bytes: Uint8Array,
    at: number,
    allowed: (version: Version) => boolean,
  ): never {
    const offset = this.offsetOf(cell);
    const length = this.offsetOf(cell + 1) - offset;
    const list = this.#cells[cell]!;
    const known = this.#identify(cell, bytes, at);
    throw new Violation(
      `${what} ${known} in cell ${cell} (bytes ${offset} to ${offset + length}, block ${
        Math.floor(offset / 4096)
      }, sector ` +
        `${Math.floor(offset / sectorBytes) % 8}); allowed: ${
          list.filter(allowed).map(describe).join(", ")
        }; all: ` +
        `${list.map(describe).join(", ")}`,
    );
  }

  #identify(cell: number, bytes: Uint8Array, at: number): string {
    const length = this.offsetOf(cell + 1) - this.offsetOf(cell);
    for (let id = 0; id <= this.#lastId; id++) if (this.#matches(id, cell, bytes, at)) return `id ${id}`;
    return `bytes ${bytes.slice(at, at + Math.min(length, 16)).toHex()}`;
  }
}

/** `old` in `cell`, beside `young` in the same sector: torn if `young`, wholly after `old`, covers the cell. */
function isTorn(old: Version, young: Version, cell: number): boolean {
  const [from, to] = [old.origin ?? old, young.origin ?? young];
  return from !== to && from.answered < to.asked && to.first <= cell && cell < to.end;
}

/** Differs from sector to sector, and is never 0. */
function wordOf(id: number, sector: number): number {
  const word = (Math.imul(id, 0x9e3779b1) ^ Math.imul(sector + 1, 0x85ebca6b)) >>> 0;
  return word === 0 ? 1 : word;
}

function describe(version: Version): string {
  const { id, asked, answered, flushed, origin } = version;
  const time = (tick: number) => tick === Infinity ? "never" : `${tick}`;
  const of = origin
    ? ` from (${time(origin.asked)}..${time(origin.answered)}${origin.flushed ? ", flushed" : ""})`
    : "";
  return `id ${id} (${time(asked)}..${time(answered)}${flushed ? ", flushed" : ""})${of}`;
}
