/**
 * What `serve` is to serve, from its options or from its configuration file, and how it is started: one cache with a
 * control address, or several without.
 *
 * @module
 */

import { NbdboostError, RefusedError, UsageError } from "../errors.ts";
import type { HostEvents } from "../host/ring_host.ts";
import { passedSockets } from "../io/passed.ts";
import { parseLimit, parseTunable, type RecoveryReport } from "./engine.ts";
import { type EngineHost, startEngine, startMany } from "./engine_host.ts";
import { parseServeConfig, type ServeConfig } from "./serve_config.ts";
import { type Options } from "./table.ts";
import { tlsOf } from "./tls_files.ts";

/** What is to be served. */
export interface ServePlan extends ServeConfig {
  io: string;
  tls: ReturnType<typeof tlsOf>;
  /** Descriptors of sockets that a service manager opened for this process. */
  sockets: number[];
  /** One client on standard input and output. */
  standardStreams: boolean;
}

/** What was started. */
export interface Started {
  readonly io: EngineHost["io"];
  readonly ioReason: string;
  readonly uris: readonly string[];
  /** Of a single cache; several have no control address. */
  readonly engine: EngineHost | undefined;
  /** See {@linkcode EngineHost}. */
  idle(): Promise<void>;
  close(): Promise<void>;
}

/** What is told while it starts. */
export interface PlanEvents extends HostEvents {
  /** A cache was opened; `name` says which, if there are several. */
  onOpened: (name: string, recovery: RecoveryReport) => void;
}

/** What belongs into the file when there is one. */
const perExport = [
  "cache",
  "mirror",
  "backing",
  "export",
  "read-only",
  "set",
  "accept-damage",
  "accept-unreadable",
  "accept-changed-backing",
  "accept-missing-mirror",
  "resync-mirror",
] as const;

/** Reads options and file. Throws {@linkcode UsageError} for what does not go together. */
export function servePlan(options: Options, listenStandard: string): ServePlan {
  const sockets = passedSockets();
  const standardStreams = options.flag("stdio");
  if (standardStreams && options.text("run") !== undefined) {
    throw new UsageError(
      "Option --stdio is given besides --run: expected one of them, as both say who the client is.",
    );
  }
  const path = options.text("config");
  if (path !== undefined && options.has("at")) {
    throw new UsageError("Option --at is given besides --config: expected it with --cache and --backing.");
  }
  const config = path === undefined ? planOf(options) : parseServeConfig(path, readConfig(path, options));
  const listen = options.list("listen");
  const limits = Object.assign({}, config.limits, ...options.list("limit").map(parseLimit));
  const io = options.text("io") ?? config.io ?? "auto";
  if (listen.length > 0) config.listen = [...listen];
  const isElsewhere = sockets.length > 0 || standardStreams;
  if (config.listen.length === 0 && !isElsewhere) config.listen = [listenStandard];
  if (config.exports.length > 1) refuseWithSeveral(options);
  return { ...config, limits, io, tls: tlsOf(options), sockets, standardStreams };
}

function refuseWithSeveral(options: Options): void {
  const control = options.text("control");
  if (control === undefined || control === "off") return;
  throw new RefusedError(
    "Cannot serve several exports with --control: a control address is of one cache; leave it out, or serve one each",
  );
}

function readConfig(path: string, options: Options): string {
  const stray = perExport.find((name) => options.has(name));
  if (stray !== undefined) {
    throw new UsageError(
      `Option --${stray} is given besides --config: expected it in the file, in its [[export]].`,
    );
  }
  try {
    return Deno.readTextFileSync(path);
  } catch (cause) {
    throw new NbdboostError(`Cannot read --config ${path}: ${(cause as Error).message}; check the path.`, {
      cause,
    });
  }
}

function planOf(options: Options): ServeConfig {
  const at = options.number("at");
  if (at !== undefined && !options.flag("read-only")) {
    throw new UsageError(
      `Option --at ${at} is given without --read-only: expected both, as the past cannot be written to (see nbdboost rewind).`,
    );
  }
  const [cache, backing] = [options.text("cache"), options.text("backing")];
  if (cache === undefined || backing === undefined) {
    const missing = [cache ?? "--cache PATH", backing ?? "--backing TARGET"].filter((text) =>
      text.startsWith("--")
    );
    throw new UsageError(
      `Command serve lacks ${
        missing.join(" and ")
      }: expected, for example, nbdboost serve --cache /ssd/cache.nbb ` +
        `--backing /dev/sdb, or --config PATH (see nbdboost serve --help).`,
    );
  }
  const mirror = options.text("mirror");
  return {
    listen: [],
    io: undefined,
    limits: {},
    exports: [{
      name: options.text("export") ?? "",
      cache,
      ...(mirror === undefined ? {} : { mirror }),
      backing,
      description: "nbdboost",
      readOnly: options.flag("read-only"),
      ...(at === undefined ? {} : { at }),
      acceptDamage: options.flag("accept-damage"),
      acceptUnreadable: options.flag("accept-unreadable"),
      acceptChangedBacking: options.flag("accept-changed-backing"),
      acceptMissingMirror: options.flag("accept-missing-mirror"),
      resyncMirror: options.flag("resync-mirror"),
      tunables: Object.assign({}, ...options.list("set").map(parseTunable)),
    }],
  };
}

/** Opens and serves what is planned. */
export async function startPlan(plan: ServePlan, events: PlanEvents): Promise<Started> {
  const { io, listen, limits, exports, tls, sockets, standardStreams } = plan;
  const [first] = exports;
  if (first !== undefined && exports.length === 1) {
    const { name, ...options } = first;
    // Without a name of its own the export has the one that the URIs name.
    const exportName = name === "" ? {} : { exportName: name };
    const asked = { ...options, ...exportName, listen, sockets, standardStreams, limits, tls };
    const engine = await startEngine(io, asked, events);
    events.onOpened("", engine.recovery);
    const { io: backend, ioReason, uris } = engine;
    return { io: backend, ioReason, uris, engine, idle: () => engine.idle(), close: () => engine.close() };
  }
  const many = { exports, listen, sockets, standardStreams, limits, tls };
  const { uris, recoveries, ...served } = await startMany(io, many, events);
  exports.forEach(({ name }, index) => events.onOpened(`export "${name}": `, recoveries[index]!));
  return { ...served, uris, engine: undefined };
}
