/**
 * One flipped bit of a cache of `bit_images.ts`: through `check`, the real open, a read of the whole volume and a drain, and
 * flipped back. `bit_regions.ts` says what is demanded.
 *
 * What makes it fast enough for every bit, and why nothing is missed by it:
 * - **Known states.** `check` and the recovery of the real open run for every bit. What recovery found (`recovered_state.ts`)
 *   is compared, byte by byte, with what it found before; the read, the drain and the comparison of the backing are left out
 *   when the same state has been taken through them before, with the same demands, and the flipped sector is none that was
 *   read on that way: then all that the engine would see is what it saw then. One in `crossCheckEvery` is taken through
 *   everything all the same, and must end as it did then; with `full` all are.
 * - **Rotten blocks.** A block of data, and either half of a header, reaches the engine through its checksum alone: what does
 *   not match is used by nobody. So where a known state is one in which such a piece was rotten when it was read, and just
 *   another bit of the same piece is flipped, which its checksum must tell, the end is known as well. One in `rottenEvery`
 *   is taken through everything all the same.
 * - **Both orders.** A block that is read first is known to be rotten when it is to be written back, and the other way round.
 *   So of two neighbouring bits one is read before the drain and the other after it; states are known by order.
 * - **`acceptDamage`** is tried only where recovery itself found damage: the engine asks for it nowhere else.
 * - **Idle slots.** The eight bytes of the magic, bit by bit; of the other bits one in `idleThinning`, and all of
 *   them in `idleGroups` groups, each half of the slot flipped at once: for any two bits there is a group with the
 *   one and without the other. If any one bit mattered, half of the groups would.
 * - **Kernels** are used again: empty, but for what is filled before it is looked at, which keeps what the try before left.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import {
  type Cache,
  checkCache,
  type CheckReport,
  DamageError,
  DeviceError,
  openCache,
  RefusedError,
} from "../../mod.ts";
import type { EngineCheckOptions } from "../../src/cache/check.ts";
import type { EngineOptions, Recovered } from "../../src/cache/open.ts";
import { blockBytes, sectorBytes } from "../../src/units.ts";
import { assert, assertEquals } from "../assert.ts";
import { stoppedClock } from "./bit_author.ts";
import { groupMask, idleGroups, type Tally } from "./bit_choice.ts";
import type { Image, Region } from "./bit_regions.ts";
import { UsedKernels } from "./used_kernels.ts";
import { keptState, sameParts, type State, stateOf } from "./recovered_state.ts";

/** One in so many of those that a known state lets off is taken through everything. */
const crossCheckEvery = 211;
/** The same for rotten pieces that are read. */
const rottenEvery = 17;

/** How the images were gone through. */
export interface Effort {
  /** Opened, read and drained to the end. */
  full: number;
  /** Let off after recovery, as the state was known. */
  known: number;
  /** Known, and taken through everything all the same. */
  crossChecked: number;
}

/** What an opened cache showed and did. */
interface Outcome {
  /** Some sectors were EIO that are not lost for good. */
  holes: boolean;
  readOnly: boolean;
  /** Recovery itself found something lost. */
  damaged: boolean;
  drained: boolean;
  /** All of the backing is right. */
  written: boolean;
  dropped: number;
  /** Some of the past was EIO or refused. */
  pastHoles: boolean;
}

/** A state that was taken through everything. */
interface Known {
  state: State;
  accepted: boolean;
  drainFirst: boolean;
  content: Uint8Array;
  outcome: Outcome;
  /** By leg and sector: what was read after recovery. */
  read: Uint8Array[];
  /** The piece that was flipped and does not match its checksum, where it was read after recovery. */
  rotten: { leg: number; from: number } | undefined;
}

/** Thrown out of an opening whose end is known. */
class EndIsKnown {
  constructor(readonly outcome: Outcome) {}
}

/** Tries bits of one image. */
export class Prober {
  readonly image: Image;
  readonly effort: Effort = { full: 0, known: 0, crossChecked: 0 };
  readonly #full: boolean;
  readonly #known = new Map<string, Known[]>();
  readonly #kernels = new UsedKernels();
  readonly #masks = Array.from({ length: idleGroups }, (_, group) => groupMask(group));
  /** What `check` says of the undamaged image. */
  #usual: Pick<CheckReport, "notes" | "problems"> = { notes: [], problems: [] };
  #flipped: { leg: number; sector: number; sectors: number; region: Region; isRotten: boolean } | undefined;
  #drainFirst = false;

