/**
 * A disk that remembers what was synced apart from what was not, and at a power cut keeps any subset of the un-synced
 * 512 B sector writes, whatever their order.
 *
 * Invariants:
 * - `live` is what a running machine reads: everything that completed. `durable` is what survives without luck.
 * - A sync that succeeds makes durable exactly the writes that had completed before it was issued.
 * - Of the un-synced writes to one sector any may be the last that the medium saw, those still under way included.
 * - A killed process loses nothing that completed, but it stays un-synced.
 *
 * @module
 */

import type { BlockDevice, DeviceIdentity } from "../../src/device/block_device.ts";
import { AssertionError, DeviceError } from "../../src/errors.ts";
import type { SeededRandom } from "../../src/random.ts";
import { sectorBytes } from "../../src/units.ts";
import type { SimClock } from "./sim_clock.ts";

const pageBytes = 4096;
const sectorsPerPage = pageBytes / sectorBytes;

/** Buffers of longer writes are not watched for changes. */
const comparedBytesMax = 65536;

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
interface Change {
  sector: number;
  sectors: number;
  bytes: Uint8Array<ArrayBuffer> | undefined;
}

/** What a call to the device is, for a fault to choose by. */
export interface Call {
  kind: "read" | "write" | "sync" | "zero";
  offset: number;
  length: number;
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

/** Long writes only: most of formatting is zeroes, and worlds are formatted often. */
function isLongAndZero(bytes: Uint8Array<ArrayBuffer>): boolean {
  if (bytes.length <= comparedBytesMax || (bytes.byteOffset & 3) !== 0) return false;
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length >>> 2);
  for (let i = 0; i < words.length; i++) if (words[i] !== 0) return false;
  return true;
}

