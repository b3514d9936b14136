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
  readonly #receiving = new Span();
  readonly #sending = new Span();
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

  receive(memory: Uint8Array<ArrayBuffer>, at: number, length: number): void {
    this.#receiving.take(memory, at, length);
    this.#submit(operation.recv, receiveTag, this.#receiving, 0);
  }

  send(memory: Uint8Array<ArrayBuffer>, at: number, length: number): void {
    this.#sending.take(memory, at, length);
    this.#submit(operation.send, sendTag, this.#sending, socketConstant.noSignal);
  }

  #submit(code: number, tag: number, span: Span, flags: number): void {
    const { ring } = this.#reactor;
    const slot = this.#reactor.prepare(code, this.#descriptor, this, tag, span.memory);
    ring.putWide(slot + sqe.addressLow, span.base[0]! + span.at);
    ring.sqes[slot + sqe.length] = span.length;
    ring.sqes[slot + sqe.flags] = flags;
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
      if (passing && !this.#closed) return this.#submit(operation.recv, tag, this.#receiving, 0);
      this.#receiving.release();
      if (this.#closed) return this.#release();
      this.#events.received(result);
    } else {
      if (passing && !this.#closed) {
        return this.#submit(operation.send, tag, this.#sending, socketConstant.noSignal);
      }
      this.#sending.release();
      if (this.#closed) return this.#release();
      this.#events.sent(result);
    }
  }

  // The hot path ends here.

  read(into: Uint8Array<ArrayBuffer>): Promise<number | null> {
    if (this.#closed) return Promise.resolve(null);
    return (this.#events as Promises).read(() => this.receive(into, 0, into.length));
  }

  async write(bytes: Uint8Array<ArrayBuffer>): Promise<number> {
    if (this.#closed) throw errnoError("send", errno.EBADF);
    if (bytes.length === 0) return 0;
    return await (this.#events as Promises).write(() => this.send(bytes, 0, bytes.length));
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#events instanceof Promises) this.#events.end();
    // Ends what is in flight.
    this.#reactor.libc.call.shutdown(this.#descriptor, socketConstant.shutdownBoth);
    if (!this.#receiving.isTaken && !this.#sending.isTaken) return this.#release();
    // What was prepared in this very turn has to be in the kernel's hands to end.
    this.#reactor.nop();
  }

  #release(): void {
    if (this.#receiving.isTaken || this.#sending.isTaken) return;
    const events = this.#events;
    this.#events = new Promises(this.#reactor);
    this.#reactor.libc.call.close(this.#descriptor);
    events.closed();
    this.#reactor.release();
  }
}

/** The memory of a receive or send under way. */
class Span {
  /** Null while none is. */
  memory: Uint8Array<ArrayBuffer> | null = null;
  length = 0;
  at = 0;
  /** The address of the memory, which is kept for the next: a connection uses few. */
  readonly base = new Float64Array(1);
  #known: Uint8Array<ArrayBuffer> | null = null;

  get isTaken(): boolean {
    return this.memory !== null;
  }

  take(memory: Uint8Array<ArrayBuffer>, at: number, length: number): void {
    this.memory = memory;
    this.at = at;
    this.length = length;
    if (memory === this.#known) return;
    this.#known = memory;
    this.base[0] = addressOf(memory);
  }

  release(): void {
    this.memory = null;
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

  closed(): void {}

  end(): void {
    this.#reactor.settled();
    this.#read?.(null);
    this.#failWrite?.(errnoError("send", errno.EBADF));
  }
}
