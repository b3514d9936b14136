/**
 * Files and block devices on the ring. Reads, writes, syncs and fallocate are operations of the ring; what returns at
 * once anyway (stat, flock) is called directly.
 *
 * Invariants: with `direct`, aligned writes bypass the page cache, through a bounce buffer where only their memory is
 * not aligned. Reads, and writes that are not aligned, go through the page cache by another descriptor; Linux keeps the
 * two coherent. (A sync has less to do then; direct reads had 0.5 to 0.7 times the rate of cached ones, and twice the
 * CPU time, at a queue depth of 64.) Descriptors are closed only when no operation is in flight on them.
 *
 * @module
 */

import { DeviceError } from "../../errors.ts";
import type { EventFile, PathFacts, TransferEnd } from "../io.ts";
import { fallocateMode, fsyncDataSync, lockFlag, openFlag, operation } from "./abi.ts";
import { errno, errnoError, isUnsupported } from "./errno.ts";
import { descriptorFacts, type DirectAlignment } from "./facts.ts";
import { cString } from "./libc.ts";
import { addressOf, bounceBytesMax, pageBytes } from "./memory.ts";
import { submit } from "./operation.ts";
import type { Reactor } from "./reactor.ts";
import { type TransferOwner, Transfers } from "./transfer.ts";

/** <linux/fs.h>. */
const blkGetSize64 = 0x80081272n;

/** Right on every device where the kernel does not say what it wants. */
const alignmentStandard: DirectAlignment = { memoryBytes: pageBytes, offsetBytes: pageBytes };
/** A range call that takes long is cut into pieces, so that closing need not wait for all of it. */
const pieceBytesMax = 256 * 1024 * 1024;
/** Most bytes of one read or write: what fits the length field, and a signed result. */
const transferBytesMax = 1 << 30;
/** Most repetitions of a call that is interrupted or that finds the kernel short of something. */
const retriesMax = 100;

/** How to open a {@linkcode RingFile}. */
export interface RingFileOptions {
  write: boolean;
  create?: boolean;
  /** Writes bypass the page cache where the filesystem lets them. */
  direct?: boolean;
}

/** Opens a file. Errors have an errno name in `code`. */
export function openRingFile(reactor: Reactor, path: string, options: RingFileOptions): RingFile {
  const flags = options.write ? openFlag.readWrite : openFlag.readOnly;
  const making = options.create ? openFlag.create | openFlag.exclusive : 0;
  const primary = openDescriptor(reactor, path, flags | making);
  try {
    const { facts, direct: wanted } = descriptorFacts(reactor.libc, primary);
    const may = options.direct === true && options.write && wanted !== null && facts.kind !== "directory";
    const direct = may ? openAgain(reactor, primary, openFlag.readWrite | openFlag.direct) : -1;
    return new RingFile(
      reactor,
      { path, primary, direct, kind: facts.kind },
      wanted ?? alignmentStandard,
      flags,
    );
  } catch (error) {
    reactor.libc.call.close(primary);
    throw error;
  }
}

function openDescriptor(reactor: Reactor, path: string, flags: number): number {
  const { call } = reactor.libc;
  for (let tries = 0;; tries++) {
    const descriptor = call.open(cString(path), flags | openFlag.closeOnExec, 0o600);
    if (descriptor >= 0) return descriptor;
    const number = reactor.libc.errno();
    if (number !== errno.EINTR || tries >= retriesMax) throw errnoError(`open ${path}`, number);
  }
}

/** Opens the very same file once more, though its path be replaced; -1 when that is not possible. */
function openAgain(reactor: Reactor, descriptor: number, flags: number): number {
  return reactor.libc.call.open(cString(`/proc/self/fd/${descriptor}`), flags | openFlag.closeOnExec, 0);
}

/** An open file on the ring. */
export class RingFile implements EventFile, TransferOwner {
  readonly #reactor: Reactor;
  readonly #path: string;
  readonly #kind: PathFacts["kind"];
  readonly #flags: number;
  readonly #alignment: DirectAlignment;
  /** Buffered; holds the lock. */
  readonly #primary: number;
  /** Its writes bypass the page cache; -1 when there is none. */
  #direct: number;
  /** Open until the file is closed: a claim, and a direct one that did not work. */
  readonly #others: number[] = [];
  readonly #transfers: Transfers;
  #callsUnderWay = 0;
  #closed: Promise<void> | undefined;
  #whenIdle: (() => void) | undefined;

