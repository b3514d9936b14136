/**
 * What a server serves. `Cache` implements it; tests bring plain memory.
 *
 * The `…Now` calls are the hot path: they are synchronous, allocate nothing, and either do all of the request or
 * return false without any effect, in which case the caller takes the asynchronous twin. They never throw for what
 * a device or a client did.
 *
 * @module
 */

import { kib } from "../units.ts";

/** Bytes of a buffer that a volume lends. */
export const lentBufferBytes = 260 * kib;

/** Is told of the end of a read that {@linkcode Volume.readSoon} started. */
export interface ReadEnd {
  /**
   * The data is `memory[at, at + length)`, for the time of this call only; with `at` below 0 it could not be had this way,
   * and `read` must be used, which also tells what is wrong.
   */
  readEnded(tag: number, memory: Uint8Array, at: number): void;
}

/** A run of bytes with one allocation status. */
export interface Extent {
  /** Bytes, > 0. */
  length: number;
  /** Reads as zeroes. */
  zero: boolean;
  /** Not allocated: a write there may need space first. */
  hole: boolean;
}

/** What a cache can tell of ranges: the backing device lacks them (`dirty`), or reads find them in the log (`cached`). */
export type MarkKind = "dirty" | "cached";

/** A run of bytes that are all marked or all not. */
export interface MarkedExtent {
  /** Bytes, > 0. */
  length: number;
  /** What was asked about holds for all of it. */
  marked: boolean;
}

/** Options of the writing calls. */
export interface WriteOptions {
  /** Durable before the call resolves (force unit access). */
  fua?: boolean;
}

/** A block volume of fixed size, addressed in bytes at any alignment. */
export interface Volume {
  /** The size in bytes. */
  readonly sizeBytes: number;
  /** True when every writing call rejects with `DeviceError` EROFS. */
  readonly readOnly: boolean;
  /** Fills `into[at, at + length)` from `offset` when all of it is in RAM; else returns false. */
  readNow(offset: number, into: Uint8Array, at: number, length: number): boolean;
  /**
   * Starts to read up to 256 KiB, where that takes no promise: `to.readEnded(tag, ...)` follows once, later. False, with nothing begun,
   * when `read` must be used instead.
   */
  readSoon?(offset: number, length: number, to: ReadEnd, tag: number): boolean;
  /**
   * Starts to read straight into `memory[at, at + length)`, which is of a lent buffer, where that takes no promise: `to.readEnded(tag,
   * memory, at)` follows once, later, and until then the memory is not the caller's. False, with nothing under way but arbitrary bytes
   * in `memory`, when `read` must be used instead.
   */
  readInto?(
    offset: number,
    memory: Uint8Array<ArrayBuffer>,
    at: number,
    length: number,
    to: ReadEnd,
    tag: number,
  ): boolean;
  /**
   * Lends {@linkcode lentBufferBytes} of memory between which and itself the volume copies without allocating anything;
   * null when none is left. Its content is arbitrary.
   */
  lendBuffer?(): Uint8Array<ArrayBuffer> | null;
  /** Takes a lent buffer back, which nobody may touch any more. */
  returnBuffer?(buffer: Uint8Array<ArrayBuffer>): void;
  /**
   * A hint that requests at the first `count` of `offsets`, any numbers, are made next: what they look up is brought near, all of it at
   * once. Changes nothing.
   */
  announce?(offsets: Float64Array, count: number): void;
  /** Takes `source[at, at + length)` at `offset` when it fits into RAM and log at once; else returns false. */
  writeNow(offset: number, source: Uint8Array, at: number, length: number): boolean;
  /**
   * After `writeNow` has refused `length` bytes: whether nothing but log writes under way is in their way, so that it is to be tried
   * again when `again` is called, once and soon, instead of taking `write`.
   */
  whenWritable?(length: number, again: () => void): boolean;
  /** Fills `into` from `offset`. Rejects with `DeviceError`. */
  read(offset: number, into: Uint8Array): Promise<void>;
  /** Writes `bytes` at `offset`; `bytes` must not change until it resolves. */
  write(offset: number, bytes: Uint8Array, options?: WriteOptions): Promise<void>;
  /** Makes every write that has been acknowledged durable. */
  flush(): Promise<void>;
  /** Drops the range's content; it reads as zeroes afterwards. */
  trim(offset: number, length: number, options?: WriteOptions): Promise<void>;
  /** Makes the range read as zeroes. `keepAllocated` (NBD's NO_HOLE) keeps the backing provisioned. */
  zero(offset: number, length: number, options?: WriteOptions & { keepAllocated?: boolean }): Promise<void>;
  /** A hint that the range will be read soon. */
  prefetch(offset: number, length: number): Promise<void>;
  /**
   * The allocation status from `offset` on, covering `length` bytes or, after `limit` extents, less; at least one
   * extent, neighbours differ.
   */
  extents(offset: number, length: number, limit: number): Promise<Extent[]>;
  /** Like `extents`, for what only a cache can tell. It may cover less than asked for. A plain volume has no such thing. */
  marks?(kind: MarkKind, offset: number, length: number, limit: number): Promise<MarkedExtent[]>;
  /**
   * The volume as it was at a flush point, read-only; to be closed by whoever asked for it. Rejects with `RefusedError` when
   * that cannot be had. A plain volume has no past.
   */
  frozen?(sequence: number): Promise<Volume & { close(): void }>;
  /** Whether {@linkcode changesSince} can tell what changed after a sequence. */
  knowsChangesSince?(sequence: number): boolean;
  /** Like `marks`: what changed after the record `sequence` of the log and before this call. */
  changesSince?(sequence: number, offset: number, length: number, limit: number): Promise<MarkedExtent[]>;
  /**
   * True when all of the range reads as zeroes and that is known at once, so that they need not be sent. Like the other
   * `…Now` calls it allocates nothing and never throws.
   */
  zeroesNow?(offset: number, length: number): boolean;
}
