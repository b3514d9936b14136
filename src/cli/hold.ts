/**
 * `hold`: keeps the history of a running server, or lets go of it.
 *
 * @module
 */

import { exitCode } from "../errors.ts";
import { ControlClient } from "./control_client.ts";
import type { HistoryStatus } from "./engine.ts";
import { heldText } from "./status_screen.ts";
import { type Command, jsonOption, serverOptions } from "./table.ts";

/** The verb. */
export const hold: Command = {
  name: "hold",
  summary: "keep the history of a running server",
  description:
    "From now on nothing is written back to the backing device and the log gives nothing up, so that every flush point from " +
    "this moment on, which becomes one, can be looked at (serve --at, or the export NAME@SEQUENCE) and put back (rewind), " +
    "after a crash or a restart too. Clients go on until the log is full. Then, with --set history_full=release, which is " +
    "the standard, history is let go of, loudly; with history_full=wait writes wait for full_timeout seconds and then fail " +
    "with EIO. --release lets write-back go on. drain and detach are refused meanwhile. status tells how long the log lasts.",
  destroys: "with --release: flush points, as soon as something newer is written back. Without it: nothing.",
  options: [
    ...serverOptions,
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
    const client = await ControlClient.find(options);
    const status = await client.long(release ? "/release" : "/hold", () => {}) as HistoryStatus;
    if (options.flag("json")) output.report(status, true);
    else output.line(release ? "released: write-back goes on" : heldText(status));
    return exitCode.done;
  },
};
