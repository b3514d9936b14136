/**
 * Sockets that another process opened and passed to this one: by systemd's protocol (LISTEN_PID, LISTEN_FDS) from descriptor 3
 * on, or as standard input and output.
 *
 * @module
 */

import { createServer } from "node:net";
import { NbdboostError, RefusedError } from "../errors.ts";
import type { IoConnection, IoListener, SocketAddress, TlsIdentity } from "./io.ts";
import { NodeListener } from "./portable_node.ts";
import { serverSecure } from "./portable_tls.ts";

/** The descriptor of the first one. */
const firstDescriptor = 3;
/** More are a mistake of whoever set the variable. */
const socketsMax = 64;

/** A variable of the environment, without asking anybody. */
function variable(name: string): string | undefined {
  if (Deno.permissions.querySync({ name: "env", variable: name }).state !== "granted") return undefined;
  return Deno.env.get(name);
}

/** The descriptors of the sockets that were passed to this process by LISTEN_FDS; none if they are another's. */
export function passedSockets(): number[] {
  if (variable("LISTEN_PID") !== String(Deno.pid)) return [];
  const text = variable("LISTEN_FDS") ?? "0";
  const count = Number(text);
  if (!/^\d+$/.test(text) || count > socketsMax) {
    throw new NbdboostError(`LISTEN_FDS is "${text}", expected a number of sockets from 1 to ${socketsMax}`);
  }
  // They are not for programs that are started from here.
  for (const name of ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"]) {
    if (variable(name) !== undefined) Deno.env.delete(name);
  }
  return Array.from({ length: count }, (_, index) => firstDescriptor + index);
}

/** A socket that was passed cannot be used. */
export function passedError(descriptor: number, why: string): RefusedError {
  return new RefusedError(
    `Cannot listen on descriptor ${descriptor}, which was passed to this process (LISTEN_FDS): ${why}; expected a stream socket ` +
      `that listens (Accept=no in a systemd socket unit)`,
  );
}

/** Takes over a listening socket by node:net. See `Io.listenPassed`. */
export async function listenPassedPortable(
  descriptor: number,
  identity?: TlsIdentity,
): Promise<IoListener> {
  const secure = identity === undefined ? undefined : serverSecure(identity);
  const server = createServer({ pauseOnConnect: true, noDelay: true, keepAlive: true, allowHalfOpen: true });
  await new Promise<void>((resolve, reject) => {
    server.once("error", (cause) => {
      const why = `Deno ${Deno.version.deno} says ${cause.message}`;
      reject(passedError(descriptor, `${why}; Deno 2.9 can take it over, and so can --io ring with any`));
    });
    server.listen({ fd: descriptor }, resolve);
  });
  const bound = server.address();
  const address: SocketAddress = bound !== null && typeof bound === "object"
    ? { transport: "tcp", hostname: bound.address, port: bound.port }
    : { transport: "unix", path: unixPath(descriptor) ?? `descriptor ${descriptor}` };
  return new NodeListener(server, address, () => {}, secure);
}

/** The path of a unix socket, as Linux tells it to whoever may ask. */
function unixPath(descriptor: number): string | undefined {
  try {
    const [, inode] = /^socket:\[(\d+)\]$/.exec(Deno.readLinkSync(`/proc/self/fd/${descriptor}`)) ?? [];
    const lines = Deno.readTextFileSync("/proc/net/unix").split("\n");
    // The last two columns of eight.
    const columns = lines.map((line) => line.trim().split(/\s+/)).find((each) => each[6] === inode);
    return columns?.slice(7).join(" ") || undefined;
  } catch {
    return undefined;
  }
}

/** Standard input and output as one connection. See `Io.standardStreams`. */
export function standardStreams(): IoConnection {
  let closed = false;
  return {
    async read(into) {
      if (closed) return null;
      const count = await Deno.stdin.read(into);
      return closed ? null : count;
    },
    write: (bytes) => Deno.stdout.write(bytes),
    close() {
      closed = true;
    },
  };
}
