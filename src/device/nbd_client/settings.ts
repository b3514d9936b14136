/**
 * How the backing behind an NBD URI is used: what the URI says of it, and limits.
 *
 * @module
 */

import { UsageError } from "../../errors.ts";
import type { SocketAddress } from "../../io/io.ts";
import { formatNbdUri, parseNbdUri } from "../../nbd/uri.ts";
import { kib, mib } from "../../units.ts";

/** Seconds for which a request waits for a server that is away, before it fails; `x-wait` in the URI. */
const waitSecondsStandard = 20;
const waitSecondsMax = 3600;
/** Connections, where the server allows several; `x-connections` in the URI. */
const connectionsStandard = 4;
const connectionsMax = 16;

/** Time for connecting, and again for the handshake. */
export const connectMsMax = 10_000;
/** First and longest pause between attempts to reach a server that is away; at most a quarter of `x-wait`. */
export const reconnectMsMin = 100;
export const reconnectMsMax = 2_000;
/**
 * A request that is older than so many waits ends its connection, even if other replies come in meanwhile.
 */
export const waitsPerRequestMax = 3;
/**
 * After a connection was lost with writes unanswered, the old server may still carry some of them out. So long after the
 * handshake with the new one nothing newer is written.
 */
export const lateWritesMs = 1_000;
/** A server that takes less in one request is not used. */
export const payloadBytesMin = 64 * kib;
/** A longer read or write is cut into pieces of this size. */
export const pieceBytesMax = 4 * mib;
/** A longer range is zeroed in pieces of this size, so that none takes too long where zeroes are really written. */
export const zeroPieceBytesMax = 64 * mib;
/** Pieces of one call that are under way at once. */
export const piecesInFlightMax = 8;

/** What a URI tells. */
export interface NbdSettings {
  /** As it was given. */
  readonly uri: string;
  /** Where the server is. */
  readonly address: SocketAddress;
  /** The export. */
  readonly exportName: string;
  /** The URI in its usual form and without parameters: the identity of the device. */
  readonly id: string;
  /** How long a request waits for a server that is away. */
  readonly waitMs: number;
  /** Connections where the server allows several. */
  readonly connections: number;
  /** How TLS is used; undefined for `nbd://`, which never uses it. */
  readonly tls: TlsSettings | undefined;
}

/** What a URI tells about TLS. */
export interface TlsSettings {
  /** What must stand in the server's certificate: `tls-hostname`, by default the host, `localhost` for a unix socket. */
  readonly serverName: string;
  /** Any certificate will do: `tls-verify-peer=0`. */
  readonly verify: boolean;
  /** Holds `ca-cert.pem` and, for servers that want one, `client-cert.pem` and `client-key.pem`: `tls-certificates`. */
  readonly directory: string | undefined;
}

/** Reads a URI. Throws {@linkcode UsageError} for what cannot be meant. */
export function nbdSettings(uri: string): NbdSettings {
  const { tls, address, exportName, parameters } = parseNbdUri(uri);
  for (const name of Object.keys(parameters)) {
    if (ownParameters.has(name)) continue;
    if (tls && tlsParameters.has(name)) continue;
    const expected = [...ownParameters, ...(tls ? tlsParameters : [])].join(", ");
    throw new UsageError(
      `Cannot open ${uri}: the parameter "${name}" ${
        tlsParameters.has(name) ? "belongs to nbds://, which uses TLS" : "is unknown"
      }; expected one of ${expected}`,
    );
  }
  return {
    uri,
    address,
    exportName,
    id: formatNbdUri(address, exportName),
    waitMs: 1000 * whole(uri, parameters, "x-wait", waitSecondsStandard, waitSecondsMax),
    connections: whole(uri, parameters, "x-connections", connectionsStandard, connectionsMax),
    tls: tls ? tlsSettings(uri, address, parameters) : undefined,
  };
}

const ownParameters: ReadonlySet<string> = new Set(["x-wait", "x-connections"]);
const tlsParameters: ReadonlySet<string> = new Set([
  "tls-type",
  "tls-certificates",
  "tls-hostname",
  "tls-verify-peer",
]);

function tlsSettings(uri: string, address: SocketAddress, parameters: Record<string, string>): TlsSettings {
  const type = parameters["tls-type"] ?? "x509";
  if (type !== "x509") {
    throw new UsageError(
      `Cannot open ${uri}: tls-type is "${type}", expected x509; without certificates nothing tells who answers`,
    );
  }
  const verify = parameters["tls-verify-peer"] ?? "1";
  if (verify !== "0" && verify !== "1") {
    throw new UsageError(`Cannot open ${uri}: tls-verify-peer is "${verify}", expected 0 or 1`);
  }
  return {
    serverName: parameters["tls-hostname"] ?? (address.transport === "tcp" ? address.hostname : "localhost"),
    verify: verify === "1",
    directory: parameters["tls-certificates"],
  };
}

function whole(
  uri: string,
  parameters: Record<string, string>,
  name: string,
  standard: number,
  max: number,
): number {
  const text = parameters[name];
  if (text === undefined) return standard;
  const value = Number(text);
  if (/^\d+$/.test(text) && value >= 1 && value <= max) return value;
  throw new UsageError(`Cannot open ${uri}: ${name} is "${text}", expected a whole number from 1 to ${max}`);
}
