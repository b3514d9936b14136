/**
 * Sockets by Deno's own listeners.
 *
 * Invariants: a unix socket's path is removed only when nothing answers on it, or when it is the very socket that we
 * made; nothing else is ever removed.
 *
 * @module
 */

import { InUseError, NbdboostError, RefusedError, UsageError } from "../errors.ts";
import type { IoConnection, IoListener, SocketAddress } from "./io.ts";

/** Longest path of a unix socket in bytes: what `sockaddr_un` holds, less the zero at its end. */
export const socketPathBytesMax = Deno.build.os === "linux" ? 107 : 103;

/** Listens on `address`. See {@linkcode Io.listen}. With `mode` a unix socket gets that mode before anybody is accepted. */
export function listenPortable(
  address: SocketAddress,
  { mode }: { mode?: number } = {},
): Promise<IoListener> {
  return address.transport === "tcp" ? listenTcp(address) : listenUnix(address.path, mode);
}

/** Connects to `address`. See {@linkcode Io.connect}. */
export async function connectPortable(address: SocketAddress): Promise<IoConnection> {
  if (address.transport === "unix") {
    return new PortableConnection(await Deno.connect({ transport: "unix", path: address.path }));
  }
  const { hostname, port } = address;
  return new PortableConnection(await Deno.connect({ transport: "tcp", hostname, port }));
}

async function listenTcp(address: SocketAddress & { transport: "tcp" }): Promise<IoListener> {
  const { hostname, port } = address;
  const name = `${hostname.includes(":") ? `[${hostname}]` : hostname}:${port}`;
  if (!Number.isInteger(port) || port < 0 || port > 65535) {
    throw new UsageError(
      `Cannot listen on ${name}: a port is a number from 0 to 65535, where 0 picks a free one`,
    );
  }
  try {
    const listener = await Promise.resolve(Deno.listen({ transport: "tcp", hostname, port }));
    return new PortableListener(listener, {
      transport: "tcp",
      hostname: listener.addr.hostname,
      port: listener.addr.port,
    });
  } catch (cause) {
    throw listenError(name, cause);
  }
}

/** Checks a unix socket's path and removes a stale socket from it; throws when it cannot be listened on. */
export async function prepareUnixPath(path: string): Promise<void> {
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
  try {
    await removeStaleSocket(path);
  } catch (cause) {
    throw listenError(path, cause);
  }
}

async function listenUnix(path: string, mode: number | undefined): Promise<IoListener> {
  await prepareUnixPath(path);
  try {
    const listener = mode === undefined
      ? Deno.listen({ transport: "unix", path })
      : listenWithMode(path, mode);
    const made = Deno.lstatSync(path);
    const removePath = () => {
      const found = lstat(path);
      if (found && found.ino === made.ino && found.dev === made.dev) Deno.removeSync(path);
    };
    return new PortableListener(listener, { transport: "unix", path }, removePath);
  } catch (cause) {
    throw listenError(path, cause);
  }
}

/** The file mode creation mask where it may be set, so that the socket never has another mode; a chmod everywhere. */
function listenWithMode(path: string, mode: number): Deno.Listener {
  const masked = Deno.build.os !== "windows" && mayMask();
  const before = masked ? Deno.umask(0o777 & ~mode) : 0;
  try {
    const listener = Deno.listen({ transport: "unix", path });
    Deno.chmodSync(path, mode);
    return listener;
  } finally {
    if (masked) Deno.umask(before);
  }
}

function mayMask(): boolean {
  // Deno 2.6 does not know this kind, and asks for no permission either.
  const kind: string = "umask";
  try {
    return Deno.permissions.querySync({ name: "sys", kind } as Deno.PermissionDescriptor).state === "granted";
  } catch {
    return true;
  }
}

function lstat(path: string): Deno.FileInfo | undefined {
  try {
    return Deno.lstatSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

async function removeStaleSocket(path: string): Promise<void> {
  const found = lstat(path);
  if (!found) return;
  if (!found.isSocket) {
    throw new RefusedError(
      `Cannot listen on ${path}: something that is not a socket is there already; remove it or use another path`,
    );
  }
  try {
    const connection = await Deno.connect({ transport: "unix", path });
    connection.close();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return;
    if (!(error instanceof Deno.errors.ConnectionRefused)) throw error;
    Deno.removeSync(path);
    return;
  }
  throw new InUseError(
    `Cannot listen on ${path}: another process answers on this socket; stop it or use another path`,
  );
}

function listenError(name: string, cause: unknown): NbdboostError {
  if (cause instanceof NbdboostError) return cause;
  const reason = cause instanceof Error ? cause.message : String(cause);
  const code = (cause as { code?: unknown } | null)?.code;
  if (cause instanceof Deno.errors.AddrInUse) {
    return new InUseError(
      `Cannot listen on ${name}: the address is in use by another process; stop it or use another address`,
      { cause },
    );
  }
  if (
    cause instanceof Deno.errors.AddrNotAvailable || cause instanceof Deno.errors.NotFound ||
    code === undefined &&
      /lookup/.test(reason)
  ) {
    return new UsageError(
      `Cannot listen on ${name}: this machine has no such address (${reason}); expected a host name or address of ` +
        `this machine, or a path in an existing directory`,
      { cause },
    );
  }
  if (cause instanceof Deno.errors.NotCapable) {
    return new NbdboostError(
      `Cannot listen on ${name}: Deno does not permit it (${reason})`,
      { cause },
    );
  }
  return new NbdboostError(`Cannot listen on ${name}: ${reason}; check the address and the rights to it`, {
    cause,
  });
}

class PortableListener implements IoListener {
  readonly address: SocketAddress;
  #listener: Deno.Listener;
  #removePath: () => void;
  #closed = false;

  constructor(listener: Deno.Listener, address: SocketAddress, removePath: () => void = () => {}) {
    this.#listener = listener;
    this.address = address;
    this.#removePath = removePath;
  }

  async accept(): Promise<IoConnection | null> {
    while (!this.#closed) {
      try {
        return new PortableConnection(await this.#listener.accept());
      } catch (error) {
        // Closed meanwhile: the loop ends. A peer that left before its turn concerns nobody.
        if (this.#closed || isPeerGone(error)) continue;
        throw error;
      }
    }
    return null;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#listener.close();
    this.#removePath();
  }
}

function isPeerGone(error: unknown): boolean {
  return error instanceof Deno.errors.ConnectionAborted || error instanceof Deno.errors.ConnectionReset;
}

class PortableConnection implements IoConnection {
  #connection: Deno.Conn;
  #closed = false;

  constructor(connection: Deno.Conn) {
    this.#connection = connection;
    if (!("setNoDelay" in connection)) return;
    try {
      (connection as Deno.TcpConn).setNoDelay(true);
      // A peer that is gone without a word is noticed, though maybe only after the hours that the system allows.
      (connection as Deno.TcpConn).setKeepAlive(true);
    } catch {
      // The peer has gone already; the first read tells.
    }
  }

  async read(into: Uint8Array<ArrayBuffer>): Promise<number | null> {
    if (this.#closed) return null;
    try {
      return await this.#connection.read(into);
    } catch (error) {
      if (this.#closed) return null;
      throw error;
    }
  }

  write(bytes: Uint8Array<ArrayBuffer>): Promise<number> {
    return this.#connection.write(bytes);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#connection.close();
  }
}
