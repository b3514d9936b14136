/**
 * Drives one {@linkcode Session} over a connection that tells by events (the ring): what {@linkcode Connection} does for
 * portable ones, without a promise, a closure or a wait per receive or send. All receives of a turn are worked off
 * before the first reply of it is sent, and all submissions of a turn are one system call.
 *
 * Invariants: at most one receive and one send are under way; the socket is closed as soon as the session is; `run`
 * resolves when the socket is closed and no request of this client is under way any more. Memory that the volume lent
 * goes back only then, when neither the kernel nor a request can touch it.
 *
 * @module
 */

import type { ConnectionEvents, EventConnection } from "../io/io.ts";
import { Deadlines } from "./deadlines.ts";
import type { Offered } from "./exports.ts";
import { Session, type SessionOptions } from "./session.ts";

/** One client. */
export class EventDriver implements ConnectionEvents {
  readonly #socket: EventConnection;
  readonly #session: Session;
  readonly #deadlines: Deadlines;
  #receiving = false;
  #sending = false;
  #socketClosed = false;
  /** The kernel has no memory of this connection any more. */
  #memoryFree = false;
  readonly #finished: Promise<void>;
  #finish!: () => void;

  constructor(socket: EventConnection, options: Omit<SessionOptions, "onOutput" | "onPromise" | "borrows">) {
    this.#socket = socket;
    this.#session = new Session({
      ...options,
      borrows: true,
      onOutput: () => this.#wake(),
      onPromise: () => socket.promised(),
    });
    this.#finished = new Promise((resolve) => this.#finish = resolve);
    this.#deadlines = new Deadlines(this.#session, options, () => this.#wake());
  }

  /** Serves the client until the connection ends. Never rejects. */
  async run(): Promise<void> {
    this.#socket.useEvents(this);
    this.#wake();
    await this.#finished;
  }

  /** See {@linkcode Session}. */
  get served(): Offered | undefined {
    return this.#session.served;
  }

  /** True until the client has chosen an export, or is to go. */
  get isHandshaking(): boolean {
    return this.#session.isHandshaking && !this.#session.isEnding;
  }

  /** Lets requests under way finish, refuses new ones, then disconnects. `drop` may cut it short. */
  shutdown(): void {
    this.#deadlines.shutdown();
  }

  /** Disconnects at once. Requests under way still finish, unanswered. */
  drop(): void {
    this.#session.drop();
    this.#wake();
  }

  /** Asks for a turn. A closed socket has none, and then only the last request's end is of interest. */
  #wake(): void {
    if (this.#socketClosed) this.#close();
    else this.#socket.askTurn();
  }

  // The hot path starts here.

  /** See {@linkcode ConnectionEvents}. */
  received(count: number): void {
    this.#receiving = false;
    if (count > 0) this.#session.received(count);
    else if (count === 0) this.#session.ended();
    // The peer reset the connection. Nobody is left to tell.
    else this.#session.drop();
    this.#wake();
  }

  /** See {@linkcode ConnectionEvents}. */
  sent(count: number): void {
    this.#sending = false;
    if (count < 0) {
      this.#session.drop();
      return this.#wake();
    }
    this.#session.sent(count);
    this.#deadlines.sent();
    // Nothing to do is the rule after a send: then the turn is spared.
    if (this.#session.queuedBytes > 0 || !this.#receiving) this.#wake();
  }

  /** Does what the session's state asks for. See {@linkcode ConnectionEvents}. */
  turn(): void {
    const session = this.#session;
    this.#deadlines.follow();
    if (session.isClosed) return this.#close();
    if (!this.#sending) {
      const output = session.nextOutput();
      if (output !== null) {
        this.#sending = true;
        this.#socket.send(output.source, output.sourceStart, output.sourceEnd - output.sourceStart);
      }
    }
    if (session.isEnding) return this.#deadlines.limitClosing();
    if (!this.#receiving && session.wantsInput) {
      this.#receiving = true;
      const { target, targetStart } = session.aimInput();
      this.#socket.receive(target, targetStart, target.length - targetStart);
    }
  }

  // The hot path ends here.

  /** See {@linkcode ConnectionEvents}. */
  closed(): void {
    this.#memoryFree = true;
    this.#wake();
  }

  #close(): void {
    this.#deadlines.end();
    if (!this.#socketClosed) {
      this.#socketClosed = true;
      // Ends what is in flight, and nothing is told any more.
      this.#socket.close();
    }
    if (!this.#memoryFree || this.#session.requestsInFlight > 0) return;
    this.#session.returnBuffers();
    this.#socket.promised();
    this.#finish();
  }
}
