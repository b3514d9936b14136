/**
 * What a disk remembers: what was synced apart from what was not, and at a power cut any subset of the un-synced 512 B sector
 * writes, whatever their order.
 *
 * Invariants:
 * - The live view is what a running machine reads: everything that completed. The durable one survives without luck.
 * - Of the un-synced writes to one sector any may be the last that the medium saw, those still under way included.
 * - A killed process loses nothing that completed, but it stays un-synced.
 *
 * @module
 */

import type { SeededRandom } from "../../src/random.ts";
import { sectorBytes } from "../../src/units.ts";

const pageBytes = 4096;
const sectorsPerPage = pageBytes / sectorBytes;
/** What a power cut makes of the un-synced sector writes. */
export const crashPolicies = [
  "none",
  "all",
  "half",
  "few",
  "most",
  "prefix",
  "allButOne",
  "onlyOne",
  "suffix",
  "writes",
  "writeLost",
  "writeKept",
  "placeLost",
] as const;
/** See {@linkcode crashPolicies}. */
export type CrashPolicy = typeof crashPolicies[number];

/** Bytes by page; an absent page reads as zeroes. A page in here never changes, so that several views may share it. */
type Pages = Map<number, Uint8Array<ArrayBuffer>>;

/** A write or zeroing; `bytes` is undefined for zeroes, and never changes. */
export interface Change {
  sector: number;
  sectors: number;
  bytes: Uint8Array<ArrayBuffer> | undefined;
}

/** The medium and its cache; it survives crashes, the {@linkcode SimDisk} in front of it does not. */
export class Medium {
  readonly sizeBytes: number;
  readonly name: string;
  readonly #durable: Pages = new Map();
  readonly #live: Pages = new Map();
  /** Completed and un-synced, in the order of completion. */
  #pending: Change[] = [];
  /** Changes that were ever taken off the front of `#pending`. */
  #settled = 0;
  /** Shown by the live view, and neither durable nor ever going to be. */
  readonly #phantoms: Change[] = [];
  /** Issued and not completed. */
  readonly #inflight = new Set<Change>();

  constructor(sizeBytes: number, name: string) {
    this.sizeBytes = sizeBytes;
    this.name = name;
  }

  /** Sector writes that a power cut could lose. */
  get unsyncedCount(): number {
    return this.#pending.length + this.#inflight.size;
  }

  begin(change: Change): void {
    this.#inflight.add(change);
  }

