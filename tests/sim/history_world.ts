/**
 * The past in the simulator: random lives of one cache, of which every flush point is remembered as an image; views of the
 * running cache, openings as of a flush point and rewinds are compared with it, across clean closes, kills, power cuts and
 * crashes in the middle of a rewind.
 *
 * Invariants held against the engine:
 * - What a flush point shows is the image of that moment, or an error; an error only once the floor has passed it.
 * - What was servable while history was held stays so until it is released, whatever happens.
 * - After a rewind, or a crash in one, the volume is the flush point's image or the present's, nothing else.
 * - All of that holds for a mirror, too, with whichever of its legs has everything.
 *
 * @module
 */

import type { Cache } from "../../src/cache/cache.ts";
import type { FrozenVolume } from "../../src/cache/cache_history.ts";
import { type HistoryReport, listHistory } from "../../src/cache/flush_points.ts";
import { type EngineOptions, openCache } from "../../src/cache/open.ts";
import { planRewind, rewindCache } from "../../src/cache/rewind.ts";
import { DeviceError, RefusedError } from "../../src/errors.ts";
import { SeededRandom } from "../../src/random.ts";
import { blockBytes, sectorBytes } from "../../src/units.ts";
import { assert, assertEquals } from "../assert.ts";
import { kernelPool } from "./kernel_pool.ts";
import type { HistoryCounts } from "./history_counts.ts";
import { HistoryLegs } from "./history_legs.ts";
import { Machine, type MachineDevices } from "./machine.ts";
import { crashPolicies } from "./medium.ts";

const livesMax = 6;
const stepsMax = 60;
/** Share of steps after which something happens to a leg. */
const legsShare = 0.06;

/** In every third world most changes go to so many bytes, and versions are superseded before they are written back. */
function hotBytesOf(seed: number): number {
  return seed % 3 === 0 ? 3 * blockBytes : 0;
}

/** Every second world has a mirror. */
function isMirrored(seed: number): boolean {
  return seed % 2 === 0;
}

/** Lives through one world; throws at the first thing that is wrong. */
export async function liveHistory(seed: number, counts: HistoryCounts): Promise<void> {
  await new HistoryWorld(seed, counts).run();
}

class HistoryWorld {
  readonly #random: SeededRandom;
  readonly #machine: Machine;
  readonly #legs: HistoryLegs;
  readonly #counts: HistoryCounts;
  readonly #sizeBytes: number;
  readonly #hotBytes: number;
  #image: Uint8Array<ArrayBuffer>;
  /** What the volume was at each flush point of this past. */
  #points = new Map<number, Uint8Array<ArrayBuffer>>();
  /** Those that a rewind took away: who remembers one must hear of all that changed since, or nothing. */
  #undone = new Map<number, Uint8Array<ArrayBuffer>>();
  /** From this sequence on all points must be servable; Infinity while history is not held. */
  #heldFrom = Infinity;
  /** Flush points that were in the last list. */
  #listed = new Set<number>();
  #views: FrozenVolume[] = [];
  /** The last life was killed: what it did not flush is there, until the power goes. */
  #killed = false;
  #crashed = false;

