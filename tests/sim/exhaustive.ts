/**
 * Goes through all short workloads on a tiny machine: the power goes at every moment, and every subset of what was not
 * synced survives.
 *
 * For each image that comes of it: the real recovery opens it, and all of the volume is compared with what may be there. The
 * power goes again at once, and only what that recovery synced survives: what was seen must be there again. Then the log is
 * drained, and the backing alone must hold it. Optionally the power also goes at each sync inside the recovery, with every
 * subset of what that had not synced yet.
 *
 * A kill is tried at every moment as well: what had completed is visible, and is durable only if it had been synced, or is
 * written and synced anew (log-rules.md 7).
 *
 * Invariants: a workload is a path in a tree, and a moment belongs to the operation under way, so the moments of all prefixes
 * are gone through once. Equal images with equal expectations are tried once. Where the subsets of a moment are more than
 * {@linkcode imagesMax}, classes are tried, and the moment is counted as sampled.
 *
 * @module
 */

import { SeededRandom } from "../../src/random.ts";
import { KernelPool } from "./kernel_pool.ts";
import { Violation } from "./oracle.ts";
import { type Choice, TinyMedium } from "./tiny_disk.ts";
import { type Media, TinyLife } from "./tiny_life.ts";
import { checkAllowed } from "./tiny_oracle.ts";
import {
  type Operation,
  operations,
  prepare,
  type Prepared,
  type StartName,
  starts,
  TinyWorld,
} from "./tiny_world.ts";

/** Subsets of a moment beyond which classes are tried. */
export const imagesMax = 4096;
/** Random subsets of a moment that is sampled. */
const randomSubsets = 64;

/** What was gone through. */
export interface Totals {
  workloads: number;
  /** Moments at which the power went. */
  points: number;
  /** Of these, how many had too many subsets for all. */
  sampled: number;
  /** Images that could be on the media, and how many of them differ. */
  images: number;
  distinct: number;
  /** Openings of such images by the real recovery. */
  recoveries: number;
}

/** A workload whose crash loses or invents something. */
export interface Finding {
  start: StartName;
  workload: Operation[];
  message: string;
}

/** What is on the media, and what may be read. */
interface Image {
  cache: TinyMedium;
  backing: TinyMedium;
  allowed: readonly (readonly number[])[];
  how: string;
}

/** One sector's choices, with the device they belong to. */
interface Place extends Choice {
  device: "cache" | "backing";
}

/** A subset, by place: which of the numbers is on the medium. */
type Pick = number[];

/** Goes through workloads, and remembers which images were tried. */
export class Exhaustion {
  readonly totals: Totals = { workloads: 0, points: 0, sampled: 0, images: 0, distinct: 0, recoveries: 0 };
  readonly #seen = new Set<number>();
  readonly #recordPool = new KernelPool();
  readonly #checkPool = new KernelPool();
  readonly #prepared = new Map<StartName, Prepared>();
  /** How deep the power goes again inside a recovery. */
  readonly #depth: number;

  constructor(depth: number) {
    this.#depth = depth;
  }

