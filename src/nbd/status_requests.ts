/**
 * BLOCK_STATUS: what is asked of the volume, and its answer.
 *
 * @module
 */

import type { Volume } from "../cache/volume.ts";
import { decodeContextList, queryStatus } from "./block_status.ts";
import { commandFlag } from "./constants.ts";
import type { MetaContext } from "./contexts.ts";
import type { Agreement } from "./negotiation.ts";
import type { Operations } from "./operations.ts";
import type { OutputBuffer } from "./output_buffer.ts";
import { blockStatusReply, type ReplyForm } from "./replies.ts";
import type { RequestCheck } from "./request_check.ts";

/** The BLOCK_STATUS requests of one connection. */
export class StatusRequests {
  readonly #volume: Volume;
  readonly #contexts: readonly MetaContext[];
  readonly #form: ReplyForm;
  readonly #out: OutputBuffer;
  readonly #operations: Operations;
  readonly #check: RequestCheck;

  constructor(agreement: Agreement, out: OutputBuffer, operations: Operations, check: RequestCheck) {
    this.#volume = agreement.served.volume;
    this.#contexts = agreement.contexts;
    this.#form = agreement.form;
    this.#out = out;
    this.#operations = operations;
    this.#check = check;
  }

  /** Starts one whose payload tells the range's length and which contexts are wanted; false when it makes no sense. */
  startListed(
    cookieHigh: number,
    cookieLow: number,
    flags: number,
    offset: number,
    payload: Uint8Array<ArrayBuffer>,
  ): boolean {
    const { length, contexts } = decodeContextList(payload, this.#contexts);
    if (contexts === undefined || length === 0 || this.#check.rangeError(offset, length) !== 0) return false;
    this.start(cookieHigh, cookieLow, flags, offset, length, contexts);
    return true;
  }

  /** Starts one. */
  start(
    cookieHigh: number,
    cookieLow: number,
    flags: number,
    offset: number,
    length: number,
    contexts: readonly MetaContext[],
  ): void {
    const one = (flags & commandFlag.requestOne) !== 0;
    const work = async () => {
      const all = await queryStatus(this.#volume, contexts, offset, length, one);
      return () =>
        all.forEach(({ id, runs }, index) => {
          const last = index === all.length - 1;
          blockStatusReply(this.#out, this.#form, cookieHigh, cookieLow, offset, id, runs, length, last);
        });
    };
    this.#operations.start("status", cookieHigh, cookieLow, offset, 0, work);
  }
}
