/**
 * `hold`: keeps the history of a running server, or lets go of it.
 *
 * @module
 */

import { exitCode, UsageError } from "../errors.ts";
import { ControlClient } from "./control_client.ts";
import { type HistoryReport, type HistoryStatus, openCache } from "./engine.ts";
import type { Output } from "./output.ts";
import { noteRecovery } from "./recovery_note.ts";
import { heldText } from "./status_screen.ts";
import {
  acceptChangedBackingOption,
  acceptMissingMirrorOption,
  backingOption,
  type Command,
  jsonOption,
  mirrorOption,
  type Options,
  serverOptions,
} from "./table.ts";

/** The verb. */
export const hold: Command = {
  name: "hold",
  summary: "keep the history of a running server",
  description:
    "From now on nothing is written back to the backing device and the log gives nothing up, so that every flush point from " +
    "this moment on, which becomes one where anything was not flushed or not written back yet, can be looked at (serve --at, or the export NAME@SEQUENCE) and put back (rewind), " +
    "after a crash or a restart too. Clients go on until the log is full. Then, with --set history_full=release, which is " +
    "the standard, history is let go of, loudly; with history_full=wait writes wait for full_timeout seconds and then fail " +
    "with EIO. --release lets write-back go on. drain and detach are refused meanwhile. status tells how long the log lasts. With --backing: the same for a cache that no " +
    "server is using.",
  destroys: "with --release: flush points, as soon as something newer is written back. Without it: nothing.",
  options: [
    ...serverOptions,
    {
      ...backingOption,
      required: false,
      summary: backingOption.summary + "; without it a running server is asked",
    },
    mirrorOption,
    acceptMissingMirrorOption,
    acceptChangedBackingOption,
    { name: "release", kind: "flag", summary: "let go of the history that is held" },
    jsonOption,
  ],
  examples: [
    { line: "nbdboost hold", says: "before an upgrade that may have to be undone" },
    { line: "nbdboost hold --release", says: "when all is well" },
  ],
  exits: { 1: "failed: no server answers", 3: "refused: it is served read-only, or being drained" },
  async run(options, output) {
    const release = options.flag("release");
    const { status, history } = options.text("backing") === undefined
      ? await online(options, release)
      : await offline(options, release, output);
    if (options.flag("json")) {
      output.report(release ? status : { ...status, flushPoint: pointOf(history) }, true);
    } else output.line(release ? "released: write-back goes on" : heldText(status));
    if (!release && pointOf(history) === null) output.note(noPointText);
    return exitCode.done;
  },
};

/** What was done, and the newest flush point. */
interface Held {
  status: HistoryStatus;
  history: HistoryReport;
}

const noPointText =
  "warning: this moment is no flush point: all of it is on the backing device already, and the log has nothing to name it by. " +
  "For a way back to about now, let a client write something and flush it (touch a file, and sync) before what may have " +
  "to be undone; nbdboost history lists that flush point then";

/** The flush point that shows what the volume holds now; null when the log has none. */
function pointOf({ points, headSequence }: HistoryReport): number | null {
  const newest = points.at(-1)?.sequence;
  return newest === undefined || newest < headSequence - 1 ? null : newest;
}

async function online(options: Options, release: boolean): Promise<Held> {
  const client = await ControlClient.find(options);
  const status = await client.long(release ? "/release" : "/hold", () => {}) as HistoryStatus;
  const history = await client.long("/history?limit=1", () => {}, { method: "GET" }) as HistoryReport;
  return { status, history };
}

async function offline(options: Options, release: boolean, output: Output): Promise<Held> {
  const cachePath = options.text("cache");
  if (cachePath === undefined || options.text("control") !== undefined) {
    throw new UsageError("Option --backing is given: expected --cache beside it, and not --control.");
  }
  const mirror = options.text("mirror");
  const cache = await openCache({
    cache: cachePath,
    ...(mirror === undefined ? {} : { mirror }),
    acceptMissingMirror: options.flag(acceptMissingMirrorOption.name),
    backing: options.needed("backing"),
    acceptChangedBacking: options.flag(acceptChangedBackingOption.name),
    tunables: { writeback: "off" },
    warn: (message) => output.note(message),
  });
  try {
    noteRecovery(cache.recovery, output);
    const status = await (release ? cache.history.release() : cache.history.hold());
    return { status, history: await cache.history.list({ limit: 1 }) };
  } finally {
    await cache.close();
  }
}
