/**
 * A machine's handle on a {@linkcode Medium}: a block device in virtual time, whose calls may fail, lie or dawdle.
 *
 * Invariants: a sync that succeeds makes durable exactly the writes that had completed before it was issued. What a dead
 * machine still asks for reaches nothing.
 *
 * @module
 */

import type { BlockDevice, DeviceIdentity } from "../../src/device/block_device.ts";
import { AssertionError, DeviceError } from "../../src/errors.ts";
import type { SeededRandom } from "../../src/random.ts";
import { sectorBytes } from "../../src/units.ts";
import type { Change, Medium } from "./medium.ts";
import type { SimClock } from "./sim_clock.ts";

/** Buffers of longer writes are not watched for changes. */
const comparedBytesMax = 65536;

/** What a call to the device is, for a fault to choose by. */
export interface Call {
  kind: "read" | "write" | "sync" | "zero";
  offset: number;
  length: number;
}

function isSame(a: Uint8Array<ArrayBuffer>, b: Uint8Array<ArrayBuffer>): boolean {
  if ((b.byteOffset & 3) !== 0) return a.every((byte, i) => byte === b[i]);
  const wordsA = new Uint32Array(a.buffer, a.byteOffset, a.length >>> 2);
  const wordsB = new Uint32Array(b.buffer, b.byteOffset, b.length >>> 2);
  for (let i = 0; i < wordsA.length; i++) if (wordsA[i] !== wordsB[i]) return false;
  return true;
}

/** Long writes only: most of formatting is zeroes, and worlds are formatted often. */
function isLongAndZero(bytes: Uint8Array<ArrayBuffer>): boolean {
  if (bytes.length <= comparedBytesMax || (bytes.byteOffset & 3) !== 0) return false;
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length >>> 2);
  for (let i = 0; i < words.length; i++) if (words[i] !== 0) return false;
  return true;
}

/** Decides the fate of a call; undefined lets it pass. */
export type FaultHook = (disk: SimDisk, call: Call) => Fault | undefined;

/** What happens to a call instead of success. */
export interface Fault {
  /** The call rejects with this, after doing part of what it should. */
  error?: Error;
  /** A failed sync drops what was not synced (fsyncgate). */
  drop?: boolean;
  /** What was dropped is not shown any more, either: there is no page cache. */
  unseen?: boolean;
  /** Milliseconds more. */
  slowMs?: number;
  /** A read returns one flipped bit. */
  flip?: boolean;
  /** A write lands at this offset instead, and nobody is told. */
  misdirect?: number;
  /** The device is away; what was not synced may be gone when it is back, and then the next sync fails. */
  away?: boolean;
  /** Called when the call has ended. */
  ended?: () => void;
}

/** A machine's handle on a {@linkcode Medium}, for one life. */
export class SimDisk implements BlockDevice {
  readonly sizeBytes: number;
  readonly name: string;
  readonly readOnly = false;
  readonly medium: Medium;
  readonly #clock: SimClock;
  readonly #random: SeededRandom;
  readonly #latencyMs: (kind: Call["kind"]) => number;
  readonly #onViolation: (message: string) => void;
  #closed = false;
  /** Calls under way. */
  readonly #busy = new Set<Call>();
  /** How often the device went away and lost something. */
  #losses = 0;
  /** Of these, how many a failed sync has told of. */
  #lossesTold = 0;
  /** Set to inject faults. */
  fault: FaultHook = () => undefined;
  /** Called for each call when it is issued. */
  onCall: (call: Call) => void = () => {};
  /** Called when a sync begins; gives what is called when it has succeeded. */
  onSync: () => () => void = () => () => {};

  constructor(options: {
    medium: Medium;
    clock: SimClock;
    random: SeededRandom;
    latencyMs: (kind: Call["kind"]) => number;
    onViolation: (message: string) => void;
  }) {
    this.medium = options.medium;
    this.sizeBytes = options.medium.sizeBytes;
    this.name = options.medium.name;
    this.#clock = options.clock;
    this.#random = options.random;
    this.#latencyMs = options.latencyMs;
    this.#onViolation = options.onViolation;
  }

  /** Whether the engine has closed it. */
  get closed(): boolean {
    return this.#closed;
  }

  identity(): Promise<DeviceIdentity> {
    return Promise.resolve({ kind: "memory", id: this.name, modifiedMs: 0 });
  }

