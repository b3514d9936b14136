/**
 * Write-back: when the sweep runs, when the backing is synced, when zeroes are applied and when the tail follows.
 *
 * Invariants:
 * - A round is what lies between two looks at tail, sync and zeroes. The sweep goes on meanwhile: only zeroes, a failure, and
 *   having nothing to do stop it.
 * - The tail passes only what a successful sync of the backing covers; how often that is asked for follows the need for
 *   space, not the number of writes.
 * - With nothing dirty and nothing un-synced the backing is left alone, so that a disk may spin down.
 *
 * @module
 */

import { sleep } from "../clock.ts";
import { NbdboostError } from "../errors.ts";
import type { LogWriter } from "../log/writer.ts";
import { BackingSync, unsyncedBlocksMax } from "./backing_sync.ts";
import { CopyForward } from "./copy_forward.ts";
import type { Core } from "./core.ts";
import { DrainHold } from "./drain_hold.ts";
import { requestsInFlightMax } from "./foreground.ts";
import { Pace } from "./pace.ts";
import { PointOrder } from "./point_order.ts";
import type { Room } from "./room.ts";
import { Shortage } from "./shortage.ts";
import { Signal } from "./signal.ts";
import { Sweep } from "./sweep.ts";
import type { Tail } from "./tail.ts";
import { Utilisation } from "./utilisation.ts";
import { WriteBackState } from "./writeback_state.ts";
import { Zeroing } from "./zeroing.ts";

/** No client request for so long means idle. */
const idleMs = 500;
/** A pass that achieved nothing while a writer waits for space is repeated so soon: durability may be all it lacked. */
const spaceMs = 10;
/** With `auto`, write-back does not wait for idleness once this share of what may be dirty is. */
const busyShare = 0.5;
/** Passes of a drain, with a millisecond between them, for which the tail may stand still with nothing left to do. */
const idlePassesMax = 5000;
/** A round ends after so many blocks, or so long. */
const roundBlocks = unsyncedBlocksMax;
const roundMs = 5000;
/** The same when space is short. */
const urgentRoundBlocks = 512;
const urgentRoundMs = 250;
/** How often it is looked whether the last write past the log has ended. */
const parkMs = 5;
/** A drain tells its progress so often. */
const drainRoundMs = 1000;
/** Of the log, in parts: with fewer blocks dirty than this a drain is nearly done. */
const endingParts = 16;

/** The write-back of a running cache. */
export class WriteBack {
  readonly state: WriteBackState;
  readonly order: PointOrder;
  readonly #core: Core;
  readonly #writer: LogWriter;
  readonly #tail: Tail;
  readonly #room: Room;
  readonly #sync: BackingSync;
  readonly #sweep: Sweep;
  readonly #zeroing: Zeroing;
  readonly #copyForward: CopyForward;
  readonly #pace: Pace;
  readonly #shortage: Shortage;
  readonly #utilisation: Utilisation;
  readonly #drainHold: DrainHold;
  /** Rings when something was asked for, or has come of the sweep; the other, when nothing is to be done. */
  readonly #changed: Signal;
  readonly #parked: Signal;
  /** The tail stands still, for `proveBacking`: always, or while a quarter of the log is free and no writer waits. */
  holdTail: "no" | "while roomy" | "yes" = "no";
  #stopping = false;
  /** Drains under way. */
  drains = 0;
  #spaceNeeded = false;
  /** The tail could not be moved the last time: what is live in it must be written back. */
  #isStuck = false;
  #loop: Promise<void> | undefined;
  #lastClientMs: number;
  #lastClientCount = 0;
  readonly #passWaiters: { resolve: () => void; reject: (error: unknown) => void }[] = [];

