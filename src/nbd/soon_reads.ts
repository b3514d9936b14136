/**
 * READs that end in a call instead of a promise: what is to be known of each has a place in arrays, so that nothing is
 * allocated for one.
 *
 * Invariants: each is counted as an operation under way until the volume has ended it or it goes on as another one; one that
 * was given up keeps its place until then.
 *
 * @module
 */

import type { ReadEnd, Volume } from "../cache/volume.ts";
import { chunkDone, wireError } from "./constants.ts";
import type { Operations, Timed, TransmissionContext } from "./operations.ts";
import type { OutputBuffer } from "./output_buffer.ts";
import { dataHeaderBytesOf, errorReply, putDataHeader, type ReplyForm } from "./replies.ts";

/** Goes on with a READ that could not be had by a call. */
export type ReadOtherwise = (
  cookieHigh: number,
  cookieLow: number,
  flags: number,
  offset: number,
  length: number,
  startedMs: number,
) => void;

/** The start of a READ that was given up, or of none. */
const answered = Infinity;

/** The READs of one connection. */
export class SoonReads implements ReadEnd, Timed {
  readonly #volume: Volume;
  readonly #out: OutputBuffer;
  readonly #form: ReplyForm;
  readonly #context: TransmissionContext;
  readonly #operations: Operations;
  readonly #otherwise: ReadOtherwise;
  readonly #cookieHigh: Int32Array;
  readonly #cookieLow: Int32Array;
  readonly #flags: Uint16Array;
  readonly #offset: Float64Array;
  readonly #length: Int32Array;
  readonly #startedMs: Float64Array;
  readonly #free: Uint16Array;
  #freeCount: number;

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
    this.#otherwise = otherwise;
    const places = context.limits.requests;
    this.#cookieHigh = new Int32Array(places);
    this.#cookieLow = new Int32Array(places);
    this.#flags = new Uint16Array(places);
    this.#offset = new Float64Array(places);
    this.#length = new Int32Array(places);
    this.#startedMs = new Float64Array(places).fill(answered);
    this.#free = Uint16Array.from({ length: places }, (_, place) => place);
    this.#freeCount = places;
    operations.alsoWatch(this);
  }

  // The hot path starts here.

  /** Starts a READ, whose reply fits the output's fill buffer; false when it must be done another way. */
  start(cookieHigh: number, cookieLow: number, flags: number, offset: number, length: number): boolean {
    const volume = this.#volume;
    // Without a place so many were given up that did not end.
    if (volume.readSoon === undefined || this.#freeCount === 0) return false;
    const place = this.#free[this.#freeCount - 1]!;
    if (!volume.readSoon(offset, length, this, place)) return false;
    this.#freeCount--;
    this.#cookieHigh[place] = cookieHigh;
    this.#cookieLow[place] = cookieLow;
    this.#flags[place] = flags;
    this.#offset[place] = offset;
    this.#length[place] = length;
    this.#startedMs[place] = this.#context.clock.monotonicMs();
    this.#operations.watch();
    this.#operations.inFlight++;
    this.#operations.heldBytes += length;
    return true;
  }

  /** The volume's part; not to be called. */
  readEnded(place: number, memory: Uint8Array, from: number): void {
    const length = this.#length[place]!;
    this.#free[this.#freeCount++] = place;
    this.#operations.inFlight--;
    this.#operations.heldBytes -= length;
    const startedMs = this.#startedMs[place]!;
    this.#startedMs[place] = answered;
    if (startedMs === answered) this.#operations.overdue--;
    else if (from < 0) this.#readOtherwise(place, startedMs);
    else if (!this.#operations.dropped) this.#reply(place, memory, from, length, startedMs);
    this.#context.onCompletion();
  }

  #reply(place: number, memory: Uint8Array, from: number, length: number, startedMs: number): void {
    const out = this.#out;
    const form = this.#form;
    const headerBytes = dataHeaderBytesOf(form);
    const at = out.reserve(headerBytes + length);
    copyBytes(memory, from, length, out.bytes, at + headerBytes);
    const offset = this.#offset[place]!;
    const [high, low] = [this.#cookieHigh[place]!, this.#cookieLow[place]!];
    putDataHeader(out.view, at, form, chunkDone, high, low, offset, offset, length);
    out.commit(headerBytes + length);
    const { statistics, observer, clock } = this.#context;
    statistics.read++;
    statistics.bytesRead += length;
    if (observer !== null) observer.answered("read", (clock.monotonicMs() - startedMs) * 1000, 1);
  }
  // The hot path ends here.

  /** See {@linkcode Timed}. */
  get oldestMs(): number {
    return this.#startedMs.reduce((oldest, each) => Math.min(oldest, each), Infinity);
  }

  /** See {@linkcode Timed}. */
  giveUpOld(lastMs: number): number {
    let count = 0;
    this.#startedMs.forEach((startedMs, place) => {
      if (startedMs > lastMs) return;
      this.#startedMs[place] = answered;
      const [high, low] = [this.#cookieHigh[place]!, this.#cookieLow[place]!];
      errorReply(this.#out, this.#form, high, low, this.#offset[place]!, wireError.EIO);
      count++;
    });
    return count;
  }

  #readOtherwise(place: number, startedMs: number): void {
    const [high, low] = [this.#cookieHigh[place]!, this.#cookieLow[place]!];
    this.#otherwise(high, low, this.#flags[place]!, this.#offset[place]!, this.#length[place]!, startedMs);
  }
}

/** Copies `source[from, from + length)` to `target[at]` and on; allocates nothing when `source` is all of one memory. */
function copyBytes(
  source: Uint8Array,
  from: number,
  length: number,
  target: Uint8Array,
  at: number,
): void {
  const oneMemory = source.buffer === target.buffer && source.byteOffset === 0;
  if (oneMemory) source.copyWithin(target.byteOffset + at, from, from + length);
  else target.set(source.subarray(from, from + length), at);
}
