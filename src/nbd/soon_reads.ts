/**
 * READs that end in a call instead of a promise: what is to be known of each has a place in arrays, so that nothing is
 * allocated for one.
 *
 * Invariant: each is counted as an operation under way until its reply is queued or it goes on as another one.
 *
 * @module
 */

import type { ReadEnd, Volume } from "../cache/volume.ts";
import { assert } from "../errors.ts";
import { chunkDone } from "./constants.ts";
import type { Operations, TransmissionContext } from "./operations.ts";
import type { OutputBuffer } from "./output_buffer.ts";
import { dataHeaderBytesOf, putDataHeader, type ReplyForm } from "./replies.ts";

/** Goes on with a READ that could not be had by a call. */
export type ReadOtherwise = (
  cookieHigh: number,
  cookieLow: number,
  flags: number,
  offset: number,
  length: number,
) => void;

/** The READs of one connection. */
export class SoonReads implements ReadEnd {
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
    this.#startedMs = new Float64Array(places);
    this.#free = Uint16Array.from({ length: places }, (_, place) => place);
    this.#freeCount = places;
  }

  // The hot path starts here.

  /** Starts a READ, whose reply fits the output's fill buffer; false when it must be done another way. */
  start(cookieHigh: number, cookieLow: number, flags: number, offset: number, length: number): boolean {
    const volume = this.#volume;
    if (volume.readSoon === undefined) return false;
    assert(this.#freeCount > 0, "no more READs than requests are under way");
    const place = this.#free[this.#freeCount - 1]!;
    if (!volume.readSoon(offset, length, this, place)) return false;
    this.#freeCount--;
    this.#cookieHigh[place] = cookieHigh;
    this.#cookieLow[place] = cookieLow;
    this.#flags[place] = flags;
    this.#offset[place] = offset;
    this.#length[place] = length;
    const { observer, clock } = this.#context;
    if (observer !== null) this.#startedMs[place] = clock.monotonicMs();
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
    if (from < 0) this.#readOtherwise(place);
    else if (!this.#operations.dropped) this.#reply(place, memory, from, length);
    this.#context.onCompletion();
  }

  #reply(place: number, memory: Uint8Array, from: number, length: number): void {
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
    if (observer === null) return;
    observer.answered("read", (clock.monotonicMs() - this.#startedMs[place]!) * 1000, 1);
  }
  // The hot path ends here.

  #readOtherwise(place: number): void {
    const [high, low] = [this.#cookieHigh[place]!, this.#cookieLow[place]!];
    this.#otherwise(high, low, this.#flags[place]!, this.#offset[place]!, this.#length[place]!);
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
