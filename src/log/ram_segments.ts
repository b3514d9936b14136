/**
 * The segments that RAM holds: the one with the open record, those being written, and older ones that reads hit until
 * their buffer is needed again, oldest first.
 *
 * Invariant: a buffer with a log write under way is not given to another segment.
 *
 * @module
 */

import { blockBytes } from "../units.ts";
import type { Kernels } from "../wasm/kernels.ts";
import type { Segments } from "./segments.ts";

/** RAM buffers of one segment each. */
export class RamSegments {
  readonly #base: number;
  readonly #segments: Segments;
  /** By buffer: the segment held, writes under way, and the first offset that is resident. */
  readonly #segment: Int32Array;
  readonly #writes: Uint32Array;
  readonly #from: Uint32Array;
  #next = 0;

  constructor(kernels: Kernels, segments: Segments, count: number) {
    this.#base = kernels.map.buffers;
    this.#segments = segments;
    this.#segment = new Int32Array(count).fill(-1);
    this.#writes = new Uint32Array(count);
    this.#from = new Uint32Array(count);
  }

  /** The RAM address of a slot's block, or -1 when only the device has it. Hot path. */
  pointerOf(slot: number): number {
    const { blocks } = this.#segments;
    const segment = Math.floor(slot / blocks);
    const buffer = this.#segments.buffer[segment]!;
    if (buffer < 0) return -1;
    const offset = slot - segment * blocks;
    return offset < this.#from[buffer]! ? -1 : this.#base + (buffer * blocks + offset) * blockBytes;
  }

  /** Whether {@linkcode take} would succeed. */
  get nextIsFree(): boolean {
    return this.#writes[this.#next] === 0;
  }

  /** Whether {@linkcode take} would succeed `count` times in a row, without the buffer that was taken last. */
  areNextFree(count: number): boolean {
    const { length } = this.#writes;
    if (count >= length) return false;
    for (let i = 0; i < count; i++) if (this.#writes[(this.#next + i) % length] !== 0) return false;
    return true;
  }

  /** Whether it would, once no log write is under way. */
  canHold(count: number): boolean {
    return count < this.#writes.length;
  }

  /** Gives `segment` the oldest buffer, resident from `offset` on; false while that one is being written. */
  take(segment: number, offset: number): boolean {
    const buffer = this.#next;
    if (!this.nextIsFree) return false;
    const old = this.#segment[buffer]!;
    if (old >= 0 && this.#segments.buffer[old] === buffer) this.#segments.buffer[old] = -1;
    this.#segment[buffer] = segment;
    this.#from[buffer] = offset;
    this.#segments.buffer[segment] = buffer;
    this.#next = (buffer + 1) % this.#segment.length;
    return true;
  }

  /** Notes that a log write out of `segment` begins; returns the buffer for {@linkcode endWrite}. */
  beginWrite(segment: number): number {
    const buffer = this.#segments.buffer[segment]!;
    this.#writes[buffer]!++;
    return buffer;
  }

  /** Notes that a log write has ended, well or not. */
  endWrite(buffer: number): void {
    this.#writes[buffer]!--;
  }

  /** Whether any log write is under way. */
  get anyWrite(): boolean {
    return this.#writes.some((writes) => writes > 0);
  }
}
