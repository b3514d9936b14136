/**
 * What devices do to one life of a machine, besides crashing: errors, dropped writes, flipped bits; and what rots while it
 * is off.
 *
 * Invariant: what is done here is what the cache promises to survive: content is right or EIO, never wrong. Hence nothing
 * rots that a crash made undecidable (log-rules.md, "What cannot be had"): only images that were closed in order.
 *
 * @module
 */

import { DeviceError } from "../../src/errors.ts";
import { decodeRecord, type RecordHeader } from "../../src/log/codec.ts";
import { checkpointOffset, superblockBytes, superblockOffsets } from "../../src/log/layout.ts";
import { decodeSuperblock, type Superblock } from "../../src/log/superblock.ts";
import type { SeededRandom } from "../../src/random.ts";
import { blockBytes, mib, sectorBytes } from "../../src/units.ts";
import type { Medium } from "./medium.ts";
import type { Call, Fault } from "./sim_disk.ts";

/** What a life suffers from. */
export const troubles = [
  "nothing",
  "flipped reads",
  "cache read errors",
  "backing errors",
  "backing sync errors",
  "backing full",
  "cache failure",
  "cache away",
  "backing away",
  "misdirected writes",
  "slow devices",
  "everything",
] as const;
/** See {@linkcode troubles}. */
export type Trouble = typeof troubles[number];

/** Decides the fate of calls in one life. */
export class Faults {
  readonly trouble: Trouble;
  readonly #random: SeededRandom;
  readonly #unseen: boolean;
  readonly #share: number;
  readonly #logEnd: number;
  /** Calls to a device that still succeed, before it fails for good or goes away. */
  #untilFailure: number;
  /** Calls that fail while it is away; then it is back. */
  #awayCalls: number;
  /** Writes to the log that landed elsewhere. */
  misdirected = 0;
  /** Nothing goes wrong with new calls while false. */
  active = false;
  /** Calls under way that will fail. */
  #failing = 0;

  /**
   * `logEnd`: where the log ends on the cache device. `choice`: what the trouble may be. `unseen`: no page cache of the backing
   * shows what a failed sync has dropped: it would outlive the process that knows, and nobody has what went past the log.
   */
  constructor(random: SeededRandom, logEnd: number, choice: readonly Trouble[] = troubles, unseen = false) {
    this.#random = random;
    this.#unseen = unseen;
    this.trouble = choice[random.below(choice.length)]!;
    this.#share = [0.01, 0.1, 0.5][random.below(3)]!;
    this.#untilFailure = random.below(60);
    this.#awayCalls = 1 + random.below(random.chance(0.5) ? 5 : 60);
    this.#logEnd = logEnd;
  }

  /** Whether reads lie: while recovering, that could make the last record look torn, which nobody can tell from a tear. */
  get flips(): boolean {
    return this.#is("flipped reads");
  }

  /** Whether content of the log may be lost by it. A device that fails openly loses nothing that was synced. */
  get damages(): boolean {
    return this.#is("flipped reads", "cache read errors", "misdirected writes");
  }

  /** What happens to a call. */
  decide(device: string, call: Call): Fault | undefined {
    if (!this.active) return undefined;
    // Of a mirror one leg alone suffers.
    if (device === "mirror") return undefined;
    const fault = device === "cache" ? this.#cacheFault(call) : this.#backingFault(call);
    if (!fault?.error) return fault;
    this.#failing++;
    return { ...fault, ended: () => this.#failing-- };
  }

  /** Whether calls fail, or will of those that have begun. */
  get failing(): boolean {
    return this.active || this.#failing > 0;
  }

  #is(...named: Trouble[]): boolean {
    return this.trouble === "everything" || named.includes(this.trouble);
  }

