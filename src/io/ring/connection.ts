/**
 * A stream connection on the ring, in two manners: by promises, as `IoConnection` has it, and by events, for which
 * nothing is allocated per receive or send.
 *
 * Invariants: at most one receive and one send are in flight; the descriptor is closed only when neither is; after
 * `close` nothing is told any more.
 *
 * @module
 */

import type { ConnectionEvents, EventConnection } from "../io.ts";
import { operation, socketConstant, sqe } from "./abi.ts";
import { errno, errnoError } from "./errno.ts";
import { addressOf } from "./memory.ts";
import type { Reactor, TurnEnd } from "./reactor.ts";
import type { Completion } from "./ring.ts";

const receiveTag = 1;
const sendTag = 2;

/** A connection on the ring. */
export class RingConnection implements EventConnection, Completion, TurnEnd {
  readonly #reactor: Reactor;
  readonly #descriptor: number;
  #events: ConnectionEvents;
  #receiving: Uint8Array<ArrayBuffer> | null = null;
  #sending: Uint8Array<ArrayBuffer> | null = null;
  #turnAsked = false;
  #closed = false;

  /** Owns `descriptor` from now on. */
  constructor(reactor: Reactor, descriptor: number) {
    this.#reactor = reactor;
    this.#descriptor = descriptor;
    this.#events = new Promises(reactor);
    reactor.acquire();
  }

  useEvents(events: ConnectionEvents): void {
    this.#events = events;
  }

  // The hot path starts here.

  receive(into: Uint8Array<ArrayBuffer>): void {
    this.#receiving = into;
    const { ring } = this.#reactor;
    const at = this.#reactor.prepare(operation.recv, this.#descriptor, this, receiveTag, into);
    ring.putWide(at + sqe.addressLow, addressOf(into));
    ring.sqes[at + sqe.length] = into.length;
  }

  send(bytes: Uint8Array<ArrayBuffer>): void {
    this.#sending = bytes;
    const { ring } = this.#reactor;
    const at = this.#reactor.prepare(operation.send, this.#descriptor, this, sendTag, bytes);
    ring.putWide(at + sqe.addressLow, addressOf(bytes));
    ring.sqes[at + sqe.length] = bytes.length;
    ring.sqes[at + sqe.flags] = socketConstant.noSignal;
  }

  askTurn(): void {
    if (this.#turnAsked) return;
    this.#turnAsked = true;
    this.#reactor.atTurnEnd(this);
  }

  promised(): void {
    this.#reactor.settled();
  }

  /** The reactor's part; not to be called. */
  turnEnded(): void {
    this.#turnAsked = false;
    this.#events.turn();
  }

  /** The ring's part; not to be called. */
  completed(result: number, tag: number): void {
    const passing = result === -errno.EINTR || result === -errno.EAGAIN;
    if (tag === receiveTag) {
      const into = this.#receiving!;
      this.#receiving = null;
      if (this.#closed) return this.#release();
      if (passing) return this.receive(into);
      this.#events.received(result);
    } else {
      const bytes = this.#sending!;
      this.#sending = null;
      if (this.#closed) return this.#release();
      if (passing) return this.send(bytes);
      this.#events.sent(result);
    }
  }

  // The hot path ends here.

  read(into: Uint8Array<ArrayBuffer>): Promise<number | null> {
    if (this.#closed) return Promise.resolve(null);
    return (this.#events as Promises).read(() => this.receive(into));
  }

  async write(bytes: Uint8Array<ArrayBuffer>): Promise<number> {
    if (this.#closed) throw errnoError("send", errno.EBADF);
    if (bytes.length === 0) return 0;
    return await (this.#events as Promises).write(() => this.send(bytes));
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#events instanceof Promises) this.#events.end();
    // Ends what is in flight.
    this.#reactor.libc.call.shutdown(this.#descriptor, socketConstant.shutdownBoth);
    if (this.#receiving === null && this.#sending === null) return this.#release();
    // What was prepared in this very turn has to be in the kernel's hands to end.
    this.#reactor.nop();
  }

  #release(): void {
    if (this.#receiving !== null || this.#sending !== null) return;
    this.#events = new Promises(this.#reactor);
    this.#reactor.libc.call.close(this.#descriptor);
    this.#reactor.release();
  }
}

/** The manner of promises. */
class Promises implements ConnectionEvents {
  readonly #reactor: Reactor;
  #read: ((count: number | null) => void) | null = null;
  #failRead: ((error: Error) => void) | null = null;
  #write: ((count: number) => void) | null = null;
  #failWrite: ((error: Error) => void) | null = null;

  constructor(reactor: Reactor) {
    this.#reactor = reactor;
  }

  read(start: () => void): Promise<number | null> {
    return new Promise((resolve, reject) => {
      this.#read = resolve;
      this.#failRead = reject;
      start();
    });
  }

  write(start: () => void): Promise<number> {
    return new Promise((resolve, reject) => {
      this.#write = resolve;
      this.#failWrite = reject;
      start();
    });
  }

  received(count: number): void {
    this.#reactor.settled();
    if (count < 0) this.#failRead?.(errnoError("receive", -count));
    else this.#read?.(count === 0 ? null : count);
  }

  sent(count: number): void {
    this.#reactor.settled();
    if (count < 0) this.#failWrite?.(errnoError("send", -count));
    else this.#write?.(count);
  }

  turn(): void {}

  end(): void {
    this.#reactor.settled();
    this.#read?.(null);
    this.#failWrite?.(errnoError("send", errno.EBADF));
  }
}