  constructor(core: Core, writer: LogWriter, tail: Tail, room: Room) {
    this.#core = core;
    this.state = new WriteBackState(core);
    this.#writer = writer;
    this.#tail = tail;
    this.#room = room;
    this.#changed = new Signal(core.clock);
    this.#parked = new Signal(core.clock);
    this.#sync = new BackingSync(core);
    this.#sweep = new Sweep(core, writer, this.#sync, this.#changed);
    this.#zeroing = new Zeroing(core, writer, this.#sync);
    this.order = new PointOrder(core, writer, this.#sync, this.#sweep, this.#zeroing);
    this.order.onWork = () => this.#changed.ring();
    this.#copyForward = new CopyForward(core, writer, room, this.#sweep);
    this.#pace = new Pace(core, writer, this.#sweep);
    this.#pace.steps = () => this.order.horizon();
    this.#shortage = new Shortage(core, writer, this.#pace);
    this.#utilisation = new Utilisation(core.backing, core.clock);
    this.#drainHold = new DrainHold(core.clock);
    this.#lastClientMs = core.clock.monotonicMs();
    this.#sweep.depth = () =>
      // Who drains, or waits for space, waits for write-back.
      this.drains > 0 || this.#spaceNeeded
        ? requestsInFlightMax
        : core.foreground.depth(core.kernels.dirty.count / this.#pace.dirtyMax);
    this.#zeroing.onProgress = () => this.#noteProgress();
    this.#sweep.onWritten = (blocks) => {
      this.#noteProgress();
      this.#pace.noteWritten(blocks);
      room.wake();
    };
    writer.onSegment = () => {
      this.order.noteSegment();
      this.#pace.noteSegment();
      if (this.#shortage.isTight) this.#changed.ring();
    };
    room.pace = this;
    room.onPaced = core.copies.onSpaceWanted = () => this.#changed.ring();
  }

  /** Starts the loop. */
  start(): void {
    this.#loop ??= this.#run();
  }

  /** Ends the loop after the round under way; nothing is on its way to the backing afterwards. */
  async stop(): Promise<void> {
    this.#stopping = true;
    this.order.tryAgain();
    await this.#loop;
    await this.#sweep.quiesce();
  }

  /** What is under way to the backing, for who goes past the log. */
  get backing(): { sync: BackingSync; isUnderWay(start: number, end: number): boolean } {
    const [sweep, zeroing] = [this.#sweep, this.#zeroing];
    return {
      sync: this.#sync,
      isUnderWay: (start, end) => sweep.isUnderWay(start, end) || zeroing.isUnderWay(start, end),
    };
  }

  /** Resolves when nothing is on its way to the backing and the tail stands still: history was held just now. */
  async park(): Promise<void> {
    this.#room.wake();
    if (this.#loop && !this.#stopping) {
      const parked = this.#parked.wait();
      this.#changed.ring();
      await parked;
    }
    await this.#sweep.quiesce();
    while (this.#core.bypassed.inFlight > 0) await sleep(this.#core.clock, parkMs);
  }

  /** History was released. */
  resume(): void {
    this.#changed.ring();
    this.#room.wake();
  }

  /** A writer waits for log space. */
  needSpace(): void {
    this.#spaceNeeded = true;
    this.#changed.ring();
  }

  /** Blocks that the backing lacks. */
  get dirtyBlocks(): number {
    return this.#core.kernels.dirty.count + this.#core.kernels.zeroDirty.count;
  }

  /** Whether clients wait: for the pace of write-back, or so that a drain comes to its end. */
  get holds(): boolean {
    // While history is held nothing is written back, so nobody can go at its pace: clients have what the log has left.
    if (this.#core.history.held) return false;
    return this.#pace.holds || (this.drains > 0 && this.#drainHold.holds);
  }

  /** Writes back until nothing is dirty, and moves the tail to the head. */
  async drain(onProgress?: (done: number, total: number) => void): Promise<void> {
    const { kernels, versions, clock } = this.#core;
    const total = this.dirtyBlocks;
    const sinceMs = clock.monotonicMs();
    this.drains++;
    try {
      for (let idlePasses = 0;;) {
        onProgress?.(Math.max(0, total - this.dirtyBlocks), total);
        if (this.#writer.failure) throw this.#writer.failure;
        if (this.dirtyBlocks === 0 && !this.#sync.wanted && kernels.syncing.count === 0) {
          this.order.noteIdle();
          if (this.#holdsTail()) return;
          if (
            !this.order.isBusy && !this.#writer.openHasEntries &&
            this.#tail.sequence > this.#writer.sealedSequence
          ) return;
          // What is lost must stay in the log, so the tail cannot come to the head.
          if (versions.poison.any) return;
          if (++idlePasses > idlePassesMax) {
            throw new NbdboostError(
              "Cannot empty the log: nothing is left to write back, and the tail does not move",
            );
          }
          // Only log reads under way, or clients that write, keep the tail from the head now.
          if (idlePasses > 1) await sleep(clock, 1);
        } else idlePasses = 0;
        this.#drainHold.consider(sinceMs, this.dirtyBlocks);
        await this.#nextPass();
      }
    } finally {
      this.drains--;
      this.#room.wake();
    }
  }

  /** Resolves after one more pass of the loop; rejects when that pass failed. */
  #nextPass(): Promise<void> {
    if (!this.#loop || this.#stopping) {
      return Promise.reject(new NbdboostError("Cannot drain: the cache is closing"));
    }
    return new Promise((resolve, reject) => {
      this.#passWaiters.push({ resolve, reject });
      this.#changed.ring();
    });
  }

  async #run(): Promise<void> {
    while (!this.#ends) {
      if (this.#mustLook) await this.#lookAtOthers();
      if (!this.#wanted()) {
        this.#sweep.stop();
        this.order.noteIdle();
        this.#parked.ring();
        // Nothing is wanted from a failed log; who waits for a pass must hear of it.
        const { failure } = this.#writer;
        if (failure) { for (const waiter of this.#passWaiters.splice(0)) waiter.reject(failure); }
        await this.#changed.wait(idleMs);
        continue;
      }
      const waiters = this.#passWaiters.splice(0);
      this.state.active = true;
      try {
        const worked = await this.#pass();
        this.state.retryMs = 0;
        this.#recovered();
        for (const waiter of waiters) waiter.resolve();
        // Whoever asked during the pass found nobody to wake.
        const asked = this.#stopping || this.#passWaiters.length > 0;
        if (!worked && !asked) {
          await this.#changed.wait(this.#spaceNeeded || this.#pace.holds ? spaceMs : idleMs);
        }
      } catch (error) {
        this.order.noteFailure();
        await this.#sweep.quiesce();
        if (!(error instanceof NbdboostError)) this.#writer.fail(error);
        this.state.failed(error, this.dirtyBlocks);
        // Not at each failure: a writer that is woken asks for space again, and that would be a try without a pause.
        if (!this.#pace.suspended) {
          this.#pace.suspended = true;
          this.#room.wake();
        }
        for (const waiter of waiters) waiter.reject(error);
        if (!this.#stopping) await this.#changed.wait(this.state.retryMs);
      } finally {
        this.state.active = false;
      }
    }
    this.#parked.ring();
    for (const waiter of this.#passWaiters.splice(0)) {
      waiter.reject(new NbdboostError("Cannot drain: the cache is closing"));
    }
  }

  /** Whether the loop should end: a step that is nearly done leaves a backing that is consistent by itself. */
  get #ends(): boolean {
    return this.#stopping && !this.order.mustFinish;
  }

  /** Forgets the last failure once nothing that failed is left to be done. */
  #recovered(): void {
    if (this.state.lastError === undefined) return;
    const { dirty, zeroDirty } = this.#core.kernels;
    const { failures } = this.#sweep;
    for (const block of failures.keys()) if (!dirty.test(block)) failures.delete(block);
    if (failures.size > 0 || this.#sync.failed || (this.#zeroing.failures > 0 && zeroDirty.count > 0)) return;
    this.state.recovered();
  }

  /** Whether there is something to do, and now is the time. */
  #wanted(): boolean {
    if (this.#writer.failure || this.#core.history.held) return false;
    if (this.drains > 0 || this.#spaceNeeded || this.#pace.holds || this.order.mustFinish) return true;
    const { tunables, clock, statistics, foreground } = this.#core;
    if (this.#core.copies.wantsSpace && this.dirtyBlocks === 0) return true;
    if (tunables.writeback === "off") return false;
    if (this.#shortage.isTight) return true;
    if (this.dirtyBlocks === 0 && !this.#sync.wanted && !this.order.isBusy) return false;
    const isPressing = this.#isPressing;
    const busyPercent = Math.max(foreground.busyPercent, this.#utilisation.percent);
    if (!isPressing && busyPercent > tunables.writebackThreshold) return false;
    if (tunables.writeback === "on") return true;
    const count = statistics.writeRequests + statistics.readRequests + statistics.flushRequests;
    const now = clock.monotonicMs();
    if (count !== this.#lastClientCount) this.#lastClientMs = now;
    this.#lastClientCount = count;
    return isPressing || now - this.#lastClientMs >= idleMs;
  }

  /** Whether so much is dirty that write-back gives way to nobody. */
  get #isPressing(): boolean {
    // What steps need is kept in the log, superseded or not.
    const isFull = this.order.isOn &&
      this.#writer.freeSegments < busyShare * this.#core.geometry.segmentCount;
    return isFull || this.dirtyBlocks > busyShare * this.#pace.dirtyMax;
  }

  /** With a `writeback_threshold`, and nothing that presses: whether it is time to see how busy others keep the backing. */
  get #mustLook(): boolean {
    const { writebackThreshold, writeback } = this.#core.tunables;
    if (writebackThreshold >= 100 || writeback === "off" || this.dirtyBlocks === 0 || this.#isPressing) {
      return false;
    }
    if (this.drains > 0 || this.#spaceNeeded || this.#pace.holds || this.#core.history.held) return false;
    return !this.#writer.failure && this.#utilisation.isDue(writebackThreshold);
  }

  async #lookAtOthers(): Promise<void> {
    await this.#sweep.quiesce();
    try {
      if (this.#sync.wanted) await this.#sync.run();
    } catch {
      // The next pass meets the same, and tells of it.
      return;
    }
    await this.#utilisation.look(this.#changed);
  }

  /** One round of the sweep, and what follows it. Returns false when there was nothing to do. */
  async #pass(): Promise<boolean> {
    const { kernels } = this.#core;
    const eager = this.drains > 0 || this.#spaceNeeded;
    if (eager) await this.#makeWritable();
    if (this.order.mustBegin) await this.order.begin(eager || this.#shortage.isTight || this.#pace.holds);
    this.#sweep.beginRound();
    // Where space is short the tail comes first, as long as that helps; the sweep goes on beside it.
    const tailFirst = (this.#spaceNeeded || this.#shortage.isTight) && !this.#isStuck && this.drains === 0;
    if (!tailFirst) {
      await this.#round();
      const { writtenInRound, failure } = this.#sweep;
      if (!this.order.isOn && writtenInRound === 0 && kernels.dirty.count > 0 && failure === undefined) {
        await this.#makeWritable();
        this.#sweep.beginRound();
        await this.#round();
      }
    }
    const { failure: sweepFailure, written } = this.#sweep.takeRound();
    let worked = written > 0;
    // A backing that refuses something is told of at the end: what it took is synced, and the tail moves, all the same.
    let failure: unknown;
    if (sweepFailure !== undefined && !worked) failure = sweepFailure;
    else if (sweepFailure !== undefined) this.state.failed(sweepFailure, this.dirtyBlocks);
    if (this.order.zeroesWait && !tailFirst) {
      await this.#sweep.quiesce();
      const zeroed = await this.order.applyZeroes().catch((error) => failure ??= error);
      worked = zeroed === true || worked;
    }
    worked = await this.#follow(eager) || worked;
    if (failure !== undefined) throw failure;
    return worked;
  }

  /** Lets the sweep run until it is time to look at everything else. */
  async #round(): Promise<void> {
    const { clock } = this.#core;
    const wasTight = this.#shortage.isTight;
    const wasNeeded = this.#spaceNeeded;
    const urgent = wasNeeded || wasTight;
    const endMs = clock.monotonicMs() +
      (urgent ? urgentRoundMs : this.drains > 0 ? drainRoundMs : roundMs);
    const blocks = urgent ? urgentRoundBlocks : roundBlocks;
    while (
      !this.#sweep.idle && this.#sweep.writtenInRound < blocks && !this.#sweep.needsSync && !this.#ends
    ) {
      if (
        this.#writer.failure || this.#core.history.held || (!wasTight && this.#shortage.isTight) ||
        (!wasNeeded && this.#spaceNeeded)
      ) break;
      const leftMs = endMs - clock.monotonicMs();
      if (leftMs <= 0) break;
      await this.#changed.wait(leftMs);
    }
  }

  /** Syncs the backing and moves the tail, as far as that is wanted. Tells whether the tail moved. */
  async #follow(eager: boolean): Promise<boolean> {
    const idle = this.dirtyBlocks === 0;
    const tight = this.#shortage.isTight;
    if ((tight || this.#spaceNeeded) && !this.#holdsTail()) await this.#copy();
    if (this.#sync.wanted) {
      await this.#sync.run();
      this.#sweep.pump();
    }
    const arrived = this.order.settle();
    const mayMove = (eager || tight) && !this.order.isOn && !this.#core.history.held;
    if (mayMove) await this.#tail.relocateRefused(this.#sweep.failures, this.#zeroing.failures);
    this.#pace.refresh();
    // A drain that is nearly done moves the tail once, at its end.
    const ending = this.drains > 0 && this.dirtyBlocks * endingParts < this.#core.geometry.slotCount;
    if (!idle && !tight && !this.#spaceNeeded && (!eager || ending)) return arrived;
    this.#isStuck = this.#holdsTail() ||
      !(await this.#tail.advance(idle, eager ? 1 : this.#shortage.leastGain));
    if (this.#isStuck) return arrived;
    this.#spaceNeeded = this.#core.copies.wantsSpace = false;
    this.#pace.refresh();
    this.#room.wake();
    return true;
  }

  #holdsTail(): boolean {
    if (this.#core.history.held) return true;
    if (this.holdTail !== "while roomy") return this.holdTail === "yes";
    return !this.#spaceNeeded && this.#writer.freeSegments * 4 > this.#core.geometry.segmentCount;
  }

  /** What is still in the open record, or not durable, cannot be written back: seals and syncs if nothing else is left. */
  async #makeWritable(): Promise<void> {
    const writer = this.#writer;
    if (writer.lastPutSequence > writer.durableSequence) await writer.makeDurable(writer.lastPutSequence);
  }

  /** Copies live blocks out of the tail's way, where that is wanted. */
  async #copy(): Promise<void> {
    const wanted = this.#shortage.segmentsToCopy(this.#spaceNeeded);
    if (wanted > 0) await this.#copyForward.run(this.#tail.segment, wanted);
  }

  /** The backing takes what it gets. That is no progress while its syncs fail: all of it will be written again. */
  #noteProgress(): void {
    if (!this.#sync.failed) this.#room.progressMs = this.#core.clock.monotonicMs();
  }

  /** The last backing sync before a clean close. */
  async settle(): Promise<void> {
    if (this.#sync.wanted) await this.#sync.run();
  }
}
