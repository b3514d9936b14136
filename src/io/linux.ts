/**
 * The Linux calls that Deno has no name for: ioctl, fallocate, O_EXCL and flock, by FFI on a file descriptor of our
 * own. All of it is optional: {@linkcode openLinuxFile} returns undefined when this is not Linux, when FFI is not
 * permitted, or when there is no C library of a known name, and the caller does without.
 *
 * Invariants: nobody is ever asked for a permission; a method that returns false has left the range with old bytes or
 * zeroes; the errno of a call that ran on another thread is lost, so a failed one is asked again, for one sector,
 * on this thread.
 *
 * @module
 */

import { sectorBytes } from "../units.ts";

const readOnlyFlag = 0;
const readWriteFlag = 2;
const exclusiveFlag = 0o200;
const closeOnExecFlag = 0o2000000;

const lockShared = 1;
const lockExclusive = 2;
const lockNonBlocking = 4;

const keepSize = 1;
const punchHole = 2;
const zeroRange = 0x10;

// <linux/fs.h>; the same numbers on x86-64 and arm64, the two that Deno runs on.
const blkGetSize64 = 0x80081272n;
const blkSectorSizeGet = 0x1268n;
const blkZeroOut = 0x127fn;

const errnoInterrupted = 4;
const errnoBusy = 16;
/** ENOTTY, EINVAL, ENOSYS, EOPNOTSUPP: this file will never do it. */
const errnoUnsupported = [25, 22, 38, 95];

/** A range call that takes long is cut into pieces, so that closing and progress need not wait for all of it. */
const pieceBytesMax = 256 * 1024 * 1024;
/** Most repetitions of a call that signals interrupt. */
const interruptionsMax = 100;

