/**
 * WRITEs whose payload does not fit into the input buffer. It is collected in lent buffers, cut where blocks of the volume begin,
 * which are put one by one and given back as soon as they are.
 *
 * Invariants: one payload at a time; nothing is put before all of it has come; the pieces are whoever's turn it is: the
 * input's until all has come, then this one's, then the operation's that puts what could not be put at once.
 *
 * @module
 */

import { lentBufferBytes, type Volume } from "../cache/volume.ts";
import { assert } from "../errors.ts";
import { blockBytes, mib } from "../units.ts";
import type { Lender } from "./lender.ts";
import type { WriteWait } from "./write_wait.ts";

/** Longer ones get memory of their own: nobody but a test sends so much at once. */
const longWriteBytesMax = 8 * mib;

/** What became of a payload: all is put, or will be when it is tried `again`, or has to be waited for by promises. */
export type PutOutcome = "done" | "again" | "later";

/** The long WRITEs of one connection. */
export class LongWrites {
  readonly #volume: Volume;
  readonly #lender: Lender;
  readonly #buffers: Uint8Array<ArrayBuffer>[] = [];
  #pieces: Uint8Array<ArrayBuffer>[] = [];
  #putBytes = 0;

  constructor(volume: Volume, lender: Lender) {
    this.#volume = volume;
    this.#lender = lender;
  }

  /** Memory for the payload of a WRITE, in pieces; of its own where none is lent. */
  begin(offset: number, length: number): readonly Uint8Array<ArrayBuffer>[] {
    assert(this.#pieces.length === 0, "one payload at a time");
    this.#putBytes = 0;
    // Only the first piece may begin within a block.
    for (let taken = 0; length <= longWriteBytesMax && taken < length;) {
      const buffer = this.#lender.lend();
      if (buffer === null) break;
      const bytes = Math.min(lentBufferBytes - (taken === 0 ? offset % blockBytes : 0), length - taken);
      this.#buffers.push(buffer);
      this.#pieces.push(buffer.subarray(0, bytes));
      taken += bytes;
    }
    const lent = this.#pieces.reduce((sum, piece) => sum + piece.length, 0);
    if (lent < length) {
      this.#giveBack(this.#buffers.splice(0));
      this.#pieces = [new Uint8Array(length)];
    }
    return this.#pieces;
  }

  /** Puts what the volume takes at once. `wait` tells whether what it does not take is to be tried again. */
  put(offset: number, wait: WriteWait): PutOutcome {
    for (let piece = this.#pieces[0]; piece !== undefined; piece = this.#pieces[0]) {
      if (!this.#volume.writeNow(offset + this.#putBytes, piece, 0, piece.length)) {
        return wait.may(piece.length) ? "again" : "later";
      }
      this.#putBytes += piece.length;
      this.#pieces.shift();
      this.#giveBack(this.#buffers.splice(0, 1));
    }
    return "done";
  }

  /** Puts what is left, waiting where it must; what has been put is durable as well afterwards with `fua`. */
  putLater(offset: number, fua: boolean): () => Promise<void> {
    const [pieces, buffers] = [this.#pieces, this.#buffers.splice(0)];
    let at = offset + this.#putBytes;
    this.#pieces = [];
    return async () => {
      // All of them end before the memory is anybody else's.
      const results = await Promise.allSettled(pieces.map((piece) => {
        const written = this.#volume.write(at, piece);
        at += piece.length;
        return written;
      }));
      this.#giveBack(buffers);
      for (const result of results) if (result.status === "rejected") throw result.reason;
      if (fua) await this.#volume.flush();
    };
  }

  /** Gives everything back that is not put. */
  giveUp(): void {
    this.#giveBack(this.#buffers.splice(0));
    this.#pieces = [];
  }

  /** Forgets the payload. What the kernel may still write into goes back with all that is lent. */
  forget(): void {
    this.#pieces = [];
    this.#buffers.length = 0;
  }

  #giveBack(buffers: readonly Uint8Array<ArrayBuffer>[]): void {
    for (const buffer of buffers) this.#lender.giveBack(buffer);
  }
}