  constructor(image: Image, full = false) {
    this.image = image;
    this.#full = full;
  }

  /** Flips one bit; throws, with its name, when what comes of it is not as demanded. */
  tryBit(region: Region, bit: number): Promise<keyof Tally> {
    const byte = Math.floor(bit / 8);
    const sector = Math.floor(byte / sectorBytes);
    return this.#named(region, `bit ${bit % 8} of byte ${byte}`, async () => {
      this.#drainFirst = (bit + byte) % 2 === 1;
      const flip = () => this.image.legs[region.leg]!.flip(bit);
      flip();
      const isRotten = region.isWhole?.(this.image.legs[region.leg]!.bytes) === false;
      this.#flipped = { leg: region.leg, sector, sectors: 1, region, isRotten };
      return await this.#try(region, bit, flip);
    });
  }

  /** Flips a group of bits of an idle slot; throws when it matters. */
  tryGroup(region: Region, group: number): Promise<keyof Tally> {
    return this.#named(region, `group ${group} of its bits`, async () => {
      const [sector, sectors] = [region.from / sectorBytes, blockBytes / sectorBytes];
      this.#flipped = { leg: region.leg, sector, sectors, region, isRotten: false };
      this.#drainFirst = group % 4 > 1;
      this.image.legs[region.leg]!.flipAll(region.from, this.#masks[group]!);
      await this.#tryDead();
      return "groups";
    });
  }

  /** Takes the undamaged image through the same, and throws if anything of it is not as it should be. */
  async tryUndamaged(): Promise<void> {
    const { image } = this;
    try {
      const { notes, problems } = await this.#check();
      // What is lost for good is rotten for good.
      if (image.lost.size === 0) assertEquals(problems, []);
      this.#usual = { notes, problems };
      for (this.#drainFirst of [false, true]) {
        this.#restore();
        this.#assertWhole(await this.#open(false, image.content), true);
      }
    } finally {
      this.#restore();
    }
    this.assertUnread();
  }

  /** Throws if anything that is called unread was ever read. */
  assertUnread(): void {
    for (const { expect, name, from, to, leg } of this.image.regions) {
      if (expect !== "unread") continue;
      const { everRead } = this.image.legs[leg]!;
      const at = everRead.subarray(Math.floor(from / sectorBytes), Math.ceil(to / sectorBytes)).indexOf(1);
      assert(at < 0, `${name}: its sector ${at} was read`);
    }
  }

  async #named(
    region: Region,
    what: string,
    action: () => Promise<keyof Tally>,
  ): Promise<keyof Tally> {
    try {
      return await action();
    } catch (error) {
      const leg = this.image.legs.length > 1 ? `, leg ${region.leg}` : "";
      throw new Error(
        `image "${this.image.name}"${leg}, ${region.name}, ${what}: ${(error as Error).message}`,
        { cause: error },
      );
    } finally {
      this.#flipped = undefined;
      this.#restore();
    }
  }

  #restore(): void {
    for (const device of [...this.image.legs, this.image.backing]) device.restore();
  }

  get #isMirrored(): boolean {
    return this.image.legs.length > 1;
  }

  async #try(region: Region, bit: number, flip: () => void): Promise<keyof Tally> {
    const { image } = this;
    const { expect } = region;
    if (expect === "dead" || expect === "idle") {
      await this.#tryDead();
      return "dead";
    }
    const report = await this.#check();
    if (typeof expect === "number") {
      return this.#isMirrored ? await this.#tryHealed() : await this.#tryPastMark(region, expect, report);
    }
    const byte = Math.floor(bit / 8);
    assert(this.#isTold(report, region, byte), `check says ${JSON.stringify(report.problems)}`);
    const isLossless = report.problems.every(({ severity }) => severity === "damage");
    if (this.#isMirrored) assert(isLossless, "check calls lost what the other leg has");
    const outcome = await this.#open(false, image.content);
    if (isLossless) {
      // Damage may cost a view of the past, whose blocks nothing of the present needs.
      this.#assertWhole(outcome, false);
      return "corrected";
    }
    assert(outcome.holes, "check calls something lost, and everything was read");
    let accepted = outcome;
    if (outcome.damaged) {
      this.#restore();
      flip();
      accepted = await this.#open(true, image.content);
    }
    assert(!accepted.readOnly, "read-only, though the damage was accepted");
    assert(!accepted.drained, "a drain keeps silent about lost blocks");
    return "lost";
  }

  #isTold({ problems, notes }: CheckReport, region: Region, byte: number): boolean {
    const { name } = this.image.legs[region.leg]!;
    const isNamed = problems.some(({ offset, length, leg }) =>
      byte >= offset && byte < offset + length && (leg === undefined || leg === name)
    );
    // Half written is what a crash leaves, and no reason to worry.
    const mayBeNote = !this.image.clean && region.kind === "superblock";
    return isNamed || (mayBeNote && notes.length > this.#usual.notes.length);
  }

  async #tryDead(): Promise<void> {
    const report = await this.#check();
    assertEquals(report.problems, this.#usual.problems);
    this.#assertWhole(await this.#open(false, this.image.content), true);
  }

  async #tryHealed(): Promise<keyof Tally> {
    this.#assertWhole(await this.#open(false, this.image.content), true);
    return "corrected";
  }

  async #tryPastMark(region: Region, sequence: number, report: CheckReport): Promise<keyof Tally> {
    const { image } = this;
    assertEquals(report.problems, this.#usual.problems);
    const outcome = await this.#open(false, image.contentBefore(sequence));
    this.#assertWhole(outcome, true);
    assertEquals(outcome.dropped, report.droppedRecords);
    if (outcome.dropped > 0) return "dropped";
    const isOwnHeader = region.kind.startsWith("header");
    assert(sequence === image.lastSequence && isOwnHeader, "a dropped record is not reported");
    return "untold";
  }

  #assertWhole({ holes, readOnly, drained, written, pastHoles }: Outcome, withPast: boolean): void {
    assert(!holes, "EIO, though nothing is lost");
    assert(!readOnly, "read-only, though nothing is lost");
    assert(drained === (this.image.lost.size === 0), "a drain failed, or kept silent about what is lost");
    assert(written, "a drain did not write everything");
    assert(!withPast || !pastHoles, "some of the past is gone, though nothing is lost");
  }

  async #check(): Promise<CheckReport> {
    const [cache, mirror] = this.image.legs;
    const options: EngineCheckOptions = {
      cache: cache!,
      ...(mirror ? { mirror } : {}),
      makeKernels: this.#kernels.take,
    };
    return await checkCache(options);
  }

  /** Opens, reads everything and drains; whatever is shown or written back must be `content`. */
  async #open(accepted: boolean, content: Uint8Array): Promise<Outcome> {
    const { legs: [cache, mirror], backing } = this.image;
    // Nothing waits for all that an opened cache does, and nothing of it may touch the next try.
    let state: State | undefined;
    let known: Known | undefined;
    const options: EngineOptions = {
      cache: cache!.handle(),
      ...(mirror ? { mirror: mirror.handle() } : {}),
      backing: backing.handle(),
      acceptDamage: accepted,
      clock: stoppedClock,
      random: (bytes) => bytes.fill(7),
      tunables: { writeback: "off" },
      makeKernels: this.#kernels.take,
      onRecovered: (recovered: Recovered) => {
        for (const leg of this.image.legs) leg.readSince.fill(0);
        const found = stateOf(recovered);
        if (!found) return;
        known = this.#find(found, accepted, content);
        if (!known) state = keptState(found);
        else {
          const every = known.rotten ? rottenEvery : crossCheckEvery;
          if (!this.#full && ++this.effort.known % every !== 0) throw new EndIsKnown(known.outcome);
        }
      },
    };
    let opened: Cache;
    try {
      opened = await openCache(options);
    } catch (error) {
      if (error instanceof EndIsKnown) return error.outcome;
      throw error;
    }
    const outcome = await this.#goThrough(opened, content);
    this.effort.full++;
    if (known) {
      this.effort.crossChecked++;
      assertEquals(outcome, known.outcome, "a known state ended otherwise");
    } else if (state) {
      this.#keep({ state, accepted, drainFirst: this.#drainFirst, content, outcome });
    }
    return outcome;
  }

  #find(state: State, accepted: boolean, content: Uint8Array): Known | undefined {
    return this.#known.get(state.facts)?.find((known) =>
      known.accepted === accepted && known.drainFirst === this.#drainFirst && known.content === content &&
      this.#goesSameWay(known) && sameParts(known.state, state)
    );
  }

  /** Whether nothing that is read after recovery differs from what was read then, but within one rotten piece. */
  #goesSameWay({ read, rotten }: Known): boolean {
    if (!this.#flipped) return rotten === undefined;
    const { leg, region, isRotten } = this.#flipped;
    if (!rotten) return !isRead(read, this.#flipped);
    return isRotten && rotten.leg === leg && rotten.from === region.from;
  }

  #keep(known: Omit<Known, "read" | "rotten">): void {
    const read = this.image.legs.map(({ readSince }) => readSince.slice());
    const flipped = this.#flipped;
    let rotten: Known["rotten"];
    if (flipped && isRead(read, flipped)) {
      // It had its part in the outcome, which tells nothing of bits elsewhere.
      if (!flipped.isRotten) return;
      rotten = { leg: flipped.leg, from: flipped.region.from };
    }
    const { facts } = known.state;
    const list = this.#known.get(facts) ?? [];
    this.#known.set(facts, list);
    list.push({ ...known, read, rotten });
  }

  async #goThrough(cache: Cache, content: Uint8Array): Promise<Outcome> {
    const { image } = this;
    const outcome: Outcome = {
      holes: false,
      readOnly: cache.readOnly,
      damaged: cache.recovery.damaged,
      drained: false,
      written: false,
      dropped: cache.recovery.dropped,
      pastHoles: false,
    };
    if (this.#drainFirst) outcome.drained = await drains(cache, image.past.length > 0);
    else for (const point of image.past) if (!(await this.#showsPast(cache, point))) outcome.pastHoles = true;
    outcome.holes = !(await this.#readsAs(cache, 0, content));
    if (!this.#drainFirst) outcome.drained = await drains(cache, image.past.length > 0);
    // Nothing is open but this cache, which goes with its devices: closing it would only take time.
    outcome.written = this.#checkBacking(content, outcome.drained);
    return outcome;
  }

  /** False when some of it is EIO that is not lost for good; throws when some of it is wrong, or read although it is lost. */
  async #readsAs(volume: Pick<Cache, "read">, offset: number, expected: Uint8Array): Promise<boolean> {
    const bytes = new Uint8Array(expected.length);
    const { lost } = this.image;
    try {
      await volume.read(offset, bytes);
    } catch (error) {
      if (!(error instanceof DeviceError) || error.code !== "EIO") throw error;
      if (expected.length <= sectorBytes) return lost.has(offset / sectorBytes);
      const step = expected.length > blockBytes ? blockBytes : sectorBytes;
      let isWhole = true;
      for (let at = 0; at < expected.length; at += step) {
        const isRight = await this.#readsAs(volume, offset + at, expected.subarray(at, at + step));
        isWhole &&= isRight;
      }
      return isWhole;
    }
    assert(Buffer.compare(bytes, expected) === 0, `wrong bytes were read from ${offset} on`);
    for (let at = 0; at < expected.length && lost.size > 0; at += sectorBytes) {
      assert(
        !lost.has((offset + at) / sectorBytes),
        `sector ${(offset + at) / sectorBytes} is lost, and was read`,
      );
    }
    return true;
  }

  async #showsPast(cache: Cache, { sequence, content }: Image["past"][number]): Promise<boolean> {
    if (cache.readOnly) return false;
    try {
      const view = await cache.history.view(sequence);
      try {
        return await this.#readsAs(view, 0, content);
      } finally {
        view.close();
      }
    } catch (error) {
      if (error instanceof RefusedError || error instanceof DeviceError) return false;
      throw error;
    }
  }

  /** Whether the backing is what it should be; throws when some of it is neither that nor what it was. */
  #checkBacking(content: Uint8Array, drained: boolean): boolean {
    const { backing } = this.image;
    if (Buffer.compare(backing.bytes, content) === 0) return true;
    assert(!drained, "a drain wrote something wrong to the backing, or too little");
    for (let at = 0; at < content.length; at += sectorBytes) {
      const [found, right, old] = [backing.bytes, content, backing.pristine].map((bytes) =>
        Buffer.from(bytes.buffer as ArrayBuffer, bytes.byteOffset + at, sectorBytes)
      );
      assert(
        found!.equals(right!) || found!.equals(old!),
        `a wrong sector ${at / sectorBytes} is on the backing`,
      );
    }
    return false;
  }
}

/** Whether any of the sectors is among those that were read. */
function isRead(
  read: readonly Uint8Array[],
  { leg, sector, sectors }: { leg: number; sector: number; sectors: number },
): boolean {
  return read[leg]!.subarray(sector, sector + sectors).includes(1);
}

async function drains(cache: Cache, isHeld: boolean): Promise<boolean> {
  try {
    if (isHeld) await cache.history.release();
    await cache.drain();
    return true;
  } catch (error) {
    if (error instanceof DamageError || error instanceof DeviceError) return false;
    throw error;
  }
}
