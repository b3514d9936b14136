/**
 * A regular file or a block device as a {@linkcode BlockDevice}, over whatever `Io` opened it.
 *
 * Invariants: a call that resolves has done all of its range; `zero` always leaves zeroes, whatever the platform can;
 * no call is under way in the file once a call of ours has settled.
 *
 * @module
 */

import { assert, DeviceError } from "../errors.ts";
import { type EventFile, type IoFile, startsTransfers, type TransferEnd } from "../io/io.ts";
import { gib, mib } from "../units.ts";
import type { DeviceIdentity, EventDevice } from "./block_device.ts";
import { deviceError, type FailedCall } from "./device_error.ts";
import { assertRange } from "./range.ts";

/** The piece in which zeroes are written where the platform has no better way. */
const zeroBytesMax = mib;
/** Pieces of zeroes under way at once. */
const zeroesInFlightMax = 4;
/** The piece in which storage is reserved, so that progress can be told. */
const allocateBytesMax = gib;

/** What {@linkcode FileDevice} is told about its file. */
export interface FileDeviceFacts {
  /** What sort of thing it is. */
  kind: "file" | "block";
  /** What people call it. */
  name: string;
  /** The size in bytes. */
  sizeBytes: number;
  /** True when writes are to be refused. */
  readOnly: boolean;
  /** See {@linkcode DeviceIdentity.id}. */
  id: string;
  /** See {@linkcode EventDevice.busyMs}. */
  busyMs?: (() => Promise<number | undefined>) | undefined;
}

/** Tells how far a long operation has come, in bytes. */
export type Progress = (done: number, total: number) => void;

/** A regular file or a block device. Use `openDevice`. */
export class FileDevice implements EventDevice {
  /** What sort of thing it is. */
  readonly kind: "file" | "block";
  readonly name: string;
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  /** See `BlockDevice.busyMs`; absent for a file, and where nobody counts. */
  readonly busyMs?: () => Promise<number | undefined>;
  #file: IoFile;
  /** The same, where it can move bytes without promises. */
  #events: EventFile | null;
  #id: string;
  #callsUnderWay = 0;
  #closed: Promise<void> | undefined;
  #whenIdle: (() => void) | undefined;

  /** Owns `file` from now on, and closes it when closed. */
  constructor(file: IoFile, facts: FileDeviceFacts) {
    this.#file = file;
    this.#events = startsTransfers(file) ? file : null;
    this.kind = facts.kind;
    this.name = facts.name;
    this.sizeBytes = facts.sizeBytes;
    this.readOnly = facts.readOnly;
    this.#id = facts.id;
    if (facts.busyMs) this.busyMs = facts.busyMs;
  }

  identity(): Promise<DeviceIdentity> {
    return this.#call({ device: this.name, operation: "read" }, async () => {
      const modifiedMs = this.kind === "file" ? (await this.#file.stat()).modifiedMs : 0;
      return { kind: this.kind, id: this.#id, modifiedMs };
    });
  }