  complete(change: Change): void {
    this.#inflight.delete(change);
    this.#pending.push(change);
    applyChange(this.#live, change, 0, change.sectors);
  }

  /** Forgets a change that failed, keeping some of its sectors. */
  abort(change: Change, keep: () => boolean): void {
    this.#inflight.delete(change);
    for (const single of eachSector(change)) {
      if (!keep()) continue;
      this.#pending.push(single);
      applyChange(this.#live, single, 0, 1);
    }
  }

  /** A mark for {@linkcode settle}: everything that has completed by now. */
  get completedMark(): number {
    return this.#settled + this.#pending.length;
  }

  /** Makes everything up to `mark` durable. */
  settle(mark: number): void {
    const count = mark - this.#settled;
    if (count <= 0) return;
    for (let i = 0; i < count; i++) {
      const change = this.#pending[i]!;
      applyChange(this.#durable, change, 0, change.sectors);
    }
    this.#pending.splice(0, count);
    this.#settled = mark;
  }

  /**
   * A sync failed and what was dirty counts as clean now, some of it after all written. `keepLive`: a page cache goes on
   * showing it; a power cut shows the truth.
   */
  dropUnsynced(keep: () => boolean, keepLive: boolean): void {
    const dropped = this.#pending;
    this.#settled += dropped.length;
    this.#pending = [];
    for (const change of dropped) {
      for (const single of eachSector(change)) if (keep()) applyChange(this.#durable, single, 0, 1);
    }
    if (keepLive) this.#phantoms.push(...dropped);
    else this.#revert(dropped);
  }

  /** The power goes: of what was not synced, `policy` decides sector by sector. */
  powerCut(policy: CrashPolicy, random: SeededRandom): void {
    const changes = [...this.#pending, ...this.#inflight];
    let total = 0;
    for (const change of changes) total += change.sectors;
    const chosen = random.below(Math.max(1, total));
    const share = policy === "few" ? 0.1 : policy === "most" ? 0.9 : 0.5;
    // Whole writes, and places: what was written there twice is lost twice.
    const one = changes[random.below(Math.max(1, changes.length))];
    const place = one ? one.sector + random.below(one.sectors) : 0;
    let index = 0;
    for (const change of changes) {
      // Neighbours that are kept are written in one go.
      let kept = 0;
      const together = random.chance(0.5);
      for (let i = 0; i < change.sectors; i++, index++) {
        const sector = change.sector + i;
        let keep: boolean;
        if (policy === "none") keep = false;
        else if (policy === "suffix") keep = index >= chosen;
        else if (policy === "writes") keep = together;
        else if (policy === "writeLost") keep = sector < one!.sector || sector >= one!.sector + one!.sectors;
        else if (policy === "writeKept") keep = change === one;
        else if (policy === "placeLost") keep = sector !== place;
        else if (policy === "all") keep = true;
        else if (policy === "prefix") keep = index < chosen;
        else if (policy === "allButOne") keep = index !== chosen;
        else if (policy === "onlyOne") keep = index === chosen;
        else keep = random.chance(share);
        if (keep) kept++;
        else if (kept > 0) {
          applyChange(this.#durable, change, i - kept, kept);
          kept = 0;
        }
      }
      if (kept > 0) applyChange(this.#durable, change, change.sectors - kept, kept);
    }
    this.#settled += this.#pending.length;
    this.#pending = [];
    this.#inflight.clear();
    this.#revert(changes);
    this.#revert(this.#phantoms.splice(0));
  }

  /** The process dies: what was under way is done, or in part; nothing becomes durable by it. */
  kill(random: SeededRandom): void {
    for (const change of [...this.#inflight]) {
      if (random.chance(0.5)) this.complete(change);
      else this.abort(change, () => random.chance(0.5));
    }
  }

  /** Makes the live view what is durable, wherever `changes` had made a difference. */
  #revert(changes: Change[]): void {
    for (const { sector, sectors } of changes) {
      const last = Math.floor((sector + sectors - 1) / sectorsPerPage);
      for (let page = Math.floor(sector / sectorsPerPage); page <= last; page++) {
        const durable = this.#durable.get(page);
        if (durable) this.#live.set(page, durable);
        else this.#live.delete(page);
      }
    }
  }

  /** Reads what a running machine sees. */
  peek(offset: number, into: Uint8Array): void {
    readPages((page) => this.#live.get(page), offset, into);
  }

  /** What a running machine sees at this moment, to be read later. */
  view(offset: number, length: number): (into: Uint8Array) => void {
    const first = Math.floor(offset / pageBytes);
    const pages: (Uint8Array | undefined)[] = [];
    for (let page = first; page * pageBytes < offset + length; page++) pages.push(this.#live.get(page));
    return (into) => readPages((page) => pages[page - first], offset, into);
  }

  /** Reads what would survive if nothing un-synced did. */
  peekDurable(offset: number, into: Uint8Array): void {
    readPages((page) => this.#durable.get(page), offset, into);
  }

  /** Changes the medium behind everybody's back, durably. */
  poke(offset: number, bytes: Uint8Array): void {
    const own = bytes.slice();
    for (const pages of [this.#durable, this.#live]) writePages(pages, offset, own);
  }
}

function readPages(
  pageAt: (page: number) => Uint8Array | undefined,
  offset: number,
  into: Uint8Array,
): void {
  for (let at = 0; at < into.length;) {
    const start = (offset + at) % pageBytes;
    const length = Math.min(pageBytes - start, into.length - at);
    const page = pageAt((offset + at - start) / pageBytes);
    if (page) into.set(length === pageBytes ? page : page.subarray(start, start + length), at);
    else into.fill(0, at, at + length);
    at += length;
  }
}

/** `bytes` become part of the pages: they must not change any more. */
function writePages(pages: Pages, offset: number, bytes: Uint8Array<ArrayBuffer>): void {
  for (let at = 0; at < bytes.length;) {
    const start = (offset + at) % pageBytes;
    const length = Math.min(pageBytes - start, bytes.length - at);
    const number = (offset + at - start) / pageBytes;
    const part = bytes.subarray(at, at + length);
    if (length === pageBytes) pages.set(number, part);
    else {
      const page = copyOf(pages.get(number));
      page.set(part, start);
      pages.set(number, page);
    }
    at += length;
  }
}

function copyOf(page: Uint8Array<ArrayBuffer> | undefined): Uint8Array<ArrayBuffer> {
  return page ? page.slice() : new Uint8Array(pageBytes);
}

/** Applies `count` sectors of `change` from its sector `from` on. */
function applyChange(pages: Pages, change: Change, from: number, count: number): void {
  const offset = (change.sector + from) * sectorBytes;
  if (change.bytes) {
    writePages(pages, offset, change.bytes.subarray(from * sectorBytes, (from + count) * sectorBytes));
    return;
  }
  const end = offset + count * sectorBytes;
  for (let position = offset; position < end;) {
    const start = position % pageBytes;
    const next = Math.min(position - start + pageBytes, end);
    const number = (position - start) / pageBytes;
    if (next - position === pageBytes) pages.delete(number);
    else if (pages.has(number)) {
      pages.set(number, copyOf(pages.get(number)).fill(0, start, start + next - position));
    }
    position = next;
  }
}

function* eachSector(change: Change): Generator<Change> {
  for (let i = 0; i < change.sectors; i++) {
    yield {
      sector: change.sector + i,
      sectors: 1,
      bytes: change.bytes?.slice(i * sectorBytes, (i + 1) * sectorBytes),
    };
  }
}
