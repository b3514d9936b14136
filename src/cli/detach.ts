/**
 * `detach`: makes the backing device complete by itself, proves it, and ends the server.
 *
 * @module
 */

import type { DrainReport } from "../cache/drain.ts";
import { exitCode } from "../errors.ts";
import { ControlClient } from "./control_client.ts";
import { PhaseProgress } from "./progress.ts";
import { type Command, jsonOption, serverOptions } from "./table.ts";

/** The verb. */
export const detach: Command = {
  name: "detach",
  summary: "drain, prove it, and end the server",
  description:
    "Writes everything back while clients go on, disconnects them, writes back what they wrote last, reads from the " +
    "backing device what the log still holds and compares it, marks the cache clean and ends the server. Afterwards the " +
    "backing device alone is complete and may be used without the cache. While clients need the room, the log gives " +
    "blocks up that were not read back; with --verify clients are disconnected first, and every block that was dirty is " +
    "read back. Ranges of zeroes are not. It is refused while blocks are lost.",
  destroys: "nothing; it disconnects all clients.",
  options: [
    ...serverOptions,
    { name: "verify", kind: "flag", summary: "disconnect clients first, and read back all that was dirty" },
    jsonOption,
  ],
  examples: [
    { line: "nbdboost detach", says: "the only server that runs" },
    { line: "nbdboost detach --cache /ssd/cache.nbb --verify", says: "before the SSD is taken out" },
  ],
  exits: {
    1: "failed: no server answers, or a device failed; what is not written back is still in the cache",
    3: "refused: it is read-only, or its log cannot be written",
    4: "damage: blocks are lost, or the backing device does not return what was written to it",
  },
  async run(options, output) {
    const client = await ControlClient.find(options);
    const progress = new PhaseProgress(output);
    const path = `/detach${options.flag("verify") ? "?verify=true" : ""}`;
    const report = await client.long(path, progress.update).finally(progress.end) as DrainReport;
    if (options.flag("json")) output.report(report, true);
    else {
      output.line(
        `detached: the backing device alone is complete; ${report.comparedBlocks} blocks were read back and compared`,
      );
    }
    return exitCode.done;
  },
};
