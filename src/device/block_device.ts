/**
 * The one seam between the engine and everything that keeps bytes. Files, block devices, memory, a remote
 * NBD export and the simulator's lying disk all come in through {@linkcode BlockDevice}.
 *
 * @module
 */

import type { DeviceError } from "../errors.ts";
import type { TransferStarter } from "../io/io.ts";

/** How a device is recognised again, as much as the platform tells. */
export interface DeviceIdentity {
  /** What sort of thing it is. */
  kind: "file" | "block" | "memory" | "nbd";
  /** A stable name: path and inode, serial or wwn, URI. At most 1024 bytes of UTF-8. */
  id: string;
  /** Milliseconds since 1970 of the last modification, where the kind knows one, else 0. */
  modifiedMs: number;
}

/**
 * A device of fixed size that keeps bytes.
 *
 * Contract: offsets and lengths are bytes and multiples of 512, inside the device; calls may overlap in time;
 * a buffer belongs to the device until its promise settles. Each call does everything or rejects with a
 * `DeviceError`. Only what was written by a `write` that had resolved before `sync` was called is covered by
 * that `sync`. After a rejected `sync` nothing written since the last good one can be trusted. A device that was away
 * and may have lost what was not synced rejects the next `sync`, however well it works by then.
 */
export interface BlockDevice {
  /** The size in bytes, fixed while open, a multiple of 512. */
  readonly sizeBytes: number;
  /** What people call it: a path or a URI. */
  readonly name: string;
  /** True when writes are refused. */
  readonly readOnly: boolean;
  /** Tells who this is. */
  identity(): Promise<DeviceIdentity>;
  /** Fills `into` from `offset`. */
  read(offset: number, into: Uint8Array<ArrayBuffer>): Promise<void>;
  /** Writes all of `bytes` at `offset`. */
  write(offset: number, bytes: Uint8Array<ArrayBuffer>): Promise<void>;
  /** Makes everything durable that was written by calls that had resolved before this one (fdatasync). */
  sync(): Promise<void>;
  /**
   * Makes the range read as zeroes. `keepAllocated` leaves it provisioned (no later ENOSPC); otherwise space may be
   * given back to the device below. O(extents) where the platform can, else writes zeroes.
   */
  zero(offset: number, length: number, options: { keepAllocated: boolean }): Promise<void>;
  /** Releases the device. Calls under way finish first. */
  close(): Promise<void>;
  /**
   * Why the device cannot be reached just now, undefined while it can: for devices that may go away and come back. Calls
   * wait for it for a time that the device states, and then reject.
   */
  away?(): string | undefined;
  /** Nobody needs it any more: calls under way that wait for it to come back reject now. `close` is still to be called. */
  abandon?(): void;
  /** For how long it has been away, in milliseconds. */
  awayMs?(): number;
  /**
   * For how many milliseconds requests of anybody were under way on the disk, counted from any moment on; undefined when that
   * is not known. Asking does not wake a disk that has spun down.
   */
  busyMs?(): Promise<number | undefined>;
}

/**
 * A device that can also move bytes without a promise, for which nothing is allocated per transfer. The contract is that of
 * `read` and `write`, but for the end: `to.transferred` gets `length`, or something else when it failed, of which
 * `failure` makes the error.
 */
export interface EventDevice extends BlockDevice, TransferStarter {
  /** What is wrong with a transfer that ended with `result`. */
  failure(operation: "read" | "write", offset: number, length: number, result: number): DeviceError;
}

/** Whether a device can move bytes without promises. */
export function startsTransfers(device: BlockDevice): device is EventDevice {
  return "startRead" in device;
}
