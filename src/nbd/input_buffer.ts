/**
 * Where a connection's bytes arrive. A fixed buffer takes whole small messages in place; a message that cannot fit
 * into it gets a buffer of its own for as long as it lives (`collect`), or is thrown away as it comes (`discard`).
 *
 * The fixed buffer may be exchanged for one that the volume lends (`adopt`), from which it copies faster.
 *
 * Invariants: 0 <= start <= end <= bytes.length; `start` and `end` are 0 when nothing is unread, so that a quiet
 * connection touches the first pages only; nothing moves between `space()` and `received()`.
 *
 * @module
 */

import { assert } from "../errors.ts";

/** Free bytes at the end below which the unread bytes move to the front before the next receive. */
const receiveBytesMin = 64 * 1024;

/** The receiving end of a connection. */
export class InputBuffer {
  /** The buffer; unread bytes are `[start, end)`. */
  bytes: Uint8Array<ArrayBuffer>;
  /** The same memory. */
  view: DataView;
  /** Index of the first unread byte. */
  start = 0;
  /** Index behind the last unread byte. */
  end = 0;
  /** Where the next receive goes, after `aim`: `target[targetStart, target.length)`. */
  target: Uint8Array<ArrayBuffer>;
  targetStart = 0;
  #pieces: readonly Uint8Array<ArrayBuffer>[] | null = null;
  /** The piece that is filled next, and how far it is. */
  #piece = 0;
  #filled = 0;
  #discardBytes = 0;
  #receiving = false;

  constructor(capacityBytes: number) {
    this.bytes = new Uint8Array(capacityBytes);
    this.view = new DataView(this.bytes.buffer);
    this.target = this.bytes;
  }

  /** Moves into `memory`, which is at least as large. REQUIRES: no receive is under way and nothing is collected. */
  adopt(memory: Uint8Array<ArrayBuffer>): void {
    assert(!this.#receiving && this.#pieces === null && memory.length >= this.bytes.length);
    memory.set(this.bytes.subarray(this.start, this.end));
    this.end -= this.start;
    this.start = 0;
    this.bytes = this.target = memory;
    this.view = new DataView(memory.buffer, memory.byteOffset, memory.length);
  }

  /** Where the next receive goes; never empty. The same bytes stay in place until `received`. */
  space(): Uint8Array<ArrayBuffer> {
    this.aim();
    return this.target.subarray(this.targetStart);
  }

  /** The same without allocating anything: the answer is in `target` and `targetStart`. */
  aim(): void {
    this.#receiving = true;
    if (this.#pieces !== null) {
      this.target = this.#pieces[this.#piece]!;
      this.targetStart = this.#filled;
      return;
    }
    if (this.start > 0 && this.bytes.length - this.end < receiveBytesMin) {
      this.bytes.copyWithin(0, this.start, this.end);
      this.end -= this.start;
      this.start = 0;
    }
    assert(this.end < this.bytes.length, "a message that cannot fit was left in the input buffer");
    this.target = this.bytes;
    this.targetStart = this.end;
  }

  /** Takes note of `count` bytes that arrived in `space()`. */
  received(count: number): void {
    this.#receiving = false;
    if (this.#pieces !== null) return this.#fill(count);
    this.end += count;
    assert(this.end <= this.bytes.length);
    if (this.#discardBytes > 0) this.discard(0);
  }

  /** Passes over `count` unread bytes. */
  consume(count: number): void {
    this.start += count;
    assert(this.start <= this.end);
    if (this.start === this.end) this.start = this.end = 0;
  }

  /** Throws away the next `count` bytes, as far as they are here; `isBusy` until all have come. */
  discard(count: number): void {
    this.#discardBytes += count;
    const here = Math.min(this.#discardBytes, this.end - this.start);
    this.#discardBytes -= here;
    this.consume(here);
  }

  /**
   * Collects the next `count` bytes in memory of their own, or in `pieces`, which together are as long; `isBusy` until all
   * have come.
   */
  collect(count: number, pieces?: readonly Uint8Array<ArrayBuffer>[]): void {
    assert(this.#pieces === null && !this.#receiving);
    this.#pieces = pieces ?? [new Uint8Array(count)];
    this.#piece = count === 0 ? 1 : 0;
    this.#filled = 0;
    let missing = count;
    while (missing > 0 && this.start < this.end) {
      const piece = this.#pieces[this.#piece]!;
      const here = Math.min(piece.length - this.#filled, this.end - this.start);
      piece.set(this.bytes.subarray(this.start, this.start + here), this.#filled);
      this.consume(here);
      this.#fill(here);
      missing -= here;
    }
  }

  #fill(count: number): void {
    const pieces = this.#pieces!;
    this.#filled += count;
    assert(this.#filled <= pieces[this.#piece]!.length);
    if (this.#filled < pieces[this.#piece]!.length) return;
    this.#piece++;
    this.#filled = 0;
  }

  /** True while bytes are being collected or thrown away, and more have to come. */
  get isBusy(): boolean {
    return this.#discardBytes > 0 || (this.#pieces !== null && this.#piece < this.#pieces.length);
  }

  /** Hands over what `collect` collected: its first piece, which is all of it unless there were several. */
  takePayload(): Uint8Array<ArrayBuffer> {
    assert(this.#pieces !== null && !this.isBusy, "no whole payload was collected");
    const [first] = this.#pieces;
    this.#pieces = null;
    return first!;
  }
}
