/**
 * A volume in plain memory for tests of the server: exact, with switches for what a cache may do. The `…Now` calls can
 * be refused, asynchronous calls can be held back or delayed, and any call can be made to fail.
 *
 * @module
 */

import {
  type Extent,
  lentBufferBytes,
  type ReadEnd,
  type Volume,
  type WriteOptions,
} from "../../src/cache/volume.ts";
import { assert, DeviceError } from "../../src/errors.ts";

/** The calls that can be held back or made to fail. */
export type VolumeCall = "read" | "write" | "flush" | "trim" | "zero" | "prefetch" | "extents";

export interface MemoryVolumeOptions {
  readOnly?: boolean;
  /** Answer `readNow` and `writeNow`; default true. */
  hot?: boolean;
  /** Answer `readSoon`, by a call after `before`; false by default. */
  soon?: boolean;
  /** Answer `readInto`, by a call after `before`; false by default. */
  into?: boolean;
  /** Called before each asynchronous call takes effect; may wait, and may throw. */
  before?: (call: VolumeCall, offset: number, length: number) => Promise<void> | void;
}

const pageBytes = 4096;

export class MemoryVolume implements Volume {
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  readonly bytes: Uint8Array<ArrayBuffer>;
  hot: boolean;
  before: NonNullable<MemoryVolumeOptions["before"]>;
  /** Every asynchronous call, in the order in which they came. */
  readonly calls: { call: VolumeCall; offset: number; length: number; fua: boolean }[] = [];
  /** Asynchronous calls under way. */
  underWay = 0;
  soon: boolean;
  into: boolean;
  /** `writeNow` refuses, and `whenWritable` says that it is worth waiting. */
  full = false;
  /** Who waits. */
  again: (() => void) | undefined;
  /** Buffers that it has to lend. */
  buffers = Infinity;
  /** Buffers that are lent. */
  readonly lent = new Set<Uint8Array<ArrayBuffer>>();
  /** `keepAllocated` of the last `zero`. */
  keptAllocated = false;
  /** One byte per page: 0 hole, 1 zero but allocated, 2 data. */
  readonly #pages: Uint8Array;

  constructor(sizeBytes: number, options: MemoryVolumeOptions = {}) {
    this.sizeBytes = sizeBytes;
    this.readOnly = options.readOnly ?? false;
    this.hot = options.hot ?? true;
    this.soon = options.soon ?? false;
    this.into = options.into ?? false;
    this.before = options.before ?? (() => {});
    this.bytes = new Uint8Array(sizeBytes);
    this.#pages = new Uint8Array(Math.ceil(sizeBytes / pageBytes));
  }

  readNow(offset: number, into: Uint8Array, at: number, length: number): boolean {
    if (!this.hot) return false;
    into.set(this.bytes.subarray(offset, offset + length), at);
    return true;
  }

  writeNow(offset: number, source: Uint8Array, at: number, length: number): boolean {
    if (!this.hot || this.readOnly || this.full) return false;
    this.#store(offset, source.subarray(at, at + length));
    return true;
  }

  whenWritable(_length: number, again: () => void): boolean {
    if (this.full) this.again = again;
    return this.full;
  }

