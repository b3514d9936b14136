/**
 * The clients of one life of a simulated machine: each asks for one random thing after the other, and tells the oracle.
 *
 * @module
 */

import type { Cache } from "../../src/cache/cache.ts";
import { DamageError, DeviceError } from "../../src/errors.ts";
import { blockBytes } from "../../src/units.ts";
import { type Version, Violation } from "./oracle.ts";
import { type RequestKind, requestKinds } from "./shape.ts";
import type { SimClock } from "./sim_clock.ts";
import type { World } from "./world.ts";

/** Virtual time after which a request counts as hung: twice what a full log may make a writer wait. */
const hungMs = 80_000;
/** The same, when devices fail now and then, and each try is made after a longer pause. */
const hungFaultyMs = 1_000_000;

/** The clients of one life. */
export class Session {
  readonly #world: World;
  readonly #cache: Cache;
  readonly #clock: SimClock;
  #requests = 0;
  /** Requests under way, oldest first, with the time at which they were made. */
  readonly #pending = new Map<number, number>();
  /** Clients still at work. */
  active = 0;
  /** Where the stream of writes goes on, in cells. */
  #streamAt = 0;
  stopping = false;
  closing = false;

  constructor(world: World, cache: Cache) {
    this.#world = world;
    this.#cache = cache;
    this.#clock = world.clock;
  }

  /** The oldest request under way, 0 for none. */
  get oldest(): number {
    for (const number of this.#pending.keys()) return number;
    return 0;
  }

  /** How long it has been waiting. */
  get oldestMs(): number {
    for (const sinceMs of this.#pending.values()) return this.#clock.monotonicMs() - sinceMs;
    return 0;
  }

  /** Starts one client. */
  start(): void {
    this.active++;
    void this.#work().catch((error) => {
      if (!this.#clock.stopped) {
        this.#world.wrong(error instanceof Error ? error.stack ?? error.message : String(error));
      }
    }).finally(() => this.active--);
  }