  /** Runs `workload` and tries every moment of its last operation. */
  async run(start: StartName, workload: Operation[]): Promise<Finding | undefined> {
    const images: Image[] = [];
    this.totals.workloads++;
    let begun = -1;
    try {
      let prepared = this.#prepared.get(start);
      if (!prepared) this.#prepared.set(start, prepared = await prepare(starts[start]));
      const world = await TinyWorld.begin(prepared, this.#recordPool);
      for (const [i, operation] of workload.entries()) {
        begun = i;
        const last = i === workload.length - 1;
        const onPoint = () => {
          if (last) this.#collect(world.media, world.oracle.allowed, images);
        };
        await world.do(operation, onPoint, last);
      }
      world.stop();
      for (const image of images) await this.#check(image, this.#depth);
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      const message = error instanceof Violation ? error.message : error.stack!;
      return { start, workload, message: begun < 0 ? `before the first operation: ${message}` : message };
    }
    return undefined;
  }

  /** Adds what could be on the media if the power went, or the process died, at this moment. */
  #collect(media: Media, allowed: readonly (readonly number[])[], images: Image[]): void {
    this.totals.points++;
    const places: Place[] = [];
    for (const device of ["cache", "backing"] as const) {
      for (const choice of media[device].choices()) places.push({ ...choice, device });
    }
    const base = new Hash();
    base.addAllowed(allowed);
    base.addMedium(media.cache.durable, 1);
    base.addMedium(media.backing.durable, 2);
    for (const pick of this.#picks(places)) {
      const hash = base.copy();
      for (const [i, choice] of pick.entries()) {
        if (choice === 0) continue;
        const { device, sector, numbers } = places[i]!;
        const which = device === "cache" ? 1 : 2;
        hash.toggle(which, sector, numbers[0]!);
        hash.toggle(which, sector, numbers[choice]!);
      }
      if (!this.#isNew(hash)) continue;
      const how = `power cut, of ${places.length} sectors that were not synced ${describe(places, pick)}`;
      const durable = { cache: media.cache.durable.slice(), backing: media.backing.durable.slice() };
      for (const [i, { device, sector, numbers }] of places.entries()) {
        durable[device][sector] = numbers[pick[i]!]!;
      }
      images.push({
        cache: new TinyMedium(durable.cache),
        backing: new TinyMedium(durable.backing),
        allowed,
        how,
      });
    }
    if (places.length === 0) return;
    for (const all of [false, true]) {
      const live = (medium: TinyMedium) => all ? medium.allDone() : medium.live;
      const hash = base.copy();
      hash.addMedium(live(media.cache), 3);
      hash.addMedium(live(media.backing), 4);
      if (!this.#isNew(hash)) continue;
      images.push({
        cache: new TinyMedium(media.cache.durable, live(media.cache)),
        backing: new TinyMedium(media.backing.durable, live(media.backing)),
        allowed,
        how: `kill, what was under way ${all ? "done" : "not done"}`,
      });
    }
  }

  #isNew(hash: Hash): boolean {
    this.totals.images++;
    const { key } = hash;
    if (this.#seen.has(key)) return false;
    this.#seen.add(key);
    this.totals.distinct++;
    return true;
  }

  *#picks(places: Place[]): Generator<Pick> {
    let count = 1;
    for (const { numbers } of places) count *= numbers.length;
    if (count <= imagesMax) {
      const pick: Pick = places.map(() => 0);
      for (;;) {
        yield pick;
        let at = 0;
        while (at < pick.length && ++pick[at]! === places[at]!.numbers.length) pick[at++] = 0;
        if (at === pick.length) return;
      }
    }
    this.totals.sampled++;
    // By the order in which they were written; a sector's later writes count as one with its last.
    const order = places.map((_, i) => i).sort((a, b) => places[a]!.orders[1]! - places[b]!.orders[1]!);
    const last = (i: number) => places[i]!.numbers.length - 1;
    const of = (keep: (rank: number) => boolean): Pick => {
      const pick: Pick = places.map(() => 0);
      for (const [rank, i] of order.entries()) if (keep(rank)) pick[i] = last(i);
      return pick;
    };
    yield of(() => false);
    yield of(() => true);
    for (let chosen = 0; chosen < order.length; chosen++) {
      yield of((rank) => rank === chosen);
      yield of((rank) => rank !== chosen);
      yield of((rank) => rank < chosen);
    }
    const random = new SeededRandom(places.length);
    for (let i = 0; i < randomSubsets; i++) yield places.map(({ numbers }) => random.below(numbers.length));
  }

  /** Opens an image, cuts the power, opens again, drains. */
  async #check(image: Image, depth: number): Promise<void> {
    const inner: Image[] = [];
    let where = image.how;
    try {
      const media = { cache: image.cache, backing: image.backing };
      const first = this.#life(media);
      if (depth > 0) {
        first.cacheDisk.onSync = first.backingDisk.onSync = () => this.#collect(media, image.allowed, inner);
      }
      await first.run(first.open(), () => {}, false);
      const shown = await this.#read(first);
      checkAllowed("the volume shows something else:", shown, image.allowed);
      first.stop();
      where = `${image.how}; opened; power cut, nothing un-synced survives`;
      const second = this.#life({
        cache: new TinyMedium(media.cache.durable),
        backing: new TinyMedium(media.backing.durable),
      });
      await second.run(second.open(), () => {}, false);
      const seen = shown.map((number) => [number]);
      checkAllowed("what was seen is gone:", await this.#read(second), seen);
      where += "; opened; drained";
      await second.run(second.cache.drain(), () => {}, false);
      checkAllowed("the backing alone:", [...second.media.backing.durable], seen);
      second.stop();
    } catch (error) {
      if (error instanceof Violation) throw new Violation(`${where}: ${error.message}`);
      throw new Error(`${where}: ${error instanceof Error ? error.stack : error}`, { cause: error });
    }
    for (const next of inner) {
      next.how = `${image.how}; inside the recovery ${next.how}`;
      await this.#check(next, depth - 1);
    }
  }

  #life(media: Media): TinyLife {
    this.totals.recoveries++;
    return new TinyLife(media, {
      life: 1000,
      stepped: false,
      pool: this.#checkPool,
      tunables: { writeback: "off" },
    });
  }

  async #read(life: TinyLife): Promise<number[]> {
    let numbers: number[] = [];
    await life.run(life.read().then((all) => void (numbers = all)), () => {}, false);
    return numbers;
  }
}

