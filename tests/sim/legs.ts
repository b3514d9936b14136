/**
 * The cache device of a simulated machine: one medium, or the two legs of a mirror, which break, are lost for good, are
 * replaced, and come back with what they had.
 *
 * Invariants: a leg is taken away only while the other one holds all that was flushed, as far as the cache has said so
 * itself, and has not rotted. So nothing that was flushed may ever be missing.
 *
 * @module
 */

import type { Cache } from "../../src/cache/cache.ts";
import { DeviceError, NbdboostError } from "../../src/errors.ts";
import type { EngineOptions } from "../../src/cache/open.ts";
import type { SeededRandom } from "../../src/random.ts";
import { legSparks, type Spark } from "./fuse.ts";
import type { Coverage } from "./coverage.ts";
import { Decay } from "./faults.ts";
import { drawLegHabits, type LegHabits, usualLegs } from "./leg_habits.ts";
import { Medium } from "./medium.ts";
import { Violation } from "./oracle.ts";
import type { SimClock } from "./sim_clock.ts";
import type { Call, Fault, SimDisk } from "./sim_disk.ts";

/** What a machine has for its legs. */
export interface LegsHost {
  readonly random: SeededRandom;
  readonly coverage: Coverage;
  readonly oracle: { readonly tick: number };
  note(message: () => string): void;
  /** A handle on a medium for this life. */
  disk(medium: Medium): SimDisk;
  /** Something after which this life may be short. */
  happened(spark: Spark): void;
}

/** One leg. */
class SimLeg {
  medium: Medium;
  decay = new Decay();
  /** It holds all that was flushed. */
  isCurrent = true;
  /** A flush was answered without it: it must not be believed. */
  isStale = false;
  /** Everything that was answered before this, on the oracle's clock, may be on it: a sync that succeeded began then. */
  syncedTick = 0;
  /** It rotted since it was copied to last. */
  isRotten = false;
  /** It has been in service since the cache was opened, or was copied to since. */
  hasServed = false;
  /** It was copied to in this life. */
  isCopied = false;
  /** It fails: always, or sometimes. */
  trouble: "none" | "dead" | "hiccups" = "none";

  constructor(medium: Medium) {
    this.medium = medium;
  }
}

/** What is in the two legs' places. */
export class Legs {
  readonly #host: LegsHost;
  readonly #legs: SimLeg[];
  readonly #sizeBytes: number;
  readonly #habits: LegHabits;
  #cache: Cache | undefined;
  /** Legs that are handed to the cache in this life. */
  #there: SimLeg[] = [];
  #resync = false;
  /** How many times as long as others some calls take, by device and kind. */
  readonly slow: Readonly<Record<string, number>>;

