/**
 * Long READs whose data the volume puts straight into memory that is then sent: lent buffers, each with room for a header in
 * front of its data. No promise, and no copy between device and socket.
 *
 * Invariants: each READ is counted as an operation under way until the volume has ended it or it goes on as another one; its
 * buffers are its own until then, and the output's afterwards; the pieces of a reply are queued one behind the other.
 *
 * @module
 */

import { lentBufferBytes, type ReadEnd, type Volume } from "../cache/volume.ts";
import { assert } from "../errors.ts";
import { kib } from "../units.ts";
import { chunkDone, dataChunkHeaderBytesMax, payloadAdvertisedBytesMax, wireError } from "./constants.ts";
import type { Lender } from "./lender.ts";
import type { Operations, Timed, TransmissionContext } from "./operations.ts";
import type { OutputBuffer } from "./output_buffer.ts";
import { dataHeaderBytesOf, errorReply, putDataHeader, type ReplyForm } from "./replies.ts";
import type { ReadOtherwise } from "./soon_reads.ts";

/** READs from this length on are worth buffers of their own. */
const longReadBytesMin = 64 * kib;
/** Longer ones take promises: nobody but a test asks for so much at once. */
const longReadBytesMax = 8 * 1024 * kib;
/** Where data begins in a buffer, so that pages lie as they lie on the device. */
const dataStart = 4 * kib;
/** Data of one buffer. */
const pieceBytes = lentBufferBytes - dataStart;

assert(dataStart >= dataChunkHeaderBytesMax, "the header fits in front of the data");
assert(longReadBytesMax <= payloadAdvertisedBytesMax, "a reply is one chunk");

/** The start of a READ that was given up, or of none. */
const answered = Infinity;

/** One READ. Ended ones are kept for the next. */
class LongRead {
  cookieHigh = 0;
  cookieLow = 0;
  flags = 0;
  /** A number of its own, as offsets beyond 2^31 would be a new object in a plain field. */
  readonly offset = new Float64Array(1);
  length = 0;
  readonly startedMs = new Float64Array(1).fill(answered);
  /** Pieces under way. */
  pending = 0;
  failed = false;
  readonly buffers: Uint8Array<ArrayBuffer>[] = [];
}

/** The long READs of one connection. */
export class LongReads implements ReadEnd, Timed {
  readonly #volume: Volume;
  readonly #out: OutputBuffer;
  readonly #form: ReplyForm;
  readonly #context: TransmissionContext;
  readonly #operations: Operations;
  readonly #lender: Lender;
  readonly #otherwise: ReadOtherwise;
  readonly #reads: LongRead[] = [];
  readonly #free: number[] = [];
  /** Over all of the memory that the last buffer was of: a volume lends of one. */
  #view: DataView = new DataView(new ArrayBuffer(0));

  constructor(
    volume: Volume,
    out: OutputBuffer,
    form: ReplyForm,
    context: TransmissionContext,
    operations: Operations,
    otherwise: ReadOtherwise,
  ) {
    this.#volume = volume;
    this.#out = out;
    this.#form = form;
    this.#context = context;
    this.#operations = operations;
    this.#lender = context.lender;
    this.#otherwise = otherwise;
    operations.alsoWatch(this);
  }

  // The hot path starts here.

  /** Starts a READ; false when it must be done another way. */
  start(cookieHigh: number, cookieLow: number, flags: number, offset: number, length: number): boolean {
    if (length < longReadBytesMin || length > longReadBytesMax || !this.#volume.readInto) return false;
    const place = this.#free.pop() ?? this.#reads.push(new LongRead()) - 1;
    const read = this.#reads[place]!;
    read.pending = 0;
    read.failed = false;
    read.length = length;
    if (!this.#borrow(read) || !this.#begin(read, place, offset)) {
      this.#return(read);
      this.#free.push(place);
      return false;
    }
    read.cookieHigh = cookieHigh;
    read.cookieLow = cookieLow;
    read.flags = flags;
    read.offset[0] = offset;
    const startedMs = this.#context.clock.monotonicMs();
    if (read.pending === 0) {
      this.#reply(read, startedMs);
      this.#free.push(place);
      return true;
    }
    read.startedMs[0] = startedMs;
    this.#operations.watch();
    this.#operations.inFlight++;
    this.#operations.heldBytes += length;
    return true;
  }

  /** Gets the buffers. */
  #borrow(read: LongRead): boolean {
    for (let bytes = 0; bytes < read.length; bytes += pieceBytes) {
      const buffer = this.#lender.lend();
      if (buffer === null) return false;
      read.buffers.push(buffer);
    }
    return true;
  }

