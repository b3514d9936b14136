/**
 * What the main thread and the engine's Worker say to each other. Plain data only.
 *
 * ```text
 *   main → worker   start, status, map, tune, drain, history, hold, detach, stop (each with a number; then an eventfd is written, which wakes it up)
 *   worker → main   awake, warning, progress, answer, failure, ended
 * ```
 *
 * @module
 */

import type { DrainReport } from "../cache/drain.ts";
import type { CacheMap } from "../cache/map.ts";
import type { HistoryReport } from "../cache/flush_points.ts";
import type { HistoryStatus } from "../cache/history_hold.ts";
import type { RecoveryReport } from "../cache/open.ts";
import type { Tunables } from "../cache/tunables.ts";
import type { Limits } from "../nbd/limits.ts";
import type { ServeOptions } from "../nbd/server.ts";
import type { MirrorStatus } from "../cache/mirror.ts";
import type { EngineStatus, MirrorAction } from "./served.ts";
import {
  DamageError,
  DeviceError,
  type DeviceErrorCode,
  InUseError,
  NbdboostError,
  RefusedError,
  UsageError,
} from "../errors.ts";

/** One of the exports that are to be served. */
export interface ExportOptions {
  /** The export's name; of a single one by default the one that the URIs name, else "". */
  name?: string;
  /** A line for people about it. */
  description?: string;
  /** The path of the cache device. */
  cache: string;
  /** The path or URI of its other leg. */
  mirror?: string;
  acceptMissingMirror?: boolean;
  resyncMirror?: boolean;
  /** The path or URI of the backing device. */
  backing: string;
  readOnly?: boolean;
  /** With `readOnly`: as of this flush point. */
  at?: number;
  acceptDamage?: boolean;
  acceptUnreadable?: boolean;
  acceptChangedBacking?: boolean;
  tunables?: Partial<Tunables>;
}

/** What is to be served, and how. */
export interface HostOptions {
  exports: readonly ExportOptions[];
  /** NBD URIs to listen on. */
  listen: string | string[];
  /** Descriptors of sockets that were passed to this process. */
  sockets?: number[];
  /** Serves standard input and output too. */
  standardStreams?: boolean;
  /** What clients may cost. */
  limits?: Partial<Limits>;
  /** Offers TLS. */
  tls?: ServeOptions["tls"];
}

/** What started engines tell of themselves. */
export interface Started {
  /** Of each export, in their order. */
  exports: { recovery: RecoveryReport; sizeBytes: number }[];
  uris: string[];
}

/** A request, without its number. */
export type Request =
  | { ask: "start"; options: HostOptions }
  | { ask: "stop" }
  | ExportRequest;

/** A request to the export of that place. */
export type ExportRequest =
  & { index: number }
  & (
    | { ask: "status" }
    | { ask: "map" }
    | { ask: "tune"; settings: Partial<Tunables> }
    | { ask: "mirror"; action: MirrorAction }
    | { ask: "drain" }
    | { ask: "history"; limit: number }
    | { ask: "hold"; release: boolean }
    | { ask: "detach"; verify: boolean }
  );

/** What each request is answered with. */
export interface Answers {
  start: Started;
  status: EngineStatus;
  map: CacheMap;
  tune: Tunables;
  mirror: MirrorStatus;
  drain: DrainReport;
  history: HistoryReport;
  hold: HistoryStatus;
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