/** All workloads of `length` operations, in a fixed order. */
export function* eachWorkload(length: number): Generator<Operation[]> {
  const names = Object.keys(operations) as Operation[];
  const at = new Array<number>(length).fill(0);
  for (;;) {
    yield at.map((i) => names[i]!);
    let digit = length - 1;
    while (digit >= 0 && ++at[digit]! === names.length) at[digit--] = 0;
    if (digit < 0) return;
  }
}

/** The exclusive or of a random value for each sector's content and for each content that is allowed. */
class Hash {
  #low = 0;
  #high = 0;

  /** An exact integer of 53 bits. */
  get key(): number {
    return (this.#low >>> 0) * 0x20_0000 + (this.#high & 0x1f_ffff);
  }

  copy(): Hash {
    const copy = new Hash();
    copy.#low = this.#low;
    copy.#high = this.#high;
    return copy;
  }

  toggle(device: number, sector: number, number: number): void {
    const seed = Math.imul(number + 1, 0x9e3779b1) ^ Math.imul(sector * 8 + device, 0x85ebca6b);
    this.#low ^= scramble(seed);
    this.#high ^= scramble(Math.imul(number + 1, 0xc2b2ae35) ^ Math.imul(sector * 8 + device, 0x27d4eb2f));
  }

  addMedium(numbers: Int32Array, device: number): void {
    for (let sector = 0; sector < numbers.length; sector++) {
      if (numbers[sector] === 0) continue;
      this.toggle(device, sector, 0);
      this.toggle(device, sector, numbers[sector]!);
    }
  }

  addAllowed(allowed: readonly (readonly number[])[]): void {
    for (const [sector, numbers] of allowed.entries()) {
      for (const number of numbers) this.toggle(5, sector, number);
    }
  }
}

function scramble(value: number): number {
  let hash = Math.imul(value ^ (value >>> 15), 0x2c1b3c6d);
  hash = Math.imul(hash ^ (hash >>> 12), 0x297a2d39);
  return hash ^ (hash >>> 15);
}

function describe(places: Place[], pick: Pick): string {
  const kept = places.flatMap(({ device, sector }, i) => pick[i]! > 0 ? [`${device} ${sector}`] : []);
  if (kept.length === 0) return "none survives";
  if (kept.length === places.length) return "all survive";
  return `these survive: ${kept.join(", ")}`;
}