  read(offset: number, into: Uint8Array<ArrayBuffer>): Promise<void> {
    // The device may look at the medium at any moment while the call is under way.
    let early: ((into: Uint8Array) => void) | undefined;
    if (!this.#clock.stopped && this.#random.chance(0.5)) early = this.medium.view(offset, into.length);
    return this.#call({ kind: "read", offset, length: into.length }, (fault) => {
      if (early) early(into);
      else this.medium.peek(offset, into);
      if (fault?.error) {
        // A short read: the rest of the buffer holds anything.
        this.#random.fill(into.subarray(this.#random.below(into.length)));
        throw fault.error;
      }
      if (fault?.flip) into[this.#random.below(into.length)]! ^= 1 << this.#random.below(8);
    });
  }

  write(offset: number, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    if (this.#clock.stopped) return new Promise(() => {});
    if (isLongAndZero(bytes)) {
      return this.#change({ kind: "write", offset, length: bytes.length }, undefined, () => {});
    }
    const copy = bytes.slice();
    return this.#change({ kind: "write", offset, length: bytes.length }, copy, () => {
      if (bytes.length > comparedBytesMax || isSame(copy, bytes)) return;
      this.#onViolation(`the buffer of a write at ${offset} of ${this.name} changed while it was under way`);
    });
  }

  zero(offset: number, length: number, _options: { keepAllocated: boolean }): Promise<void> {
    return this.#change({ kind: "zero", offset, length }, undefined, () => {});
  }

  #change(call: Call, bytes: Uint8Array<ArrayBuffer> | undefined, check: () => void): Promise<void> {
    const { medium } = this;
    const change: Change = {
      sector: call.offset / sectorBytes,
      sectors: call.length / sectorBytes,
      bytes,
    };
    return this.#call(call, (fault) => {
      check();
      if (fault?.misdirect !== undefined) change.sector = fault.misdirect / sectorBytes;
      if (fault?.error) {
        medium.abort(change, () => this.#random.chance(0.5));
        throw fault.error;
      }
      medium.complete(change);
    }, () => medium.begin(change));
  }

  sync(): Promise<void> {
    const mark = this.medium.completedMark;
    const synced = this.onSync();
    return this.#call({ kind: "sync", offset: 0, length: 0 }, (fault) => {
      if (this.#losses > this.#lossesTold) {
        this.#lossesTold = this.#losses;
        throw new DeviceError("EIO", `${this.name} lost what was not synced while it was away`);
      }
      if (fault?.error) {
        const keepLive = this.#random.chance(0.5) && !fault.unseen;
        if (fault.drop) this.medium.dropUnsynced(() => this.#random.chance(0.5), keepLive);
        throw fault.error;
      }
      this.medium.settle(mark);
      synced();
    });
  }

  /** The device lost its power for a moment, with whatever it had not synced. */
  #lose(): void {
    if (this.medium.unsyncedCount === 0) return;
    this.medium.dropUnsynced(() => this.#random.chance(0.5), false);
    this.#losses++;
  }

  close(): Promise<void> {
    for (const { kind, offset, length } of this.#busy) {
      this.#onViolation(`${this.name} was closed with a ${kind} of ${offset}+${length} under way`);
    }
    this.#closed = true;
    return Promise.resolve();
  }

  #call(call: Call, action: (fault: Fault | undefined) => void, begin?: () => void): Promise<void> {
    // A dead machine's code may run on for some steps: nothing of it reaches the medium, and it never hears back.
    if (this.#clock.stopped) return new Promise(() => {});
    const { kind, offset, length } = call;
    if (this.#closed) {
      this.#onViolation(`${kind} of ${this.name} after it was closed`);
      return new Promise(() => {});
    }
    if (
      offset % sectorBytes !== 0 || length % sectorBytes !== 0 || offset < 0 ||
      offset + length > this.sizeBytes
    ) {
      throw new AssertionError(
        `${kind} of ${length} bytes at ${offset} of ${this.name} breaks the device's contract`,
      );
    }
    const fault = this.fault(this, call);
    this.onCall(call);
    begin?.();
    this.#busy.add(call);
    return new Promise((resolve, reject) => {
      this.#clock.after(this.#latencyMs(kind) + (fault?.slowMs ?? 0), () => {
        this.#busy.delete(call);
        fault?.ended?.();
        if (fault?.away) this.#lose();
        try {
          action(fault);
        } catch (error) {
          reject(error);
          return;
        }
        resolve();
      });
    });
  }
}
