/**
 * `hold`: keeps the history of a running server, or lets go of it.
 *
 * @module
 */

import { exitCode, UsageError } from "../errors.ts";
import { ControlClient } from "./control_client.ts";
import { type HistoryStatus, openCache } from "./engine.ts";
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
    "this moment on, which becomes one, can be looked at (serve --at, or the export NAME@SEQUENCE) and put back (rewind), " +
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
    const status = options.text("backing") === undefined
      ? await online(options, release)
      : await offline(options, release, output);
    if (options.flag("json")) output.report(status, true);
    else output.line(release ? "released: write-back goes on" : heldText(status));
    return exitCode.done;
  },
};

async function online(options: Options, release: boolean): Promise<HistoryStatus> {
  const client = await ControlClient.find(options);
  return await client.long(release ? "/release" : "/hold", () => {}) as HistoryStatus;
}

async function offline(options: Options, release: boolean, output: Output): Promise<HistoryStatus> {
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
    return await (release ? cache.history.release() : cache.history.hold());
  } finally {
    await cache.close();
  }
}
