/**
 * Sockets by Deno's node:net, for what its own sockets cannot do: going over to TLS as a server (STARTTLS) or with a certificate
 * as a client, and listening on a socket that another process has opened.
 *
 * Invariant: the last words in the clear and the change to TLS happen in one turn, so that nothing of the handshake can be
 * taken for plain text.
 *
 * @module
 */

import type { Server, Socket } from "node:net";
import { assert, NbdboostError } from "../errors.ts";
import type { IoConnection, IoListener, SocketAddress } from "./io.ts";

/** Time for the end of a connection to be taken by its peer. */
const closingMsMax = 2000;

/** Puts TLS around a socket; rejects, with the socket destroyed, when the handshake fails. `onMade` is called with it at once. */
export type Secure = (plain: Socket, onMade: (secure: Socket) => void) => Promise<void>;

/** A connection of node:net, which can go over to TLS when it is told how. */
export class NodeConnection implements IoConnection {
  #socket: Socket;
  readonly #secure: Secure | undefined;
  #failure: Error | undefined;
  #ended = false;
  #closed = false;
  #wake: () => void = () => {};
  #failWrite: () => void = () => {};

  /** Owns `socket` from now on. */
  constructor(socket: Socket, secure?: Secure) {
    this.#socket = socket;
    this.#secure = secure;
    this.#listen(socket);
  }

  #listen(socket: Socket): void {
    socket.on("readable", () => this.#wake());
    socket.on("end", () => {
      this.#ended = true;
      this.#wake();
    });
    socket.on("error", (error) => {
      this.#failure = error;
      this.#wake();
    });
    socket.on("close", () => {
      this.#ended = true;
      this.#failWrite();
      this.#wake();
    });
  }

  async read(into: Uint8Array<ArrayBuffer>): Promise<number | null> {
    for (;;) {
      if (this.#closed) return null;
      if (this.#failure !== undefined) throw this.#failure;
      const here = Math.min(this.#socket.readableLength, into.length);
      const bytes: Uint8Array | null = this.#socket.read(here === 0 ? undefined : here);
      if (bytes !== null) {
        if (bytes.length > into.length) this.#socket.unshift(bytes.subarray(into.length));
        const count = Math.min(bytes.length, into.length);
        into.set(bytes.subarray(0, count));
        return count;
      }
      if (this.#ended) return null;
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
  }

  write(bytes: Uint8Array<ArrayBuffer>): Promise<number> {
    return new Promise((resolve, reject) => {
      if (this.#closed) return reject(new NbdboostError("Cannot send: the connection is closed"));
      this.#failWrite = () => reject(new NbdboostError("Cannot send: the connection was closed"));
      this.#socket.write(bytes, (error) => {
        this.#failWrite = () => {};
        if (error) reject(error);
        else resolve(bytes.length);
      });
    });
  }

  async startTls(lastWords: Uint8Array<ArrayBuffer>): Promise<void> {
    const plain = this.#socket;
    assert(this.#secure !== undefined, "TLS was asked of a connection that cannot do it");
    plain.removeAllListeners();
    plain.on("error", () => {});
    if (lastWords.length > 0) plain.write(lastWords);
    await this.#secure(plain, (secure) => this.#socket = secure);
    this.#listen(this.#socket);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    const socket = this.#socket;
    // Ends TLS in order, which tells the client that nothing was cut off; a client that takes nothing gets no more time.
    socket.destroySoon();
    const timer = setTimeout(() => socket.destroy(), closingMsMax);
    Deno.unrefTimer(Number(timer));
    socket.once("close", () => clearTimeout(timer));
    this.#wake();
  }
}

/** A listening socket of node:net. */
export class NodeListener implements IoListener {
  readonly address: SocketAddress;
  readonly #server: Server;
  readonly #removePath: () => void;
  readonly #waiting: IoConnection[] = [];
  #wake: () => void = () => {};
  #closed = false;

  constructor(
    server: Server,
    address: SocketAddress,
    removePath: () => void,
    secure?: Secure,
  ) {
    this.#server = server;
    this.address = address;
    this.#removePath = removePath;
    server.on("connection", (socket) => {
      this.#waiting.push(new NodeConnection(socket, secure));
      this.#wake();
    });
    server.on("error", () => {});
  }

  async accept(): Promise<IoConnection | null> {
    for (;;) {
      const next = this.#waiting.shift();
      if (next !== undefined) return next;
      if (this.#closed) return null;
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const connection of this.#waiting.splice(0)) connection.close();
    this.#server.close();
    this.#removePath();
    this.#wake();
  }
}
