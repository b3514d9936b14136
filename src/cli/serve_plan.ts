/**
 * What `serve` is to serve, from its options or from its configuration file, and how it is started.
 *
 * @module
 */

import { NbdboostError, RefusedError, UsageError } from "../errors.ts";
import type { HostEvents } from "../host/ring_host.ts";
import { passedSockets } from "../io/passed.ts";
import { parseControlAddress } from "./control_address.ts";
import { parseLimit, parseTunable, type RecoveryReport } from "./engine.ts";
import { type EngineHost, startEngine } from "./engine_host.ts";
import { type ExportConfig, parseServeConfig, type ServeConfig } from "./serve_config.ts";
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

/** What is told while it starts. */
export interface PlanEvents extends HostEvents {
  /** A cache was opened; `label` says which, if there are several. */
  onOpened: (label: string, recovery: RecoveryReport) => void;
}

/** What belongs into the file when there is one. */
const perExport = [
  "cache",
  "mirror",
  "backing",
  "export",
  "at",
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
  const config = path === undefined ? planOf(options) : parseServeConfig(path, readConfig(path, options));
  const listen = options.list("listen");
  const limits = Object.assign({}, config.limits, ...options.list("limit").map(parseLimit));
  const io = options.text("io") ?? config.io ?? "auto";
  if (listen.length > 0) config.listen = [...listen];
  const isElsewhere = sockets.length > 0 || standardStreams;
  if (config.listen.length === 0 && !isElsewhere) config.listen = [listenStandard];
  const exports = withControl(config.exports, options.text("control"), options.text("token-file"));
  return { ...config, exports, limits, io, tls: tlsOf(options), sockets, standardStreams };
}

/** The options go before what the file says, where that can be meant. */
function withControl(
  exports: ExportConfig[],
  control: string | undefined,
  tokenFile: string | undefined,
): ExportConfig[] {
  if (control !== undefined && control !== "off") parseControlAddress(control);
  const isOne = (control === undefined || control === "off") && tokenFile === undefined;
  if (exports.length > 1 && !isOne) {
    throw new RefusedError(
      "Cannot serve several exports with --control or --token-file: a control address is of one cache; name each in its " +
        "[[export]] of the file, as control and token-file",
    );
  }
  return exports.map((each) => ({
    ...each,
    ...(control === undefined ? {} : { control }),
    ...(tokenFile === undefined ? {} : { tokenFile }),
  }));
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
export async function startPlan(plan: ServePlan, events: PlanEvents): Promise<EngineHost> {
  const { io, listen, limits, exports, tls, sockets, standardStreams } = plan;
  const asked = exports.map(({ control: _, tokenFile: __, ...each }) => each);
  const host = await startEngine(
    io,
    { exports: asked, listen, sockets, standardStreams, limits, tls },
    events,
  );
  host.exports.forEach(({ recovery }, index) => events.onOpened(labelOf(plan, index), recovery));
  return host;
}

/** What a message about one export begins with, where there are several. */
export function labelOf({ exports }: ServePlan, index: number): string {
  return exports.length === 1 ? "" : `export "${exports[index]!.name}": `;
}
