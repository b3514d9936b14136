/**
 * Connections that can go over to TLS in the middle (STARTTLS), as a server and as a client, by Deno's node:net and node:tls.
 *
 * Invariants: with `verifyClients` a connection whose certificate the authority did not issue itself is closed before a byte
 * of it is read; with `verify` nothing is sent to a server that shows no certificate of its name and of that authority.
 *
 * @module
 */

import { X509Certificate } from "node:crypto";
import { type AddressInfo, connect, createServer, isIP, type Socket } from "node:net";
import { connect as connectSecure, createSecureContext, TLSSocket } from "node:tls";
import { NbdboostError, RefusedError } from "../errors.ts";
import type { IoConnection, IoListener, SocketAddress, TlsIdentity, TlsTrust } from "./io.ts";
import { NodeConnection, NodeListener, type Secure } from "./portable_node.ts";
import { prepareUnixPath } from "./portable_socket.ts";

/**
 * The first Deno whose TLSSocket begins a server's handshake on a connected socket (denoland/deno#33303). As a client 2.6 takes
 * any certificate of any authority for good, when the socket is connected already (measured).
 */
const denoMinorMin = 8;

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
  const secure = serverSecure(identity);
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
    return new NodeListener(server, address, removePath, secure);
  }
  const bound = server.address() as AddressInfo;
  const where: SocketAddress = { transport: "tcp", hostname: bound.address, port: bound.port };
  return new NodeListener(server, where, removePath, secure);
}

/** How a server goes over to TLS. */
export function serverSecure({ certificate, key, authority, verifyClients }: TlsIdentity): Secure {
  const trusted = authority === undefined ? {} : { ca: authority };
  let secureContext: ReturnType<typeof createSecureContext>;
  try {
    secureContext = createSecureContext({ cert: certificate, key, minVersion: "TLSv1.2", ...trusted });
  } catch (cause) {
    throw new RefusedError(
      `Cannot offer TLS: the certificate and its key cannot be used (${
        (cause as Error).message
      }); expected PEM files ` +
        `that belong together`,
      { cause },
    );
  }
  return async (plain, onMade) => {
    const secure = new TLSSocket(plain, {
      isServer: true,
      secureContext,
      requestCert: verifyClients,
      rejectUnauthorized: verifyClients,
      ...trusted,
    });
    onMade(secure);
    await untilSecure(secure, "secure");
    // A server's TLSSocket of Deno demands a certificate, but does not look who vouches for it.
    const why = verifyClients
      ? certificateRefusal(secure.getPeerCertificate()?.raw, authority ?? "")
      : undefined;
    if (why === undefined) return;
    secure.destroy();
    throw new RefusedError(`the client's certificate is refused: ${why}`);
  };
}

function untilSecure(secure: TLSSocket, event: "secure" | "secureConnect"): Promise<void> {
  return new Promise((resolve, reject) => {
    // The types know the former of a server's sockets only.
    (secure as Socket).once(event, () => resolve());
    secure.once("error", reject);
    secure.once(
      "close",
      () => reject(new NbdboostError("the connection was closed during the TLS handshake")),
    );
  });
}

/** Connects; the connection has `startTls`, as a client. */
export async function connectTlsPortable(address: SocketAddress, trust: TlsTrust): Promise<IoConnection> {
  const refusal = tlsRefusal();
  if (refusal !== undefined) throw new RefusedError(`Cannot use TLS: ${refusal}`);
  const socket = await new Promise<Socket>((resolve, reject) => {
    const made: Socket = address.transport === "unix"
      ? connect({ path: address.path })
      : connect({ host: address.hostname, port: address.port, noDelay: true, keepAlive: true });
    made.once("error", reject);
    made.once("connect", () => {
      made.removeAllListeners();
      resolve(made);
    });
  });
  return new NodeConnection(socket, clientSecure(trust));
}

function clientSecure({ serverName, verify, authority, certificate, key }: TlsTrust): Secure {
  return async (plain, onMade) => {
    const secure = connectSecure({
      socket: plain,
      minVersion: "TLSv1.2",
      rejectUnauthorized: verify,
      // A name is asked for in the handshake; an address only has to stand in the certificate.
      ...(isIP(serverName) === 0 ? { servername: serverName } : { host: serverName }),
      ...(authority === undefined ? {} : { ca: authority }),
      ...(certificate === undefined || key === undefined ? {} : { cert: certificate, key }),
    });
    onMade(secure);
    await untilSecure(secure, "secureConnect");
    if (!verify || secure.authorized) return;
    secure.destroy();
    throw new RefusedError(`the server's certificate is refused: ${secure.authorizationError}`);
  };
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
