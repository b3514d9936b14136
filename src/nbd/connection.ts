/**
 * Drives one {@linkcode Session} over a portable stream connection: a receive loop and a send loop that share nothing
 * but the session. One receive may carry many requests, and one send many replies; no promise is made per request.
 *
 * Invariants: at most one read and one write are under way; the socket is closed as soon as the session is; `run`
 * resolves when the socket is closed and no request of this client is under way any more.
 *
 * @module
 */

import { assert } from "../errors.ts";
import type { IoConnection } from "../io/io.ts";
import { Deadlines } from "./deadlines.ts";
import type { Offered } from "./exports.ts";
import { Session, type SessionOptions } from "./session.ts";

/** One client. */
export class Connection {
  readonly #socket: IoConnection;
  readonly #session: Session;
  readonly #deadlines: Deadlines;
  #receiving = true;
  #sending = false;
  #socketClosed = false;
  #wakeReceiver: (() => void) | null = null;
  readonly #finished: Promise<void>;
  #finish!: () => void;

  constructor(socket: IoConnection, options: Omit<SessionOptions, "onOutput">) {
    this.#socket = socket;
    this.#session = new Session({ ...options, onOutput: () => this.#progress() });
    this.#finished = new Promise((resolve) => this.#finish = resolve);
    this.#deadlines = new Deadlines(this.#session, options, () => this.#progress());
  }

  /** Serves the client until the connection ends. Never rejects. */
  async run(): Promise<void> {
    this.#progress();
    await this.#receive();
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
    this.#progress();
  }

  async #receive(): Promise<void> {
    const session = this.#session;
    while (!session.isEnding) {
      if (session.tlsReply !== null && session.queuedBytes === 0 && !this.#sending) {
        await this.#startTls(session.tlsReply);
        continue;
      }
      if (!session.wantsInput) {
        await new Promise<void>((resolve) => this.#wakeReceiver = resolve);
        continue;
      }
      try {
        const count = await this.#socket.read(session.inputSpace());
        if (count === null) session.ended();
        else if (count > 0) session.received(count);
      } catch {
        // The peer reset the connection. Nobody is left to tell.
        session.drop();
      }
      this.#progress();
    }
    this.#receiving = false;
    this.#progress();
  }

  async #startTls(reply: Uint8Array<ArrayBuffer>): Promise<void> {
    try {
      assert(this.#socket.startTls !== undefined, "TLS was offered on a connection that cannot do it");
      await this.#socket.startTls(reply);
      this.#session.tlsStarted();
    } catch (error) {
      this.#deadlines.drop(`TLS failed: ${error instanceof Error ? error.message : String(error)}`);
    }
  }

  async #send(): Promise<void> {
    const session = this.#session;
    // Completions that are due in the same turn get to add their replies to this send.
    await null;
    try {
      for (let bytes = session.output(); bytes !== null; bytes = session.output()) {
        session.sent(await this.#socket.write(bytes));
        this.#deadlines.sent();
        if (session.wantsInput) this.#wake();
        if (session.isEnding) this.#deadlines.limitClosing();
      }
    } catch {
      session.drop();
    }
    this.#sending = false;
    if (session.tlsReply !== null) this.#wake();
    this.#progress();
  }

  /** Does what the session's state asks for. Called after everything that may have changed it. */
  #progress(): void {
    const session = this.#session;
    this.#deadlines.follow();
    if (session.wantsInput || session.isEnding) this.#wake();
    if (session.isClosed) return this.#close();
    if (session.queuedBytes === 0) return;
    if (session.isEnding) this.#deadlines.limitClosing();
    if (this.#sending) return;
    this.#sending = true;
    this.#send();
  }

  #close(): void {
    this.#deadlines.end();
    if (!this.#socketClosed) {
      this.#socketClosed = true;
      this.#socket.close();
    }
    if (!this.#receiving && !this.#sending && this.#session.requestsInFlight === 0) this.#finish();
  }

  #wake(): void {
    this.#wakeReceiver?.();
    this.#wakeReceiver = null;
  }
}
