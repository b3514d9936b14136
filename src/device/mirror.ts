/**
 * A device made of two: everything is written to both legs, and either alone has all that was synced. One may be lost, and
 * another take its place, while the other goes on.
 *
 * Invariants:
 * - A sync succeeds when all legs in service have synced, and, if one leg alone is left, its marks durably say so.
 * - A leg whose write or sync fails is dropped, loudly, unless it is the last: then the call fails (log-rules.md 15).
 * - A leg that is copied to counts only when the copy is complete and durable and both legs' marks say `together`. Before it
 *   is marked at all, the other one says durably that it is alone; from before the first byte is copied it gets every write.
 * - Marks are written by this file alone, one change after the other.
 *
 * @module
 */

import type { Clock } from "../clock.ts";
import { assert, DeviceError } from "../errors.ts";
import type { TransferEnd } from "../io/io.ts";
import { type LegMark, writeLegMarks } from "../log/leg_mark.ts";
import type { DeviceIdentity, EventDevice } from "./block_device.ts";
import type { Copy, RedundantDevice } from "./copies.ts";
import { Leg, type LegStatus, type MissingLeg } from "./leg.ts";
import { type CopyProgress, copyToLeg, type Range } from "./mirror_copy.ts";
import { MirrorTransfers, type Turn } from "./mirror_transfers.ts";
import { assertRange } from "./range.ts";

/** How often a leg that may be away is looked at, while something is under way in it. */
const watchMs = 250;

/** What a mirror is made of. */
export interface MirrorOptions {
  /** One or two legs in service. */
  legs: readonly Leg[];
  /** The one that is not there, if there is one. */
  missing?: MissingLeg;
  /** The size that all legs have at least. */
  sizeBytes: number;
  clock: Clock;
  /** Takes a sentence for the operator. */
  warn: (message: string, level?: "error") => void;
}

/** Two devices as one. Made by opening a mirrored cache. */
export class MirrorDevice implements EventDevice, RedundantDevice {
  readonly sizeBytes: number;
  readonly name: string;
  readonly readOnly: boolean;
  readonly #clock: Clock;
  readonly #warn: MirrorOptions["warn"];
  /** Those that are written to, the one that reads ask first in front. */
  readonly #legs: Leg[];
  #missing: MissingLeg | undefined;
  readonly #transfers: MirrorTransfers;
  #turn: Turn = { writes: 0, onEnd: () => {} };
  /** The leg that is copied to, and the range that just then is. */
  #target: Leg | undefined;
  #locked: { offset: number; end: number; done: Promise<void> } | undefined;
  #progress: CopyProgress | undefined;
  /** The marks of the leg that is left durably say `alone`. */
  #saysAlone: boolean;
  /** Changes of marks, one after the other. */
  #marking: Promise<void> = Promise.resolve();
  /** Dropped legs that are being let go. */
  readonly #leaving = new Set<Promise<void>>();
  #closed = false;
  #cancelWatch: (() => void) | undefined;
  /** Blocks that one leg had wrongly, and got again from the other. */
  mendedBlocks = 0;
  /** Tells the highest sequence that is durable, for marks. */
  position: () => number = () => 0;