  read(offset: number, into: Uint8Array<ArrayBuffer>): Promise<void> {
    const call: FailedCall = { device: this.name, operation: "read", offset, length: into.length };
    return this.#call(call, async () => {
      for (let done = 0; done < into.length;) {
        const count = await this.#file.read(offset + done, done === 0 ? into : into.subarray(done));
        if (count === 0) {
          throw new Error(`it ends at ${offset + done}, though it had ${this.sizeBytes} bytes`);
        }
        done += count;
      }
    });
  }

  write(offset: number, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    const call: FailedCall = { device: this.name, operation: "write", offset, length: bytes.length };
    return this.#call(call, () => writeWhole(this.#file, offset, bytes));
  }

  startRead(
    offset: number,
    memory: Uint8Array<ArrayBuffer>,
    at: number,
    length: number,
    to: TransferEnd,
    tag: number,
  ): boolean {
    if (this.#events === null || this.#closed !== undefined) return false;
    assertRange(this, offset, length);
    return this.#events.startRead(offset, memory, at, length, to, tag);
  }

  startWrite(
    offset: number,
    memory: Uint8Array<ArrayBuffer>,
    at: number,
    length: number,
    to: TransferEnd,
    tag: number,
  ): boolean {
    if (this.#events === null || this.#closed !== undefined || this.readOnly) return false;
    assertRange(this, offset, length);
    return this.#events.startWrite(offset, memory, at, length, to, tag);
  }

  failure(operation: "read" | "write", offset: number, length: number, result: number): DeviceError {
    const cause = result < 0 && this.#events !== null
      ? this.#events.transferError(operation, result)
      : new Error(`it ends at ${offset + result}, though it had ${this.sizeBytes} bytes`);
    return deviceError({ device: this.name, operation, offset, length }, cause) as DeviceError;
  }

  sync(): Promise<void> {
    return this.#call({ device: this.name, operation: "sync" }, () => this.#file.sync());
  }

  zero(offset: number, length: number, options: { keepAllocated: boolean }): Promise<void> {
    return this.#call({ device: this.name, operation: "zero", offset, length }, async () => {
      if (length === 0 || await this.#file.zeroFast(offset, length, options.keepAllocated)) return;
      await writeZeroes(this.#file, offset, length);
    });
  }

  /**
   * Gives all of the file storage without changing its content, so that no later write can get ENOSPC. True when
   * that is so, false when the platform cannot. A block device has its storage by nature.
   */
  preallocate(onProgress?: Progress): Promise<boolean> {
    if (this.kind === "block") return Promise.resolve(true);
    const call: FailedCall = { device: this.name, operation: "allocate", offset: 0, length: this.sizeBytes };
    return this.#call(call, async () => {
      const { allocatedBytes } = await this.#file.stat();
      if (allocatedBytes !== undefined && allocatedBytes >= this.sizeBytes) return true;
      return await allocateWhole(this.#file, this.sizeBytes, onProgress);
    });
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    if (this.#callsUnderWay > 0) await new Promise<void>((resolve) => this.#whenIdle = resolve);
    await this.#file.close();
  }

  async #call<Result>(call: FailedCall, action: () => Promise<Result>): Promise<Result> {
    if (this.#closed) {
      throw new DeviceError("ESHUTDOWN", `Cannot ${call.operation} ${this.name}: it is closed`);
    }
    if (call.offset !== undefined) assertRange(this, call.offset, call.length!);
    const changes = call.operation !== "read" && call.operation !== "sync";
    if (changes && this.readOnly) {
      throw new DeviceError("EROFS", `Cannot ${call.operation} ${this.name}: it was opened read-only`);
    }
    this.#callsUnderWay++;
    try {
      return await action();
    } catch (cause) {
      throw deviceError(call, cause);
    } finally {
      if (--this.#callsUnderWay === 0) this.#whenIdle?.();
    }
  }
}

async function writeWhole(file: IoFile, offset: number, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    const count = await file.write(offset + done, done === 0 ? bytes : bytes.subarray(done));
    if (count === 0) throw new Error(`no more could be written after ${done} bytes`);
    done += count;
  }
}

/** Writes zeroes, some pieces at a time; settles when none is under way any more. */
export async function writeZeroes(
  file: IoFile,
  offset: number,
  length: number,
  onProgress?: Progress,
): Promise<void> {
  const zeroes = new Uint8Array(Math.min(zeroBytesMax, length));
  const end = offset + length;
  let next = offset;
  let doneBytes = 0;
  let failed = false;
  const lane = async () => {
    while (next < end && !failed) {
      const at = next;
      const bytes = Math.min(zeroBytesMax, end - at);
      next += bytes;
      try {
        await writeWhole(file, at, bytes === zeroes.length ? zeroes : zeroes.subarray(0, bytes));
      } catch (error) {
        failed = true;
        throw error;
      }
      doneBytes += bytes;
      onProgress?.(doneBytes, length);
    }
  };
  const lanes = await Promise.allSettled(Array.from({ length: zeroesInFlightMax }, lane));
  for (const result of lanes) if (result.status === "rejected") throw result.reason;
  assert(doneBytes === length, "every piece was written");
}

/** Gives the first `sizeBytes` of a file storage, in pieces; false where the platform cannot. */
export async function allocateWhole(
  file: IoFile,
  sizeBytes: number,
  onProgress?: Progress,
): Promise<boolean> {
  for (let at = 0; at < sizeBytes; at += allocateBytesMax) {
    const bytes = Math.min(allocateBytesMax, sizeBytes - at);
    if (!await file.allocate(at, bytes)) return false;
    onProgress?.(at + bytes, sizeBytes);
  }
  return true;
}
