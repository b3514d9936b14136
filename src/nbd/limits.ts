/**
 * What clients may cost a server: every bound that can be set, with its name, its usual value and its range.
 *
 * @module
 */

import { assert, UsageError } from "../errors.ts";
import { mib, parseSize } from "../units.ts";
import { payloadAcceptedBytesMax } from "./constants.ts";

/** The bounds of one server. A client that reaches one waits, or loses its connection; others do not notice. */
export interface Limits {
  /** Connections at once: 1 to 65536, by default 256. For more the one goes that has been without an export for longest; else they are closed. */
  connections: number;
  /** Requests of one connection that wait for the volume: 1 to 4096, by default 128. Then its socket is not read. */
  requests: number;
  /**
   * Bytes that one connection may hold, as payloads that wait for the volume and as replies that wait for the client: 64 MiB
   * to 1 GiB, by default 64 MiB. Then its socket is not read.
   */
  connectionBytes: number;
  /**
   * The same for all connections together: 64 MiB to 64 GiB, by default 512 MiB. Then connections that hold more than 1 MiB
   * wait for others; up to that each may go on.
   */
  totalBytes: number;
  /** Seconds from connecting to the choice of an export: 1 to 3600, by default 15. Then the connection is closed. */
  handshakeSeconds: number;
  /**
   * Seconds for which a connection that holds more than 1 MiB may take no reply, or send nothing of a payload that it began,
   * while others wait for memory: 1 to 3600, by default 30. Then it is closed.
   */
  stallSeconds: number;
  /**
   * Seconds after which a request that the volume has not ended is answered EIO: 1 to 86400, by default 300. What it does later
   * nobody is told. As many of these as `requests` end the connection.
   */
  requestSeconds: number;
}

/** The bounds of a server that was not told otherwise. */
export const defaultLimits: Readonly<Limits> = {
  connections: 256,
  requests: 128,
  connectionBytes: 64 * mib,
  totalBytes: 512 * mib,
  handshakeSeconds: 15,
  stallSeconds: 30,
  requestSeconds: 300,
};

/** What a connection may hold whatever the others do, so that no client can keep another from small requests. */
export const assuredBytes = 1 * mib;

interface Rule {
  readonly key: keyof Limits;
  readonly min: number;
  readonly max: number;
  readonly isSize: boolean;
}

const rules: Readonly<Record<string, Rule>> = {
  connections: { key: "connections", min: 1, max: 65_536, isSize: false },
  requests: { key: "requests", min: 1, max: 4096, isSize: false },
  connection_bytes: { key: "connectionBytes", min: payloadAcceptedBytesMax, max: 1024 * mib, isSize: true },
  total_bytes: { key: "totalBytes", min: payloadAcceptedBytesMax, max: 65_536 * mib, isSize: true },
  handshake_seconds: { key: "handshakeSeconds", min: 1, max: 3600, isSize: false },
  stall_seconds: { key: "stallSeconds", min: 1, max: 3600, isSize: false },
  request_seconds: { key: "requestSeconds", min: 1, max: 86_400, isSize: false },
};

/** The names that {@linkcode parseLimit} takes. */
export const limitNames: readonly string[] = Object.keys(rules);

function expected({ min, max, isSize }: Rule): string {
  return isSize ? `a size from ${min / mib}M to ${max / mib}M` : `a whole number from ${min} to ${max}`;
}

/** Parses one `KEY=VALUE` of the command line. Throws {@linkcode UsageError} that names key, value and what was expected. */
export function parseLimit(text: string): Partial<Limits> {
  const [name = "", value = ""] = text.split(/=(.*)/s);
  const rule = rules[name];
  if (rule === undefined) {
    throw new UsageError(
      `Cannot limit "${name}": there is no such limit; expected one of ${limitNames.join(", ")}`,
    );
  }
  const number = rule.isSize ? parseSize(value) ?? NaN : /^\d+$/.test(value) ? Number(value) : NaN;
  if (!(number >= rule.min && number <= rule.max)) {
    throw new UsageError(`Cannot limit ${name} to "${value}": expected ${expected(rule)}`);
  }
  return { [rule.key]: number };
}

/** Fills in what is not given. Throws {@linkcode UsageError} for what is out of range. */
export function completeLimits(given: Partial<Limits> = {}): Limits {
  const limits = { ...defaultLimits, ...given };
  for (const rule of Object.values(rules)) {
    const value = limits[rule.key];
    if (Number.isInteger(value) && value >= rule.min && value <= rule.max) continue;
    throw new UsageError(`the limit ${rule.key} is ${value}, expected ${expected(rule)}`);
  }
  return limits;
}

assert(payloadAcceptedBytesMax <= defaultLimits.connectionBytes, "one largest request must be admissible");
assert(defaultLimits.connectionBytes <= defaultLimits.totalBytes);
assert(assuredBytes < payloadAcceptedBytesMax);
