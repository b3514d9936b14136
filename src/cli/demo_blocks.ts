/**
 * What the demo wrote, so that it can tell right from wrong afterwards. Every sector names its block, the version of
 * its content and itself, and is filled with what follows from these: nothing can be taken for something else.
 *
 * Invariant: the versions that a sector may show are the last one covered by a flush and all later ones, until it has
 * been read: what it showed then is what it shows from then on.
 *
 * @module
 */

import { blockBytes, sectorBytes, sectorsPerBlock } from "../units.ts";

const wordsPerSector = sectorBytes / 4;

function fillSector(words: Uint32Array, block: number, version: number, sector: number): void {
  words[0] = block;
  words[1] = version;
  words[2] = sector;
  let state = (Math.imul(block + 1, 0x9e3779b1) ^ Math.imul(version, 0x85ebca6b) ^
    Math.imul(sector + 1, 0xc2b2ae35)) >>> 0;
  for (let i = 3; i < wordsPerSector; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    words[i] = state ^ (state >>> 15);
  }
}

/** The bytes of `block` at `version`. */
export function blockContent(block: number, version: number): Uint8Array<ArrayBuffer> {
  const words = new Uint32Array(blockBytes / 4);
  for (let sector = 0; sector < sectorsPerBlock; sector++) {
    fillSector(
      words.subarray(sector * wordsPerSector, (sector + 1) * wordsPerSector),
      block,
      version,
      sector,
    );
  }
  return new Uint8Array(words.buffer);
}

/** The version that a sector of `block` shows: 0 = all zeroes, never written; undefined = no version at all. */
export function sectorVersion(bytes: Uint8Array, block: number, sector: number): number | undefined {
  const found = new Uint32Array(bytes.slice(sector * sectorBytes, (sector + 1) * sectorBytes).buffer);
  if (found.every((word) => word === 0)) return 0;
  const expected = new Uint32Array(wordsPerSector);
  fillSector(expected, block, found[1]!, sector);
  return found.every((word, i) => word === expected[i]) ? found[1] : undefined;
}

interface Written {
  /** The last version that a flush covered; 0 = none. */
  flushed: number;
  /** Versions written since, oldest first. */
  later: number[];
  /** What each sector showed when it was judged: from then on nothing else is right. */
  shown?: number[];
}

/** What one verification found. */
export interface Findings {
  /** Blocks whose last write a flush covered, and which show it. */
  kept: number;
  /** Blocks written again after the last flush, which show the flushed content. */
  old: number;
  /** The same, which show newer content in at least one sector. */
  new: number;
  /** Blocks that show anything else, in words. */
  wrong: string[];
}

/** The demo's memory of every block that it wrote. */
export class WrittenBlocks {
  readonly #blocks = new Map<number, Written>();
  #version = 0;

  /** How many blocks were ever written. */
  get size(): number {
    return this.#blocks.size;
  }

  /** The numbers of all blocks ever written. */
  numbers(): number[] {
    return [...this.#blocks.keys()];
  }

  /** The content for a new write of `block`; remembered before it is sent, since it may arrive whatever happens. */
  next(block: number): Uint8Array<ArrayBuffer> {
    const version = ++this.#version;
    const written = this.#blocks.get(block);
    if (written) written.later.push(version);
    else this.#blocks.set(block, { flushed: 0, later: [version] });
    return blockContent(block, version);
  }

  /** A flush was acknowledged that was asked for after all writes were. */
  flushed(): void {
    for (const written of this.#blocks.values()) {
      written.flushed = written.later.at(-1) ?? written.flushed;
      written.later = [];
    }
  }

  /** Judges what `block` shows, and counts it in `findings`. What was right once is the only right thing later. */
  judge(block: number, bytes: Uint8Array, findings: Findings): void {
    const written = this.#blocks.get(block)!;
    const shown: number[] = [];
    for (let sector = 0; sector < sectorsPerBlock; sector++) {
      const allowed = written.shown ? [written.shown[sector]!] : [written.flushed, ...written.later];
      const version = sectorVersion(bytes, block, sector);
      if (version === undefined || !allowed.includes(version)) {
        const found = version === undefined ? "content that nobody wrote" : `version ${version}`;
        findings.wrong.push(
          `block ${block}, sector ${sector}: ${found}, expected version ${allowed.join(" or ")}`,
        );
        return;
      }
      shown.push(version);
    }
    if (written.shown || written.later.length === 0) findings.kept++;
    else if (shown.some((version) => version !== written.flushed)) findings.new++;
    else findings.old++;
    written.shown = shown;
  }
}