  constructor(options: MirrorOptions) {
    const { legs, sizeBytes } = options;
    assert(legs.length === 1 || legs.length === 2, "a mirror has one leg or two");
    assert(legs.every(({ device }) => device.sizeBytes >= sizeBytes), "each leg holds all of it");
    this.sizeBytes = sizeBytes;
    this.name = legs[0]!.name;
    this.readOnly = legs.some(({ device }) => device.readOnly);
    this.#clock = options.clock;
    this.#warn = options.warn;
    // A leg behind a network is asked second.
    this.#legs = [...legs].sort(nearestFirst);
    this.#missing = options.missing;
    this.#saysAlone = legs.length === 1 && legs[0]!.mark.claim === "alone";
    const turn = () => this.#turn;
    this.#transfers = new MirrorTransfers({
      drop: (leg, error) => this.#drop(leg, error),
      get turn() {
        return turn();
      },
    });
  }

  /** Whether two legs are in service. */
  get isWhole(): boolean {
    return this.#inService.length === 2;
  }

  get #inService(): Leg[] {
    return this.#legs.filter(({ state }) => state === "in service");
  }

  /** All legs, those that are not in service too. */
  status(): { legs: LegStatus[]; copy: CopyProgress | null; mendedBlocks: number } {
    const legs: LegStatus[] = this.#legs.map(({ name, state, failure, readErrors }) => ({
      path: name,
      state,
      reason: failure?.message ?? null,
      readErrors,
    }));
    if (this.#missing) {
      const { name, reason } = this.#missing;
      legs.push({ path: name, state: "missing", reason, readErrors: 0 });
    }
    return { legs, copy: this.#progress ? { ...this.#progress } : null, mendedBlocks: this.mendedBlocks };
  }

  identity(): Promise<DeviceIdentity> {
    return this.#legs[0]!.device.identity();
  }

  /** See {@linkcode RedundantDevice}. */
  copies(): readonly Copy[] {
    return this.#inService.map((leg) => ({
      read: (offset, into) => leg.read(offset, into),
      mend: (offset, bytes) => this.#mend(leg, offset, bytes),
    }));
  }

  async #mend(leg: Leg, offset: number, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    if (this.readOnly || leg.state !== "in service" || leg.failure) return;
    try {
      await leg.write(offset, bytes);
      this.mendedBlocks++;
      this.#warn(
        `${leg.name} had ${bytes.length} bytes at ${offset} wrongly; they were mended from the other leg`,
      );
    } catch (error) {
      this.#drop(leg, error);
    }
  }

  async read(offset: number, into: Uint8Array<ArrayBuffer>): Promise<void> {
    this.#check(offset, into.length);
    let failure: unknown;
    for (const leg of this.#inService) {
      // It would only be waited for.
      if (leg.device.away?.() !== undefined && this.isWhole) continue;
      try {
        return await leg.read(offset, into);
      } catch (error) {
        if (this.isWhole) leg.readErrors++;
        failure ??= error;
      }
    }
    throw failure ?? new DeviceError("ENODEV", `Cannot read ${this.name}: no leg of it can be reached`);
  }

  startRead(
    offset: number,
    memory: Uint8Array<ArrayBuffer>,
    at: number,
    length: number,
    to: TransferEnd,
    tag: number,
  ): boolean {
    const leg = this.#legs[0]!;
    if (this.#closed || leg.events === null || leg.state !== "in service") return false;
    assertRange(this, offset, length);
    return this.#transfers.read(leg, offset, memory, at, length, to, tag);
  }

  startWrite(
    offset: number,
    memory: Uint8Array<ArrayBuffer>,
    at: number,
    length: number,
    to: TransferEnd,
    tag: number,
  ): boolean {
    const first = this.#legs[0]!;
    const second = this.#legs[1] ?? null;
    if (this.#closed || this.#target !== undefined || this.readOnly) return false;
    if (first.events === null || (second !== null && second.events === null)) return false;
    assertRange(this, offset, length);
    return this.#transfers.write(first, second, offset, memory, at, length, to, tag);
  }

  failure(operation: "read" | "write", offset: number, length: number, result: number): DeviceError {
    const [leg] = this.#legs;
    return leg?.failure ?? leg?.events?.failure(operation, offset, length, result) ??
      new DeviceError("EIO", `Cannot ${operation} ${length} bytes at ${offset} of ${this.name}`);
  }

  write(offset: number, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    return this.#change(offset, bytes.length, (leg) => leg.write(offset, bytes));
  }

  zero(offset: number, length: number, options: { keepAllocated: boolean }): Promise<void> {
    return this.#change(offset, length, (leg) => leg.zero(offset, length, options));
  }

  /** Does it to all legs; rejects when it failed on the last one in service. */
  async #change(offset: number, length: number, action: (leg: Leg) => Promise<void>): Promise<void> {
    this.#check(offset, length);
    const turn = this.#turn;
    turn.writes++;
    const locked = this.#locked;
    const wait = locked && offset < locked.end && offset + length > locked.offset ? locked.done : undefined;
    let lost: { error: unknown } | undefined;
    try {
      await Promise.all([...this.#legs].map(async (leg) => {
        try {
          if (wait) await wait;
          if (leg.state === "dropped") return;
          this.#watch(leg);
          await action(leg);
        } catch (error) {
          if (!this.#drop(leg, error)) lost = { error };
        }
      }));
    } finally {
      if (--turn.writes === 0) turn.onEnd();
    }
    if (lost) throw lost.error;
  }

  /** See the invariants. */
  async sync(): Promise<void> {
    this.#check(0, 0);
    let lost: { error: unknown } | undefined;
    const legs = this.#legs.filter(({ state }) => state !== "copying");
    await Promise.all(legs.map(async (leg) => {
      try {
        this.#watch(leg);
        await leg.sync();
      } catch (error) {
        if (!this.#drop(leg, error)) lost = { error };
      }
    }));
    if (lost) throw lost.error;
    if (!this.isWhole && !this.#saysAlone && !this.readOnly) await this.#sayAlone();
  }

  /** Makes the leg that is left say durably that it is alone. */
  #sayAlone(): Promise<void> {
    return this.#mark(async () => {
      if (this.isWhole || this.#saysAlone) return;
      const [leg] = this.#inService;
      assert(leg !== undefined, "one leg is always left");
      try {
        await writeLegMarks(leg, {
          claim: "alone",
          sinceSequence: this.position(),
          sinceMs: this.#clock.wallMs(),
        });
      } catch (error) {
        leg.fail(error);
        throw error;
      }
      this.#saysAlone = true;
    });
  }

  #mark(action: () => Promise<void>): Promise<void> {
    const done = this.#marking.then(action);
    this.#marking = done.catch(() => {});
    return done;
  }

  /** Takes a leg out of service; false when it is the last. */
  #drop(leg: Leg, error: unknown): boolean {
    if (leg.state === "dropped") return true;
    const others = this.#inService.filter((other) => other !== leg && other.failure === undefined);
    leg.fail(error);
    if (leg.state === "in service" && others.length === 0) return false;
    const counted = leg.state === "in service";
    leg.state = "dropped";
    const at = this.#legs.indexOf(leg);
    if (at >= 0) this.#legs.splice(at, 1);
    this.#missing = { name: leg.name, reason: leg.failure!.message };
    const left = this.#inService[0]!.name;
    if (!this.#closed) {
      this.#warn(
        counted
          ? `the leg ${leg.name} of the mirror is dropped (${this.#missing.reason}): everything is on ${left} alone from now ` +
            "on; see nbdboost mirror"
          : `copying to ${leg.name} failed (${this.#missing.reason}): everything is on ${left} alone, as before`,
        "error",
      );
    }
    leg.device.abandon?.();
    const leaving = leg.close().catch(() => {}).finally(() => this.#leaving.delete(leaving));
    this.#leaving.add(leaving);
    return true;
  }

  /** What the leg says that a new one would be copied from. */
  get sourceMark(): LegMark {
    return this.#inService[0]!.mark;
  }

  /** Ends a copy, unless all of it is there and only marks are to be written. */
  stopCopy(): void {
    const leg = this.#target;
    if (leg?.state === "copying") this.#drop(leg, new DeviceError("ESHUTDOWN", "the cache is being closed"));
  }

  /** Gives up a leg that is in service, because somebody asked for it. Resolves when the other durably says so. */
  async dropLeg(name: string): Promise<void> {
    const leg = this.#legs.find((leg) => leg.name === name);
    assert(
      leg !== undefined && (leg.state !== "in service" || this.isWhole),
      "the caller looked at the status",
    );
    this.#drop(leg, new DeviceError("ENODEV", "it was given up by request"));
    await this.#sayAlone();
  }

  /**
   * Copies to `leg`, in the background, and takes it into service. `ranges` tells what is to be copied, when it is asked.
   *
   * REQUIRES: one leg is in service and no other is being copied to; `leg` holds nothing that could be taken for the present.
   */
  async attach(leg: Leg, ranges: () => Range[], onProgress: (progress: CopyProgress) => void): Promise<void> {
    assert(!this.#closed && this.#legs.length === 1 && this.#target === undefined, "there is room for a leg");
    assert(leg.state === "copying" && leg.device.sizeBytes >= this.sizeBytes, "a leg that fits");
    await this.gone();
    const source = this.#legs[0]!;
    this.#target = leg;
    try {
      // As long as it still names another partner, a new one that says `together` would be a stranger to it after a crash.
      await this.#sayAlone();
      await writeLegMarks(leg, { claim: "copying", other: source.mark.self });
      if (isDropped(leg)) throw leg.failure;
      this.#legs.push(leg);
      this.#missing = undefined;
      this.#watch(leg);
      await copyToLeg({
        source,
        target: leg,
        ranges,
        lock: (range) => this.#lock(range),
        onProgress: (progress) => {
          this.#progress = progress;
          onProgress(progress);
        },
        isOver: () => this.#closed || leg.state !== "copying",
      });
      leg.state = "joining";
      await leg.sync();
      await writeLegMarks(leg, { claim: "together", other: source.mark.self });
      await this.#mark(() => this.#join(source, leg));
    } catch (error) {
      this.#drop(leg, error);
      throw leg.failure ?? error;
    } finally {
      this.#target = this.#locked = this.#progress = undefined;
    }
  }

  /** Makes the old leg say that the new one counts; from then on it does. */
  async #join(source: Leg, leg: Leg): Promise<void> {
    // A flush may have been answered since, for which nobody had to say anything.
    if (isDropped(leg)) throw leg.failure;
    // Whatever fails from here on, the next sync says `alone` again before it succeeds.
    this.#saysAlone = false;
    try {
      await writeLegMarks(source, { claim: "together", other: leg.mark.self });
    } catch (error) {
      source.fail(error);
      throw error;
    }
    if (isDropped(leg)) throw leg.failure;
    leg.state = "in service";
    this.#legs.sort(nearestFirst);
  }

  /** Keeps writes from the range, once those under way have ended; release by calling. */
  async #lock(range: Range): Promise<() => void> {
    let release = () => {};
    const done = new Promise<void>((resolve) => release = resolve);
    this.#locked = { offset: range.offset, end: range.offset + range.length, done };
    const turn = this.#turn;
    this.#turn = { writes: 0, onEnd: () => {} };
    if (turn.writes > 0) await new Promise<void>((resolve) => turn.onEnd = resolve);
    return () => {
      this.#locked = undefined;
      release();
    };
  }

  /** A leg that may be away is not waited for: what was under way in it then is a failed sync of it (log-rules.md 15). */
  #watch(leg: Leg): void {
    if (!mayBeAway(leg) || this.#cancelWatch) return;
    this.#cancelWatch = this.#clock.after(watchMs, () => {
      this.#cancelWatch = undefined;
      if (this.#closed) return;
      const away = leg.device.away?.();
      if (away === undefined) {
        // Writes may wait for the copy of a piece, which is now at one leg and now at the other.
        if (leg.isBusy || leg === this.#target) this.#watch(leg);
        return;
      }
      if (leg.state === "dropped" || (leg.state === "in service" && !this.isWhole)) return;
      this.#drop(leg, new DeviceError("ENODEV", `its connection was lost: ${away}`));
    });
  }

  /** Resolves when dropped legs are closed. */
  async gone(): Promise<void> {
    await Promise.all(this.#leaving);
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#cancelWatch?.();
    await this.#marking;
    const legs = this.#target && !this.#legs.includes(this.#target)
      ? [...this.#legs, this.#target]
      : [...this.#legs];
    const results = await Promise.allSettled([...legs.map((leg) => leg.close()), ...this.#leaving]);
    for (const result of results) if (result.status === "rejected") throw result.reason;
  }

  #check(offset: number, length: number): void {
    if (this.#closed) throw new DeviceError("ESHUTDOWN", `Cannot use ${this.name}: it is closed`);
    assertRange(this, offset, length);
  }
}

/** Asked after a wait, during which it may have been. */
function isDropped(leg: Leg): boolean {
  return leg.state === "dropped";
}

function mayBeAway(leg: Leg): boolean {
  return leg.device.away !== undefined;
}

function nearestFirst(a: Leg, b: Leg): number {
  return Number(mayBeAway(a)) - Number(mayBeAway(b));
}
