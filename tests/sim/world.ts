/**
 * One simulated machine with a cache and its clients, life after life: opened, used by several clients at once, cut off at
 * a random moment, opened again, and checked against the oracle. All of it follows from one seed.
 *
 * Invariants: the engine is the real one, unchanged; it sees only simulated devices, time and randomness. Everything that
 * happens enters the trace hash, so two runs of a seed can be told apart.
 *
 * @module
 */

import type { Cache } from "../../src/cache/cache.ts";
import { formatDevices } from "../../src/cache/format.ts";
import { type EngineOptions, openCache } from "../../src/cache/open.ts";
import { DamageError, DeviceError, RefusedError } from "../../src/errors.ts";
import { SeededRandom } from "../../src/random.ts";
import { blockBytes, mib, sectorBytes } from "../../src/units.ts";
import type { Coverage } from "./coverage.ts";
import { Faults, rot, wreckSuperblock } from "./faults.ts";
import { kernelPool } from "./kernel_pool.ts";
import { Oracle, Violation } from "./oracle.ts";
import { Session } from "./session.ts";
import { settled, WorldEnd } from "./settled.ts";
import { drawShape, type Shape } from "./shape.ts";
import { SimClock } from "./sim_clock.ts";
import { crashPolicies, type CrashPolicy, Medium, SimDisk } from "./sim_disk.ts";
import { readWhole, type Whole } from "./whole.ts";

/** Events in a row without a request answered that count as a livelock. */
const eventsMax = 200_000;
/** A request that takes longer than any row of device calls. */
const slowMs = 2000;
/** Before time moves by more than this, code may run for {@linkcode turnsMax} microtask turns. */
const longMs = 5;
const turnsMax = 60;
/** Crashes of a world, when nobody says: formatting costs as much as several of a light one. */
const crashesDefault = 30;
const lightCrashesDefault = 120;
/** Beyond this, for fifty times as many. */
const veryLongMs = 1500;

/** The result of a world. */
export interface WorldResult {
  crashes: number;
  hash: number;
  violation: string | undefined;
}

/** A world. */
export class World {
  readonly seed: number;
  readonly shape: Shape;
  readonly coverage: Coverage;
  readonly trace: string[] | undefined;
  readonly #random: SeededRandom;
  readonly #oracle: Oracle;
  readonly #cacheMedium: Medium;
  readonly #backingMedium: Medium;
  #clock = new SimClock(0);
  #hash = 0x811c9dc5;
  #crashes = 0;
  #violation: string | undefined;
  /** Events left in this life. */
  #budget = 0;
  /** What is left for this life once it is open. */
  #eventsOfWork = Infinity;
  #events = 0;
  #life = 0;
  #lastClosedInOrder = true;
  #killed = false;
  #cache: Cache | undefined;
  #faults: Faults | undefined;
  /** The cache medium as it was at some earlier time. */
  #before = new Uint8Array(0);
  /** Something rotted since the cache was closed in order. */
  #rotten = false;

