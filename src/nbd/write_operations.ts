/**
 * WRITEs that wait for the volume by a promise: durable ones, and those that found no room.
 *
 * @module
 */

import type { Volume } from "../cache/volume.ts";
import { commandFlag } from "./constants.ts";
import type { Operations } from "./operations.ts";
import type { OutputBuffer } from "./output_buffer.ts";
import { type ReplyForm, successReply } from "./replies.ts";
import type { Statistics } from "./statistics.ts";

const throughCache = {};
const throughFua = { fua: true };

/** The WRITEs of one connection. */
export class WriteOperations {
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

  /** Starts one of `source[at, at + length)`, of which the volume gets a copy. */
  startCopied(
    cookieHigh: number,
    cookieLow: number,
    flags: number,
    offset: number,
    source: Uint8Array<ArrayBuffer>,
    at: number,
    length: number,
  ): void {
    const payload = source.slice(at, at + length);
    const options = (flags & commandFlag.fua) === 0 ? throughCache : throughFua;
    const write = () => this.#volume.write(offset, payload, options);
    this.start(cookieHigh, cookieLow, offset, length, write);
  }

  /** Starts one that `write` does. */
  start(
    cookieHigh: number,
    cookieLow: number,
    offset: number,
    length: number,
    write: () => Promise<void>,
  ): void {
    const work = async () => {
      await write();
      return () => {
        this.#statistics.bytesWritten += length;
        successReply(this.#out, this.#form, cookieHigh, cookieLow, offset);
      };
    };
    this.#operations.start("write", cookieHigh, cookieLow, offset, length, work);
  }
}