  /** Use {@linkcode openRingFile}. */
  constructor(
    reactor: Reactor,
    opened: { path: string; primary: number; direct: number; kind: PathFacts["kind"] },
    alignment: DirectAlignment,
    flags: number,
  ) {
    this.#reactor = reactor;
    this.#path = opened.path;
    this.#kind = opened.kind;
    this.#primary = opened.primary;
    this.#direct = opened.direct;
    this.#alignment = alignment;
    this.#flags = flags;
    this.#transfers = new Transfers(reactor, this);
    reactor.acquire();
  }

  /** Whether aligned writes bypass the page cache. */
  get isDirect(): boolean {
    return this.#direct >= 0;
  }

  // The hot path starts here.

  startRead(
    offset: number,
    memory: Uint8Array<ArrayBuffer>,
    at: number,
    length: number,
    to: TransferEnd,
    tag: number,
  ): boolean {
    if (this.#closed !== undefined || length === 0 || length > transferBytesMax) return false;
    this.#callsUnderWay++;
    this.#transfers.start(operation.read, this.#primary, offset, memory, at, length, to, tag);
    return true;
  }

  startWrite(
    offset: number,
    memory: Uint8Array<ArrayBuffer>,
    at: number,
    length: number,
    to: TransferEnd,
    tag: number,
  ): boolean {
    if (this.#closed !== undefined || length === 0 || length > transferBytesMax) return false;
    let descriptor = this.#primary;
    if (this.#isAligned(offset, length)) {
      // What is aligned but for its memory needs a bounce buffer, which `write` has.
      if ((this.#transfers.base(memory) + at) % this.#alignment.memoryBytes !== 0) return false;
      descriptor = this.#direct;
    }
    this.#callsUnderWay++;
    this.#transfers.start(operation.write, descriptor, offset, memory, at, length, to, tag);
    return true;
  }

  /** The transfers' part; not to be called. */
  transferEnded(): void {
    if (--this.#callsUnderWay === 0 && this.#whenIdle) this.#wakeClosing();
  }

  /** The transfers' part; not to be called. */
  directRefused(): number {
    this.#dropDirect();
    return this.#primary;
  }

  // The hot path ends here.

  transferError(operation: "read" | "write", result: number): Error {
    return errnoError(operation, -result);
  }

  #wakeClosing(): void {
    this.#whenIdle?.();
    this.#reactor.settled();
  }

  read(offset: number, into: Uint8Array<ArrayBuffer>): Promise<number> {
    return this.#call(async () =>
      checked("read", await this.#transfer(operation.read, this.#primary, offset, into))
    );
  }

  write(offset: number, bytes: Uint8Array<ArrayBuffer>): Promise<number> {
    return this.#call(async () => {
      if (this.#isAligned(offset, bytes.length)) {
        const memory = addressOf(bytes) % this.#alignment.memoryBytes === 0;
        const count = memory
          ? await this.#transfer(operation.write, this.#direct, offset, bytes)
          : await this.#writeBounced(offset, bytes);
        if (count !== -errno.EINVAL) return checked("write", count);
        this.#dropDirect();
      }
      return checked("write", await this.#transfer(operation.write, this.#primary, offset, bytes));
    });
  }

  sync(): Promise<void> {
    return this.#call(async () => {
      checked(
        "fdatasync",
        await this.#retried({ operation: operation.fsync, descriptor: this.#primary, flags: fsyncDataSync }),
      );
    });
  }

  stat(): Promise<PathFacts> {
    return this.#call(() => descriptorFacts(this.#reactor.libc, this.#primary).facts);
  }

  size(): Promise<number> {
    return this.#call(() => {
      if (this.#kind !== "block") return descriptorFacts(this.#reactor.libc, this.#primary).facts.sizeBytes;
      const out = new BigUint64Array(1);
      const { libc } = this.#reactor;
      if (libc.call.ioctl(this.#primary, blkGetSize64, out) !== 0) {
        throw errnoError("BLKGETSIZE64", libc.errno());
      }
      return Number(out[0]);
    });
  }

  tryLock(exclusive: boolean): Promise<boolean> {
    return this.#call(() => {
      const { libc } = this.#reactor;
      const how = (exclusive ? lockFlag.exclusive : lockFlag.shared) | lockFlag.nonBlocking;
      for (let tries = 0; tries < retriesMax; tries++) {
        if (libc.call.flock(this.#primary, how) === 0) return true;
        const number = libc.errno();
        if (number === errno.EAGAIN) return false;
        if (number !== errno.EINTR) throw errnoError("flock", number);
      }
      return false;
    });
  }

  claim(): Promise<boolean> {
    return this.#call(() => {
      if (this.#kind !== "block") return true;
      const claim = openAgain(this.#reactor, this.#primary, this.#flags | openFlag.exclusive);
      if (claim < 0) return this.#reactor.libc.errno() !== errno.EBUSY;
      this.#others.push(claim);
      return true;
    });
  }

  zeroFast(offset: number, length: number, keepAllocated: boolean): Promise<boolean> {
    return this.#call(async () => {
      const { keepSize, punchHole, zeroRange } = fallocateMode;
      if (this.#kind === "file") {
        const mode = keepSize | (keepAllocated ? zeroRange : punchHole);
        return await this.#fallocate(mode, offset, length) === 0;
      }
      if (this.#kind !== "block") return false;
      // A hole in a block device: the kernel unmaps only what is then guaranteed to read as zeroes.
      return (!keepAllocated && await this.#fallocate(keepSize | punchHole, offset, length) === 0) ||
        await this.#fallocate(keepSize | zeroRange, offset, length) === 0;
    });
  }

  allocate(offset: number, length: number): Promise<boolean> {
    return this.#call(async () => {
      const number = -await this.#fallocate(0, offset, length);
      if (number === 0) return true;
      if (isUnsupported(number)) return false;
      throw errnoError("fallocate", number);
    });
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    if (this.#callsUnderWay > 0) await new Promise<void>((resolve) => this.#whenIdle = resolve);
    const { call } = this.#reactor.libc;
    for (const descriptor of [this.#direct, ...this.#others, this.#primary]) {
      if (descriptor >= 0) call.close(descriptor);
    }
    this.#reactor.release();
  }

  /** Counts a call, so that `close` can wait for it. */
  async #call<Result>(action: () => Result | Promise<Result>): Promise<Result> {
    if (this.#closed) throw new DeviceError("ESHUTDOWN", `Cannot use ${this.#path}: it is closed`);
    this.#callsUnderWay++;
    try {
      return await action();
    } finally {
      if (--this.#callsUnderWay === 0) this.#whenIdle?.();
    }
  }

  #isAligned(offset: number, length: number): boolean {
    const { offsetBytes } = this.#alignment;
    return this.#direct >= 0 && length > 0 && offset % offsetBytes === 0 && length % offsetBytes === 0;
  }

  /** Some filesystems take O_DIRECT at open and refuse it at the first call. */
  #dropDirect(): void {
    if (this.#direct < 0) return;
    // Other calls may be in flight on it, so it stays open as long as the file.
    this.#others.push(this.#direct);
    this.#direct = -1;
  }

  async #writeBounced(offset: number, bytes: Uint8Array<ArrayBuffer>): Promise<number> {
    const { bounces } = this.#reactor;
    const length = Math.min(bytes.length, bounceBytesMax);
    const bounce = bounces.take(length);
    const part = bounce.subarray(0, length);
    part.set(length === bytes.length ? bytes : bytes.subarray(0, length));
    const count = await this.#transfer(operation.write, this.#direct, offset, part);
    bounces.give(bounce);
    return count;
  }

  #transfer(
    code: number,
    descriptor: number,
    offset: number,
    bytes: Uint8Array<ArrayBuffer>,
  ): Promise<number> {
    const part = bytes.length <= transferBytesMax ? bytes : bytes.subarray(0, transferBytesMax);
    return this.#retried({ operation: code, descriptor, offset, bytes: part });
  }

  /** fallocate in pieces; 0 or a negative errno. */
  async #fallocate(mode: number, offset: number, length: number): Promise<number> {
    const end = offset + length;
    for (let at = offset; at < end; at += pieceBytesMax) {
      const result = await this.#retried({
        operation: operation.fallocate,
        descriptor: this.#primary,
        offset: at,
        address: Math.min(pieceBytesMax, end - at),
        length: mode,
      });
      if (result < 0) return result;
    }
    return 0;
  }

  async #retried(submission: Parameters<typeof submit>[1]): Promise<number> {
    for (let tries = 0;; tries++) {
      const result = await submit(this.#reactor, submission);
      const passing = result === -errno.EINTR || result === -errno.EAGAIN;
      if (!passing || tries >= retriesMax) return result;
    }
  }
}

function checked(call: string, result: number): number {
  if (result < 0) throw errnoError(call, -result);
  return result;
}
