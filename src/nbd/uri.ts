/**
 * NBD URIs: `nbd://host:port/export`, `nbd+unix:///export?socket=PATH`, and their TLS forms `nbds://` and
 * `nbds+unix://`. Source: NetworkBlockDevice/nbd, doc/uri.md.
 *
 * @module
 */

import { UsageError } from "../errors.ts";
import type { SocketAddress } from "../io/io.ts";
import { defaultPort } from "./constants.ts";

/** An NBD URI, taken apart. */
export interface NbdUri {
  /** True when the scheme demands TLS. */
  tls: boolean;
  /** Where. */
  address: SocketAddress;
  /** The export's name; "" is the default export. */
  exportName: string;
  /** The user name, which TLS with pre-shared keys uses; "" when there is none. */
  userName: string;
  /** The parameters other than `socket`: those that start with `tls-` or `x-`. */
  parameters: Record<string, string>;
}

const schemes: Record<string, { unix: boolean; tls: boolean }> = {
  "nbd": { unix: false, tls: false },
  "nbds": { unix: false, tls: true },
  "nbd+unix": { unix: true, tls: false },
  "nbds+unix": { unix: true, tls: true },
};
const knownParameters: ReadonlySet<string> = new Set([
  "tls-type",
  "tls-hostname",
  "tls-verify-peer",
  "tls-certificates",
  "tls-psk-file",
]);
const shape = /^([a-z][a-z0-9+.-]*):\/\/(?:([^/?#@]*)@)?([^/?#@]*)(\/[^?#]*)?(?:\?([^#]*))?$/i;
const hostAndPort = /^(?:\[([0-9a-f:.]+(?:%25[^\]]+)?)\]|([^[\]:]+))(?::(\d{1,5}))?$/i;

function malformed(text: string, why: string): UsageError {
  return new UsageError(
    `"${text}" is not an NBD URI: ${why}; expected nbd://HOST:PORT/EXPORT or nbd+unix:///EXPORT?socket=PATH`,
  );
}

function decode(text: string, part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    throw malformed(text, `"${part}" is not percent-encoded UTF-8`);
  }
}

/** True when `text` starts like an NBD URI, so that anything wrong with it deserves an error of its own. */
export function isNbdUri(text: string): boolean {
  return /^nbds?(\+[a-z]+)?:/i.test(text);
}

/**
 * Takes an NBD URI apart.
 *
 * @throws {UsageError} when it is malformed, or has a parameter that nobody knows
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { parseNbdUri } from "./uri.ts";
 * const { address, exportName } = parseNbdUri("nbd+unix:///disk?socket=/run/nbd.sock");
 * assert(address.transport === "unix" && exportName === "disk");
 * ```
 */
export function parseNbdUri(text: string): NbdUri {
  const match = shape.exec(text);
  if (match === null) throw malformed(text, "it does not have the shape of one");
  const [, schemeName = "", user = "", authority = "", path = "", query = ""] = match;
  const scheme = schemes[schemeName.toLowerCase()];
  if (scheme === undefined) throw malformed(text, `the scheme "${schemeName}" is not supported`);
  const { socket, parameters } = parseQuery(text, query);
  return {
    tls: scheme.tls,
    address: scheme.unix ? unixAddress(text, authority, socket) : tcpAddress(text, authority, socket),
    // Only the first slash separates; "nbd://host//disk" names "/disk".
    exportName: decode(text, path.slice(1)),
    userName: decode(text, user),
    parameters,
  };
}

function parseQuery(text: string, query: string) {
  const parameters: Record<string, string> = {};
  let socket: string | undefined;
  for (const part of query.split("&")) {
    if (part === "") continue;
    const equals = part.indexOf("=");
    if (equals < 0) throw malformed(text, `the parameter "${part}" has no value`);
    const name = decode(text, part.slice(0, equals));
    const value = decode(text, part.slice(equals + 1));
    if (name in parameters || (name === "socket" && socket !== undefined)) {
      throw malformed(text, `the parameter "${name}" is given twice`);
    }
    if (name === "socket") socket = value;
    else if (knownParameters.has(name) || name.startsWith("x-")) parameters[name] = value;
    else throw malformed(text, `the parameter "${name}" is unknown`);
  }
  return { socket, parameters };
}

function unixAddress(text: string, authority: string, socket: string | undefined): SocketAddress {
  if (authority !== "") throw malformed(text, `a unix socket has no host, but "${authority}" is given`);
  if (socket === undefined || socket === "") throw malformed(text, "the parameter socket=PATH is missing");
  return { transport: "unix", path: socket };
}

function tcpAddress(text: string, authority: string, socket: string | undefined): SocketAddress {
  if (socket !== undefined) throw malformed(text, "socket=PATH belongs to the scheme nbd+unix");
  if (authority === "") throw malformed(text, "the host is missing (0.0.0.0 or [::] listens everywhere)");
  const match = hostAndPort.exec(authority);
  if (match === null) throw malformed(text, `"${authority}" is not HOST, HOST:PORT or [IPV6]:PORT`);
  const [, ipv6, name, portText] = match;
  const port = portText === undefined ? defaultPort : Number(portText);
  if (port > 65535) throw malformed(text, `the port ${port} is larger than 65535`);
  return { transport: "tcp", hostname: decode(text, ipv6 ?? name!), port };
}

function encodeKeepingSlashes(text: string): string {
  return encodeURIComponent(text).replaceAll("%2F", "/");
}

/**
 * Puts an NBD URI together.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { formatNbdUri } from "./uri.ts";
 * const uri = formatNbdUri({ transport: "tcp", hostname: "::1", port: 10809 }, "disk");
 * assert(uri === "nbd://[::1]:10809/disk");
 * ```
 */
export function formatNbdUri(
  address: SocketAddress,
  exportName = "",
  options: { tls?: boolean } = {},
): string {
  const scheme = options.tls ? "nbds" : "nbd";
  const name = encodeKeepingSlashes(exportName);
  if (address.transport === "unix") {
    return `${scheme}+unix:///${name}?socket=${encodeKeepingSlashes(address.path)}`;
  }
  const { hostname, port } = address;
  const host = hostname.includes(":") ? `[${hostname.replace("%", "%25")}]` : encodeURIComponent(hostname);
  return `${scheme}://${host}:${port}${name === "" ? "" : `/${name}`}`;
}