  /** Starts the pieces. False when one could not be had this way and none is under way. */
  #begin(read: LongRead, place: number, offset: number): boolean {
    const volume = this.#volume;
    for (let i = 0; i < read.buffers.length; i++) {
      const buffer = read.buffers[i]!;
      const at = offset + i * pieceBytes;
      const bytes = Math.min(pieceBytes, read.length - i * pieceBytes);
      if (volume.readNow(at, buffer, dataStart, bytes)) continue;
      if (!volume.readInto!(at, buffer, dataStart, bytes, this, place)) {
        read.failed = true;
        return read.pending > 0;
      }
      read.pending++;
    }
    return true;
  }

  /** The volume's part; not to be called. */
  readEnded(place: number, _memory: Uint8Array, at: number): void {
    const read = this.#reads[place]!;
    if (at < 0) read.failed = true;
    if (--read.pending > 0) return;
    this.#operations.inFlight--;
    this.#operations.heldBytes -= read.length;
    const startedMs = read.startedMs[0]!;
    read.startedMs[0] = answered;
    if (startedMs === answered) this.#operations.overdue--;
    if (startedMs === answered || this.#operations.dropped) this.#return(read);
    else if (read.failed) {
      this.#return(read);
      this.#otherwise(read.cookieHigh, read.cookieLow, read.flags, read.offset[0]!, read.length, startedMs);
    } else this.#reply(read, startedMs);
    this.#free.push(place);
    this.#context.onCompletion();
  }

  #reply(read: LongRead, startedMs: number): void {
    const { buffers, cookieHigh, cookieLow, length } = read;
    const offset = read.offset[0]!;
    const first = buffers[0]!;
    if (first.buffer !== this.#view.buffer) this.#view = new DataView(first.buffer);
    const headerAt = dataStart - dataHeaderBytesOf(this.#form);
    const at = first.byteOffset + headerAt;
    putDataHeader(this.#view, at, this.#form, chunkDone, cookieHigh, cookieLow, offset, offset, length);
    for (let i = 0; i < buffers.length; i++) {
      const end = dataStart + Math.min(pieceBytes, length - i * pieceBytes);
      this.#out.pushLent(buffers[i]!, i === 0 ? headerAt : dataStart, end);
    }
    buffers.length = 0;
    const { statistics, observer, clock } = this.#context;
    statistics.read++;
    statistics.bytesRead += length;
    if (observer !== null) observer.answered("read", (clock.monotonicMs() - startedMs) * 1000, 1);
  }

  #return(read: LongRead): void {
    for (const buffer of read.buffers) this.#lender.giveBack(buffer);
    read.buffers.length = 0;
  }
  // The hot path ends here.

  /** See {@linkcode Timed}. */
  get oldestMs(): number {
    return Math.min(...this.#reads.map(({ startedMs }) => startedMs[0]!));
  }

  /** See {@linkcode Timed}. */
  giveUpOld(lastMs: number): number {
    const old = this.#reads.filter(({ startedMs }) => startedMs[0]! <= lastMs);
    for (const { startedMs, cookieHigh, cookieLow, offset } of old) {
      startedMs[0] = answered;
      errorReply(this.#out, this.#form, cookieHigh, cookieLow, offset[0]!, wireError.EIO);
    }
    return old.length;
  }
}
