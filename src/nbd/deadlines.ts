/**
 * The times that a connection has: to choose an export, to take its last replies, and to fall quiet while the server shuts
 * down. Both drivers keep them here.
 *
 * @module
 */

import { closingMsMax, shutdownLingerMs } from "./constants.ts";
import type { Session, SessionOptions } from "./session.ts";

/** The deadlines of one connection. After each that passes, its driver is told to look at the session. */
export class Deadlines {
  readonly #session: Session;
  readonly #clock: SessionOptions["clock"];
  readonly #warn: SessionOptions["warn"];
  readonly #passed: () => void;
  #cancelHandshake: (() => void) | null;
  #cancelClosing: (() => void) | null = null;
  #cancelShutdown: (() => void) | null = null;

  constructor(
    session: Session,
    { clock, limits, warn }: Pick<SessionOptions, "clock" | "limits" | "warn">,
    passed: () => void,
  ) {
    this.#session = session;
    this.#clock = clock;
    this.#warn = warn;
    this.#passed = passed;
    const { handshakeSeconds } = limits;
    this.#cancelHandshake = clock.after(handshakeSeconds * 1000, () => {
      if (!session.isHandshaking) return;
      this.drop(`no export was chosen within ${handshakeSeconds} s of connecting`);
    });
  }

  /** Disconnects at once, and says why. */
  drop(reason: string): void {
    if (!this.#session.isClosed) this.#warn(`dropped a client's connection: ${reason}`);
    this.#session.drop();
    this.#passed();
  }

  /** Lets requests under way finish, refuses new ones, then disconnects. */
  shutdown(): void {
    this.#session.shutdown();
    const linger = () => {
      if (this.#session.isQuiet) this.#session.ended();
      else this.#cancelShutdown = this.#clock.after(shutdownLingerMs, linger);
      this.#passed();
    };
    this.#cancelShutdown = this.#clock.after(shutdownLingerMs, linger);
  }

  /** The handshake's time ends with the handshake. */
  follow(): void {
    if (this.#cancelHandshake === null) return;
    if (!this.#session.isHandshaking || this.#session.isEnding) this.#endHandshake();
  }

  /** A connection that is to end must not wait for ever for a client that takes no replies. */
  limitClosing(): void {
    if (this.#session.queuedBytes === 0) return;
    this.#cancelClosing ??= this.#clock.after(closingMsMax, () => {
      this.drop(`the last replies were not taken within ${closingMsMax / 1000} s`);
    });
  }

  /** The client takes what it is sent. */
  sent(): void {
    this.#cancelClosing?.();
    this.#cancelClosing = null;
  }

  /** The connection is closed. */
  end(): void {
    this.#endHandshake();
    this.sent();
    this.#cancelShutdown?.();
    this.#session.closed();
  }

  #endHandshake(): void {
    this.#cancelHandshake?.();
    this.#cancelHandshake = null;
  }
}