  /** `faulty`: devices fail and rot, too. `light`: see {@linkcode drawShape}. */
  constructor(seed: number, faulty: boolean, coverage: Coverage, trace?: string[], light?: boolean) {
    this.seed = seed;
    this.coverage = coverage;
    this.trace = trace;
    this.#random = new SeededRandom(seed);
    for (let i = 0; i < 8; i++) this.#random.next();
    this.shape = drawShape(this.#random, faulty, light);
    const { backingBytes, segmentBlocks, segmentCount } = this.shape;
    this.#oracle = new Oracle(backingBytes, this.shape.odd);
    this.#cacheMedium = new Medium(mib + segmentBlocks * segmentCount * blockBytes, "cache");
    this.#backingMedium = new Medium(backingBytes, "backing");
    this.note(() => `world ${seed}: ${JSON.stringify(this.shape)}`);
  }

  /** Lives until `crashes` have happened, or something is wrong. */
  async run(crashes = this.shape.light ? lightCrashesDefault : crashesDefault): Promise<WorldResult> {
    try {
      await this.#format();
      while (this.#crashes < crashes) await this.#live();
    } catch (error) {
      if (this.#violation === undefined && !(error instanceof WorldEnd)) {
        this.#violation = error instanceof Violation
          ? error.message
          : error instanceof Error
          ? error.stack!
          : String(error);
      }
    }
    this.#clock.stop();
    if (this.#violation !== undefined) {
      this.note(() => `VIOLATION ${this.#violation}`);
      this.note(() => JSON.stringify(this.#cache?.status()));
    }
    return { crashes: this.#crashes, hash: this.#hash, violation: this.#violation };
  }

  /** Enters numbers into the trace hash. */
  mix(...values: number[]): void {
    for (const value of values) this.#hash = Math.imul(this.#hash ^ (value | 0), 0x01000193) >>> 0;
  }

  /** Enters a line into the trace, if there is one. */
  note(message: () => string): void {
    this.trace?.push(`${this.#clock.monotonicMs().toFixed(3).padStart(10)} ${message()}`);
  }

  /** Something that must not happen has happened. */
  wrong(message: string): void {
    this.#violation ??= message;
  }

  #disk(medium: Medium): SimDisk {
    const random = this.#random;
    const { latencyMs } = this.shape;
    const disk = new SimDisk({
      medium,
      clock: this.#clock,
      random,
      latencyMs: () =>
        random.chance(0.03) ? latencyMs * 50 * random.below(8) / 8 : latencyMs * (1 + random.below(64)) / 64,
      onViolation: (message) => this.wrong(message),
    });
    const device = medium.name === "cache" ? 1 : 2;
    const counters = {
      read: `${medium.name} reads`,
      write: `${medium.name} writes`,
      sync: `${medium.name} syncs`,
      zero: `${medium.name} zeros`,
    };
    disk.fault = (_, call) => this.#faults?.decide(medium.name, call);
    disk.onCall = ({ kind, offset, length }) => {
      this.mix(device, kind.length, offset, length);
      this.coverage.count(counters[kind]);
      this.note(() => `  ${medium.name} ${kind} ${offset}+${length}`);
    };
    return disk;
  }

  /** Runs events until `done` says so; false when the life ends first. */
  async #pump(done: () => boolean): Promise<boolean> {
    let quiet = 0;
    for (;;) {
      for (let i = 0; i < this.shape.turns; i++) await null;
      // Time does not jump while code is on its way to its next call.
      let waitMs = this.#clock.untilNextMs;
      for (let i = 0; waitMs > longMs && i < (waitMs > veryLongMs ? turnsMax * 50 : turnsMax); i++) {
        await null;
        waitMs = this.#clock.untilNextMs;
      }
      if (this.#violation !== undefined) throw new Violation(this.#violation);
      if (done()) return true;
      if (this.#budget-- <= 0) return false;
      if (++quiet > eventsMax) {
        throw new Violation(`${eventsMax} events have passed and nothing came of them`);
      }
      this.#events++;
      if (!this.#clock.step()) throw new Violation("nothing is left to happen, and a request still waits");
    }
  }

  async #format(): Promise<void> {
    this.#clock = new SimClock(0);
    this.#budget = Infinity;
    const done = settled(
      formatDevices(this.#disk(this.#cacheMedium), this.#disk(this.#backingMedium), {
        segmentBlocks: this.shape.segmentBlocks,
        clock: this.#clock,
        random: this.#random.fill,
      }),
    );
    await this.#pump(() => done.settled);
    if (done.error) throw done.error;
    // Something was there before, un-synced by nobody.
    const version = this.#oracle.ask(0, this.#oracle.cellCount, false);
    this.#backingMedium.poke(0, this.#oracle.content(version.id, 0, this.#oracle.cellCount));
    this.#oracle.answer(version, true);
  }

  /** From power-on to power-off. */
  async #live(): Promise<void> {
    const random = this.#random;
    this.#life++;
    this.#clock = new SimClock(this.#clock.monotonicMs() + 1);
    // Short lives end inside recovery; a third of them on purpose.
    const short = random.chance(this.#killed ? 0.5 : this.shape.light ? 0.3 : 0.15);
    // Opening takes some twenty events. A light world, where that is most of a life, counts from there on.
    this.#eventsOfWork = this.shape.light && !short ? 1 + random.below(2 * this.shape.lifeEvents) : Infinity;
    this.#budget = this.#eventsOfWork < Infinity
      ? eventsMax
      : 1 + random.below(short ? 30 : 2 * this.shape.lifeEvents);
    this.note(() => `life ${this.#life}, ${this.#budget} events`);
    this.#cache = undefined;
    this.#faults = this.shape.faulty ? new Faults(random, this.#cacheMedium.sizeBytes) : undefined;
    if (this.#faults) this.coverage.count(`lives with ${this.#faults.trouble}`);
    const outcome = await this.#session();
    if (this.#cache) this.coverage.life((this.#cache as Cache).status());
    const misdirected = this.#faults?.misdirected ?? 0;
    this.#faults = undefined;
    if (misdirected > 0) {
      this.coverage.count("lives with misdirected writes", 1);
      // In a crash, such a write could not be told from a torn one.
      if (outcome !== "closed") throw new WorldEnd();
      this.#rotten = true;
      this.#lastClosedInOrder = false;
    }
    if (outcome === "closed") {
      this.coverage.count("clean closes");
      // Nothing un-synced may matter now.
      if (random.chance(0.5) || this.shape.faulty) this.#crash(outcome);
      if (this.shape.faulty && random.chance(0.6)) this.#rot();
    } else this.#crash(outcome);
  }

  #crash(outcome: string): void {
    const random = this.#random;
    this.#clock.stop();
    this.#crashes++;
    this.coverage.crashes++;
    this.coverage.count(`crashes while ${outcome}`);
    this.#killed = random.chance(0.2);
    if (this.#killed) {
      this.note(() => "KILL");
      this.coverage.count("kills");
      this.#cacheMedium.kill(random);
      this.#backingMedium.kill(random);
    } else {
      const policies = [0, 1].map(() => crashPolicies[random.below(crashPolicies.length)]!) as [
        CrashPolicy,
        CrashPolicy,
      ];
      this.note(() =>
        `POWER CUT, cache ${policies[0]} of ${this.#cacheMedium.unsyncedCount}, backing ${policies[1]}`
      );
      this.#cacheMedium.powerCut(policies[0], random);
      this.#backingMedium.powerCut(policies[1], random);
    }
    if (!this.#killed && !this.shape.faulty && random.chance(0.1)) {
      if (wreckSuperblock(this.#cacheMedium, random, (message) => this.note(() => message))) {
        this.coverage.count("superblocks wrecked");
        this.#lastClosedInOrder = false;
      }
    }
    this.#oracle.crash();
  }

  /** The machine is off, in order, and its cache device rots. */
  #rot(): void {
    const now = new Uint8Array(this.#cacheMedium.sizeBytes);
    this.#cacheMedium.peek(0, now);
    rot(
      this.#cacheMedium,
      this.#before.length > 0 ? this.#before : now,
      this.#random,
      (message) => this.note(() => message),
    );
    this.#before = now;
    this.#rotten = true;
    this.#lastClosedInOrder = false;
    this.coverage.count("images rotten");
  }

  async #session(): Promise<"opening" | "checking" | "working" | "draining" | "closing" | "closed"> {
    const opened = await this.#open();
    if (typeof opened === "string") return opened;
    const cache = this.#cache = opened;
    this.#budget = Math.min(this.#budget, this.#eventsOfWork);
    this.#checkRecovery(cache);
    this.#rotten = this.#rotten && cache.readOnly;
    this.#lastClosedInOrder = false;
    if ((cache.readOnly || this.#random.chance(0.85)) && !(await this.#checkContent(cache))) {
      return "checking";
    }
    if (cache.readOnly) return await this.#closeReadOnly(cache);
    if (this.#faults) this.#faults.active = true;
    const session = new Session(this, cache);
    for (let i = 0; i < this.shape.clients; i++) session.start();
    const end = this.#random.below(10);
    const planned = end < 3 ? this.#random.below(this.shape.lifeEvents) : Infinity;
    const until = this.#events + planned;
    let done = await this.#pump(() => this.#events >= until);
    if (!done && session.oldestMs > slowMs) {
      // A crash now would hide a hang.
      this.#budget = eventsMax;
      this.coverage.count("lives prolonged for a slow request");
      const seen = session.oldest;
      done = await this.#pump(() => session.oldest !== seen) && this.#events >= until;
    }
    if (!done) return "working";
    session.stopping = true;
    const patient = this.#random.chance(0.7);
    if (patient && !(await this.#pump(() => session.active === 0))) return "working";
    // From now on the devices behave; what went wrong before may show.
    if (this.#faults) this.#faults.active = this.#faults.active && this.#random.chance(0.2);
    if (patient && this.#random.chance(0.3)) {
      if (!(await this.#drainAndCompare(cache))) return "draining";
    }
    return await this.#close(cache, session);
  }

  async #open(): Promise<Cache | "opening"> {
    const options: EngineOptions = {
      cache: this.#disk(this.#cacheMedium),
      backing: this.#disk(this.#backingMedium),
      tunables: this.shape.tunables,
      clock: this.#clock,
      random: this.#random.fill,
      bufferCount: this.shape.bufferCount,
      unsyncedBlocks: this.shape.unsyncedBlocks,
      makeKernels: kernelPool.take,
      acceptDamage: this.#random.chance(0.7),
      warn: (message) => {
        this.note(() => `warning: ${message}`);
        if (/lost|damaged/.test(message) && !/superblock/.test(message) && !this.shape.faulty) {
          this.wrong(`the engine says: ${message}`);
        }
      },
    };
    if (this.#faults) {
      this.#faults.active = this.#random.chance(0.1) && !this.#faults.flips;
    }
    const opening = settled(openCache(options));
    if (!(await this.#pump(() => opening.settled))) {
      this.#lastClosedInOrder = false;
      return "opening";
    }
    const { active } = this.#faults ?? { active: false };
    if (this.#faults) this.#faults.active = false;
    if (opening.value) return opening.value;
    if (active && opening.error instanceof DeviceError) {
      this.coverage.count("opens failed by a device");
      this.#lastClosedInOrder = false;
      return "opening";
    }
    if (this.#rotten && opening.error instanceof RefusedError) {
      this.coverage.count("opens refused after rot");
      throw new WorldEnd();
    }
    throw new Violation(`open failed: ${opening.error}`);
  }

  #checkRecovery(cache: Cache): void {
    const { recovery } = cache;
    const { clean, records, kept, dropped, dirtyBlocks, gaps, lostBlocks, damaged } = recovery;
    this.mix(records, kept, dropped, dirtyBlocks);
    this.note(() => `opened: ${JSON.stringify(recovery)}`);
    this.coverage.recovery(recovery);
    if ((gaps.length > 0 || lostBlocks > 0 || damaged || cache.readOnly) && !this.shape.faulty) {
      throw new Violation(`an undamaged log is called damaged: ${JSON.stringify(recovery)}`);
    }
    if (this.#lastClosedInOrder && !clean) {
      throw new Violation("the cache was closed in order and is not clean");
    }
    if (clean && dropped > 0 && !this.#rotten) {
      throw new Violation("records were dropped after a clean close");
    }
    if (cache.readOnly && !damaged) throw new Violation("an undamaged cache opens read-only");
  }

  /** Reads all of the volume, as the first thing after opening. False when the life ends before. */
  async #checkContent(cache: Cache): Promise<boolean> {
    const whole = await this.#readAll(cache);
    if (!whole) return false;
    const { bytes, lost } = whole;
    this.#oracle.recovered(bytes, (cell) => lost.has(Math.floor(this.#oracle.offsetOf(cell) / sectorBytes)));
    return true;
  }

  /** The whole content, and which sectors cannot be read. */
  async #readAll(cache: Cache): Promise<Whole | undefined> {
    const reading = settled(readWhole(cache, this.shape.backingBytes, this.shape.faulty));
    if (!(await this.#pump(() => reading.settled))) return undefined;
    if (!reading.value) throw new Violation(`the read after opening failed: ${reading.error}`);
    if (reading.value.lost.size > 0) this.coverage.count("checks with lost sectors");
    return reading.value;
  }

  async #closeReadOnly(cache: Cache): Promise<"closing" | "closed"> {
    const closing = settled(cache.close());
    if (!(await this.#pump(() => closing.settled))) return "closing";
    if (closing.error) throw new Violation(`close failed: ${closing.error}`);
    return "closing";
  }

  async #drainAndCompare(cache: Cache): Promise<boolean> {
    this.note(() => "drain, nobody else at work");
    const draining = settled(cache.drain());
    if (!(await this.#pump(() => draining.settled))) return false;
    const { error } = draining;
    if (error && !(this.shape.faulty && (error instanceof DeviceError || error instanceof DamageError))) {
      throw new Violation(`drain failed: ${error}`);
    }
    if (error instanceof DeviceError) return true;
    this.coverage.count("drains compared");
    const bytes = new Uint8Array(this.shape.backingBytes);
    this.#backingMedium.peekDurable(0, bytes);
    let lost = new Set<number>();
    if (error) {
      const whole = await this.#readAll(cache);
      if (!whole) return false;
      lost = whole.lost;
    }
    const excuse = (cell: number) => lost.has(Math.floor(this.#oracle.offsetOf(cell) / sectorBytes));
    this.#oracle.checkCopy("after a drain the backing durably holds", bytes, excuse);
    if (error) return true;
    const { dirtyBlocks, zeroBlocks, tailSequence, headSequence } = cache.status().cache;
    if (dirtyBlocks + zeroBlocks > 0 || tailSequence !== headSequence) {
      throw new Violation(
        `after a drain ${dirtyBlocks} + ${zeroBlocks} blocks are dirty, tail ${tailSequence}, head ${headSequence}`,
      );
    }
    return true;
  }

  async #close(cache: Cache, session: Session): Promise<"closing" | "closed"> {
    this.note(() => "close");
    session.closing = true;
    const covered = this.#oracle.askFlush();
    const closing = settled(cache.close());
    if (!(await this.#pump(() => closing.settled && session.active === 0))) return "closing";
    if (closing.error) {
      if (this.shape.faulty && closing.error instanceof DeviceError) return "closing";
      throw new Violation(`close failed: ${closing.error}`);
    }
    this.#oracle.answerFlush(covered);
    this.#lastClosedInOrder = true;
    this.#clock.stop();
    return "closed";
  }

  // What a session needs.
  get random(): SeededRandom {
    return this.#random;
  }
  get oracle(): Oracle {
    return this.#oracle;
  }
  get clock(): SimClock {
    return this.#clock;
  }
}
