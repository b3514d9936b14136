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
import { DeviceError, RefusedError } from "../../src/errors.ts";
import { SeededRandom } from "../../src/random.ts";
import { blockBytes, mib, sectorBytes } from "../../src/units.ts";
import type { Coverage } from "./coverage.ts";
import { Faults } from "./faults.ts";
import { Fuse, type Spark, sparkOf } from "./fuse.ts";
import { kernelPool } from "./kernel_pool.ts";
import { withLegHabits } from "./leg_habits.ts";
import { Legs } from "./legs.ts";
import { endMachine } from "./outage.ts";
import { Oracle, Violation } from "./oracle.ts";
import { Session } from "./session.ts";
import { drainAndCompare } from "./drain_check.ts";
import { checkRecovery, saysLoss } from "./recovery_check.ts";
import { settled, WorldEnd } from "./settled.ts";
import { bend, type Habits } from "./profiles.ts";
import { drawFeatures, type Features, featureTunables, withFeatures } from "./features.ts";
import { drawShape, type Shape } from "./shape.ts";
import { SimClock } from "./sim_clock.ts";
import { EventDisk } from "./event_disk.ts";
import { Medium } from "./medium.ts";
import type { SimDisk } from "./sim_disk.ts";
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
  readonly shape: Shape & Habits & Features;
  readonly coverage: Coverage;
  readonly trace: string[] | undefined;
  readonly random: SeededRandom;
  readonly oracle: Oracle;
  readonly #legs: Legs;
  readonly #backingMedium: Medium;
  /** Of this life. */
  clock = new SimClock(0);
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
  #fuse: Fuse | undefined;
  /** Something rotted since the cache was closed in order. */
  #rotten = false;
  /** Something rotted, or was read or written wrongly, at some time. */
  mayBeDamaged = false;

  /** `faulty`: devices fail and rot, too. `light`: see {@linkcode drawShape}. */
  constructor(
    seed: number,
    faulty: boolean,
    coverage: Coverage,
    trace?: string[],
    light?: boolean,
    mirrored?: boolean,
  ) {
    this.seed = seed;
    this.coverage = coverage;
    this.trace = trace;
    this.random = new SeededRandom(seed);
    for (let i = 0; i < 8; i++) this.random.next();
    const bent = bend(drawShape(this.random, faulty, light), this.random);
    const legHabits = Legs.habitsOf(seed, mirrored);
    this.shape = withLegHabits(withFeatures(bent, drawFeatures(seed)), legHabits, seed);
    const { backingBytes, segmentBlocks, segmentCount } = this.shape;
    this.oracle = new Oracle(backingBytes, this.shape.odd);
    this.#legs = new Legs(this, mib + segmentBlocks * segmentCount * blockBytes, legHabits);
    this.#backingMedium = new Medium(backingBytes, "backing");
    this.note(() =>
      `world ${seed}${legHabits ? `, mirrored (${legHabits.name})` : ""}: ${JSON.stringify(this.shape)}`
    );
  }

  /** Lives until `crashes` have happened, or something is wrong. */
  async run(crashes = this.shape.light ? lightCrashesDefault : crashesDefault): Promise<WorldResult> {
    try {
      await this.#format();
      while (this.#crashes < crashes) await this.#live();
    } catch (error) {
      if (this.#violation === undefined && !(error instanceof WorldEnd)) {
        this.#violation = error instanceof Violation ? String(error) : (error as Error).stack ?? `${error}`;
      }
    }
    this.clock.stop();
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
  readonly note = (message: () => string): void => {
    this.trace?.push(`${this.clock.monotonicMs().toFixed(3).padStart(10)} ${message()}`);
  };

  readonly #tell = (message: string): void => this.note(() => message);

  /** Something that must not happen has happened. */
  wrong(message: string): void {
    this.#violation ??= message;
  }

  /** Something after which this life may be short. */
  happened(spark: Spark | undefined, tick = 0): void {
    if (spark === "flushed") this.#legs.flushed(this.#cache, tick);
    this.#budget = Math.min(this.#budget, this.#fuse?.note(spark) ?? Infinity);
  }

  /** A handle on a medium for this life. */
  disk(medium: Medium): SimDisk {
    const { random } = this;
    const { latencyMs } = this.shape;
    const slow = { ...this.#legs.slow, ...this.shape.slow };
    const disk = new EventDisk({
      medium,
      clock: this.clock,
      random,
      latencyMs: (kind) =>
        (slow[`${medium.name} ${kind}`] ?? 1) * latencyMs *
        (random.chance(0.03) ? 50 * random.below(8) / 8 : (1 + random.below(64)) / 64),
      onViolation: (message) => this.wrong(message),
    });
    const device = medium.name === "cache" ? 1 : medium.name === "mirror" ? 3 : 2;
    disk.fault = (_, call) => this.#legs.fault(medium.name, call) ?? this.#faults?.decide(medium.name, call);
    disk.onSync = () => this.#legs.syncing(medium.name);
    disk.onCall = (call) => {
      const { kind, offset, length } = call;
      this.happened(sparkOf(medium.name, call));
      this.mix(device, kind.length, offset, length);
      this.coverage.count(`${medium.name} ${kind}s`);
      this.note(() => `  ${medium.name} ${kind} ${offset}+${length}`);
    };
    return disk;
  }

  /** What the backing durably holds. */
  peekBacking(): Uint8Array {
    const bytes = new Uint8Array(this.shape.backingBytes);
    this.#backingMedium.peekDurable(0, bytes);
    return bytes;
  }

  /** Whether devices fail just now, or calls that have begun will. */
  get isFailing(): boolean {
    return this.#faults?.failing ?? false;
  }

  /** Runs events until `done` says so; false when the life ends first. */
  async pump(done: () => boolean): Promise<boolean> {
    let quiet = 0;
    for (;;) {
      for (let i = 0; i < this.shape.turns; i++) await null;
      // Time does not jump while code is on its way to its next call.
      let waitMs = this.clock.untilNextMs;
      for (let i = 0; waitMs > longMs && i < (waitMs > veryLongMs ? turnsMax * 50 : turnsMax); i++) {
        await null;
        waitMs = this.clock.untilNextMs;
      }
      if (this.#violation !== undefined) throw new Violation(this.#violation);
      if (done()) return true;
      if (this.#budget-- <= 0) return false;
      if (++quiet > eventsMax) {
        throw new Violation(`${eventsMax} events have passed and nothing came of them`);
      }
      this.#events++;
      if (!this.clock.step()) throw new Violation("nothing is left to happen, and a request still waits");
    }
  }

  async #format(): Promise<void> {
    this.clock = new SimClock(0);
    this.#budget = Infinity;
    const { cache, ...mirror } = this.#legs.fresh();
    const done = settled(
      formatDevices(cache, this.disk(this.#backingMedium), {
        ...mirror,
        segmentBlocks: this.shape.segmentBlocks,
        clock: this.clock,
        random: this.random.fill,
      }),
    );
    await this.pump(() => done.settled);
    if (done.error) throw done.error;
    // Something was there before, un-synced by nobody.
    const version = this.oracle.ask(0, this.oracle.cellCount, false);
    this.#backingMedium.poke(0, this.oracle.content(version.id, 0, this.oracle.cellCount));
    this.oracle.answer(version, true);
  }

  /** From power-on to power-off. */
  async #live(): Promise<void> {
    const random = this.random;
    this.#life++;
    this.clock = new SimClock(this.clock.monotonicMs() + 1);
    // Short lives end inside recovery; a third of them on purpose.
    const short = random.chance(this.#killed ? 0.5 : this.shape.light ? 0.3 : 0.15);
    // Opening takes some twenty events. A light world, where that is most of a life, counts from there on.
    this.#eventsOfWork = this.shape.light && !short ? 1 + random.below(2 * this.shape.lifeEvents) : Infinity;
    this.#budget = this.#eventsOfWork < Infinity
      ? eventsMax
      : 1 + random.below(short ? 30 : 2 * this.shape.lifeEvents);
    this.note(() => `life ${this.#life}, ${this.#budget} events`);
    this.#cache = undefined;
    this.#faults = this.shape.faulty
      ? new Faults(random, this.#legs.sizeBytes, this.shape.troubles, this.shape.bypassBytes > 0)
      : undefined;
    this.#fuse = random.chance(this.#legs.fuses ?? this.shape.fuses)
      ? new Fuse(random, this.shape.sparks ?? this.#legs.sparks)
      : undefined;
    if (this.#faults) this.coverage.count(`lives with ${this.#faults.trouble}`);
    this.mayBeDamaged ||= this.#faults?.damages ?? false;
    const outcome = await this.#session();
    if (this.#cache) this.coverage.life((this.#cache as Cache).status());
    this.#legs.stopped(this.#cache, this.shape.faulty);
    const misdirected = this.#faults?.misdirected ?? 0;
    this.#faults = undefined;
    if (misdirected > 0) {
      // In a crash, such a write could not be told from a torn one.
      if (outcome !== "closed") throw new WorldEnd();
      this.#rotten = true;
      this.#lastClosedInOrder = false;
    }
    if (outcome === "closed") {
      this.coverage.count("clean closes");
      this.#legs.rotOne();
      // Nothing un-synced may matter now.
      if (random.chance(0.5) || this.shape.faulty) this.#crash(outcome);
      if (this.shape.faulty && random.chance(0.6)) {
        this.#legs.decay(this.#tell);
        this.#noteRot("images rotten");
      }
    } else this.#crash(outcome);
  }

  #crash(outcome: string): void {
    const random = this.random;
    this.clock.stop();
    this.#crashes++;
    this.coverage.crashes++;
    this.coverage.count(`crashes while ${outcome}`);
    const media = [...this.#legs.media, this.#backingMedium];
    const end = endMachine(random, this.shape, media, this.#legs.any, this.coverage, this.#tell);
    this.#killed = end.killed;
    if (end.damage === "superblock") this.#lastClosedInOrder = false;
    else if (end.damage === "record") this.#noteRot("crashed images rotten");
    this.oracle.crash();
  }

  #noteRot(what: string): void {
    this.#rotten = this.mayBeDamaged = true;
    this.#lastClosedInOrder = false;
    this.coverage.count(what);
  }

  async #session(): Promise<"opening" | "checking" | "working" | "draining" | "closing" | "closed"> {
    const opened = await this.#open();
    if (typeof opened === "string") return opened;
    const cache = this.#cache = opened;
    this.#budget = Math.min(this.#budget, this.#eventsOfWork);
    this.happened("opened");
    this.#legs.opened(cache);
    this.#checkRecovery(cache);
    this.#rotten = this.#rotten && cache.readOnly;
    this.#lastClosedInOrder = false;
    if ((cache.readOnly || this.random.chance(0.85)) && !(await this.#checkContent(cache))) {
      return "checking";
    }
    if (cache.readOnly) return await this.#closeReadOnly(cache);
    if (this.#faults) this.#faults.active = true;
    const session = new Session(this, cache);
    for (let i = 0; i < this.shape.clients; i++) session.start();
    this.#legs.trouble(cache, this.clock, this.shape.latencyMs, () => session.stopping).catch((error) =>
      this.wrong(`${error.stack}`)
    );
    const { closes, lifeEvents } = this.shape;
    const until = this.random.chance(closes) ? this.#events + this.random.below(lifeEvents) : Infinity;
    let done = await this.pump(() => this.#events >= until);
    if (!done && session.oldestMs > slowMs) {
      // A crash now would hide a hang.
      this.#budget = eventsMax;
      this.coverage.count("lives prolonged for a slow request");
      const seen = session.oldest;
      done = await this.pump(() => session.oldest !== seen) && this.#events >= until;
    }
    if (!done) return "working";
    session.stopping = true;
    const patient = this.random.chance(0.7);
    if (patient && !(await this.pump(() => session.active === 0))) return "working";
    // From now on the devices behave; what went wrong before may show.
    if (this.#faults) this.#faults.active = this.#faults.active && this.random.chance(0.2);
    if (patient && this.random.chance(0.6)) {
      if (!(await drainAndCompare(this, cache, session))) return "draining";
    }
    return await this.#close(cache, session);
  }

  async #open(): Promise<Cache | "opening"> {
    if (this.#faults) {
      this.#faults.active = this.random.chance(0.1) && !this.#faults.flips;
    }
    let opening = settled(openCache(this.#options(this.#legs.plan())));
    let ended = await this.pump(() => opening.settled);
    const again = ended ? this.#legs.again(opening.error) : undefined;
    if (again) {
      opening = settled(openCache(this.#options(again)));
      ended = await this.pump(() => opening.settled);
    }
    if (!ended) {
      this.#lastClosedInOrder = false;
      return "opening";
    }
    const active = this.isFailing;
    if (this.#faults) this.#faults.active = false;
    if (opening.value) return opening.value;
    // A leg that cannot be read is one that is missing.
    const missing = this.#legs.mirrored && opening.error instanceof RefusedError;
    if (active && (opening.error instanceof DeviceError || missing)) {
      this.coverage.count("opens failed by a device");
      this.#lastClosedInOrder = false;
      return "opening";
    }
    // Damage upon damage may leave no room to write down what is lost: then there is no way but recover.
    if (this.#rotten && (opening.error instanceof RefusedError || /log is full/.test(`${opening.error}`))) {
      this.coverage.count("opens refused after rot");
      throw new WorldEnd();
    }
    throw new Violation(`open failed: ${opening.error}`);
  }

  #options(legs: Partial<EngineOptions> & { cache: SimDisk }): EngineOptions {
    return {
      ...legs,
      backing: this.disk(this.#backingMedium),
      tunables: { ...this.shape.tunables, ...featureTunables(this.shape, this.#faults?.trouble) },
      clock: this.clock,
      random: this.random.fill,
      bufferCount: this.shape.bufferCount,
      unsyncedBlocks: this.shape.unsyncedBlocks,
      makeKernels: kernelPool.take,
      acceptDamage: this.random.chance(0.7),
      warn: (message) => {
        this.note(() => `warning: ${message}`);
        this.#legs.warned(message);
        if (saysLoss(message) && !this.mayBeDamaged) this.wrong(`the engine says: ${message}`);
      },
    };
  }

  #checkRecovery(cache: Cache): void {
    const { records, kept, dropped, dirtyBlocks } = cache.recovery;
    this.mix(records, kept, dropped, dirtyBlocks);
    this.note(() => `opened: ${JSON.stringify(cache.recovery)}`);
    this.coverage.recovery(cache.recovery);
    checkRecovery(cache, {
      mayBeDamaged: this.mayBeDamaged,
      closedInOrder: this.#lastClosedInOrder,
      rotten: this.#rotten,
    });
  }

  /** Reads all of the volume, as the first thing after opening. False when the life ends before. */
  async #checkContent(cache: Cache): Promise<boolean> {
    const whole = await this.readAll(cache);
    if (!whole) return false;
    const { lost } = whole;
    const unreadable = (cell: number) => lost.has(Math.floor(this.oracle.offsetOf(cell) / sectorBytes));
    this.oracle.recovered(whole.bytes, unreadable, !cache.readOnly);
    return true;
  }

  /** The whole content, and which sectors cannot be read. */
  async readAll(cache: Cache): Promise<Whole | undefined> {
    const reading = settled(readWhole(cache, this.shape.backingBytes, this.shape.faulty));
    if (!(await this.pump(() => reading.settled))) return undefined;
    if (!reading.value) throw new Violation(`the read after opening failed: ${reading.error}`);
    if (reading.value.lost.size > 0) this.coverage.count("checks with lost sectors");
    return reading.value;
  }

  async #closeReadOnly(cache: Cache): Promise<"closing" | "closed"> {
    const closing = settled(cache.close());
    const ended = await this.pump(() => closing.settled);
    if (ended && closing.error) throw new Violation(`close failed: ${closing.error}`);
    return "closing";
  }

  async #close(cache: Cache, session: Session): Promise<"closing" | "closed"> {
    this.note(() => "close");
    session.closing = true;
    this.happened("closing");
    const covered = this.oracle.askFlush();
    const closing = settled(cache.close());
    if (!(await this.pump(() => closing.settled && session.active === 0))) return "closing";
    if (closing.error) {
      if (this.shape.faulty && closing.error instanceof DeviceError) return "closing";
      throw new Violation(`close failed: ${closing.error}`);
    }
    this.oracle.answerFlush(covered);
    this.#lastClosedInOrder = true;
    this.clock.stop();
    return "closed";
  }
}