function isSame(a: Uint8Array<ArrayBuffer>, b: Uint8Array<ArrayBuffer>): boolean {
  if ((b.byteOffset & 3) !== 0) return a.every((byte, i) => byte === b[i]);
  const wordsA = new Uint32Array(a.buffer, a.byteOffset, a.length >>> 2);
  const wordsB = new Uint32Array(b.buffer, b.byteOffset, b.length >>> 2);
  for (let i = 0; i < wordsA.length; i++) if (wordsA[i] !== wordsB[i]) return false;
  return true;
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

/** Decides the fate of a call; undefined lets it pass. */
export type FaultHook = (disk: SimDisk, call: Call) => Fault | undefined;

/** What happens to a call instead of success. */
export interface Fault {
  /** The call rejects with this, after doing part of what it should. */
  error?: Error;
  /** A failed sync drops what was not synced (fsyncgate). */
  drop?: boolean;
  /** Milliseconds more. */
  slowMs?: number;
  /** A read returns one flipped bit. */
  flip?: boolean;
  /** A write lands at this offset instead, and nobody is told. */
  misdirect?: number;
  /** The device is away; what was not synced may be gone when it is back, and then the next sync fails. */
  away?: boolean;
}

/** A machine's handle on a {@linkcode Medium}, for one life. */
export class SimDisk implements BlockDevice {
  readonly sizeBytes: number;
  readonly name: string;
  readonly readOnly = false;
  readonly medium: Medium;
  readonly #clock: SimClock;
  readonly #random: SeededRandom;
  readonly #latencyMs: (kind: Call["kind"]) => number;
  readonly #onViolation: (message: string) => void;
  #closed = false;
  /** Calls under way. */
  readonly #busy = new Set<Call>();
  /** How often the device went away and lost something. */
  #losses = 0;
  /** Of these, how many a failed sync has told of. */
  #lossesTold = 0;
  /** Set to inject faults. */
  fault: FaultHook = () => undefined;
  /** Called for each call when it is issued. */
  onCall: (call: Call) => void = () => {};

  constructor(options: {
    medium: Medium;
    clock: SimClock;
    random: SeededRandom;
    latencyMs: (kind: Call["kind"]) => number;
    onViolation: (message: string) => void;
  }) {
    this.medium = options.medium;
    this.sizeBytes = options.medium.sizeBytes;
    this.name = options.medium.name;
    this.#clock = options.clock;
    this.#random = options.random;
    this.#latencyMs = options.latencyMs;
    this.#onViolation = options.onViolation;
  }

  /** Whether the engine has closed it. */
  get closed(): boolean {
    return this.#closed;
  }

  identity(): Promise<DeviceIdentity> {
    return Promise.resolve({ kind: "memory", id: this.name, modifiedMs: 0 });
  }

  read(offset: number, into: Uint8Array<ArrayBuffer>): Promise<void> {
    // The device may look at the medium at any moment while the call is under way.
    let early: ((into: Uint8Array) => void) | undefined;
    if (!this.#clock.stopped && this.#random.chance(0.5)) early = this.medium.view(offset, into.length);
    return this.#call({ kind: "read", offset, length: into.length }, (fault) => {
      if (early) early(into);
      else this.medium.peek(offset, into);
      if (fault?.error) {
        // A short read: the rest of the buffer holds anything.
        this.#random.fill(into.subarray(this.#random.below(into.length)));
        throw fault.error;
      }
      if (fault?.flip) into[this.#random.below(into.length)]! ^= 1 << this.#random.below(8);
    });
  }

  write(offset: number, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    if (this.#clock.stopped) return new Promise(() => {});
    if (isLongAndZero(bytes)) {
      return this.#change({ kind: "write", offset, length: bytes.length }, undefined, () => {});
    }
    const copy = bytes.slice();
    return this.#change({ kind: "write", offset, length: bytes.length }, copy, () => {
      if (bytes.length > comparedBytesMax || isSame(copy, bytes)) return;
      this.#onViolation(`the buffer of a write at ${offset} of ${this.name} changed while it was under way`);
    });
  }

  zero(offset: number, length: number, _options: { keepAllocated: boolean }): Promise<void> {
    return this.#change({ kind: "zero", offset, length }, undefined, () => {});
  }

  #change(call: Call, bytes: Uint8Array<ArrayBuffer> | undefined, check: () => void): Promise<void> {
    const { medium } = this;
    const change: Change = {
      sector: call.offset / sectorBytes,
      sectors: call.length / sectorBytes,
      bytes,
    };
    return this.#call(call, (fault) => {
      check();
      if (fault?.misdirect !== undefined) change.sector = fault.misdirect / sectorBytes;
      if (fault?.error) {
        medium.abort(change, () => this.#random.chance(0.5));
        throw fault.error;
      }
      medium.complete(change);
    }, () => medium.begin(change));
  }

  sync(): Promise<void> {
    const mark = this.medium.completedMark;
    return this.#call({ kind: "sync", offset: 0, length: 0 }, (fault) => {
      if (this.#losses > this.#lossesTold) {
        this.#lossesTold = this.#losses;
        throw new DeviceError("EIO", `${this.name} lost what was not synced while it was away`);
      }
      if (fault?.error) {
        if (fault.drop) this.medium.dropUnsynced(() => this.#random.chance(0.5), this.#random.chance(0.5));
        throw fault.error;
      }
      this.medium.settle(mark);
    });
  }

  /** The device lost its power for a moment, with whatever it had not synced. */
  #lose(): void {
    if (this.medium.unsyncedCount === 0) return;
    this.medium.dropUnsynced(() => this.#random.chance(0.5), false);
    this.#losses++;
  }

  close(): Promise<void> {
    for (const { kind, offset, length } of this.#busy) {
      this.#onViolation(`${this.name} was closed with a ${kind} of ${offset}+${length} under way`);
    }
    this.#closed = true;
    return Promise.resolve();
  }

  #call(call: Call, action: (fault: Fault | undefined) => void, begin?: () => void): Promise<void> {
    // A dead machine's code may run on for some steps: nothing of it reaches the medium, and it never hears back.
    if (this.#clock.stopped) return new Promise(() => {});
    const { kind, offset, length } = call;
    if (this.#closed) {
      this.#onViolation(`${kind} of ${this.name} after it was closed`);
      return new Promise(() => {});
    }
    if (
      offset % sectorBytes !== 0 || length % sectorBytes !== 0 || offset < 0 ||
      offset + length > this.sizeBytes
    ) {
      throw new AssertionError(
        `${kind} of ${length} bytes at ${offset} of ${this.name} breaks the device's contract`,
      );
    }
    const fault = this.fault(this, call);
    this.onCall(call);
    begin?.();
    this.#busy.add(call);
    return new Promise((resolve, reject) => {
      this.#clock.after(this.#latencyMs(kind) + (fault?.slowMs ?? 0), () => {
        this.#busy.delete(call);
        if (fault?.away) this.#lose();
        try {
          action(fault);
        } catch (error) {
          reject(error);
          return;
        }
        resolve();
      });
    });
  }
}
