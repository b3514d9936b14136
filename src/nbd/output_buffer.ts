/**
 * Replies on their way to the client, in order. Small ones are appended to a fill buffer, so that all replies of one
 * receive leave in one send; a large one is queued with the memory that it was read into.
 *
 * Invariants: what `output()` has handed out does not move or change until `sent()`; a reply's header and payload
 * are contiguous; the fill buffer's `start` and `end` are 0 when it holds nothing.
 *
 * @module
 */

import { assert } from "../errors.ts";

/** Sent-out buffers that are kept for the next replies instead of being left to the garbage collector. */
const spareBuffersMax = 2;
/** A finished reply up to this size is copied next to others, so that they share a send. */
const copyBytesMax = 32 * 1024;

interface Sealed {
  bytes: Uint8Array<ArrayBuffer>;
  start: number;
  end: number;
}

/** The sending end of a connection. */
export class OutputBuffer {
  /** The fill buffer; write a reply at the index that `reserve` returns. */
  bytes: Uint8Array<ArrayBuffer>;
  /** The same memory. */
  view: DataView;
  /** Bytes that wait to be sent. */
  queuedBytes = 0;
  #start = 0;
  #end = 0;
  #sending = false;
  readonly #capacityBytes: number;
  readonly #sealed: Sealed[] = [];
  readonly #spare: Uint8Array<ArrayBuffer>[] = [];

  constructor(capacityBytes: number) {
    this.#capacityBytes = capacityBytes;
    this.bytes = new Uint8Array(capacityBytes);
    this.view = new DataView(this.bytes.buffer);
  }

  /** The largest reply that `reserve` can take. */
  get reserveBytesMax(): number {
    return this.#capacityBytes;
  }

  /**
   * Makes room for `count` contiguous bytes in `bytes` and returns their index. Nothing is queued before `commit`;
   * a reservation that is not committed is forgotten.
   */
  reserve(count: number): number {
    if (this.#end + count > this.#capacityBytes) {
      assert(count <= this.#capacityBytes, "a reply larger than the fill buffer needs its own memory");
      this.#seal();
    }
    return this.#end;
  }

  /** Queues the `count` bytes that were written at the index that `reserve` returned. */
  commit(count: number): void {
    this.#end += count;
    this.queuedBytes += count;
  }

  /** Queues a whole reply, whose memory now belongs to this buffer. */
  push(reply: Uint8Array<ArrayBuffer>): void {
    if (reply.length <= copyBytesMax) {
      const at = this.reserve(reply.length);
      this.bytes.set(reply, at);
      this.commit(reply.length);
      return;
    }
    if (this.#end > 0) this.#seal();
    this.#sealed.push({ bytes: reply, start: 0, end: reply.length });
    this.queuedBytes += reply.length;
  }

  /** The bytes to send next, or null when there are none. At most one send may be under way. */
  output(): Uint8Array<ArrayBuffer> | null {
    const sealed = this.#sealed[0];
    if (sealed === undefined && this.#start === this.#end) return null;
    this.#sending = true;
    if (sealed !== undefined) return sealed.bytes.subarray(sealed.start, sealed.end);
    return this.bytes.subarray(this.#start, this.#end);
  }

  /** Takes note that the first `count` bytes of `output()` were sent. */
  sent(count: number): void {
    this.#sending = false;
    this.queuedBytes -= count;
    const sealed = this.#sealed[0];
    if (sealed === undefined) {
      this.#start += count;
      assert(this.#start <= this.#end);
      if (this.#start === this.#end) this.#start = this.#end = 0;
      return;
    }
    sealed.start += count;
    assert(sealed.start <= sealed.end);
    if (sealed.start < sealed.end) return;
    this.#sealed.shift();
    if (sealed.bytes.length === this.#capacityBytes && this.#spare.length < spareBuffersMax) {
      this.#spare.push(sealed.bytes);
    }
  }

  /** Forgets everything that was not sent. */
  clear(): void {
    this.#sealed.length = 0;
    this.#spare.length = 0;
    this.#start = this.#end = this.queuedBytes = 0;
    // A send of the old memory may still be under way, hence it is not filled again.
    this.bytes = new Uint8Array(0);
    this.view = new DataView(this.bytes.buffer);
  }

  /** Queues what the fill buffer holds. A little is copied out, so that it does not hold on to a whole buffer. */
  #seal(): void {
    if (!this.#sending && this.#end - this.#start <= copyBytesMax) {
      const bytes = this.bytes.slice(this.#start, this.#end);
      this.#sealed.push({ bytes, start: 0, end: bytes.length });
      this.#start = this.#end = 0;
      return;
    }
    this.#sealed.push({ bytes: this.bytes, start: this.#start, end: this.#end });
    this.bytes = this.#spare.pop() ?? new Uint8Array(this.#capacityBytes);
    this.view = new DataView(this.bytes.buffer);
    this.#start = this.#end = 0;
  }
}
