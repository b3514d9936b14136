/**
 * `serve`: serves caches over NBD until a signal, or the command of `--run`, ends it.
 *
 * Invariant: once `ready` is printed, every way out but a second signal closes the server first and then the caches,
 * so that nothing acknowledged is left in RAM.
 *
 * @module
 */

import { exitCode } from "../errors.ts";
import { openNotifier } from "../io/notify.ts";
import { Controls } from "./controls.ts";
import { defaultTunables, limitNames } from "./engine.ts";
import { ioChoices } from "./engine_host.ts";
import { Log, logFormats, logLevels } from "./log.ts";
import { Output } from "./output.ts";
import { startCommand, StopSignal, writePidFile } from "./process.ts";
import { noteRecovery } from "./recovery_note.ts";
import { servePlan, startPlan } from "./serve_plan.ts";
import {
  acceptChangedBackingOption,
  acceptMissingMirrorOption,
  backingOption,
  cacheOption,
  type Command,
  mirrorOption,
  type Options,
} from "./table.ts";

/** The tunables as the command line spells them. */
const tunableNames = Object.keys(defaultTunables).map((name) =>
  name.replace(/[A-Z]/g, (upper) => `_${upper.toLowerCase()}`)
);
const listenStandard = "nbd://127.0.0.1:10809";

/** The verb. */
export const serve: Command = {
  name: "serve",
  summary: "serve a cache over NBD",
  description:
    "Opens the cache, recovers it if it was not closed in order, and serves it to NBD clients. Prints " +
    '"listening on URI" for each listener and then "ready". SIGTERM or SIGINT: finishes the requests under way, ' +
    "makes all of it durable, marks the cache clean and ends with 0; nothing is drained, the next serve goes on " +
    "with what the cache holds. A second signal ends it at once. Without --tls there is no encryption and no password: listen on a " +
    "unix socket or on 127.0.0.1 then, unless the network is yours alone.",
  destroys:
    "nothing by itself; clients may overwrite whatever the backing device holds (unless --read-only).",
  options: [
    { ...cacheOption, required: false },
    { ...backingOption, required: false },
    mirrorOption,
    {
      name: "config",
      kind: "text",
      value: "PATH",
      summary: "a TOML file with several exports, instead of --cache, --backing and what goes with them",
    },
    {
      name: "listen",
      kind: "text",
      value: "URI",
      repeatable: true,
      standard: listenStandard,
      summary:
        "nbd://HOST:PORT or nbd+unix:///?socket=PATH; by default no address where a socket was passed or --stdio is given",
    },
    {
      name: "stdio",
      kind: "flag",
      summary:
        "serve one client on standard input and output, and end when it leaves; nothing else is printed there",
    },
    { name: "export", kind: "text", value: "NAME", standard: '""', summary: "the name of the export" },
    {
      name: "at",
      kind: "number",
      value: "SEQUENCE",
      summary: "with --read-only: the volume as it was at this flush point; see nbdboost history",
    },
    { name: "read-only", kind: "flag", summary: "refuse writes; neither device is written to for a client" },
    {
      name: "io",
      kind: "choice",
      value: "BACKEND",
      choices: ioChoices,
      standard: "auto",
      summary: "how bytes move: ring, by io_uring on Linux, or portable; auto is ring where it can be had",
    },
    {
      name: "set",
      kind: "setting",
      value: "KEY=VALUE",
      repeatable: true,
      summary: `tune it: ${tunableNames.join(", ")}`,
    },
    {
      name: "limit",
      kind: "setting",
      value: "KEY=VALUE",
      repeatable: true,
      summary: `what clients may cost: ${limitNames.join(", ")}`,
    },
    {
      name: "tls",
      kind: "choice",
      value: "MODE",
      choices: ["off", "on", "require"],
      standard: "off",
      summary: "STARTTLS: not offered, offered, or wanted before anything else (not with --io ring)",
    },
    {
      name: "tls-dir",
      kind: "text",
      value: "PATH",
      summary: "the directory with server-cert.pem, server-key.pem and, to verify clients, ca-cert.pem",
    },
    {
      name: "tls-verify-clients",
      kind: "flag",
      summary: "refuse clients without a certificate that ca-cert.pem vouches for",
    },
    {
      name: "run",
      kind: "text",
      value: "COMMAND",
      summary: "run COMMAND in a shell with $uri set, serve until it ends, and end with its exit code",
    },
    {
      name: "control",
      kind: "text",
      value: "ADDRESS",
      standard: "PATH.sock beside a cache file, in the runtime directory for a device",
      summary: "answer status, set, drain and detach on a unix socket, on 127.0.0.1:PORT, or not at all: off",
    },
    {
      name: "token-file",
      kind: "text",
      value: "PATH",
      standard: "PATH.token beside the cache",
      summary: "with a port for --control: write there the token that its clients must know",
    },
    {
      name: "log-format",
      kind: "choice",
      value: "FORMAT",
      choices: logFormats,
      standard: "text",
      summary: "how messages on stderr look; json is one object a line",
    },
    {
      name: "log-level",
      kind: "choice",
      value: "LEVEL",
      choices: logLevels,
      standard: "info",
      summary: "the least grave messages that are told",
    },
    { name: "pid-file", kind: "text", value: "PATH", summary: "write the process id there while it serves" },
    acceptMissingMirrorOption,
    {
      name: "resync-mirror",
      kind: "flag",
      summary: "copy what counts to a leg that is stale or empty, while serving (else it is refused)",
    },
    {
      name: "accept-damage",
      kind: "flag",
      summary:
        "take writes although damage was found (else it is served read-only); what is lost reads as EIO",
    },
    {
      name: "accept-unreadable",
      kind: "flag",
      summary:
        "serve although blocks behind the end of the log cannot be read; older data may come back in their place",
    },
    acceptChangedBackingOption,
  ],
  examples: [
    {
      line: "nbdboost serve --cache /ssd/cache.nbb --backing /dev/sdb",
      says: `serves it on ${listenStandard}, for example to: qemu-img info nbd://127.0.0.1`,
    },
    {
      line: "nbdboost serve --cache c.nbb --backing disk.img --listen 'nbd+unix:///?socket=/run/disk.sock'",
      says: "serves it on a unix socket only",
    },
    {
      line: `nbdboost serve --cache c.nbb --backing disk.img --run 'nbdinfo "$uri"'`,
      says: "serves it for as long as one command runs",
    },
    {
      line: "nbdinfo [ nbdboost serve --cache c.nbb --backing disk.img ]",
      says: "is started by its client, which passes a socket (LISTEN_FDS), as systemd does",
    },
    {
      line:
        "nbdboost serve --cache c.nbb --backing disk.img --at 4711 --read-only --run 'nbdcopy \"$uri\" old.img'",
      says: "copies the volume as it was at a flush point",
    },
    {
      line:
        "nbdboost serve --cache /dev/nvme0n1p3 --mirror /dev/nvme1n1p3 --resync-mirror --backing /dev/md0",
      says: "serves a cache on two SSDs, and brings one that was away up to date",
    },
    {
      line: "nbdboost serve --config /etc/nbdboost.toml",
      says:
        "serves every [[export]] of the file: name, cache, mirror, backing, description, read-only, at, control, token-file, set = { KEY = VALUE }",
    },
  ],
  exits: {
    0: "stopped by a signal, all is durable (with --run: as COMMAND ended)",
    3: "refused: not a pair, in use, a flush point that cannot be had, or the backing device changed meanwhile",
  },
  run: runServe,
};

