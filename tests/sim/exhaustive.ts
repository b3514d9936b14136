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
 * written and synced anew (log-rules.md 7); of what it had not synced, every subset survives the power cut after it.
 *
 * What is not run, and why nothing is lost by it; `unreduced` compares all of it with what every single image does:
 * - A workload is a path in a tree, and a moment belongs to the operation under way, so the moments of all prefixes are gone
 *   through once. A moment at which nothing has changed since the one before is the same moment.
 * - A sector is decided where a recovery looks at it, and not before (tiny_course.ts). At what no recovery looks, there every
 *   subset does the same. So most subsets are gone through many at a time, and none is left to chance.
 * - Contents that the engine's own decoders call bad are one (tiny_units.ts): a checksum that fails says no more.
 * - What a recovery does hangs on what it reads, and not on what may be there. So it is run once for all workloads and moments
 *   that give it the same to read, and each compares what it showed with its own expectations. Nothing is hashed for that:
 *   equal means equal.
 *
 * @module
 */

import { superblockField } from "../../src/log/layout.ts";
import { KernelPool } from "./kernel_pool.ts";
import { Violation } from "./oracle.ts";
import { Courses, type Holdings, View } from "./tiny_course.ts";
import { Base, placesOf, subsetsOf } from "./tiny_moment.ts";
import { checkAllowed, contents } from "./tiny_oracle.ts";
import {
  describe,
  imageOf,
  type Numbers,
  type Outcome,
  overlayOf,
  Recoveries,
  type Run,
} from "./tiny_recovery.ts";
import { Units } from "./tiny_units.ts";
import {
  type Operation,
  operations,
  prepare,
  type Prepared,
  type StartName,
  starts,
  TinyWorld,
} from "./tiny_world.ts";
import type { Unreduced } from "./unreduced.ts";

/** Runs after which what is known is forgotten, so that it fits into memory: equal ones are close to each other. */
const runsKept = 4_000;

/** What was gone through. */
export interface Totals {
  workloads: number;
  /** Moments at which the power went. */
  points: number;
  /** Of these, how many had too many subsets of one block for all. */
  sampled: number;
  /** Images that could be on the media. */
  images: number;
  /** What they came to: what recoveries told apart, added up over all moments that differ. */
  outcomes: number;
  /** Openings by the real recovery. */
  recoveries: number;
}

/** A workload whose crash loses or invents something. */
export interface Finding {
  start: StartName;
  workload: Operation[];
  message: string;
}

/** What is on the media, and what may be read. */
export interface Moment {
  /** What the first recovery reads. */
  visible: Holdings;
  /** After a kill: what of it is durable, and what else of it may be. After a power cut that is the same. */
  durable: Holdings | undefined;
  /** The same, where nothing that is undecided survives. */
  numbers: { visible: Numbers; durable: Numbers };
  allowed: readonly (readonly number[])[];
  how: string;
}

/** Goes through workloads, and remembers what recoveries did. */
export class Exhaustion {
  readonly totals: Totals = { workloads: 0, points: 0, sampled: 0, images: 0, outcomes: 0, recoveries: 0 };
  readonly #recordPool = new KernelPool();
  readonly #depth: number;
  readonly #unreduced: Unreduced | undefined;
  #prepared: Map<StartName, Prepared | Error> | undefined;
  #units!: Units;
  #recoveries!: Recoveries;
  #first!: Courses<Outcome>;
  #second!: Courses<Outcome>;
  /** Contents that are never forgotten. */
  #contentsMin = 0;
  #runs = 0;

  /** `depth`: how deep the power goes again inside a recovery. `unreduced`: every image is tried by itself, too. */
  constructor(depth: number, unreduced?: Unreduced) {
    this.#depth = depth;
    this.#unreduced = unreduced;
  }

