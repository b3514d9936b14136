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

import type { Clock } from "../clock.ts";
import type { ConnectionEvents, EventConnection } from "../io/io.ts";
import { closingMsMax, shutdownLingerMs } from "./constants.ts";
import { Session, type SessionOptions } from "./session.ts";

/** One client. */
export class EventDriver implements ConnectionEvents {
  readonly #socket: EventConnection;
  readonly #session: Session;
  readonly #clock: Clock;
  readonly #warn: (message: string) => void;
  #receiving = false;
  #sending = false;
  #socketClosed = false;
  /** The kernel has no memory of this connection any more. */
  #memoryFree = false;
  #cancelHandshake: (() => void) | null;
  #cancelClosing: (() => void) | null = null;
  #cancelShutdown: (() => void) | null = null;
  readonly #finished: Promise<void>;
  #finish!: () => void;

  constructor(socket: EventConnection, options: Omit<SessionOptions, "onOutput" | "onPromise" | "borrows">) {
    this.#socket = socket;
    this.#clock = options.clock;
    this.#warn = options.warn;
    this.#session = new Session({
      ...options,
      borrows: true,
      onOutput: () => this.#wake(),
      onPromise: () => socket.promised(),
    });
    this.#finished = new Promise((resolve) => this.#finish = resolve);
    const { handshakeSeconds } = options.limits;
    this.#cancelHandshake = this.#clock.after(handshakeSeconds * 1000, () => {
      if (!this.#session.isHandshaking) return;
      this.#drop(`no export was chosen within ${handshakeSeconds} s of connecting`);
    });
  }

  /** Serves the client until the connection ends. Never rejects. */
  async run(): Promise<void> {
    this.#socket.useEvents(this);
    this.#wake();
    await this.#finished;
  }

  /** Lets requests under way finish, refuses new ones, then disconnects. `drop` may cut it short. */
  shutdown(): void {
    this.#session.shutdown();
    const linger = () => {
      if (this.#session.isQuiet) this.#session.ended();
      else this.#cancelShutdown = this.#clock.after(shutdownLingerMs, linger);
      this.#wake();
    };
    this.#cancelShutdown = this.#clock.after(shutdownLingerMs, linger);
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

  #drop(reason: string): void {
    if (!this.#session.isClosed) this.#warn(`dropped a client's connection: ${reason}`);
    this.drop();
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
    if (this.#cancelClosing !== null) this.#endClosing();
    // Nothing to do is the rule after a send: then the turn is spared.
    if (this.#session.queuedBytes > 0 || !this.#receiving) this.#wake();
  }

  /** Does what the session's state asks for. See {@linkcode ConnectionEvents}. */
  turn(): void {
    const session = this.#session;
    if (this.#cancelHandshake !== null && (!session.isHandshaking || session.isEnding)) this.#endHandshake();
    if (session.isClosed) return this.#close();
    if (!this.#sending) {
      const output = session.nextOutput();
      if (output !== null) {
        this.#sending = true;
        this.#socket.send(output.source, output.sourceStart, output.sourceEnd - output.sourceStart);
      }
    }
    if (session.isEnding) return this.#limitClosing();
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

  /** A connection that is to end must not wait for ever for a client that takes no replies. */
  #limitClosing(): void {
    if (this.#session.queuedBytes === 0) return;
    this.#cancelClosing ??= this.#clock.after(closingMsMax, () => {
      this.#drop(`the last replies were not taken within ${closingMsMax / 1000} s`);
    });
  }

  #endClosing(): void {
    this.#cancelClosing?.();
    this.#cancelClosing = null;
  }

  #close(): void {
    this.#endHandshake();
    this.#endClosing();
    this.#cancelShutdown?.();
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

  #endHandshake(): void {
    this.#cancelHandshake?.();
    this.#cancelHandshake = null;
  }
}