  #cacheFault({ kind, offset, length }: Call): Fault | undefined {
    const random = this.#random;
    if (this.trouble === "cache away") return this.#away(kind);
    if (kind === "read" && offset >= mib) {
      if (this.#is("flipped reads") && random.chance(this.#share)) return { flip: true };
      if (this.#is("cache read errors") && random.chance(this.#share)) return { error: error("EIO", kind) };
    }
    if (
      kind !== "read" && this.trouble === "cache failure" && --this.#untilFailure < 0 && random.chance(0.3)
    ) {
      return { error: error(random.chance(0.3) ? "ENOSPC" : "EIO", kind), drop: random.chance(0.7) };
    }
    if (this.trouble === "misdirected writes" && kind === "write" && offset >= mib && random.chance(0.02)) {
      this.misdirected++;
      const slots = (this.#logEnd - mib - length) / blockBytes;
      return { misdirect: mib + random.below(slots + 1) * blockBytes };
    }
    return this.#slow();
  }

  /** Gone for some calls, one of which may cost what was not synced. */
  #away(kind: string): Fault | undefined {
    if (--this.#untilFailure >= 0 || this.#awayCalls <= 0) return undefined;
    this.#awayCalls--;
    return {
      error: new DeviceError("ENODEV", `simulated ${kind} of a device that is away`),
      away: this.#random.chance(0.3),
    };
  }

  #backingFault({ kind }: Call): Fault | undefined {
    const random = this.#random;
    if (this.trouble === "backing away") return this.#away(kind);
    if (this.#is("backing errors") && kind !== "sync" && random.chance(this.#share)) {
      return { error: error("EIO", kind) };
    }
    if (this.#is("backing sync errors") && kind === "sync" && random.chance(this.#share)) {
      return { error: error("EIO", kind), drop: random.chance(0.7), unseen: this.#unseen };
    }
    if (this.#is("backing full") && (kind === "write" || kind === "zero") && random.chance(this.#share)) {
      return { error: error("ENOSPC", kind) };
    }
    return this.#slow();
  }

  #slow(): Fault | undefined {
    return this.#is("slow devices") && this.#random.chance(0.02)
      ? { slowMs: this.#random.below(3000) }
      : undefined;
  }
}

function error(code: "EIO" | "ENOSPC", kind: string): DeviceError {
  return new DeviceError(code, `simulated ${code} of a ${kind}`);
}

/** What time does to a cache medium that was closed in order. */
export class Decay {
  /** The medium as it was at some earlier time. */
  #before: Uint8Array | undefined;

  /** Damages `medium` in one to three places. */
  act(medium: Medium, random: SeededRandom, note: (message: string) => void): void {
    const now = new Uint8Array(medium.sizeBytes);
    medium.peek(0, now);
    rot(medium, this.#before ?? now, random, note);
    this.#before = now;
  }
}

function rot(
  medium: Medium,
  before: Uint8Array,
  random: SeededRandom,
  note: (message: string) => void,
): void {
  if (random.chance(0.25)) return wreckNeighbours(medium, random, note);
  const slots = (medium.sizeBytes - mib) / blockBytes;
  const headers = headersOf(medium);
  const superblock = superblockOffsets[random.below(2)]!;
  // Headers know the most; the newest ones stand beside what earlier crashes cut off.
  const newest = random.below(Math.min(6, Math.max(1, headers.length)));
  for (let count = 1 + random.below(3); count > 0; count--) {
    const where = random.below(14);
    const header = headers[where === 13 ? random.below(headers.length) : newest + count - 1];
    const [start, length] = where === 0
      ? [superblock, superblockBytes]
      : where === 1
      ? [checkpointOffset, 2 * blockBytes]
      : where > 8 && header !== undefined
      ? [mib + header.slot * blockBytes, blockBytes]
      : [mib + random.below(slots) * blockBytes, blockBytes];
    damage(medium, before, start, length, random, note);
  }
}

/** Damages the headers of two or three records in a row, one of the last, so that no copy tells what they held. */
function wreckNeighbours(medium: Medium, random: SeededRandom, note: (message: string) => void): void {
  const headers = headersOf(medium);
  const bytes = new Uint8Array(blockBytes);
  const first = random.below(Math.min(headers.length, 8) + 1);
  for (const { slot } of headers.slice(first, first + 2 + random.below(2))) {
    note(`the header at ${slot} rots`);
    random.fill(bytes);
    medium.poke(mib + slot * blockBytes, bytes);
  }
}

/** The headers of records that the log holds, dead ones too, the highest sequence first. */
function headersOf(medium: Medium): RecordHeader[] {
  const { uuid } = newestSuperblock(medium) ?? {};
  const found: RecordHeader[] = [];
  if (!uuid) return found;
  for (let slot = 0; mib + slot * blockBytes < medium.sizeBytes; slot++) {
    const bytes = new Uint8Array(blockBytes);
    medium.peek(mib + slot * blockBytes, bytes);
    const header = decodeRecord(bytes, slot, uuid);
    if (header) found.push(header);
  }
  return found.sort((a, b) => b.sequence - a.sequence);
}

function newestSuperblock(medium: Medium): Superblock | undefined {
  let newest: Superblock | undefined;
  for (const [copy, offset] of superblockOffsets.entries()) {
    const bytes = new Uint8Array(superblockBytes);
    medium.peek(offset, bytes);
    const superblock = decodeSuperblock(bytes, copy);
    if ("problem" in superblock || newest && newest.generation > superblock.generation) continue;
    newest = superblock;
  }
  return newest;
}

/**
 * After a power cut, lets the header of a record rot that a mark on the medium calls durable, if there is one: that must not
 * look like a tear. Tells whether it did.
 */
export function rotMarked(medium: Medium, random: SeededRandom, note: (message: string) => void): boolean {
  const superblock = newestSuperblock(medium);
  if (!superblock) return false;
  const headers = headersOf(medium);
  let mark = superblock.durableMark;
  for (const { epoch, durableMark } of headers) {
    if (epoch.number === superblock.epoch.number) mark = Math.max(mark, durableMark);
  }
  // The newest of them have dead ones behind them.
  const marked = headers.filter(({ sequence }) => sequence <= mark && sequence >= superblock.tail.sequence);
  const victim = marked[random.below(Math.min(3, marked.length))];
  if (!victim) return false;
  note(`the header at ${victim.slot} rots, sequence ${victim.sequence}, marked durable up to ${mark}`);
  const bytes = new Uint8Array(sectorBytes);
  random.fill(bytes);
  medium.poke(mib + victim.slot * blockBytes, bytes);
  return true;
}

function damage(
  medium: Medium,
  before: Uint8Array,
  start: number,
  length: number,
  random: SeededRandom,
  note: (message: string) => void,
): void {
  const how = random.below(6);
  let offset = start + sectorBytes * random.below(length / sectorBytes);
  let bytes = new Uint8Array(sectorBytes);
  medium.peek(offset, bytes);
  if (how <= 1) bytes[random.below(sectorBytes)]! ^= 1 << random.below(8);
  else if (how === 2) bytes.fill(0);
  else if (how === 3) random.fill(bytes);
  else {
    // A block as it was before, or one that belongs elsewhere: a write that was lost, or misdirected.
    const whole = random.chance(0.7);
    offset = whole ? start : offset;
    bytes = new Uint8Array(whole ? blockBytes : sectorBytes);
    if (how === 4) bytes.set(before.subarray(offset, offset + bytes.length));
    else medium.peek(mib + random.below((medium.sizeBytes - mib) / blockBytes) * blockBytes, bytes);
  }
  note(
    `rot at ${offset}, ${bytes.length} bytes, ${
      ["flip", "flip", "zeroes", "garbage", "stale", "misdirected"][how]
    }`,
  );
  medium.poke(offset, bytes);
}

/** Lets one copy of the superblock rot, if the other is whole: nothing may be lost by that. Tells whether it did. */
export function wreckSuperblock(
  medium: Medium,
  random: SeededRandom,
  note: (message: string) => void,
): boolean {
  const isWhole = (offset: number, copy: number) => {
    const bytes = new Uint8Array(superblockBytes);
    medium.peek(offset, bytes);
    return !("problem" in decodeSuperblock(bytes, copy));
  };
  if (!superblockOffsets.every(isWhole)) return false;
  const victim = random.below(2);
  const bytes = new Uint8Array(sectorBytes);
  random.fill(bytes);
  note(`superblock ${victim} rots`);
  medium.poke(superblockOffsets[victim]! + sectorBytes * random.below(8), bytes);
  return true;
}
