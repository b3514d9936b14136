/**
 * Control addresses: how they are written, where a server listens when nobody says so, and how a client finds the only
 * server that runs.
 *
 * A server on a cache file listens at `PATH.sock` beside it, and leaves a link to that in the runtime directory; a server on
 * a device listens in the runtime directory. That is `nbdboost` below `$XDG_RUNTIME_DIR`, or `/run/nbdboost`; or, instead
 * of both, `$NBDBOOST_RUNTIME_DIR`.
 *
 * @module
 */

import { NbdboostError, UsageError } from "../errors.ts";
import type { SocketAddress } from "../io/io.ts";

/** Where people are told about addresses. */
const expected = "expected the path of a socket, or 127.0.0.1:PORT";

/** Reads `--control`. */
export function parseControlAddress(text: string): SocketAddress {
  const unix = /^unix:(?:\/\/(?=\/))?(.+)$/.exec(text);
  if (unix) return { transport: "unix", path: unix[1]! };
  const tcp = /^(?:http:\/\/)?(?:\[([0-9a-f:.]+)\]|([^\s/:[\]]+)):(\d{1,5})\/?$/i.exec(text);
  if (!tcp) {
    if (/^[a-z+]+:\/\//i.test(text)) {
      throw new UsageError(`Cannot use the control address "${text}": ${expected}`);
    }
    return { transport: "unix", path: text };
  }
  const hostname = (tcp[1] ?? tcp[2]!).toLowerCase();
  const port = Number(tcp[3]);
  if (port > 65535) {
    throw new UsageError(`Cannot use the control address "${text}": the port ${port} is larger than 65535`);
  }
  if (hostname !== "127.0.0.1" && hostname !== "::1" && hostname !== "localhost") {
    throw new UsageError(
      `Cannot use the control address "${text}": ${hostname} is not this machine alone; expected 127.0.0.1, ::1 or localhost, ` +
        "with a proxy that encrypts in front of it if others are to reach it",
    );
  }
  return { transport: "tcp", hostname: hostname === "localhost" ? "127.0.0.1" : hostname, port };
}

/** An address as it is written. */
export function formatControlAddress(address: SocketAddress): string {
  if (address.transport === "unix") return address.path;
  const { hostname, port } = address;
  return `http://${hostname.includes(":") ? `[${hostname}]` : hostname}:${port}`;
}

/** Whether something may be asked for without anybody being asked for it at the terminal. */
export function isPermitted(descriptor: Deno.PermissionDescriptor): boolean {
  try {
    return Deno.permissions.querySync(descriptor).state === "granted";
  } catch {
    // Deno 2.6 takes no unix socket for a host, and does not ask for a permission for one either.
    return true;
  }
}

/** The directories in which servers can be found, the one for a new server first. */
export function runtimeFolders(): string[] {
  if (Deno.build.os === "windows") return [];
  const variable = (name: string): string =>
    isPermitted({ name: "env", variable: name }) ? (Deno.env.get(name) ?? "").replace(/\/+$/, "") : "";
  const only = variable("NBDBOOST_RUNTIME_DIR");
  if (only !== "") return [only];
  const own = variable("XDG_RUNTIME_DIR");
  return [...(own === "" ? [] : [`${own}/nbdboost`]), "/run/nbdboost"];
}

/** The runtime directory for a new server, made when it is missing; undefined when there can be none. */
export function makeRuntimeFolder(): string | undefined {
  for (const path of runtimeFolders()) {
    if (!isPermitted({ name: "read", path }) || !isPermitted({ name: "write", path })) continue;
    try {
      Deno.mkdirSync(path, { mode: 0o700, recursive: true });
      return path;
    } catch {
      // Not ours to write, or not there: the next one.
    }
  }
  return undefined;
}

/** A file name for what belongs to a device. */
export function deviceFileName(path: string): string {
  return path.replace(/^\/+/, "").replace(/[^\w.-]+/g, "-");
}

function isBlockDevice(path: string): boolean {
  try {
    return Deno.statSync(path).isBlockDevice === true;
  } catch {
    return false;
  }
}

/** What the files beside a cache are called, without their ending; undefined when there is no directory for them. */
export function besideCache(cache: string, makeFolder: boolean): string | undefined {
  if (!isBlockDevice(cache)) return cache;
  const folder = makeFolder ? makeRuntimeFolder() : runtimeFolders().find((path) => isFolder(path));
  return folder === undefined ? undefined : `${folder}/${deviceFileName(cache)}`;
}

function isFolder(path: string): boolean {
  try {
    return Deno.statSync(path).isDirectory;
  } catch {
    return false;
  }
}

/** The sockets of all servers that can be found and that answer. */
async function runningServers(): Promise<string[]> {
  const paths = new Set<string>();
  for (const folder of runtimeFolders()) {
    try {
      for (const { name } of Deno.readDirSync(folder)) {
        if (name.endsWith(".sock")) paths.add(Deno.realPathSync(`${folder}/${name}`));
      }
    } catch {
      // No such directory, not ours to read, or a link to a server that is gone.
    }
  }
  const answering = await Promise.all([...paths].map(async (path) => {
    try {
      (await Deno.connect({ transport: "unix", path })).close();
      return [path];
    } catch {
      return [];
    }
  }));
  return answering.flat().sort();
}

/** Where the server is that a verb is to talk to. Throws a sentence that says what was looked for. */
export async function findServer(
  control: string | undefined,
  cache: string | undefined,
): Promise<SocketAddress> {
  if (control !== undefined) return parseControlAddress(control);
  if (cache !== undefined) {
    const beside = besideCache(cache, false);
    if (beside !== undefined) return { transport: "unix", path: `${beside}.sock` };
    throw new NbdboostError(
      `No server runs on ${cache}: looked in ${
        runtimeFolders().join(" and ")
      }; name its address by --control`,
    );
  }
  const running = await runningServers();
  if (running.length === 1) return { transport: "unix", path: running[0]! };
  if (running.length === 0) {
    throw new NbdboostError(
      `No running server was found: looked for sockets in ${runtimeFolders().join(" and ")}; ` +
        "name one by --cache PATH or --control ADDRESS",
    );
  }
  throw new UsageError(
    `${running.length} servers run (${running.join(", ")}): expected one to be named by --control or --cache`,
  );
}
