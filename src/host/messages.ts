/**
 * What the main thread and the engine's Worker say to each other. Plain data only.
 *
 * ```text
 *   main → worker   start, status, map, tune, drain, detach, stop (each with a number; then an eventfd is written, which wakes it up)
 *   worker → main   awake, warning, progress, answer, failure, ended
 * ```
 *
 * @module
 */

import type { DrainReport } from "../cache/drain.ts";
import type { CacheMap } from "../cache/map.ts";
import type { RecoveryReport } from "../cache/open.ts";
import type { Tunables } from "../cache/tunables.ts";
import type { Limits } from "../nbd/limits.ts";
import type { ServeOptions } from "../nbd/server.ts";
import type { EngineStatus } from "./served.ts";
import {
  DamageError,
  DeviceError,
  type DeviceErrorCode,
  InUseError,
  NbdboostError,
  RefusedError,
  UsageError,
} from "../errors.ts";

/** What is to be served, and how. */
export interface HostOptions {
  /** The path of the cache device. */
  cache: string;
  /** The path of the backing device. */
  backing: string;
  readOnly?: boolean;
  acceptDamage?: boolean;
  acceptUnreadable?: boolean;
  acceptChangedBacking?: boolean;
  tunables?: Partial<Tunables>;
  /** NBD URIs to listen on. */
  listen: string | string[];
  /** Descriptors of sockets that were passed to this process. */
  sockets?: number[];
  /** Serves standard input and output too. */
  standardStreams?: boolean;
  exportName?: string;
  /** A line for people about the export. */
  description?: string;
  /** What clients may cost. */
  limits?: Partial<Limits>;
  /** Offers TLS. */
  tls?: ServeOptions["tls"];
}

/** What a started engine tells of itself. */
export interface Started {
  recovery: RecoveryReport;
  sizeBytes: number;
  uris: string[];
}

/** A request, without its number. */
export type Request =
  | { ask: "start"; options: HostOptions }
  | { ask: "status" }
  | { ask: "map" }
  | { ask: "tune"; settings: Partial<Tunables> }
  | { ask: "drain" }
  | { ask: "detach"; verify: boolean }
  | { ask: "stop" };

/** What each request is answered with. */
export interface Answers {
  start: Started;
  status: EngineStatus;
  map: CacheMap;
  tune: Tunables;
  drain: DrainReport;
  detach: DrainReport;
  stop: undefined;
}

/** What the main thread sends. */
export type ToWorker = Request & { number: number };

/** What the Worker sends. */
export type ToMain =
  | { tell: "awake"; descriptor: number }
  | { tell: "warning"; message: string; level?: "error" }
  | { tell: "progress"; number: number; done: number; total: number; phase: string }
  | { tell: "answer"; number: number; answer: unknown }
  | { tell: "failure"; number: number; error: PlainError }
  /** The ring is closed; the thread may go. */
  | { tell: "ended" };

/** An error as plain data. */
export interface PlainError {
  name: string;
  message: string;
  code?: string;
  stack?: string;
}

/** Takes an error apart. */
export function plainError(error: unknown): PlainError {
  if (!(error instanceof Error)) return { name: "Error", message: String(error) };
  const { name, message, stack } = error;
  const code = (error as { code?: unknown }).code;
  return {
    name,
    message,
    ...(typeof code === "string" ? { code } : {}),
    ...(stack === undefined ? {} : { stack }),
  };
}

/** Puts an error together again, of the class that it had. */
export function revivedError({ name, message, code, stack }: PlainError): Error {
  const cause = new Error(message);
  if (stack !== undefined) cause.stack = stack;
  switch (name) {
    case "UsageError":
      return new UsageError(message, { cause });
    case "InUseError":
      return new InUseError(message, { cause });
    case "RefusedError":
      return new RefusedError(message, { cause });
    case "DamageError":
      return new DamageError(message, { cause });
    case "DeviceError":
      return new DeviceError(code as DeviceErrorCode, message, { cause });
    case "NbdboostError":
      return new NbdboostError(message, { cause });
    default:
      return cause;
  }
}