  /** Runs `workload` and tries every moment of its last operation. */
  async run(start: StartName, workload: Operation[]): Promise<Finding | undefined> {
    this.totals.workloads++;
    let begun = -1;
    try {
      const prepared = (this.#prepared ?? await this.#prepare()).get(start)!;
      if (prepared instanceof Error) throw prepared;
      if (this.#runs > runsKept) this.#forget();
      const moments: Moment[] = [];
      const world = await TinyWorld.begin(prepared, this.#recordPool);
      for (const [i, operation] of workload.entries()) {
        begun = i;
        const last = i === workload.length - 1;
        await world.do(operation, last ? this.#collector(world, moments) : () => {}, last);
      }
      world.stop();
      for (const moment of moments) await this.#check(moment, this.#depth);
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      const message = error instanceof Violation ? error.message : error.stack!;
      return { start, workload, message: begun < 0 ? `before the first operation: ${message}` : message };
    } finally {
      this.totals.recoveries = this.#recoveries?.count ?? 0;
    }
    return undefined;
  }

  async #prepare(): Promise<Map<StartName, Prepared | Error>> {
    const prepared = new Map<StartName, Prepared | Error>();
    let uuid: Uint8Array = new Uint8Array(16);
    for (const start of Object.keys(starts) as StartName[]) {
      try {
        const each = await prepare(starts[start]);
        const at = superblockField.uuid;
        uuid = contents.bytesOf(each.cache[0]!).slice(at, at + uuid.length);
        prepared.set(start, each);
      } catch (error) {
        if (!(error instanceof Error)) throw error;
        prepared.set(start, error);
      }
    }
    // All of them were formatted with the same random numbers.
    this.#units = new Units(contents, uuid);
    this.#recoveries = new Recoveries(this.#units);
    this.#first = new Courses(this.#units);
    this.#second = new Courses(this.#units);
    this.#contentsMin = contents.count;
    return this.#prepared = prepared;
  }

  #forget(): void {
    this.#runs = 0;
    this.#first.clear();
    this.#second.clear();
    this.#units.clear();
    contents.forget(this.#contentsMin);
  }

  /** Adds what could be on the media if the power went, or the process died, whenever something changed. */
  #collector(world: TinyWorld, moments: Moment[]): () => void {
    let before = "";
    let counted = { images: 0, sampled: 0 };
    return () => {
      const { media, oracle } = world;
      const state = `${world.lives} ${media.cache.version} ${media.backing.version} ${oracle.changes}`;
      if (state !== before) {
        before = state;
        counted = this.#collect(world, moments);
      }
      this.totals.points++;
      this.totals.images += counted.images;
      this.totals.sampled += counted.sampled;
    };
  }

  #collect(
    { media, oracle: { allowed } }: TinyWorld,
    moments: Moment[],
  ): { images: number; sampled: number } {
    const places = placesOf(media);
    const durable = { cache: media.cache.durable.slice(), backing: media.backing.durable.slice() };
    const base = new Base(this.#units, durable, places);
    const how = `power cut, of ${places.length} sectors that were not synced`;
    moments.push({ visible: base, durable: undefined, numbers: { visible: durable, durable }, allowed, how });
    if (places.length === 0) return { images: 1, sampled: 0 };
    for (const done of [false, true]) {
      const live = (device: "cache" | "backing") =>
        done ? media[device].allDone() : media[device].live.slice();
      const visible = { cache: live("cache"), backing: live("backing") };
      moments.push({
        visible: new Base(this.#units, visible, []),
        durable: new Base(this.#units, durable, placesOf(media, !done)),
        numbers: { visible, durable },
        allowed,
        how: `kill, what was under way ${done ? "done" : "not done"}; in a power cut afterwards`,
      });
    }
    return { images: subsetsOf(places) + 2, sampled: base.sampled ? 1 : 0 };
  }

  /** Tries everything that the media may hold at a moment. */
  async #check(moment: Moment, depth: number): Promise<void> {
    const { numbers: { visible, durable }, allowed } = moment;
    const inner: { outcome: Outcome; survivors: View }[] = [];
    const first = async (view: View) => {
      const live = imageOf(view, visible);
      return await this.#recoveries.first(live, moment.durable ? durable : live, depth > 0);
    };
    const second = async (view: View) => await this.#recoveries.second(imageOf(view, durable));
    await this.#explore(this.#first, new View(moment.visible), first, async (outcome, view) => {
      const where = () => `${moment.how} ${describe(view, durable)}; opened`;
      if (outcome.error !== undefined) throw new Violation(`${where()}: ${outcome.error}`);
      checkAllowed(() => `${where()}: the volume shows something else:`, outcome.shown, allowed);
      const survivors = moment.durable ? new View(moment.durable) : view;
      if (depth > 0) inner.push({ outcome, survivors });
      const again = new View(survivors, new Map(outcome.durable));
      await this.#explore(this.#second, again, second, (after, view) => {
        this.totals.outcomes++;
        checkSecond(outcome, after, () => `${where()}; power cut, ${describe(view, durable)}; opened`);
      });
    });
    await this.#unreduced?.compare(moment, { first: this.#first, second: this.#second, units: this.#units });
    for (const { outcome, survivors } of inner) {
      for (const sync of outcome.syncs) {
        const view = new View(survivors, overlayOf(this.#units, survivors, sync));
        const how = `${moment.how} ${describe(survivors, durable)}; in a power cut inside the recovery`;
        const numbers = { visible: durable, durable };
        await this.#check({ visible: view, durable: undefined, numbers, allowed, how }, depth - 1);
      }
    }
  }

  /** Calls `each` for all outcomes that `view` can lead to, and runs those that are not known. */
  async #explore(
    courses: Courses<Outcome>,
    view: View,
    run: (view: View) => Promise<Run>,
    each: (outcome: Outcome, view: View) => void | Promise<void>,
  ): Promise<void> {
    const open = [view];
    for (let next = open.pop(); next; next = open.pop()) {
      const found: [Outcome, View][] = [];
      const missed: View[] = [];
      courses.walk(next, (outcome, view) => found.push([outcome, view]), (view) => missed.push(view));
      if (missed.length > 0) {
        // Where one was missed, others may have been for the same reason, so they are asked again.
        const { glances, outcome } = await run(missed[0]!);
        courses.add(glances, outcome);
        this.#runs++;
        open.push(...missed);
      }
      for (const [outcome, view] of found) await each(outcome, view);
    }
  }
}

/** Fails unless a second opening showed, and a drain left on the backing, what the first had shown. */
function checkSecond({ shown }: Outcome, after: Outcome, where: () => string): void {
  if (after.error !== undefined) throw new Violation(`${where()}: ${after.error}`);
  const seen = shown.map((number) => [number]);
  checkAllowed(() => `${where()}: what was seen is gone:`, after.shown, seen);
  checkAllowed(() => `${where()}; drained: the backing alone:`, after.backing, seen);
}

/** All workloads of `length` operations, in a fixed order. */
export function* eachWorkload(length: number): Generator<Operation[]> {
  const names = Object.keys(operations) as Operation[];
  const at = new Array<number>(length).fill(0);
  // Of no operation there is one: it does nothing.
  for (;;) {
    yield at.map((i) => names[i]!);
    let digit = length - 1;
    while (digit >= 0 && ++at[digit]! === names.length) at[digit--] = 0;
    if (digit < 0) return;
  }
}
