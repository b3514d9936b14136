/**
 * Devices with the timing of real ones, in virtual time and without their content: a disk with an arm and a platter, and a
 * solid-state cache device. For measuring policies with the real engine, not for finding lost bytes.
 *
 * The disk: seek time a + b * sqrt(distance / span), 8.5 ms on average over all pairs of places; 7200 rpm; tracks of 1 MiB;
 * blocks lie at an angle given by their place in the track. One request at a time, or up to `queueDepth` in the drive, of
 * which the one with the shortest positioning time is next, unless another was passed over `passedOverMax` times. A
 * sync is a barrier, as FLUSH CACHE is on SATA: it waits for all before it, nothing after it starts before its end.
 *
 * Invariant: what is written to the disk is all zeroes, so that nothing need be kept; the solid-state device keeps the 4 KiB
 * pages that are not.
 *
 * @module
 */

import type { Clock } from "../../src/clock.ts";
import type { BlockDevice, DeviceIdentity } from "../../src/device/block_device.ts";
import { assert } from "../../src/errors.ts";
import { mib } from "../../src/units.ts";

/** One turn at 7200 rpm. */
export const turnMs = 60_000 / 7200;
/** Bytes of a track. */
export const trackBytes = mib;
/** The mean seek over uniform pairs, and its part that does not depend on the distance. */
const meanSeekMs = 8.5;
const settleMs = 1;
/** The mean of sqrt(|x - y|) for x, y uniform in [0, 1]. */
const meanRootDistance = 8 / 15;
/** Electronics and the bus, per request. */
const overheadMs = 0.05;
/** So often a request may be passed over by ones that are nearer. */
export const passedOverMax = 512;

/** A request as the arm sees it. */
export interface ArmRequest {
  offset: number;
  length: number;
  passedOver: number;
}

/** The mechanics: where the arm is, and how long it takes to get elsewhere. */
export class DiskArm {
  readonly #spanTracks: number;
  #track = 0;

  /** `spanBytes`: the size that the seek curve belongs to; a device may be a part of it. */
  constructor(spanBytes: number) {
    this.#spanTracks = spanBytes / trackBytes;
  }

  /** Milliseconds from `nowMs` until the head is over the first byte of the request. */
  positioningMs(request: ArmRequest, nowMs: number): number {
    const track = Math.floor(request.offset / trackBytes);
    const distance = Math.abs(track - this.#track) / this.#spanTracks;
    const seekMs = distance === 0 ? 0 : settleMs + seekMsPerRoot * Math.sqrt(distance);
    const angle = (request.offset - track * trackBytes) / trackBytes * turnMs;
    const arrivedMs = nowMs + overheadMs + seekMs;
    let waitMs = (angle - arrivedMs) % turnMs;
    if (waitMs < 0) waitMs += turnMs;
    return overheadMs + seekMs + waitMs;
  }

  /** The index of the request to serve next. */
  choose(queue: ArmRequest[], nowMs: number): number {
    let best = 0;
    let bestMs = Infinity;
    for (let i = 0; i < queue.length; i++) {
      if (queue[i]!.passedOver >= passedOverMax) return i;
      const ms = this.positioningMs(queue[i]!, nowMs);
      if (ms < bestMs) {
        bestMs = ms;
        best = i;
      }
    }
    return best;
  }

  /** Serves a request; returns when it ends. */
  serve(request: ArmRequest, nowMs: number): number {
    const endMs = nowMs + this.positioningMs(request, nowMs) + request.length / trackBytes * turnMs;
    this.#track = Math.floor((request.offset + request.length - 1) / trackBytes);
    return endMs;
  }
}
const seekMsPerRoot = (meanSeekMs - settleMs) / meanRootDistance;

interface Pending extends ArmRequest {
  isSync: boolean;
  resolve: () => void;
}

/** What a model device has done. */
export interface DeviceCounters {
  reads: number;
  writes: number;
  syncs: number;
  readBytes: number;
  writtenBytes: number;
}

abstract class ModelDevice implements BlockDevice {
  readonly sizeBytes: number;
  readonly name: string;
  readonly readOnly = false;
  readonly counters: DeviceCounters = { reads: 0, writes: 0, syncs: 0, readBytes: 0, writtenBytes: 0 };

  constructor(sizeBytes: number, name: string) {
    this.sizeBytes = sizeBytes;
    this.name = name;
  }
  identity(): Promise<DeviceIdentity> {
    return Promise.resolve({ kind: "memory", id: this.name, modifiedMs: 0 });
  }
  abstract read(offset: number, into: Uint8Array<ArrayBuffer>): Promise<void>;
  abstract write(offset: number, bytes: Uint8Array<ArrayBuffer>): Promise<void>;
  abstract sync(): Promise<void>;
  zero(_offset: number, _length: number): Promise<void> {
    return this.sync();
  }
  close(): Promise<void> {
    return Promise.resolve();
  }
}

/** A disk with one arm. */
export class DiskModel extends ModelDevice {
  readonly #clock: Clock;
  readonly #arm: DiskArm;
  readonly #queueDepth: number;
  /** Not in the drive yet, in order; in the drive, in any. */
  readonly #waiting: Pending[] = [];
  readonly #queued: Pending[] = [];
  #busy = false;

