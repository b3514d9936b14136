/**
 * READs that wait for the volume by a promise: those that are not plain, and those that failed another way.
 *
 * @module
 */

import type { Volume } from "../cache/volume.ts";
import { commandFlag, extentsPerReadMax, holeReadBytesMin } from "./constants.ts";
import type { Operations } from "./operations.ts";
import type { OutputBuffer } from "./output_buffer.ts";
import { readPieces } from "./read_pieces.ts";
import { type ReplyForm, replyForm } from "./replies.ts";
import type { Statistics } from "./statistics.ts";

/** The READs of one connection. */
export class ReadOperations {
  readonly #volume: Volume;
  readonly #out: OutputBuffer;
  readonly #form: ReplyForm;
  readonly #operations: Operations;
  readonly #statistics: Statistics;

  constructor(
    volume: Volume,
    out: OutputBuffer,
    form: ReplyForm,
    operations: Operations,
    statistics: Statistics,
  ) {
    this.#volume = volume;
    this.#out = out;
    this.#form = form;
    this.#operations = operations;
    this.#statistics = statistics;
  }

  /** Starts one; with `maybeNow` RAM may have it, which was not tried yet. It may have begun before. */
  start(
    cookieHigh: number,
    cookieLow: number,
    flags: number,
    offset: number,
    length: number,
    maybeNow: boolean,
    startedMs?: number,
  ): void {
    const volume = this.#volume;
    const form = this.#form;
    const whole = form === replyForm.simple || (flags & commandFlag.doNotFragment) !== 0;
    const work = async () => {
      const looks = !whole && length >= holeReadBytesMin;
      const extents = looks ? await volume.extents(offset, length, extentsPerReadMax) : [];
      const pieces = readPieces(form, cookieHigh, cookieLow, offset, length, extents);
      for (const { reply, data, offset } of pieces) {
        const at = reply.length - data.length;
        if (data.length === 0 || (maybeNow && volume.readNow(offset, reply, at, data.length))) continue;
        await volume.read(offset, data);
      }
      return () => {
        this.#statistics.bytesRead += length;
        for (const { reply } of pieces) this.#out.push(reply);
      };
    };
    this.#operations.start("read", cookieHigh, cookieLow, offset, length, work, startedMs);
  }
}
