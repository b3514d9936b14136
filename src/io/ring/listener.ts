/**
 * Listening sockets on the ring.
 *
 * Invariants: a unix socket's path is removed only when nothing answers on it, or when it is the very socket that we
 * made; nothing else is ever removed. `accept` is null from `close` on.
 *
 * @module
 */

import { InUseError, NbdboostError, RefusedError, UsageError } from "../../errors.ts";
import type { IoConnection, IoListener, SocketAddress } from "../io.ts";
import { passedError } from "../passed.ts";
import { ioctlRequest, operation, socketConstant } from "./abi.ts";
import { boundAddress, type NativeAddress, socketAddress, tcpAddress, unixAddress } from "./address.ts";
import { RingConnection } from "./connection.ts";
import { errno, errnoError } from "./errno.ts";
import { cancel, submit } from "./operation.ts";
import type { Reactor } from "./reactor.ts";

/** Longest path of a unix socket in bytes: what `sockaddr_un` holds, less the zero at its end. */
const socketPathBytesMax = 107;
/** Connections that wait to be accepted. */
const backlogMax = 1024;

const {
  stream,
  closeOnExec,
  nonBlocking,
  levelSocket,
  reuseAddress,
  keepAlive,
  levelTcp,
  noDelay,
  sendBuffer,
} = socketConstant;
const on = new Uint8Array(new Int32Array([1]).buffer);
/** What a unix socket holds for its reader, 208 KiB by itself: a reply of 1 MiB took five sends, and as many changes of task. */
const unixSendBytes = new Uint8Array(new Int32Array([1024 * 1024]).buffer);

/** Listens on `address`. See `Io.listen`. */
export function listenRing(reactor: Reactor, address: SocketAddress): RingListener {
  return address.transport === "tcp" ? listenTcp(reactor, address) : listenUnix(reactor, address.path);
}

function listenTcp(reactor: Reactor, address: SocketAddress & { transport: "tcp" }): RingListener {
  const { hostname, port } = address;
  const name = `${hostname.includes(":") ? `[${hostname}]` : hostname}:${port}`;
  if (!Number.isInteger(port) || port < 0 || port > 65535) {
    throw new UsageError(
      `Cannot listen on ${name}: a port is a number from 0 to 65535, where 0 picks a free one`,
    );
  }
  const { libc } = reactor;
  const descriptor = listening(reactor, name, tcpAddress(libc, hostname, port));
  return new RingListener(reactor, descriptor, boundAddress(libc, descriptor), () => {});
}

/**
 * Takes over a socket that another process opened and listens on, such as a service manager. See `Io.listenPassed`. That process
 * may keep it and hand it to the next one, so it is left as it is when it is closed here.
 */
export function takePassed(reactor: Reactor, descriptor: number): RingListener {
  const { libc } = reactor;
  const option = (name: number): number => {
    const [value, length] = [new Int32Array(1), new Uint32Array([4])];
    const bytes = new Uint8Array(value.buffer);
    return libc.call.getsockopt(descriptor, levelSocket, name, bytes, new Uint8Array(length.buffer)) === 0
      ? value[0]!
      : -1;
  };
  const isRight = option(socketConstant.type) === stream && option(socketConstant.acceptsConnections) === 1;
  const address = isRight ? socketAddress(libc, descriptor) : undefined;
  if (address === undefined) {
    throw passedError(descriptor, "it is not a listening socket of TCP or of a path");
  }
  // Accepting waits in the ring; a socket that never waits would be asked again and again.
  libc.call.ioctl(descriptor, BigInt(ioctlRequest.nonBlocking), new Uint8Array(4));
  libc.call.ioctl(descriptor, BigInt(ioctlRequest.closeOnExec), new Uint8Array(0));
  return new RingListener(reactor, descriptor, address);
}

function listenUnix(reactor: Reactor, path: string): RingListener {
  if (path === "" || path.includes("\0")) {
    throw new UsageError(`Cannot listen on the unix socket "${path}": expected the path of a file; give one`);
  }
  const pathBytes = new TextEncoder().encode(path).length;
  if (pathBytes > socketPathBytesMax) {
    throw new UsageError(
      `Cannot listen on ${path}: the path has ${pathBytes} bytes, and a unix socket's has at most ` +
        `${socketPathBytesMax}; use a shorter one, for example below /run or /tmp`,
    );
  }
  removeStaleSocket(reactor, path);
  const descriptor = listening(reactor, path, unixAddress(path));
  const made = lstat(path);
  const removePath = () => {
    const found = lstat(path);
    if (found && made && found.ino === made.ino && found.dev === made.dev) Deno.removeSync(path);
  };
  return new RingListener(reactor, descriptor, { transport: "unix", path }, removePath);
}