  readSoon(offset: number, length: number, to: ReadEnd, tag: number): boolean {
    if (!this.soon) return false;
    this.#call("read", offset, length, false, () => this.bytes).then(
      (memory) => to.readEnded(tag, memory, offset),
      () => to.readEnded(tag, this.bytes, -1),
    );
    return true;
  }

  readInto(
    offset: number,
    memory: Uint8Array<ArrayBuffer>,
    at: number,
    length: number,
    to: ReadEnd,
    tag: number,
  ): boolean {
    if (!this.into) return false;
    assert(this.lent.has(memory), "it goes into a lent buffer");
    this.#call("read", offset, length, false, () => {
      assert(this.lent.has(memory), "which is not given back meanwhile");
      memory.set(this.bytes.subarray(offset, offset + length), at);
    }).then(() => to.readEnded(tag, memory, at), () => to.readEnded(tag, memory, -1));
    return true;
  }

  lendBuffer(): Uint8Array<ArrayBuffer> | null {
    if (this.lent.size >= this.buffers) return null;
    const buffer = new Uint8Array(lentBufferBytes + 100).subarray(100);
    this.lent.add(buffer);
    return buffer;
  }

  returnBuffer(buffer: Uint8Array<ArrayBuffer>): void {
    assert(this.lent.delete(buffer), "a buffer is given back once");
    buffer.fill(0xee);
  }

  read(offset: number, into: Uint8Array): Promise<void> {
    return this.#call("read", offset, into.length, false, () => {
      into.set(this.bytes.subarray(offset, offset + into.length));
    });
  }

  write(offset: number, bytes: Uint8Array, { fua = false }: WriteOptions = {}): Promise<void> {
    return this.#call("write", offset, bytes.length, fua, () => this.#store(offset, bytes));
  }

  flush(): Promise<void> {
    return this.#call("flush", 0, 0, false, () => {});
  }

  trim(offset: number, length: number, { fua = false }: WriteOptions = {}): Promise<void> {
    return this.#call("trim", offset, length, fua, () => this.#clear(offset, length, 0));
  }

  zero(
    offset: number,
    length: number,
    { fua = false, keepAllocated = false }: WriteOptions & { keepAllocated?: boolean } = {},
  ): Promise<void> {
    return this.#call("zero", offset, length, fua, () => {
      this.keptAllocated = keepAllocated;
      this.#clear(offset, length, keepAllocated ? 1 : 0);
    });
  }

  prefetch(offset: number, length: number): Promise<void> {
    return this.#call("prefetch", offset, length, false, () => {});
  }

  extents(offset: number, length: number, limit: number): Promise<Extent[]> {
    return this.#call("extents", offset, length, false, () => {
      const extents: Extent[] = [];
      for (let at = offset; at < offset + length;) {
        const state = this.#pages[Math.floor(at / pageBytes)]!;
        const end = Math.min(offset + length, (Math.floor(at / pageBytes) + 1) * pageBytes);
        const extent = { length: end - at, hole: state === 0, zero: state < 2 };
        const last = extents.at(-1);
        if (last && last.hole === extent.hole && last.zero === extent.zero) last.length += extent.length;
        else if (extents.length === limit) break;
        else extents.push(extent);
        at = end;
      }
      return extents;
    });
  }

  async #call<Result>(
    call: VolumeCall,
    offset: number,
    length: number,
    fua: boolean,
    effect: () => Result,
  ): Promise<Result> {
    this.calls.push({ call, offset, length, fua });
    this.underWay++;
    try {
      const writing = call === "write" || call === "trim" || call === "zero";
      if (writing && this.readOnly) {
        throw new DeviceError("EROFS", "Cannot write: the test volume is read-only");
      }
      // Without a wait the effect is immediate, so that calls take effect in the order in which they came.
      const wait = this.before(call, offset, length);
      if (wait) await wait;
      return effect();
    } finally {
      this.underWay--;
    }
  }

  #store(offset: number, bytes: Uint8Array): void {
    this.bytes.set(bytes, offset);
    const last = Math.floor((offset + bytes.length - 1) / pageBytes);
    this.#pages.fill(2, Math.floor(offset / pageBytes), last + 1);
  }

  #clear(offset: number, length: number, state: number): void {
    this.bytes.fill(0, offset, offset + length);
    // The last page may be short; it is whole when the range reaches the end of the volume.
    const end = offset + length === this.sizeBytes
      ? this.#pages.length
      : Math.floor((offset + length) / pageBytes);
    this.#pages.fill(state, Math.ceil(offset / pageBytes), end);
  }
}

/** A gate that holds calls back until it is opened. */
export class Gate {
  #waiting: (() => void)[] = [];
  #open = false;
  /** Calls held back. */
  get waiting(): number {
    return this.#waiting.length;
  }
  pass = (): Promise<void> | void => {
    if (!this.#open) return new Promise((resolve) => this.#waiting.push(resolve));
  };
  /** Lets everything through that waits, and all that comes. */
  open(): void {
    this.#open = true;
    for (const go of this.#waiting.splice(0)) go();
  }
  /** Lets through what has waited longest. */
  openOne(): void {
    this.#waiting.shift()?.();
  }
}