const symbols = {
  open: { parameters: ["buffer", "i32"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
  flock: { parameters: ["i32", "i32"], result: "i32" },
  errno: { name: "__errno_location", parameters: [], result: "pointer" },
  ioctl: { name: "ioctl", parameters: ["i32", "u64", "buffer"], result: "i32", nonblocking: true },
  ioctlNow: { name: "ioctl", parameters: ["i32", "u64", "buffer"], result: "i32" },
  fallocate: { parameters: ["i32", "i32", "i64", "i64"], result: "i32", nonblocking: true },
  fallocateNow: { name: "fallocate", parameters: ["i32", "i32", "i64", "i64"], result: "i32" },
  // Returns its errno, which is why it is this one: the errno of another thread cannot be had.
  allocate: { name: "posix_fallocate", parameters: ["i32", "i64", "i64"], result: "i32", nonblocking: true },
} as const;

type Library = Deno.DynamicLibrary<typeof symbols>;
type RangeCall = (offset: bigint, length: bigint) => number | Promise<number>;

/** Opens the C library, or returns undefined when that is not possible or not permitted. */
function openLibrary(): Library | undefined {
  if (Deno.build.os !== "linux") return undefined;
  // A query first: a call that is not permitted would ask the person at the terminal.
  if (Deno.permissions.querySync({ name: "ffi" }).state !== "granted") return undefined;
  try {
    return Deno.dlopen("libc.so.6", symbols);
  } catch {
    return undefined;
  }
}

/** A file descriptor of our own, for the calls that Deno has no name for. */
export class LinuxFile {
  #library: Library;
  #descriptor: number;
  #unsupported: Set<string> = new Set();

  /** Use {@linkcode openLinuxFile}. */
  constructor(library: Library, descriptor: number) {
    this.#library = library;
    this.#descriptor = descriptor;
  }

  /** BLKGETSIZE64: the size in bytes of a block device, undefined for other kinds. */
  deviceBytes(): number | undefined {
    const out = new BigUint64Array(1);
    const failed = this.#library.symbols.ioctlNow(this.#descriptor, blkGetSize64, out) !== 0;
    return failed ? undefined : Number(out[0]);
  }

  /** BLKSSZGET: the smallest unit in bytes that a block device addresses, undefined for other kinds. */
  deviceSectorBytes(): number | undefined {
    const out = new Int32Array(1);
    const failed = this.#library.symbols.ioctlNow(this.#descriptor, blkSectorSizeGet, out) !== 0;
    return failed ? undefined : out[0];
  }

  /** flock without waiting; false when another opener holds it. The lock lives until `close`. */
  tryLock(exclusive: boolean): boolean {
    const operation = (exclusive ? lockExclusive : lockShared) | lockNonBlocking;
    return this.#library.symbols.flock(this.#descriptor, operation) === 0;
  }

  /** Gives the range's storage back; it reads as zeroes. On a block device only where that is guaranteed. */
  punchHole(offset: number, length: number): Promise<boolean> {
    return this.#zeroByFallocate("punch hole", keepSize | punchHole, offset, length);
  }

  /** Makes the range of a regular file read as zeroes; its storage stays reserved. */
  zeroRange(offset: number, length: number): Promise<boolean> {
    return this.#zeroByFallocate("zero range", keepSize | zeroRange, offset, length);
  }

  /** BLKZEROOUT: makes the range of a block device read as zeroes; its storage stays provisioned. */
  zeroOut(offset: number, length: number): Promise<boolean> {
    const { ioctl, ioctlNow } = this.#library.symbols;
    return this.#inPieces(
      "zero out",
      offset,
      length,
      (at, bytes) => ioctl(this.#descriptor, blkZeroOut, new BigUint64Array([at, bytes])),
      (at, bytes) => ioctlNow(this.#descriptor, blkZeroOut, new BigUint64Array([at, bytes])),
    );
  }

  /**
   * Gives the range storage without changing what it reads as; a file that ends earlier grows.
   *
   * @returns the errno, 0 when it was done
   */
  async allocate(offset: number, length: number): Promise<number> {
    for (let tries = 0; tries < interruptionsMax; tries++) {
      const errno = await this.#library.symbols.allocate(this.#descriptor, BigInt(offset), BigInt(length));
      if (errno !== errnoInterrupted) return errno;
    }
    return errnoInterrupted;
  }

  /** Releases the descriptor, with its lock and its claim. */
  close(): void {
    this.#library.symbols.close(this.#descriptor);
    this.#library.close();
  }

  #zeroByFallocate(what: string, mode: number, offset: number, length: number): Promise<boolean> {
    const { fallocate, fallocateNow } = this.#library.symbols;
    return this.#inPieces(
      what,
      offset,
      length,
      (at, bytes) => fallocate(this.#descriptor, mode, at, bytes),
      (at, bytes) => fallocateNow(this.#descriptor, mode, at, bytes),
    );
  }

  async #inPieces(
    what: string,
    offset: number,
    length: number,
    elsewhere: RangeCall,
    here: RangeCall,
  ): Promise<boolean> {
    if (this.#unsupported.has(what)) return false;
    // A device of 4096-byte sectors answers EINVAL to anything finer, which says nothing about the next call.
    const unit = this.deviceSectorBytes() ?? 1;
    if (offset % unit !== 0 || length % unit !== 0) return false;
    const end = offset + length;
    for (let at = offset; at < end; at += pieceBytesMax) {
      const bytes = Math.min(pieceBytesMax, end - at);
      if (await elsewhere(BigInt(at), BigInt(bytes)) === 0) continue;
      const probeBytes = Math.min(Math.max(unit, sectorBytes), bytes);
      if (here(BigInt(at), BigInt(probeBytes)) !== 0 && errnoUnsupported.includes(errnoOf(this.#library))) {
        this.#unsupported.add(what);
      }
      return false;
    }
    return true;
  }
}

/** Must be asked right after the call that failed, on the same thread. */
function errnoOf(library: Library): number {
  const pointer = library.symbols.errno();
  return pointer === null ? 0 : new Deno.UnsafePointerView(pointer).getInt32();
}

/** The text of an errno that {@linkcode LinuxFile.allocate} returned, as Deno's own errors have it in `code`. */
export function errnoName(errno: number): string {
  const names: Record<number, string> = { 5: "EIO", 27: "EFBIG", 28: "ENOSPC", 30: "EROFS", 122: "EDQUOT" };
  return names[errno] ?? `errno ${errno}`;
}

/** True when the errno says that this file or platform cannot do such a thing at all. */
export function isUnsupported(errno: number): boolean {
  return errnoUnsupported.includes(errno);
}

/**
 * Opens `path` once more for the calls that Deno has no name for. With `claim`, a block device is claimed for this
 * opener alone (O_EXCL).
 *
 * @returns "busy" when the claim failed because somebody uses the device, undefined when the calls are not available
 */
export function openLinuxFile(
  path: string,
  options: { write: boolean; claim: boolean },
): LinuxFile | "busy" | undefined {
  const library = openLibrary();
  if (!library) return undefined;
  const flags = (options.write ? readWriteFlag : readOnlyFlag) | (options.claim ? exclusiveFlag : 0) |
    closeOnExecFlag;
  const descriptor = library.symbols.open(new TextEncoder().encode(`${path}\0`), flags);
  if (descriptor >= 0) return new LinuxFile(library, descriptor);
  const busy = errnoOf(library) === errnoBusy;
  library.close();
  return busy ? "busy" : undefined;
}
