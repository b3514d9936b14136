/**
 * Looks over the requests that have arrived before the first of them is executed, and tells the volume where they go, so that what it
 * looks up for them comes from memory all at once and not one after the other.
 *
 * Invariants: it reads headers and nothing else, it judges none, and what it tells has no effect but on time. It stops at anything
 * unusual.
 *
 * @module
 */

import type { Volume } from "../cache/volume.ts";
import { command } from "./constants.ts";
import type { InputBuffer } from "./input_buffer.ts";

/** Most requests that are looked at; with 4 KiB each a full input buffer has as many. */
const requestsMax = 64;
const twoTo32 = 0x1_0000_0000;

/** The look ahead of one connection. */
export class LookAhead {
  readonly #volume: Volume;
  readonly #magic: number;
  readonly #headerBytes: number;
  /** The length of an extended request is twice as wide; its low half is in the same place behind the high one. */
  readonly #lengthAt: number;
  readonly #offsets = new Float64Array(requestsMax);

  /** For requests that begin with `magic` and have headers of `headerBytes`, the last four of which are (the rest of) the length. */
  constructor(volume: Volume, magic: number, headerBytes: number) {
    this.#volume = volume;
    this.#magic = magic;
    this.#headerBytes = headerBytes;
    this.#lengthAt = headerBytes - 4;
  }

  // ---- hot path ----

  /** Tells the volume of the whole requests that lie in `input`, if there are several. */
  announce(input: InputBuffer): void {
    const { view, end } = input;
    const headerBytes = this.#headerBytes;
    let count = 0;
    for (let at = input.start; at + headerBytes <= end && count < requestsMax;) {
      if (view.getUint32(at) !== this.#magic) break;
      const type = view.getUint16(at + 6);
      if (type !== command.write && type !== command.read) break;
      this.#offsets[count++] = view.getUint32(at + 16) * twoTo32 + view.getUint32(at + 20);
      at += headerBytes;
      if (type === command.write) at += view.getUint32(this.#lengthAt + at - headerBytes);
    }
    if (count > 1) this.#volume.announce!(this.#offsets, count);
  }
  // ---- end of the hot path ----
}
