/**
 * What a volume may hold after a crash, sector by sector: the oracle of the kill test.
 *
 * Each 512 B sector has a list of versions, oldest first. The first is the newest that is known to be durable; the others
 * were submitted since, acknowledged or not. A crash may leave any of them, and nothing else. A flush that was sent
 * after a version was acknowledged, or FUA on it, drops what is older than that version.
 *
 * REQUIRES: of two changes that touch the same sector, the second is submitted after the first was acknowledged.
 *
 * @module
 */

import { sectorBytes } from "../../src/units.ts";

/** A write, trim or zero request. */
export interface Change {
  readonly offset: number;
  readonly length: number;
  /** When it was acknowledged; infinite until then. */
  acknowledgedAt: number;
}

interface Version {
  change: Change;
  bytes: Uint8Array;
}

const zeroSector = new Uint8Array(sectorBytes);
const before: Change = { offset: 0, length: 0, acknowledgedAt: 0 };

/** The oracle. */
export class VolumeModel {
  /** What a read shows when nothing crashes. */
  readonly newest: Uint8Array<ArrayBuffer>;
  /** Only sectors of which more than one version may be left by a crash. */
  readonly #versions = new Map<number, Version[]>();
  #now = 0;

  constructor(sizeBytes: number) {
    this.newest = new Uint8Array(sizeBytes);
  }

  /** Sectors that a crash may leave in more than one state. */
  get openSectors(): number {
    return this.#versions.size;
  }

  /** A request is about to be sent. `bytes`: what it writes; undefined for zeroes. */
  submit(offset: number, length: number, bytes?: Uint8Array): Change {
    const change: Change = { offset, length, acknowledgedAt: Infinity };
    const [first, last] = sectorsOf(change);
    for (let sector = first; sector <= last; sector++) {
      if (!this.#versions.has(sector)) {
        this.#versions.set(sector, [{ change: before, bytes: this.#copy(sector) }]);
      }
    }
    if (bytes) this.newest.set(bytes, offset);
    else this.newest.fill(0, offset, offset + length);
    for (let sector = first; sector <= last; sector++) {
      const inside = sector * sectorBytes >= offset && (sector + 1) * sectorBytes <= offset + length;
      const version = !bytes && inside ? zeroSector : this.#copy(sector);
      this.#versions.get(sector)!.push({ change, bytes: version });
    }
    return change;
  }

  #copy(sector: number): Uint8Array {
    return this.newest.slice(sector * sectorBytes, (sector + 1) * sectorBytes);
  }

  /** The server replied to the request. `durable`: it had FUA. */
  acknowledge(change: Change, durable: boolean): void {
    change.acknowledgedAt = ++this.#now;
    if (!durable) return;
    const [first, last] = sectorsOf(change);
    for (let sector = first; sector <= last; sector++) this.#fix(sector, change.acknowledgedAt);
  }

  /** A flush is about to be sent; give the result to {@linkcode flushed}. */
  flushing(): number {
    return this.#now;
  }

  /** The server replied to the flush. */
  flushed(sentAt: number): void {
    for (const sector of this.#versions.keys()) this.#fix(sector, sentAt);
  }

  /** What was acknowledged up to `until` is durable. */
  #fix(sector: number, until: number): void {
    const versions = this.#versions.get(sector)!;
    let durable = 0;
    for (let i = 0; i < versions.length; i++) if (versions[i]!.change.acknowledgedAt <= until) durable = i;
    if (durable === versions.length - 1) this.#versions.delete(sector);
    else if (durable > 0) versions.splice(0, durable);
  }

  /** The first sector where `bytes`, read at `offset`, are not what a running server must show; both on sectors. */
  difference(offset: number, bytes: Uint8Array): number | undefined {
    for (let at = 0; at < bytes.length; at += sectorBytes) {
      if (!same(bytes, at, this.newest, offset + at, sectorBytes)) return (offset + at) / sectorBytes;
    }
    return undefined;
  }

  /**
   * Takes what the whole volume holds after a crash and a restart as what is durable from now on: opening has synced
   * what it found. Returns a sentence for each sector that holds what it must not.
   */
  restart(found: Uint8Array): string[] {
    const wrong: string[] = [];
    for (const [sector, versions] of this.#versions) {
      const at = sector * sectorBytes;
      const match = versions.findIndex(({ bytes }) => same(found, at, bytes, 0, sectorBytes));
      if (match < 0) wrong.push(`sector ${sector} holds none of its ${versions.length} allowed versions`);
      else this.newest.set(versions[match]!.bytes, at);
    }
    if (wrong.length === 0) {
      for (let at = 0; at < found.length; at += sectorBytes) {
        if (same(found, at, this.newest, at, sectorBytes)) continue;
        wrong.push(`sector ${at / sectorBytes} does not hold what had been made durable`);
      }
    }
    this.#versions.clear();
    return wrong;
  }
}

function sectorsOf({ offset, length }: Change): [first: number, last: number] {
  return [Math.floor(offset / sectorBytes), Math.floor((offset + length - 1) / sectorBytes)];
}

/** Whether `length` bytes are equal; fast where both sides lie on words. */
function same(a: Uint8Array, aAt: number, b: Uint8Array, bAt: number, length: number): boolean {
  const aStart = a.byteOffset + aAt;
  const bStart = b.byteOffset + bAt;
  if (((aStart | bStart | length) & 3) !== 0) {
    for (let i = 0; i < length; i++) if (a[aAt + i] !== b[bAt + i]) return false;
    return true;
  }
  const x = new Int32Array(a.buffer, aStart, length / 4);
  const y = new Int32Array(b.buffer, bStart, length / 4);
  for (let i = 0; i < x.length; i++) if (x[i] !== y[i]) return false;
  return true;
}
