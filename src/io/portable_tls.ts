/**
 * Listening sockets whose connections can go over to TLS in the middle (STARTTLS), by Deno's node:net and node:tls: its
 * own sockets can do that as a client only.
 *
 * Invariants: the last words in the clear and the change to TLS happen in one turn, so that nothing of the handshake can be
 * taken for plain text; with `verifyClients` a connection whose certificate the authority did not issue itself is closed
 * before a byte of it is read.
 *
 * @module
 */

import { X509Certificate } from "node:crypto";
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import { createSecureContext, type SecureContext, TLSSocket } from "node:tls";
import { NbdboostError, RefusedError } from "../errors.ts";
import type { IoConnection, IoListener, SocketAddress, TlsIdentity } from "./io.ts";
import { prepareUnixPath } from "./portable_socket.ts";

/** The first Deno whose TLSSocket begins a server's handshake on a connected socket (denoland/deno#33303). */
const denoMinorMin = 8;

/** Time for the end of a connection to be taken by its client. */
const closingMsMax = 2000;

/** Why this Deno cannot do it, undefined when it can. */
export function tlsRefusal(version: string = Deno.version.deno): string | undefined {
  const [major = 0, minor = 0] = version.split(".").map(Number);
  if (major > 2 || (major === 2 && minor >= denoMinorMin)) return undefined;
  return `Deno ${version} cannot change an accepted socket over to TLS; 2.${denoMinorMin} or newer can`;
}

/** Listens; the connections have `startTls`. */
export async function listenTlsPortable(address: SocketAddress, identity: TlsIdentity): Promise<IoListener> {
  const refusal = tlsRefusal();
  if (refusal !== undefined) throw new RefusedError(`Cannot offer TLS: ${refusal}`);
  const context = secureContext(identity);
  const name = address.transport === "unix" ? address.path : `${address.hostname}:${address.port}`;
  let removePath = () => {};
  if (address.transport === "unix") await prepareUnixPath(address.path);
  const server = createServer({ pauseOnConnect: true, noDelay: true, keepAlive: true, allowHalfOpen: true });
  await new Promise<void>((resolve, reject) => {
    server.once("error", (cause) => {
      reject(new RefusedError(`Cannot listen on ${name}: ${cause.message}; check the address`, { cause }));
    });
    if (address.transport === "unix") server.listen(address.path, resolve);
    else server.listen(address.port, address.hostname, resolve);
  });
  if (address.transport === "unix") {
    const made = Deno.lstatSync(address.path);
    removePath = () => {
      try {
        if (Deno.lstatSync(address.path).ino === made.ino) Deno.removeSync(address.path);
      } catch {
        // It is gone already.
      }
    };
    return new TlsListener(server, address, context, identity, removePath);
  }
  const bound = server.address() as AddressInfo;
  const where: SocketAddress = { transport: "tcp", hostname: bound.address, port: bound.port };
  return new TlsListener(server, where, context, identity, removePath);
}

function secureContext({ certificate, key, authority }: TlsIdentity): SecureContext {
  try {
    return createSecureContext({
      cert: certificate,
      key,
      minVersion: "TLSv1.2",
      ...(authority === undefined ? {} : { ca: authority }),
    });
  } catch (cause) {
    throw new RefusedError(
      `Cannot offer TLS: the certificate and its key cannot be used (${
        (cause as Error).message
      }); expected PEM files ` +
        `that belong together`,
      { cause },
    );
  }
}

/** Why a client's certificate (DER) does not count, undefined when `authority` (PEM) itself has issued it and it is valid now. */
export function certificateRefusal(raw: Uint8Array | undefined, authority: string): string | undefined {
  if (raw === undefined || raw.length === 0) return "there is none";
  try {
    const [shown, issuer] = [new X509Certificate(raw), new X509Certificate(authority)];
    if (!issuer.ca) return "the authority's own certificate is not one of an authority";
    if (!shown.checkIssued(issuer) || !shown.verify(issuer.publicKey)) {
      return "the authority did not issue it";
    }
    const nowMs = Date.now();
    for (const { validFrom, validTo } of [shown, issuer]) {
      // Written so that a date which cannot be read refuses.
      const isValid = new Date(validFrom).getTime() <= nowMs && nowMs <= new Date(validTo).getTime();
      if (!isValid) return `it, or the authority's, is valid from ${validFrom} to ${validTo} only`;
    }
    return undefined;
  } catch (error) {
    return `it cannot be read (${error instanceof Error ? error.message : String(error)})`;
  }
}

class TlsListener implements IoListener {
  readonly address: SocketAddress;
  readonly #server: Server;
  readonly #removePath: () => void;
  readonly #waiting: IoConnection[] = [];
  #wake: () => void = () => {};
  #closed = false;

  constructor(
    server: Server,
    address: SocketAddress,
    context: SecureContext,
    identity: TlsIdentity,
    removePath: () => void,
  ) {
    this.#server = server;
    this.address = address;
    this.#removePath = removePath;
    server.on("connection", (socket) => {
      this.#waiting.push(new NodeConnection(socket, context, identity));
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

class NodeConnection implements IoConnection {
  #socket: Socket;
  readonly #context: SecureContext;
  readonly #identity: TlsIdentity;
  #failure: Error | undefined;
  #ended = false;
  #closed = false;
  #wake: () => void = () => {};
  #failWrite: () => void = () => {};

  constructor(socket: Socket, context: SecureContext, identity: TlsIdentity) {
    this.#socket = socket;
    this.#context = context;
    this.#identity = identity;
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
    const { verifyClients, authority } = this.#identity;
    plain.removeAllListeners();
    plain.on("error", () => {});
    plain.write(lastWords);
    const secure = new TLSSocket(plain, {
      isServer: true,
      secureContext: this.#context,
      requestCert: verifyClients,
      rejectUnauthorized: verifyClients,
      ...(authority === undefined ? {} : { ca: authority }),
    });
    this.#socket = secure;
    await new Promise<void>((resolve, reject) => {
      secure.once("secure", () => resolve());
      secure.once("error", reject);
      secure.once(
        "close",
        () => reject(new NbdboostError("the connection was closed during the TLS handshake")),
      );
    });
    // A server's TLSSocket of Deno demands a certificate, but does not look who vouches for it.
    const why = verifyClients
      ? certificateRefusal(secure.getPeerCertificate()?.raw, authority ?? "")
      : undefined;
    if (why !== undefined) {
      secure.destroy();
      throw new RefusedError(`the client's certificate is refused: ${why}`);
    }
    this.#listen(secure);
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