function listening(reactor: Reactor, name: string, address: NativeAddress): number {
  const { libc } = reactor;
  const descriptor = libc.call.socket(address.family, stream | closeOnExec, 0);
  if (descriptor < 0) throw listenError(name, libc.errno());
  const tcp = address.family !== socketConstant.familyUnix;
  if (tcp) libc.call.setsockopt(descriptor, levelSocket, reuseAddress, on, on.length);
  const failed = libc.call.bind(descriptor, address.bytes, address.bytes.length) !== 0 ||
    libc.call.listen(descriptor, backlogMax) !== 0;
  if (!failed) return descriptor;
  const number = libc.errno();
  libc.call.close(descriptor);
  throw listenError(name, number);
}

function lstat(path: string): Deno.FileInfo | undefined {
  try {
    return Deno.lstatSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || (error as { code?: unknown }).code === "ENOTDIR") {
      return undefined;
    }
    throw error;
  }
}

function removeStaleSocket(reactor: Reactor, path: string): void {
  const found = lstat(path);
  if (!found) return;
  if (!found.isSocket) {
    throw new RefusedError(
      `Cannot listen on ${path}: something that is not a socket is there already; remove it or use another path`,
    );
  }
  const { libc } = reactor;
  const { family, bytes } = unixAddress(path);
  const descriptor = libc.call.socket(family, stream | closeOnExec | nonBlocking, 0);
  if (descriptor < 0) throw listenError(path, libc.errno());
  const number = libc.call.connect(descriptor, bytes, bytes.length) === 0 ? 0 : libc.errno();
  libc.call.close(descriptor);
  if (number === errno.ENOENT) return;
  if (number === errno.ECONNREFUSED) return Deno.removeSync(path);
  // EAGAIN: somebody listens and has a queue.
  if (number !== 0 && number !== errno.EAGAIN) throw listenError(path, number);
  throw new InUseError(
    `Cannot listen on ${path}: another process answers on this socket; stop it or use another path`,
  );
}

function listenError(name: string, number: number): NbdboostError {
  const cause = errnoError("listen", number);
  if (number === errno.EADDRINUSE) {
    return new InUseError(
      `Cannot listen on ${name}: the address is in use by another process; stop it or use another address`,
      { cause },
    );
  }
  if (number === errno.EADDRNOTAVAIL || number === errno.ENOENT) {
    return new UsageError(
      `Cannot listen on ${name}: this machine has no such address (${cause.message}); expected a host name or address ` +
        `of this machine, or a path in an existing directory`,
      { cause },
    );
  }
  return new NbdboostError(
    `Cannot listen on ${name}: ${cause.message}; check the address and the rights to it`,
    { cause },
  );
}

/** A listening socket on the ring. */
export class RingListener implements IoListener {
  readonly address: SocketAddress;
  readonly #reactor: Reactor;
  readonly #descriptor: number;
  /** Undefined when the socket is another process's, too. */
  readonly #removePath: (() => void) | undefined;
  #accepting = 0;
  /** The last of those that are under way. */
  #acceptNumber = 0;
  #closed = false;

  /** Owns `descriptor` from now on; and the socket too, if there is a way to remove its path. */
  constructor(reactor: Reactor, descriptor: number, address: SocketAddress, removePath?: () => void) {
    this.#reactor = reactor;
    this.#descriptor = descriptor;
    this.address = address;
    this.#removePath = removePath;
    reactor.acquire();
  }

  async accept(): Promise<IoConnection | null> {
    const reactor = this.#reactor;
    while (!this.#closed) {
      this.#accepting++;
      const result = await submit(reactor, {
        operation: operation.accept,
        descriptor: this.#descriptor,
        flags: closeOnExec,
      }, (number) => this.#acceptNumber = number);
      this.#accepting--;
      if (this.#closed) {
        if (result >= 0) reactor.libc.call.close(result);
        this.#release();
        return null;
      }
      if (result >= 0) {
        if (this.address.transport === "tcp") {
          reactor.libc.call.setsockopt(result, levelTcp, noDelay, on, on.length);
          reactor.libc.call.setsockopt(result, levelSocket, keepAlive, on, on.length);
        } else {reactor.libc.call.setsockopt(
            result,
            levelSocket,
            sendBuffer,
            unixSendBytes,
            unixSendBytes.length,
          );}
        return new RingConnection(reactor, result);
      }
      if (!isPassing(-result)) throw errnoError("accept", -result);
    }
    return null;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    // Ends an accept that is in flight: for good, or for this process only.
    if (this.#removePath !== undefined) {
      this.#removePath();
      this.#reactor.libc.call.shutdown(this.#descriptor, socketConstant.shutdownBoth);
    } else if (this.#accepting > 0) cancel(this.#reactor, this.#acceptNumber);
    this.#release();
  }

  #release(): void {
    if (this.#accepting > 0) return;
    this.#reactor.libc.call.close(this.#descriptor);
    this.#reactor.release();
  }
}

/** A peer that left before its turn concerns nobody. */
function isPassing(number: number): boolean {
  return number === errno.EINTR || number === errno.EAGAIN || number === errno.ECONNABORTED ||
    number === errno.ECONNRESET;
}