async function runServe(options: Options, caller: Output): Promise<number> {
  const log = new Log(
    caller.terminal,
    options.text("log-format") ?? "text",
    options.text("log-level") ?? "info",
  );
  const output = new Output(log.terminal);
  const warn = (message: string, level: "error" | "warning" = "warning") => log.tell(level, message);
  const plan = servePlan(options, listenStandard);
  const pidFile = options.text("pid-file");
  using stop = new StopSignal(() => {
    log.tell("error", "stopped at once: what was not flushed may be lost; the next serve recovers");
    Deno.exit(exitCode.failed);
  });

  const notifier = openNotifier();
  if (notifier.why !== undefined) warn(notifier.why);
  notifier.tell("STATUS=opening and recovering");
  const progress = output.progress("recovering", "segments");
  let lose: (error: Error) => void = () => {};
  const lost = new Promise<never>((_, reject) => lose = reject);
  lost.catch(() => {});
  const controls = new Controls(plan, log);
  try {
    const host = await startPlan(plan, {
      warn,
      onProgress: progress.update,
      onLost: (error) => lose(error),
      onOpened: (label, recovery) =>
        noteRecovery(recovery, { note: (text) => log.tell("info", `${label}${text}`) }),
    }).finally(progress.end);
    try {
      await controls.listen(warn);
      const detached = controls.start(host);
      const removePidFile = pidFile === undefined ? () => {} : writePidFile(pidFile);
      try {
        const { io, ioReason } = host;
        log.tell("info", `I/O backend: ${io} (${ioReason})`);
        if (!plan.standardStreams) {
          for (const uri of host.uris) output.line(`listening on ${uri}`);
          output.line("ready");
        }
        notifier.tell("READY=1", `STATUS=serving ${host.uris.join(" ")}`);
        return await Promise.race([
          untilStopped(stop, options.text("run"), host.uris[0] ?? ""),
          plan.standardStreams ? host.idle().then(() => exitCode.done) : never,
          detached,
          lost,
        ]);
      } finally {
        removePidFile();
      }
    } finally {
      notifier.tell("STOPPING=1", "STATUS=making everything durable");
      await host.close();
    }
  } finally {
    // Last of all, so that whoever asked for the end hears how it went.
    await controls.close();
  }
}

/** Resolves to nothing, ever. */
const never = new Promise<never>(() => {});

async function untilStopped(stop: StopSignal, commandLine: string | undefined, uri: string): Promise<number> {
  if (commandLine === undefined) {
    await stop.received;
    return exitCode.done;
  }
  const command = startCommand(commandLine, uri);
  stop.received.then(() => command.stop());
  return await command.ended;
}
