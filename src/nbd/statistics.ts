/**
 * What a server counts. One object is shared by all connections of a server; the hot path only adds to its numbers.
 *
 * @module
 */

/** The kinds of requests that are counted. */
export type RequestKind = "read" | "write" | "flush" | "trim" | "zero" | "cache" | "status";

/** What kind of request a command is, by its number; DISC is none. */
export const requestKinds: readonly (RequestKind | undefined)[] = [
  "read",
  "write",
  undefined,
  "flush",
  "trim",
  "cache",
  "zero",
  "status",
];

/** Counts since the server started. A request counts when it is answered. */
export interface Statistics {
  /** READ requests answered. */
  read: number;
  /** WRITE requests answered. */
  write: number;
  /** FLUSH requests answered. */
  flush: number;
  /** TRIM requests answered. */
  trim: number;
  /** WRITE_ZEROES requests answered. */
  zero: number;
  /** CACHE requests answered. */
  cache: number;
  /** BLOCK_STATUS requests answered. */
  status: number;
  /** Requests of any kind, unknown ones too, that were answered with an error. */
  error: number;
  /** Bytes sent as data of successful READs. */
  bytesRead: number;
  /** Bytes taken by successful WRITEs. */
  bytesWritten: number;
}

/** All counts zero. */
export function newStatistics(): Statistics {
  return {
    read: 0,
    write: 0,
    flush: 0,
    trim: 0,
    zero: 0,
    cache: 0,
    status: 0,
    error: 0,
    bytesRead: 0,
    bytesWritten: 0,
  };
}

/**
 * Is told how long requests took. Requests that were served from RAM are reported together, once per receive:
 * `micros` is then the time from the receive to the last of them, an upper bound for each.
 */
export interface Observer {
  /** `count` requests of `kind` took `micros` microseconds each, from being parsed to their reply being queued. */
  answered(kind: RequestKind, micros: number, count: number): void;
}
