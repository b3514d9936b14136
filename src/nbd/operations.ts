/**
 * The operations of one connection that wait for the volume: started, counted, and answered when they end.
 *
 * @module
 */

import type { Clock } from "../clock.ts";
import { DeviceError } from "../errors.ts";
import type { Lender } from "./lender.ts";
import type { Limits } from "./limits.ts";
import type { OutputBuffer } from "./output_buffer.ts";
import { errorReply, type ReplyForm } from "./replies.ts";
import type { Observer, RequestKind, Statistics } from "./statistics.ts";
import { toWireError } from "./wire_errors.ts";

/** Warnings about failures that are not the device's, per connection: a client must not be able to fill the log. */
const warningsMax = 8;

/** What a transmission needs from around it. */
export interface TransmissionContext {
  /** Where requests are counted. */
  readonly statistics: Statistics;
  /** Who is told how long requests took. */
  readonly observer: Observer | null;
  /** Where memory of the volume comes from. */
  readonly lender: Lender;
  /** Time for the observer. */
  readonly clock: Clock;
  /** What the client may cost. */
  readonly limits: Limits;
  /** Takes a sentence for the operator. */
  readonly warn: (message: string) => void;
  /** Called when an operation was started of which a promise tells the end. */
  readonly onPromise: () => void;
  /** Called after an operation in flight has ended. */
  readonly onCompletion: () => void;
  /** Called when a mistake of ours shows while an operation ends; the connection cannot go on. */
  readonly onFailure: (thrown: unknown) => void;
}

/** The operations under way of one connection. */
export class Operations {
  /** How many there are. */
  inFlight = 0;
  /** Bytes of payloads and of replies in the making; those of queued replies are counted by the output. */
  heldBytes = 0;
  /** The connection is gone: operations under way finish, but nothing is queued any more. */
  dropped = false;
  readonly #out: OutputBuffer;
  readonly #form: ReplyForm;
  readonly #context: TransmissionContext;
  #warnings = 0;

  constructor(out: OutputBuffer, form: ReplyForm, context: TransmissionContext) {
    this.#out = out;
    this.#form = form;
    this.#context = context;
  }

  /** Starts one. What `work` resolves to queues its reply; when it fails that is an error. */
  start(
    kind: RequestKind,
    cookieHigh: number,
    cookieLow: number,
    offset: number,
    heldBytes: number,
    work: () => Promise<() => void>,
  ): void {
    this.inFlight++;
    this.heldBytes += heldBytes;
    const { observer, clock, statistics } = this.#context;
    const started = observer === null ? 0 : clock.monotonicMs();
    const finish = (reply: () => void) => {
      this.inFlight--;
      this.heldBytes -= heldBytes;
      statistics[kind]++;
      if (!this.dropped) reply();
      observer?.answered(kind, (clock.monotonicMs() - started) * 1000, 1);
      this.#context.onCompletion();
    };
    const fail = (thrown: unknown) => {
      const error = this.errorOf(thrown);
      statistics.error++;
      const failed = failedOffset(thrown, offset, heldBytes);
      finish(() => errorReply(this.#out, this.#form, cookieHigh, cookieLow, offset, error, failed));
    };
    this.#context.onPromise();
    // An async function also catches what a volume throws before it returns its promise.
    (async () => await work())().then(finish, fail).catch(this.#context.onFailure);
  }

  /** The wire error for what a volume threw; tells the operator of what is no device's failure. */
  errorOf(thrown: unknown): number {
    if (!(thrown instanceof DeviceError) && this.#warnings++ < warningsMax) {
      const text = thrown instanceof Error ? thrown.stack ?? thrown.message : String(thrown);
      this.#context.warn(`a request was answered EIO because of an unexpected failure: ${text}`);
    }
    return toWireError(thrown);
  }
}

/** The first byte that failed, when it is known and lies in the request. */
function failedOffset(thrown: unknown, offset: number, length: number): number | undefined {
  const failed = thrown instanceof DeviceError ? thrown.offset : undefined;
  if (failed === undefined || failed >= offset + length) return undefined;
  // A failure is told of by its block, which may begin before the request.
  return Math.max(failed, offset);
}