  constructor(
    options: { sizeBytes: number; spanBytes: number; queueDepth: number; clock: Clock; name: string },
  ) {
    super(options.sizeBytes, options.name);
    this.#clock = options.clock;
    this.#arm = new DiskArm(options.spanBytes);
    this.#queueDepth = options.queueDepth;
  }

  async read(offset: number, into: Uint8Array<ArrayBuffer>): Promise<void> {
    this.counters.reads++;
    this.counters.readBytes += into.length;
    await this.#submit(offset, into.length, false);
    into.fill(0);
  }

  write(offset: number, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    this.counters.writes++;
    this.counters.writtenBytes += bytes.length;
    return this.#submit(offset, bytes.length, false);
  }

  sync(): Promise<void> {
    this.counters.syncs++;
    return this.#submit(0, 0, true);
  }

  #submit(offset: number, length: number, isSync: boolean): Promise<void> {
    return new Promise((resolve) => {
      this.#waiting.push({ offset, length, passedOver: 0, isSync, resolve });
      if (!this.#busy) this.#next();
    });
  }

  #next(): void {
    while (this.#waiting.length > 0 && this.#queued.length < this.#queueDepth) {
      // A sync enters an empty drive, and nothing enters beside it.
      if (this.#queued.length > 0 && (this.#waiting[0]!.isSync || this.#queued[0]!.isSync)) break;
      this.#queued.push(this.#waiting.shift()!);
    }
    if (this.#queued.length === 0) return;
    const nowMs = this.#clock.monotonicMs();
    const index = this.#queued[0]!.isSync ? 0 : this.#arm.choose(this.#queued, nowMs);
    const request = this.#queued[index]!;
    for (const other of this.#queued) other.passedOver++;
    const endMs = request.isSync ? nowMs + turnMs : this.#arm.serve(request, nowMs);
    this.#busy = true;
    this.#clock.after(endMs - nowMs, () => {
      this.#queued.splice(this.#queued.indexOf(request), 1);
      this.#busy = false;
      request.resolve();
      // Who hears of it may ask for more before the next choice is made.
      this.#clock.after(0, () => {
        if (!this.#busy) this.#next();
      });
    });
  }
}

const pageBytes = 4096;
/** A SATA drive, roughly. */
const ssd = { readMs: 0.1, writeMs: 0.05, syncMs: 0.5, bytesPerMs: 500_000 };

/** A solid-state device: a fixed time per request, and one pipe for all bytes. */
export class SsdModel extends ModelDevice {
  readonly #clock: Clock;
  readonly #pages = new Map<number, Uint8Array<ArrayBuffer>>();
  #pipeFreeMs = 0;

  constructor(options: { sizeBytes: number; clock: Clock; name: string }) {
    super(options.sizeBytes, options.name);
    this.#clock = options.clock;
  }

  #after(ms: number, bytes: number): Promise<void> {
    const now = this.#clock.monotonicMs();
    this.#pipeFreeMs = Math.max(this.#pipeFreeMs, now) + bytes / ssd.bytesPerMs;
    return new Promise((resolve) => this.#clock.after(this.#pipeFreeMs + ms - now, resolve));
  }

  async read(offset: number, into: Uint8Array<ArrayBuffer>): Promise<void> {
    assert(offset % pageBytes === 0 && into.length % pageBytes === 0, "the log is read in blocks");
    this.counters.reads++;
    this.counters.readBytes += into.length;
    await this.#after(ssd.readMs, into.length);
    for (let at = 0; at < into.length; at += pageBytes) {
      const page = this.#pages.get((offset + at) / pageBytes);
      if (page) into.set(page, at);
      else into.fill(0, at, at + pageBytes);
    }
  }

  async write(offset: number, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    this.counters.writes++;
    this.counters.writtenBytes += bytes.length;
    for (let at = 0; at < bytes.length; at += pageBytes) {
      const page = bytes.subarray(at, at + pageBytes);
      if (isZero(page)) this.#pages.delete((offset + at) / pageBytes);
      else this.#pages.set((offset + at) / pageBytes, page.slice());
    }
    await this.#after(ssd.writeMs, bytes.length);
  }

  async sync(): Promise<void> {
    this.counters.syncs++;
    await this.#after(ssd.syncMs, 0);
  }
}

function isZero(page: Uint8Array<ArrayBuffer>): boolean {
  const words = new Uint32Array(page.buffer, page.byteOffset, page.length >>> 2);
  for (let i = 0; i < words.length; i++) if (words[i] !== 0) return false;
  return true;
}