  async #work(): Promise<void> {
    const { random } = this.#world;
    while (!this.stopping && !this.#clock.stopped) {
      const kind = this.#drawKind();
      const number = ++this.#requests;
      const limitMs = this.#world.shape.faulty ? hungFaultyMs : hungMs;
      const cancel = this.#clock.after(
        limitMs,
        () => this.#world.wrong(`request ${number}, a ${kind}, hangs for ${limitMs} ms`),
      );
      if (kind !== "pause") this.#pending.set(number, this.#clock.monotonicMs());
      try {
        await this.#request(kind, number);
      } catch (error) {
        const expected = error instanceof DeviceError ||
          (error instanceof DamageError && this.#world.shape.faulty);
        if (!expected && !/closing/.test(`${error}`)) throw error;
        if (expected) this.#world.coverage.count("requests failed");
        this.#world.note(() => `#${number} failed: ${error}`);
        if (!this.closing && !this.#world.shape.faulty) {
          throw new Violation(`request ${number}, a ${kind}, failed on good devices: ${error}`);
        }
        if (this.closing && error instanceof DeviceError && error.code === "ESHUTDOWN") return;
      } finally {
        cancel();
        this.#pending.delete(number);
      }
      if (random.chance(0.2)) await this.#pause(random.below(8) / 8);
    }
  }

  #drawKind(): RequestKind {
    const { weights } = this.#world.shape;
    let total = 0;
    for (const kind of requestKinds) total += weights[kind];
    let at = this.#world.random.next() / 0x1_0000_0000 * total;
    for (const kind of requestKinds) if ((at -= weights[kind]) < 0) return kind;
    return "write";
  }

  #pause(ms: number): Promise<void> {
    return new Promise((resolve) => this.#clock.after(ms, resolve));
  }

  /** Cells of a random request. */
  #drawRange(): { first: number; end: number } {
    const { random, oracle, shape } = this.#world;
    const { cellCount } = oracle;
    const perBlock = oracle.cellOf(8);
    const limit = random.chance(shape.hot)
      ? Math.min(cellCount, Math.max(perBlock, cellCount >>> 2))
      : cellCount;
    const style = random.below(10);
    let first = random.below(limit);
    let length: number;
    if (style < 4) {
      first -= first % perBlock;
      length = perBlock * (1 + random.below(shape.requestBlocksMax));
    } else if (style < 7) length = 1 + random.below(perBlock);
    else length = 1 + random.below(perBlock * shape.requestBlocksMax);
    return { first, end: Math.min(first + length, cellCount) };
  }

  /** The next cells of the stream that clients write together, whole blocks. */
  #drawStream(): { first: number; end: number } {
    const { random, oracle, shape } = this.#world;
    const first = this.#streamAt;
    const length = oracle.cellOf(8) * (1 + random.below(shape.requestBlocksMax + 1));
    const end = Math.min(first + length, oracle.cellCount);
    this.#streamAt = end === oracle.cellCount ? 0 : end;
    return { first, end };
  }

  #request(kind: RequestKind, number: number): Promise<void> {
    const { random } = this.#world;
    const fua = random.chance(0.08);
    switch (kind) {
      case "write":
        return this.#write(number, fua);
      case "trim":
      case "zero":
        return this.#zero(number, kind, fua);
      case "read":
        return this.#read(number);
      case "flush":
        return this.#flush(number);
      case "drain":
        return this.#drain(number);
      case "look":
        return this.#look();
      case "pause":
        return this.#pause(this.#world.shape.pauseMs * random.below(16) / 8);
    }
  }

  #answer(number: number, version: Version, durable: boolean): void {
    if (this.#clock.stopped) return;
    const { oracle } = this.#world;
    oracle.answer(version, durable);
    // What is answered while the cache closes is durable only if the close says so.
    this.#world.mix(number, version.answered);
    this.#world.note(() => `#${number} ok`);
  }

  async #write(number: number, fua: boolean): Promise<void> {
    const { oracle, random, shape } = this.#world;
    const isStream = shape.streams > 0 && random.chance(shape.streams);
    const { first, end } = isStream ? this.#drawStream() : this.#drawRange();
    const version = oracle.ask(first, end, false);
    const bytes = oracle.content(version.id, first, end);
    const offset = oracle.offsetOf(first);
    this.#world.note(() =>
      `#${number} write id ${version.id} ${show(offset, bytes.length)}${fua ? " FUA" : ""}`
    );
    this.#world.mix(number, offset, bytes.length);
    if (!fua && random.chance(0.3) && this.#writeNow(number, offset, bytes)) {
      this.#answer(number, version, false);
      return;
    }
    await this.#cache.write(offset, bytes, fua ? { fua } : {});
    this.#answer(number, version, fua);
  }

  /** As the server does it, out of memory that the cache lends, or as a program may. */
  #writeNow(number: number, offset: number, bytes: Uint8Array): boolean {
    const cache = this.#cache;
    const lent = number % 4 === 0 ? null : cache.lendBuffer();
    if (lent === null) return cache.writeNow(offset, bytes, 0, bytes.length);
    const at = number % 61;
    lent.set(bytes, at);
    cache.announce(new Float64Array([offset, offset + bytes.length]), 2);
    const done = cache.writeNow(offset, lent, at, bytes.length);
    // Nothing may look at it any more, whatever came of it.
    lent.fill(0xee);
    cache.returnBuffer(lent);
    if (done) this.#world.coverage.count("writes out of lent memory");
    return done;
  }

  async #zero(number: number, kind: "zero" | "trim", fua: boolean): Promise<void> {
    const { oracle, random } = this.#world;
    const { first, end } = random.chance(0.05) ? { first: 0, end: oracle.cellCount } : this.#drawRange();
    const offset = oracle.offsetOf(first);
    const length = oracle.offsetOf(end) - offset;
    const version = oracle.ask(first, end, true);
    this.#world.note(() => `#${number} ${kind} ${show(offset, length)}${fua ? " FUA" : ""}`);
    this.#world.mix(number, offset, length);
    const options = fua ? { fua } : {};
    if (kind === "trim") await this.#cache.trim(offset, length, options);
    else await this.#cache.zero(offset, length, { ...options, keepAllocated: random.chance(0.5) });
    this.#answer(number, version, fua);
  }

  /** Reads without a promise of the cache's, where it can; false when `read` must be used. */
  #readSoon(offset: number, bytes: Uint8Array): Promise<boolean> {
    return new Promise((resolve) => {
      const readEnded = (_tag: number, memory: Uint8Array, at: number) => {
        if (at >= 0) bytes.set(memory.subarray(at, at + bytes.length));
        this.#world.coverage.count(at >= 0 ? "reads by a call" : "reads by a call that failed");
        resolve(at >= 0);
      };
      if (!this.#cache.readSoon(offset, bytes.length, { readEnded }, 0)) resolve(false);
    });
  }

  /** The same, straight into memory that the cache lends. */
  #readInto(offset: number, bytes: Uint8Array): Promise<boolean> {
    return new Promise((resolve) => {
      const cache = this.#cache;
      const lent = cache.lendBuffer();
      if (lent === null) return resolve(false);
      const start = this.#world.random.below(lent.length - bytes.length);
      const readEnded = (_tag: number, memory: Uint8Array, at: number) => {
        if (at >= 0) bytes.set(memory.subarray(at, at + bytes.length));
        this.#world.coverage.count(at >= 0 ? "reads into lent memory" : "reads into lent memory that failed");
        cache.returnBuffer(lent);
        resolve(at >= 0);
      };
      if (cache.readInto(offset, lent, start, bytes.length, { readEnded }, 0)) return;
      cache.returnBuffer(lent);
      resolve(false);
    });
  }

  async #read(number: number): Promise<void> {
    const { oracle, random, shape } = this.#world;
    const { first, end } = this.#drawRange();
    const offset = oracle.offsetOf(first);
    if (shape.prefetches > 0 && random.chance(shape.prefetches)) {
      this.#world.note(() => `#${number} prefetch ${show(offset, oracle.offsetOf(end) - offset)}`);
      return await this.#cache.prefetch(offset, oracle.offsetOf(end) - offset);
    }
    const bytes = new Uint8Array(oracle.offsetOf(end) - offset);
    const asked = oracle.askRead();
    this.#world.note(() => `#${number} read ${show(offset, bytes.length)}`);
    try {
      const now = random.chance(0.3) && this.#cache.readNow(offset, bytes, 0, bytes.length);
      const soon = random.chance(0.5);
      const done = now || (soon && await this.#readSoon(offset, bytes)) ||
        (!soon && random.chance(0.7) && await this.#readInto(offset, bytes));
      if (!done) await this.#cache.read(offset, bytes);
    } catch (error) {
      if (!this.#clock.stopped) oracle.endRead(asked);
      throw error;
    }
    if (this.#clock.stopped) return;
    this.#world.mix(number, bytes[0]!, bytes[bytes.length - 1]!);
    oracle.checkRead(first, end, bytes, asked);
    this.#world.note(() => `#${number} ok`);
  }

  async #flush(number: number): Promise<void> {
    const { oracle } = this.#world;
    const covered = oracle.askFlush();
    this.#world.note(() => `#${number} flush`);
    await this.#cache.flush();
    if (this.#clock.stopped) return;
    oracle.answerFlush(covered);
    this.#world.happened("flushed", Math.max(0, ...covered.map(({ answered }) => answered)));
    this.#world.mix(number, covered.length);
    this.#world.note(() => `#${number} ok`);
    this.#world.coverage.count("flushes");
  }

  async #drain(number: number): Promise<void> {
    const { oracle } = this.#world;
    const covered = oracle.askFlush();
    this.#world.note(() => `#${number} drain`);
    await this.#cache.drain();
    if (this.#clock.stopped) return;
    oracle.answerFlush(covered);
    this.#world.note(() => `#${number} ok`);
    this.#world.coverage.count("drains among clients");
  }

  /** Whatever went wrong before: a cache whose devices behave takes a write, and makes it durable. */
  async probe(): Promise<void> {
    const { oracle } = this.#world;
    const version = oracle.ask(0, oracle.cellOf(1), false);
    this.#world.note(() => "a write that must succeed");
    await this.#cache.write(0, oracle.content(version.id, 0, oracle.cellOf(1)), { fua: true });
    if (!this.#clock.stopped) oracle.answer(version, true);
  }

  /** What needs no wait: status, and extents, which must tell the truth at this moment. */
  async #look(): Promise<void> {
    const { oracle, coverage } = this.#world;
    coverage.count(`state ${this.#cache.status().state}`);
    const extents = this.#cache.extents(0, oracle.sizeBytes, 10_000);
    const blocks = Math.ceil(oracle.sizeBytes / blockBytes);
    const may = Array.from({ length: blocks }, (_, block) => {
      for (
        let cell = oracle.cellOf(block * 8);
        cell < Math.min(oracle.cellOf(block * 8 + 8), oracle.cellCount);
        cell++
      ) {
        if (!oracle.mayBeZero(cell)) return false;
      }
      return true;
    });
    let position = 0;
    for (const { length, zero } of await extents) {
      for (let block = position / blockBytes; zero && block < (position + length) / blockBytes; block++) {
        if (!may[block]) throw new Violation(`extents call block ${block} zero, and it is not`);
      }
      position += length;
    }
    if (position !== oracle.sizeBytes) {
      throw new Violation(`extents end at ${position} of ${oracle.sizeBytes}`);
    }
  }
}

function show(offset: number, length: number): string {
  return `${offset}+${length} (block ${Math.floor(offset / blockBytes)}..${
    Math.floor((offset + length - 1) / blockBytes)
  })`;
}
