/**
 * Promises for the slow paths: one object per operation. What is hot is a {@linkcode Completion} of its own instead.
 *
 * @module
 */

import { operation, sqe } from "./abi.ts";
import { addressOf } from "./memory.ts";
import type { Reactor } from "./reactor.ts";
import type { Completion } from "./ring.ts";

/** One operation of which a promise tells the end. */
class PromisedOperation implements Completion {
  readonly #reactor: Reactor;
  readonly #resolve: (result: number) => void;

  constructor(reactor: Reactor, resolve: (result: number) => void) {
    this.#reactor = reactor;
    this.#resolve = resolve;
  }

  completed(result: number): void {
    this.#reactor.settled();
    this.#resolve(result);
  }
}

/** The parts of a submission that have a use of their own in each operation. */
export interface Submission {
  operation: number;
  descriptor: number;
  offset?: number;
  /** Where `address` and `length` come from. */
  bytes?: Uint8Array<ArrayBuffer>;
  /** Instead of `bytes`. */
  address?: number;
  length?: number;
  flags?: number;
}

/**
 * Submits with this turn; resolves to the result, or a negative errno. Never rejects. `onMade` gets the number by which it can be
 * cancelled until then.
 */
export function submit(
  reactor: Reactor,
  submission: Submission,
  onMade: (number: number) => void = () => {},
): Promise<number> {
  return new Promise((resolve) => {
    const { descriptor, bytes } = submission;
    const { ring } = reactor;
    const completion = new PromisedOperation(reactor, resolve);
    const at = reactor.prepare(submission.operation, descriptor, completion, 0, bytes ?? null);
    ring.putWide(at + sqe.offsetLow, submission.offset ?? 0);
    ring.putWide(at + sqe.addressLow, bytes ? addressOf(bytes) : submission.address ?? 0);
    ring.sqes[at + sqe.length] = bytes ? bytes.length : submission.length ?? 0;
    ring.sqes[at + sqe.flags] = submission.flags ?? 0;
    onMade(ring.sqes[at + sqe.userDataLow]!);
    reactor.promised();
  });
}

/** Cancels an operation under way, which then ends with an error of its own, unless it is done just now. */
export function cancel(reactor: Reactor, number: number): void {
  submit(reactor, { operation: operation.cancel, descriptor: -1, address: number });
}