  constructor(seed: number, counts: HistoryCounts) {
    this.#random = new SeededRandom(seed);
    for (let i = 0; i < 8; i++) this.#random.next();
    this.#counts = counts;
    this.#sizeBytes = (24 + this.#random.below(80)) * blockBytes - this.#random.below(8) * sectorBytes;
    this.#hotBytes = hotBytesOf(seed);
    this.#image = new Uint8Array(this.#sizeBytes);
    this.#machine = new Machine({
      backingBytes: this.#sizeBytes,
      segmentBlocks: [4, 8, 16][this.#random.below(3)]!,
      segmentCount: 8 + this.#random.below(this.#hotBytes > 0 ? 4 : 40),
      seed,
      mirrored: isMirrored(seed),
    });
    this.#legs = new HistoryLegs(this.#machine, new SeededRandom(~seed), counts);
  }

  async run(): Promise<void> {
    await this.#machine.format();
    for (let life = 0; life < livesMax; life++) {
      const cache = await this.#open({
        tunables: {
          writeback: (["auto", "on", "off"] as const)[this.#random.below(3)]!,
          fullTimeout: 2,
          bypassSequential: this.#random.chance(0.3) ? 2 * blockBytes : 0,
          readCacheThreshold: this.#random.chance(0.3) ? 64 : 0,
        },
      });
      await this.#comePresent(cache);
      for (let step = this.#random.below(stepsMax); step > 0; step--) {
        await this.#step(cache);
        if (this.#random.chance(legsShare)) await this.#legs.step(cache);
      }
      await this.#end(cache);
      await this.#lookBack();
      if (this.#random.chance(0.5)) await this.#rewind();
      assertEquals(this.#machine.violations, []);
    }
  }

  #open(options: Partial<EngineOptions>): Promise<Cache> {
    this.#legs.plan(options.readOnly !== true);
    return this.#machine.open({ makeKernels: kernelPool.take, ...options });
  }

  #begin<T>(writes: boolean, action: (devices: MachineDevices) => Promise<T>): Promise<T> {
    this.#legs.plan(writes);
    return this.#machine.begin(action);
  }

  /** What was not flushed may be there or not; from here on it is what it is. */
  async #comePresent(cache: Cache): Promise<void> {
    this.#image = await this.#whole(cache);
    if (!cache.status().history.held) this.#heldFrom = Infinity;
    else assert(this.#heldFrom < Infinity, "history is held, and nobody asked for that");
  }

  async #whole(volume: { read(offset: number, into: Uint8Array): Promise<void> }) {
    const bytes = new Uint8Array(this.#sizeBytes);
    await this.#machine.run(volume.read(0, bytes));
    return bytes;
  }

  async #step(cache: Cache): Promise<void> {
    const random = this.#random;
    const kind = random.below(40);
    if (kind < 13) return await this.#write(cache);
    if (kind < 14) return await this.#stream(cache);
    if (kind < 17) return await this.#zero(cache);
    if (kind < 25) return await this.#flush(cache);
    if (kind < 28) return await this.#machine.pass(random.below(1500));
    if (kind < 29) return await this.#hold(cache);
    if (kind < 30) return await this.#release(cache);
    if (kind < 31) {
      if (!cache.status().history.held) await this.#machine.run(cache.drain());
      else await this.#refused(cache.drain());
      return;
    }
    if (kind < 36) return await this.#view(cache);
    if (kind < 38) return await this.#changesSince(cache);
    await this.#readViews(cache);
  }

  /** A change of the volume; a full log that is held may refuse it after a while. */
  async #change(cache: Cache, change: Promise<void>, apply: () => void): Promise<void> {
    try {
      await this.#machine.run(change);
      apply();
    } catch (error) {
      const isFull = error instanceof DeviceError && cache.status().history.held;
      if (!isFull) throw error;
      // Some of its blocks may have been taken.
      this.#image = await this.#whole(cache);
    }
    if (!cache.status().history.held) this.#heldFrom = Infinity;
  }

  #range(): { offset: number; length: number } {
    const random = this.#random;
    const unit = [1, sectorBytes, blockBytes][random.below(3)]!;
    const limit = this.#hotBytes > 0 && random.chance(0.9) ? this.#hotBytes : this.#sizeBytes;
    const offset = random.below(Math.ceil(limit / unit)) * unit;
    const length = unit === 1 ? 1 + random.below(9000) : (1 + random.below(12)) * unit;
    return { offset, length: Math.min(length, this.#sizeBytes - offset) };
  }

  async #write(cache: Cache): Promise<void> {
    const { offset, length } = this.#range();
    const bytes = new Uint8Array(length);
    this.#random.fill(bytes);
    await this.#change(cache, cache.write(offset, bytes), () => this.#image.set(bytes, offset));
  }

  /** Writes one after the other, which may go past the log. */
  async #stream(cache: Cache): Promise<void> {
    const length = 2 * blockBytes;
    let offset = this.#random.below(Math.floor(this.#sizeBytes / blockBytes)) * blockBytes;
    for (let i = 0; i < 5 && offset + length <= this.#sizeBytes; i++, offset += length) {
      const bytes = new Uint8Array(length);
      this.#random.fill(bytes);
      const at = offset;
      await this.#change(cache, cache.write(at, bytes), () => this.#image.set(bytes, at));
    }
    this.#counts.bypassed += cache.status().blocks.bypassed > 0 ? 1 : 0;
  }

  async #zero(cache: Cache): Promise<void> {
    const { offset, length } = this.#random.chance(0.1)
      ? { offset: 0, length: this.#sizeBytes }
      : this.#range();
    const change = this.#random.chance(0.5) ? cache.trim(offset, length) : cache.zero(offset, length);
    await this.#change(cache, change, () => this.#image.fill(0, offset, offset + length));
  }

  async #flush(cache: Cache): Promise<void> {
    await this.#machine.run(cache.flush());
    this.#points.set(cache.status().cache.durableSequence, this.#image.slice());
  }

  async #hold(cache: Cache): Promise<void> {
    await this.#flush(cache);
    const { oldestSequence } = await this.#machine.run(cache.history.hold());
    // The record of the oldest may have left the log before.
    this.#heldFrom = Math.max(oldestSequence, cache.status().cache.tailSequence);
    if (this.#random.chance(0.3)) cache.tune({ historyFull: this.#random.chance(0.5) ? "wait" : "release" });
  }

  async #release(cache: Cache): Promise<void> {
    await this.#machine.run(cache.history.release());
    this.#heldFrom = Infinity;
  }

  async #refused(promise: Promise<unknown>): Promise<void> {
    const error = await this.#machine.run(promise.then(() => undefined, (error) => error));
    assert(error instanceof RefusedError, `expected a refusal, and it was ${error}`);
    this.#counts.refusals++;
  }

  /** Opens a view of a listed flush point, beside something else. */
  async #view(cache: Cache): Promise<void> {
    const report = await this.#machine.run(cache.history.list({ limit: 0 }));
    this.#checkHeld(report);
    const { points } = report;
    const point = points[this.#random.below(points.length || 1)];
    if (!point) return;
    const made = cache.history.view(point.sequence).then((view) => view, (error) => error);
    // The tail may move while the log is read.
    if (this.#random.chance(0.5) && !cache.status().history.held) {
      await this.#machine.run(Promise.allSettled([made, cache.drain()]));
    }
    const view: FrozenVolume | Error = await this.#machine.run(made);
    const { oldestSequence } = cache.status().history;
    if (view instanceof Error) {
      this.#counts.refusals++;
      const isRefused = view instanceof RefusedError || view instanceof DeviceError;
      assert(isRefused, `${view.stack}`);
      assert(
        point.sequence < Math.max(oldestSequence, cache.status().cache.tailSequence) ||
          /looked at/.test(view.message),
        `flush point ${point.sequence} can be had from ${oldestSequence} on, and: ${view}`,
      );
      return;
    }
    this.#counts.views++;
    this.#views.push(view);
    await this.#readView(cache, view);
    if (this.#random.chance(0.4)) this.#views.splice(0).forEach((each) => each.close());
  }

  async #readViews(cache: Cache): Promise<void> {
    for (const view of [...this.#views]) await this.#readView(cache, view);
  }

  async #readView(cache: Cache, view: FrozenVolume): Promise<void> {
    const image = this.#points.get(view.sequence);
    const bytes = new Uint8Array(this.#sizeBytes);
    const read = view.read(0, bytes).then(() => undefined, (error) => error);
    // Write-back may go on meanwhile.
    if (this.#random.chance(0.3)) await this.#machine.pass(this.#random.below(1000));
    const error: unknown = await this.#machine.run(read);
    if (error !== undefined) {
      assert(error instanceof DeviceError && error.code === "EIO", `${error}`);
      const { oldestSequence } = cache.status().history;
      assert(view.sequence < oldestSequence, `${error.message}, and the floor is ${oldestSequence}`);
      this.#counts.endedViews++;
      this.#views = this.#views.filter((each) => each !== view);
      view.close();
      return;
    }
    if (image) assertSame(bytes, image, `the view of flush point ${view.sequence}`);
  }

  /** What is not called changed did not change, between two flush points or since one. */
  async #changesSince(cache: Cache): Promise<void> {
    const known = [...this.#points, ...this.#undone];
    const [sequence, image] = known[this.#random.below(known.length || 1)] ?? [];
    if (sequence === undefined || !image || !cache.knowsChangesSince(sequence)) return;
    const runs = await this.#machine.run(
      cache.changesSince(sequence, 0, this.#sizeBytes, 10_000).catch(() => undefined),
    );
    if (!runs) return;
    this.#counts.changes++;
    let position = 0;
    for (const { length, marked } of runs) {
      const end = position + length;
      if (!marked) {
        const [was, is] = [image.subarray(position, end), this.#image.subarray(position, end)];
        assertSame(is, was, `what did not change after ${sequence}, from ${position} on,`);
      }
      position = end;
    }
    assertEquals(position, this.#sizeBytes);
  }

  #checkHeld({ points, tailSequence }: HistoryReport): void {
    if (this.#heldFrom === Infinity) return;
    for (const { sequence, servable } of points) {
      const held = servable || sequence < this.#heldFrom;
      assert(held, `flush point ${sequence} was held from ${this.#heldFrom} on`);
    }
    const listed = new Set(points.map(({ sequence }) => sequence));
    for (const sequence of this.#points.keys()) {
      if (sequence < this.#heldFrom) continue;
      // A flush that finds all of it in records adds no flush point.
      const isThere = listed.has(sequence) || !this.#listed.has(sequence);
      assert(isThere && sequence + 1 >= tailSequence, `flush point ${sequence} left the log`);
    }
    this.#listed = listed;
  }

  async #end(cache: Cache): Promise<void> {
    this.#views = [];
    const held = cache.status().history.held;
    if (!held) this.#heldFrom = Infinity;
    const way = this.#random.below(4);
    assertSame(await this.#whole(cache), this.#image, "the present, at the end of a life,");
    this.#killed = this.#crashed = false;
    if (way < 2) {
      await this.#machine.run(cache.close());
      this.#legs.ended(cache);
      return;
    }
    if (held) this.#counts.heldCrashes++;
    if (way === 2) {
      // Something may be under way.
      void cache.flush().catch(() => {});
      await this.#machine.steps(this.#random.below(6));
    }
    this.#crash(this.#random.chance(0.3));
    this.#legs.ended(cache);
  }

  #crash(kill: boolean): void {
    this.#killed = kill;
    this.#crashed = true;
    this.#counts.crashes++;
    if (kill) this.#machine.kill();
    else this.#machine.powerCut(crashPolicies[this.#random.below(crashPolicies.length)]!);
  }

  /** Opens flush points offline. */
  async #lookBack(): Promise<void> {
    const report = await this.#list();
    this.#checkHeld(report);
    for (const { sequence, servable } of report.points) {
      const image = this.#points.get(sequence);
      if (this.#random.chance(0.6)) continue;
      if (!servable) {
        await this.#refused(
          this.#begin(false, (both) => openCache({ ...both, readOnly: true, at: sequence })),
        );
        continue;
      }
      const past = await this.#open({ readOnly: true, at: sequence });
      const bytes = await this.#whole(past);
      await this.#machine.run(past.close());
      this.#counts.offline++;
      if (image) assertSame(bytes, image, `flush point ${sequence}, offline,`);
    }
    const future = report.headSequence + this.#random.below(3);
    await this.#refused(this.#begin(false, (both) => openCache({ ...both, readOnly: true, at: future })));
  }

  #list() {
    return this.#machine.run(listHistory({ cache: this.#machine.cacheDisk(this.#legs.good), limit: 0 }));
  }

  /** What a rewind would undo is told by the leg that counts. */
  async #plan({ points }: HistoryReport, to: number): Promise<void> {
    const plan = await this.#machine.run(this.#begin(false, (devices) => planRewind({ ...devices, to })));
    // A crash may leave the newest records on one leg alone.
    if (this.#crashed) return;
    assertEquals(plan.undoneFlushPoints, points.filter(({ sequence }) => sequence > to).length);
  }

  async #rewind(): Promise<void> {
    const report = await this.#list();
    const candidates = report.points.filter(({ sequence, servable }) =>
      servable && this.#points.has(sequence)
    );
    const point = candidates[this.#random.below(candidates.length || 1)];
    if (!point) return;
    const image = this.#points.get(point.sequence)!;
    const present = await this.#open({ readOnly: true });
    const before = await this.#whole(present);
    await this.#machine.run(present.close());
    if (this.#random.chance(0.3)) await this.#plan(report, point.sequence);
    const rewind = this.#begin(true, (devices) => rewindCache({ ...devices, to: point.sequence }));
    const crashes = this.#random.chance(0.6);
    if (crashes) {
      rewind.catch(() => {});
      await this.#machine.steps(this.#random.below(60));
      this.#crash(this.#killed);
      this.#counts.crashedRewinds++;
    } else await this.#machine.run(rewind);
    this.#counts.rewinds++;
    const after = await this.#open({});
    const bytes = await this.#whole(after);
    const isNew = isSame(bytes, image);
    assert(
      isNew || (crashes && isSame(bytes, before)),
      `a rewind to ${point.sequence} shows neither past nor present`,
    );
    if (isNew && !isSame(bytes, before)) this.#counts.rewindsThatCount++;
    const isHeld = after.status().history.held;
    assert(isHeld === report.held, "a rewind neither holds nor releases");
    await this.#machine.run(after.close());
    this.#legs.ended(after);
    // What came after the flush point is void: later records take the same numbers.
    const { headSequence } = await this.#list();
    for (const sequence of this.#points.keys()) {
      if (sequence < headSequence) continue;
      this.#undone.set(sequence, this.#points.get(sequence)!);
      this.#points.delete(sequence);
      this.#listed.delete(sequence);
    }
    if (isHeld) this.#checkHeld(await this.#list());
  }
}

function isSame(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

function assertSame(actual: Uint8Array, expected: Uint8Array, what: string): void {
  const at = actual.findIndex((byte, i) => byte !== expected[i]);
  assert(at < 0, `${what} differs at byte ${at} (block ${Math.floor(at / blockBytes)})`);
}
