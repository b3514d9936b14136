/**
 * The operations of one connection that wait for the volume: started, counted, and answered when they end, or after a stated
 * time, whatever the volume does.
 *
 * An operation that was given up may still take effect. No newer one can be overwritten by that: a volume carries out
 * overlapping writes in their order.
 *
 * @module
 */

import type { Clock } from "../clock.ts";
import { DeviceError } from "../errors.ts";
import { wireError } from "./constants.ts";
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
  /** Called when what had to be tried again may find room. */
  readonly onRoom: () => void;
  /** Called after an operation in flight has ended. */
  readonly onCompletion: () => void;
  /** Called when a mistake of ours shows while an operation ends; the connection cannot go on. */
  readonly onFailure: (thrown: unknown) => void;
}

/** One of which a promise tells the end. */
interface Operation {
  readonly startedMs: number;
  /** Answers it with an error instead of what it will come to. */
  giveUp(): void;
}

/** Operations of which a call tells the end. */
export interface Timed {
  /** When the oldest of them that is unanswered began; Infinity when there is none. */
  readonly oldestMs: number;
  /** Answers those with an error that began at `lastMs` or before; returns how many. */
  giveUpOld(lastMs: number): number;
}

/** The operations under way of one connection. */
export class Operations {
  /** How many there are, those included that were given up. */
  inFlight = 0;
  /** Those that were answered before they ended, because they took too long. */
  overdue = 0;
  /** Bytes of payloads and of replies in the making; those of queued replies are counted by the output. */
  heldBytes = 0;
  /** The connection is gone: operations under way finish, but nothing is queued any more. */
  dropped = false;
  readonly #out: OutputBuffer;
  readonly #form: ReplyForm;
  readonly #context: TransmissionContext;
  readonly #limitMs: number;
  /** Those that are unanswered. */
  readonly #unanswered = new Set<Operation>();
  /** Others that have a time, such as {@linkcode SoonReads}. */
  readonly #timed: Timed[] = [];
  #isWatched = false;
  #cancelWatch = () => {};
  #warnings = 0;

  constructor(out: OutputBuffer, form: ReplyForm, context: TransmissionContext) {
    this.#out = out;
    this.#form = form;
    this.#context = context;
    this.#limitMs = context.limits.requestSeconds * 1000;
  }

  /** How many are unanswered. */
  get unanswered(): number {
    return this.inFlight - this.overdue;
  }

  /** Watches over operations of another kind, too. */
  alsoWatch(timed: Timed): void {
    this.#timed.push(timed);
  }

  /**
   * Starts one. What `work` resolves to queues its reply; when it fails that is an error. `startedMs` is when the request came,
   * if that was before.
   */
  start(
    kind: RequestKind,
    cookieHigh: number,
    cookieLow: number,
    offset: number,
    heldBytes: number,
    work: () => Promise<() => void>,
    startedMs: number = this.#context.clock.monotonicMs(),
  ): void {
    this.inFlight++;
    this.heldBytes += heldBytes;
    const { observer, clock, statistics } = this.#context;
    const refuse = (error: number, failed?: number) =>
      errorReply(this.#out, this.#form, cookieHigh, cookieLow, offset, error, failed);
    const operation = { startedMs, giveUp: () => refuse(wireError.EIO) };
    this.#unanswered.add(operation);
    this.watch();
    const finish = (reply: () => void) => {
      const isAnswered = !this.#unanswered.delete(operation);
      if (isAnswered) this.overdue--;
      this.inFlight--;
      this.heldBytes -= heldBytes;
      statistics[kind]++;
      if (!this.dropped && !isAnswered) reply();
      observer?.answered(kind, (clock.monotonicMs() - startedMs) * 1000, 1);
      this.#context.onCompletion();
    };
    const fail = (thrown: unknown) => {
      const error = this.errorOf(thrown);
      statistics.error++;
      const failed = failedOffset(thrown, offset, heldBytes);
      finish(() => refuse(error, failed));
    };
    this.#context.onPromise();
    // An async function also catches what a volume throws before it returns its promise.
    (async () => await work())().then(finish, fail).catch(this.#context.onFailure);
  }

  /** Sees to it that what has begun is answered in time. */
  watch(): void {
    if (!this.#isWatched) this.#watchUntil(this.#context.clock.monotonicMs() + this.#limitMs);
  }

  #watchUntil(dueMs: number): void {
    const { clock } = this.#context;
    this.#isWatched = true;
    this.#cancelWatch = clock.after(Math.max(0, dueMs - clock.monotonicMs()), () => {
      this.#isWatched = false;
      this.#giveUpOld();
    });
  }

  /** Answers what is too old, and waits for the next that may become so. */
  #giveUpOld(): void {
    const { clock, statistics, warn, limits: { requestSeconds } } = this.#context;
    if (this.dropped) return;
    const lastMs = clock.monotonicMs() - this.#limitMs;
    let count = 0;
    for (const operation of this.#unanswered) {
      if (operation.startedMs > lastMs) continue;
      this.#unanswered.delete(operation);
      operation.giveUp();
      count++;
    }
    for (const timed of this.#timed) count += timed.giveUpOld(lastMs);
    const oldestMs = Math.min(
      ...[...this.#unanswered].map(({ startedMs }) => startedMs),
      ...this.#timed.map((timed) => timed.oldestMs),
    );
    if (oldestMs < Infinity) this.#watchUntil(oldestMs + this.#limitMs);
    if (count === 0) return;
    this.overdue += count;
    statistics.error += count;
    warn(
      `${count} requests were answered EIO: the volume had not ended them after ${requestSeconds} s (request_seconds)`,
    );
    this.#context.onCompletion();
  }

  /** Nothing more will be answered. */
  stopWatching(): void {
    this.#isWatched = true;
    this.#cancelWatch();
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