  constructor(host: LegsHost, sizeBytes: number, habits: LegHabits | undefined) {
    const mirrored = habits !== undefined;
    this.#host = host;
    this.#sizeBytes = sizeBytes;
    this.#habits = habits ?? usualLegs;
    // Legs are seldom as fast as each other.
    const { random } = host;
    this.slow = mirrored && random.chance(0.4)
      ? { [`${random.chance(0.5) ? "cache" : "mirror"} ${random.chance(0.6) ? "write" : "sync"}`]: 20 }
      : {};
    this.#legs = ["cache", "mirror"].slice(0, mirrored ? 2 : 1).map((name) =>
      new SimLeg(new Medium(sizeBytes, name))
    );
  }

  /** What befalls the legs of the world `seed`, undefined where there is no mirror: one world in four has one. */
  static habitsOf(seed: number, mirrored?: boolean): LegHabits | undefined {
    return mirrored ?? Math.imul(seed, 0x9e3779b1) >>> 30 === 0 ? drawLegHabits(seed) : undefined;
  }

  get mirrored(): boolean {
    return this.#legs.length === 2;
  }

  /** Share of lives with a fuse. */
  get fuses(): number | undefined {
    return this.mirrored ? this.#habits.fuses : undefined;
  }

  /** What crashes wait for; undefined leaves it to chance. */
  get sparks(): readonly Spark[] | undefined {
    if (this.#habits.sparks) return this.#habits.sparks;
    return this.mirrored && this.#host.random.chance(0.6) ? legSparks : undefined;
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  /** All media, for what happens to all of them. */
  get media(): Medium[] {
    return this.#legs.map(({ medium }) => medium);
  }

  /** One medium, for what happens to one of them. */
  get any(): Medium {
    return this.#legs[this.mirrored ? this.#host.random.below(2) : 0]!.medium;
  }

  /** The devices to format. */
  fresh(): { cache: SimDisk; mirror?: SimDisk } {
    const [cache, mirror] = this.media.map((medium) => this.#host.disk(medium));
    return mirror ? { cache: cache!, mirror } : { cache: cache! };
  }

  /** How the next life opens what there is. `wholes`: neither leg is left out. */
  plan(): Partial<EngineOptions> & { cache: SimDisk } {
    if (!this.mirrored) return { cache: this.#host.disk(this.media[0]!) };
    const { random, coverage } = this.#host;
    const [a, b] = this.#legs as [SimLeg, SimLeg];
    for (const leg of this.#legs) {
      leg.trouble = "none";
      leg.isCopied = false;
    }
    let there = [a, b];
    if (random.chance(a.isCurrent && b.isCurrent ? this.#habits.leavesOut : 0.25)) {
      const kept = there.find((leg) => this.#mayStandAlone(leg) && random.chance(0.7)) ??
        there.find((leg) => this.#mayStandAlone(leg));
      if (kept) {
        there = [kept];
        const other = kept === a ? b : a;
        other.isCurrent = false;
        coverage.count("opened with one leg");
      }
    }
    if (random.chance(0.3)) there.reverse();
    this.#there = there;
    this.#resync = random.chance(0.5);
    return this.#options();
  }

  /** The same legs once more, with the other one to be copied to. Undefined when there is no reason for that. */
  again(error: unknown): (Partial<EngineOptions> & { cache: SimDisk }) | undefined {
    if (!this.mirrored || this.#there.length < 2) return undefined;
    // What was there before a copy began that a crash cut off; or a part of it.
    const isForeign = /no leg's mark/.test(`${error}`);
    if (!isForeign && (this.#resync || !/--resync-mirror/.test(`${error}`))) return undefined;
    if (this.#legs.every(({ isCurrent }) => isCurrent)) {
      throw new Violation(`two legs that are as good are refused: ${error}`);
    }
    this.#host.coverage.count(isForeign ? "foreign legs refused" : "stale legs refused");
    if (isForeign) this.#there = this.#legs.filter(({ isCurrent }) => isCurrent);
    else this.#resync = true;
    return this.#options();
  }

  #options(): Partial<EngineOptions> & { cache: SimDisk } {
    const [cache, mirror] = this.#there.map(({ medium }) => this.#host.disk(medium));
    this.#host.note(() =>
      `legs: ${this.#there.map(({ medium, isCurrent }) => `${medium.name}${isCurrent ? "" : " (old)"}`)}` +
      `${this.#resync ? ", resync" : ""}`
    );
    return {
      cache: cache!,
      ...(mirror ? { mirror } : {}),
      acceptMissingMirror: this.#there.length === 1 || this.#legs.some(({ isCurrent }) => !isCurrent),
      resyncMirror: this.#resync,
    };
  }

  #mayStandAlone(leg: SimLeg): boolean {
    return leg.isCurrent && !leg.isRotten && leg.trouble === "none";
  }

  /** The cache was opened. */
  opened(cache: Cache): void {
    if (!this.mirrored) return;
    this.#cache = cache;
    for (const leg of this.#legs) {
      leg.hasServed = this.#serves(cache, leg);
      if (leg.isStale && leg.hasServed) {
        throw new Violation(`the leg ${leg.medium.name} lacks what was flushed, and is taken into service`);
      }
    }
  }

  #serves(cache: Cache, { medium }: SimLeg): boolean {
    return cache.status().mirror!.legs.some(({ path, state }) =>
      path === medium.name && state === "in service"
    );
  }

  /** A leg is being synced; to be called when that has succeeded. */
  syncing(device: string): () => void {
    const { tick } = this.#host.oracle;
    return () => {
      const leg = this.#legs.find(({ medium }) => medium.name === device);
      if (leg === undefined) return;
      leg.syncedTick = tick;
      // With this, the content of a complete copy is durable, whatever becomes of the marks that are to say so.
      if (leg.isStale && this.#cache && this.#isGiven(this.#cache, leg)) leg.isStale = false;
    };
  }

  /** A flush was answered that covers what was answered up to `tick`: a leg may have been lost after it was synced for that. */
  flushed(cache: Cache | undefined, tick: number): void {
    if (!this.mirrored || !cache) return;
    this.#look(cache);
    for (const leg of this.#legs) {
      if (!this.#isGiven(cache, leg) && leg.syncedTick < tick) leg.isStale = true;
    }
  }

  /** It gets all that a flush covers, whether it counts already or not. */
  #isGiven(cache: Cache, { medium }: SimLeg): boolean {
    const leg = cache.status().mirror!.legs.find(({ path, state }) =>
      path === medium.name && state !== "missing"
    );
    return leg?.state === "in service" || leg?.state === "joining";
  }

  /** The cache says something, perhaps that a copy is complete. It may be over again before anybody looks. */
  warned(message: string): void {
    const name = /^the mirror is whole again: (\w+) /.exec(message)?.[1];
    for (const leg of this.#legs) {
      if (leg.medium.name !== name) continue;
      leg.isStale = leg.isRotten = false;
      this.#copied(leg);
    }
  }

  #copied(leg: SimLeg): void {
    leg.hasServed = leg.isCopied = true;
    this.#host.coverage.count("copies completed");
    this.#host.happened("copied");
  }

  /** A leg that was not in service and is so now has been copied to. */
  #look(cache: Cache): void {
    for (const leg of this.#legs) {
      if (leg.hasServed || !this.#isGiven(cache, leg)) continue;
      leg.isStale = false;
      if (!this.#serves(cache, leg)) continue;
      leg.isRotten = false;
      this.#copied(leg);
    }
  }

  /** The machine has stopped, with this cache open if there was one. */
  stopped(cache: Cache | undefined, mayHaveDropped: boolean): void {
    if (!this.mirrored) return;
    this.#cache = undefined;
    const { random, coverage } = this.#host;
    const [a, b] = this.#legs as [SimLeg, SimLeg];
    if (cache) {
      this.#look(cache);
      // A leg that broke and is still in service has failed at nothing that was acknowledged.
      for (const leg of this.#legs) leg.isCurrent = this.#serves(cache, leg);
    } else if (mayHaveDropped && b.isCurrent) a.isCurrent = false;
    for (const [leg, other] of [[a, b], [b, a]] as const) {
      const worthless = !leg.isCurrent && random.chance(0.1);
      const share = other.isCopied && !leg.isCopied ? this.#habits.losesSource : 0.03;
      const lost = this.#mayStandAlone(other) && leg.isCurrent && random.chance(share);
      if (!worthless && !lost) continue;
      if (lost && other.isCopied) coverage.count("copies left alone");
      this.#host.note(() => `the leg ${leg.medium.name} is lost for good`);
      coverage.count("legs lost for good");
      this.#renew(leg);
    }
  }

  #renew(leg: SimLeg): void {
    leg.medium = new Medium(this.#sizeBytes, leg.medium.name);
    leg.decay = new Decay();
    leg.isCurrent = leg.isRotten = leg.isStale = false;
    leg.syncedTick = 0;
  }

  /** After a clean close, one of two good legs rots. Nothing may come of it while the other is there. */
  rotOne(): void {
    const { random, coverage, note } = this.#host;
    if (
      !this.mirrored || !this.#legs.every((leg) => this.#mayStandAlone(leg)) ||
      !random.chance(this.#habits.rots)
    ) return;
    const leg = this.#legs[random.below(2)]!;
    leg.decay.act(leg.medium, random, (message) => note(() => `${leg.medium.name}: ${message}`));
    leg.isRotten = true;
    coverage.count("legs rotten");
  }

  /** Time does to an image what it does, where damage is allowed. */
  decay(note: (message: string) => void): void {
    const leg = this.#legs[this.mirrored ? this.#host.random.below(2) : 0]!;
    leg.decay.act(leg.medium, this.#host.random, note);
    leg.isRotten = true;
  }

  /** The fate of a call to a leg that is in trouble. */
  fault(device: string, call: Call): Fault | undefined {
    const leg = this.#legs.find(({ medium }) => medium.name === device);
    if (!leg || leg.trouble === "none") return undefined;
    const { random } = this.#host;
    if (leg.trouble === "hiccups" && random.chance(0.6)) return undefined;
    return {
      error: new DeviceError(random.chance(0.3) ? "ENODEV" : "EIO", `simulated ${call.kind} of a broken leg`),
      drop: call.kind === "sync" && random.chance(0.7),
      away: random.chance(0.2),
    };
  }

  /** Breaks, gives up and replaces legs of an open cache, until the machine or `isOver` stops. */
  async trouble(cache: Cache, clock: SimClock, latencyMs: number, isOver: () => boolean): Promise<void> {
    if (!this.mirrored) return;
    const { random } = this.#host;
    const pauseMs = latencyMs * this.#habits.pauses[random.below(this.#habits.pauses.length)]!;
    for (;;) {
      await new Promise<void>((resolve) => clock.after(pauseMs * (1 + random.below(8)), resolve));
      if (clock.stopped || isOver()) return;
      if (cache.status().mirror!.whole) await this.#break(cache);
      else if (random.chance(0.5)) await this.#attach(cache, clock);
    }
  }

  async #break(cache: Cache): Promise<void> {
    const { random, coverage, note } = this.#host;
    const leg = this.#legs[random.below(2)]!;
    const other = this.#legs.find((one) => one !== leg)!;
    const mayGo = this.#serves(cache, other) && !other.isRotten && other.trouble === "none" &&
      leg.trouble === "none";
    if (!mayGo || random.chance(0.2)) return;
    coverage.count("legs broken");
    if (random.chance(0.2)) {
      note(() => `the leg ${leg.medium.name} is given up`);
      await cache.mirror!.drop(leg.medium.name).catch(expectOurs);
      return;
    }
    leg.trouble = random.chance(0.6) ? "dead" : "hiccups";
    note(() => `the leg ${leg.medium.name} breaks: ${leg.trouble}`);
  }

  async #attach(cache: Cache, clock: SimClock): Promise<void> {
    const { random, coverage, note } = this.#host;
    const { legs, copy } = cache.status().mirror!;
    const gone = this.#legs.find(({ medium }) =>
      legs.every(({ path, state }) => path !== medium.name || state === "missing")
    );
    if (!gone || copy) return;
    if (random.chance(0.3)) {
      this.#renew(gone);
      if (random.chance(0.3)) gone.medium.poke(0, new Uint8Array(4096).fill(0x5a));
    }
    gone.hasServed = false;
    gone.trouble = random.chance(0.2) ? "hiccups" : "none";
    note(() => `the leg ${gone.medium.name} is added`);
    coverage.count("copies begun");
    try {
      await cache.mirror!.attach(this.#host.disk(gone.medium), { force: true });
    } catch (error) {
      return expectOurs(error);
    }
    if (clock.stopped) return;
    note(() => `the leg ${gone.medium.name} counts`);
    this.#look(cache);
  }
}

/** Devices fail; mistakes are ours. */
function expectOurs(error: unknown): void {
  if (!(error instanceof NbdboostError)) throw error;
}
