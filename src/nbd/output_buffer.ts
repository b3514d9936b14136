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
const spareBuffersMax = 8;
/** A finished reply up to this size is copied next to others, so that they share a send. */
const copyBytesMax = 32 * 1024;

/** Memory with bytes to be sent, `[start, end)`. */
interface Piece {
  bytes: Uint8Array<ArrayBuffer>;
  /** The same memory; null in a reply that came with its own. */
  view: DataView | null;
  /** Whoever lent it wants it back. */
  isLent: boolean;
  start: number;
  end: number;
}

function emptyPiece(bytes: Uint8Array<ArrayBuffer>): Piece & { view: DataView } {
  return {
    bytes,
    view: new DataView(bytes.buffer, bytes.byteOffset, bytes.length),
    isLent: false,
    start: 0,
    end: 0,
  };
}

/** The sending end of a connection. */
export class OutputBuffer {
  /** The fill buffer; write a reply at the index that `reserve` returns. */
  bytes: Uint8Array<ArrayBuffer>;
  /** The same memory. */
  view: DataView;
  /** Bytes that wait to be sent. */
  queuedBytes = 0;
  /** What is to be sent next, after `next`: `source[sourceStart, sourceEnd)`. */
  source: Uint8Array<ArrayBuffer>;
  sourceStart = 0;
  sourceEnd = 0;
  /** Is given what was pushed as lent, once it is sent; what `clear` forgets is not told. */
  onLentSent: (buffer: Uint8Array<ArrayBuffer>) => void = () => {};
  #fill: Piece;
  #sending = false;
  #capacityBytes: number;
  readonly #sealed: Piece[] = [];
  readonly #spare: Piece[] = [];

  constructor(capacityBytes: number) {
    this.#capacityBytes = capacityBytes;
    const fill = emptyPiece(new Uint8Array(capacityBytes));
    this.#fill = fill;
    this.bytes = this.source = fill.bytes;
    this.view = fill.view;
  }

  /**
   * Goes on in `memory`, which is at least as large as the fill buffer, and keeps `spare`, when there is one, for later. What
   * is queued stays where it is.
   */
  adopt(memory: Uint8Array<ArrayBuffer>, spare: Uint8Array<ArrayBuffer> | null): void {
    assert(memory.length >= this.#capacityBytes && (spare === null || spare.length === memory.length));
    if (this.#fill.end > 0) this.#seal();
    this.#capacityBytes = memory.length;
    this.#spare.length = 0;
    this.#use(emptyPiece(memory));
    if (spare !== null) this.#spare.push(emptyPiece(spare));
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
    if (this.#fill.end + count > this.#capacityBytes) {
      assert(count <= this.#capacityBytes, "a reply larger than the fill buffer needs its own memory");
      this.#seal();
    }
    return this.#fill.end;
  }

  /** Queues the `count` bytes that were written at the index that `reserve` returned. */
  commit(count: number): void {
    this.#fill.end += count;
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
    if (this.#fill.end > 0) this.#seal();
    this.#sealed.push({ bytes: reply, view: null, isLent: false, start: 0, end: reply.length });
    this.queuedBytes += reply.length;
  }

  /** Queues `buffer[start, end)`, a reply or the next piece of one, until `onLentSent`. */
  pushLent(buffer: Uint8Array<ArrayBuffer>, start: number, end: number): void {
    if (this.#fill.end > 0) this.#seal();
    this.#sealed.push({ bytes: buffer, view: null, isLent: true, start, end });
    this.queuedBytes += end - start;
  }

  /** The bytes to send next, or null when there are none. At most one send may be under way. */
  output(): Uint8Array<ArrayBuffer> | null {
    return this.next() ? this.source.subarray(this.sourceStart, this.sourceEnd) : null;
  }

  /** The same without allocating anything: whether there are any; the answer is in `source` and its limits. */
  next(): boolean {
    if (this.queuedBytes === 0) return false;
    this.#sending = true;
    const { bytes, start, end } = this.#first;
    this.source = bytes;
    this.sourceStart = start;
    this.sourceEnd = end;
    return true;
  }

  get #first(): Piece {
    return this.#sealed.length > 0 ? this.#sealed[0]! : this.#fill;
  }

  /** Takes note that the first `count` bytes of `output()` were sent. */
  sent(count: number): void {
    this.#sending = false;
    this.queuedBytes -= count;
    const piece = this.#first;
    piece.start += count;
    assert(piece.start <= piece.end);
    if (piece.start < piece.end) return;
    piece.start = piece.end = 0;
    if (piece === this.#fill) return;
    this.#sealed.shift();
    if (piece.isLent) this.onLentSent(piece.bytes);
    const isFillBuffer = piece.view !== null && piece.bytes.length === this.#capacityBytes;
    if (isFillBuffer && this.#spare.length < spareBuffersMax) this.#spare.push(piece);
  }

  /** Forgets everything that was not sent. */
  clear(): void {
    this.#sealed.length = 0;
    this.#spare.length = 0;
    this.queuedBytes = 0;
    // A send of the old memory may still be under way, hence it is not filled again.
    this.#use(emptyPiece(new Uint8Array(0)));
  }

  /** Queues what the fill buffer holds. A little is copied out, so that it does not hold on to a whole buffer. */
  #seal(): void {
    const fill = this.#fill;
    if (!this.#sending && fill.end - fill.start <= copyBytesMax) {
      const bytes = fill.bytes.slice(fill.start, fill.end);
      this.#sealed.push({ bytes, view: null, isLent: false, start: 0, end: bytes.length });
      fill.start = fill.end = 0;
      return;
    }
    this.#sealed.push(fill);
    this.#use(this.#spare.pop() ?? emptyPiece(new Uint8Array(this.#capacityBytes)));
  }

  #use(piece: Piece): void {
    this.#fill = piece;
    this.bytes = piece.bytes;
    this.view = piece.view!;
  }
}
