/**
 * Reads and writes of a file that end in a call instead of a promise: nothing is allocated for one once as many have been
 * in flight before.
 *
 * Invariants: `transferred` is called exactly once for each `start`, with all of the bytes, fewer only at the end of the
 * file, or a negative errno; what the kernel cuts short or interrupts goes on by itself; the memory is referenced
 * until then.
 *
 * @module
 */

import { Stack } from "../../stack.ts";
import type { TransferEnd } from "../io.ts";
import { operation, sqe } from "./abi.ts";
import { errno } from "./errno.ts";
import { addressOf } from "./memory.ts";
import type { Reactor } from "./reactor.ts";
import type { Completion } from "./ring.ts";

/** Most repetitions of a transfer that is interrupted or that finds the kernel short of something. */
const retriesMax = 100;

/** What a file has to do with its transfers. */
export interface TransferOwner {
  /** A transfer has ended. */
  transferEnded(): void;
  /** Direct writes do not work; returns the descriptor to go on with. */
  directRefused(): number;
}

/** The transfers of one file, ended ones kept for the next. */
export class Transfers {
  readonly #reactor: Reactor;
  readonly #owner: TransferOwner;
  readonly #spare = new Stack<Transfer>();
  /** The memory of the last transfer, whose address is known. */
  #buffer: ArrayBuffer | null = null;
  readonly #base = new Float64Array(1);

  constructor(reactor: Reactor, owner: TransferOwner) {
    this.#reactor = reactor;
    this.#owner = owner;
  }

  // The hot path starts here.

  /** The address of the first byte of `memory`. */
  base(memory: Uint8Array<ArrayBuffer>): number {
    const { buffer } = memory;
    if (buffer !== this.#buffer) {
      this.#base[0] = addressOf(memory) - memory.byteOffset;
      this.#buffer = buffer;
    }
    return this.#base[0]! + memory.byteOffset;
  }

  /** Starts one. `code` is `operation.read` or `operation.write`. */
  start(
    code: number,
    descriptor: number,
    offset: number,
    memory: Uint8Array<ArrayBuffer>,
    at: number,
    length: number,
    to: TransferEnd,
    tag: number,
  ): void {
    const transfer = this.#spare.pop() ?? new Transfer(this);
    transfer.code = code;
    transfer.descriptor = descriptor;
    transfer.offset[0] = offset;
    transfer.memory = memory;
    transfer.at = at;
    transfer.length = length;
    transfer.to = to;
    transfer.tag = tag;
    transfer.done = transfer.tries = 0;
    this.submit(transfer);
  }

  /** Submits what is left of one. */
  submit(transfer: Transfer): void {
    const memory = transfer.memory!;
    const { done } = transfer;
    const reactor = this.#reactor;
    const { ring } = reactor;
    const slot = reactor.prepare(transfer.code, transfer.descriptor, transfer, 0, memory);
    ring.putWide(slot + sqe.offsetLow, transfer.offset[0]! + done);
    ring.putWide(slot + sqe.addressLow, this.base(memory) + transfer.at + done);
    ring.sqes[slot + sqe.length] = transfer.length - done;
  }

  /** A submission has come back. */
  completed(transfer: Transfer, result: number): void {
    if (result > 0 && transfer.done + result < transfer.length) {
      transfer.done += result;
      return this.submit(transfer);
    }
    if (result < 0 && this.#goesOn(transfer, -result)) return this.submit(transfer);
    const to = transfer.to!;
    transfer.to = null;
    transfer.memory = null;
    this.#spare.push(transfer);
    this.#owner.transferEnded();
    if (to.transferred(result < 0 ? result : transfer.done + result, transfer.tag)) this.#reactor.settled();
  }

  // The hot path ends here.

  #goesOn(transfer: Transfer, number: number): boolean {
    if (number === errno.EINTR || number === errno.EAGAIN) return transfer.tries++ < retriesMax;
    if (number !== errno.EINVAL || transfer.code !== operation.write) return false;
    const descriptor = this.#owner.directRefused();
    if (descriptor === transfer.descriptor) return false;
    transfer.descriptor = descriptor;
    return true;
  }
}

/** One transfer. */
class Transfer implements Completion {
  code = 0;
  descriptor = 0;
  /** A number of its own, as offsets beyond 2^31 would be a new object in a plain field. */
  readonly offset = new Float64Array(1);
  memory: Uint8Array<ArrayBuffer> | null = null;
  at = 0;
  length = 0;
  done = 0;
  tries = 0;
  to: TransferEnd | null = null;
  tag = 0;
  readonly #transfers: Transfers;

  constructor(transfers: Transfers) {
    this.#transfers = transfers;
  }

  completed(result: number): void {
    this.#transfers.completed(this, result);
  }
}
