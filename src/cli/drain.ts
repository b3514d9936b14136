/**
 * `drain`: writes everything that the cache still holds back to the backing device, offline or through a running server.
 *
 * @module
 */

import type { DrainReport } from "../cache/drain.ts";
import { exitCode, UsageError } from "../errors.ts";
import { ControlClient } from "./control_client.ts";
import { openCache } from "./engine.ts";
import type { Output } from "./output.ts";
import { PhaseProgress } from "./progress.ts";
import { noteRecovery } from "./recovery_note.ts";
import {
  acceptChangedBackingOption,
  acceptMissingMirrorOption,
  backingOption,
  cacheOption,
  type Command,
  jsonOption,
  mirrorOption,
  type Options,
  serverOptions,
} from "./table.ts";

/** The verb. */
export const drain: Command = {
  name: "drain",
  summary: "write everything back to the backing device",
  description:
    "With --cache and --backing: opens a cache that no server is using, recovers it if it was not closed in order, writes " +
    "all dirty blocks to the backing device and closes the cache; the backing device alone is complete afterwards. " +
    "Without --backing: asks the running server to write everything back while its clients go on; what they write " +
    "meanwhile is written back too. It may be interrupted at any time and started again.",
  destroys: "nothing; it writes to both devices what a server would have written.",
  options: [
    { ...cacheOption, required: false },
    {
      ...backingOption,
      required: false,
      summary: backingOption.summary + "; without it a running server drains",
    },
    mirrorOption,
    acceptMissingMirrorOption,
    acceptChangedBackingOption,
    {
      name: "verify",
      kind: "flag",
      summary: "with --backing: read back what was written, and compare it, before the log gives it up",
    },
    ...serverOptions.filter(({ name }) => name !== "cache"),
    jsonOption,
  ],
  examples: [
    { line: "nbdboost drain --cache /ssd/cache.nbb --backing /dev/sdb", says: "brings /dev/sdb up to date" },
    { line: "nbdboost drain --cache /ssd/cache.nbb", says: "asks the server that serves it" },
  ],
  exits: {
    1: "failed: a device failed, or no server answers; what is not written back is still in the cache",
    3: "refused: not a pair, in use, or the cache is damaged or the backing device changed meanwhile",
    4: "damage found: what is left is not all written back",
  },
  run: (options, output) =>
    options.text("backing") === undefined ? online(options, output) : offline(options, output),
};

async function online(options: Options, output: Output): Promise<number> {
  if (options.flag("verify")) {
    throw new UsageError(
      "Option --verify needs --backing: a running server reads back what it wrote with nbdboost detach --verify",
    );
  }
  const client = await ControlClient.find(options);
  const progress = new PhaseProgress(output);
  const report = await client.long("/drain", progress.update).finally(progress.end) as DrainReport;
  if (options.flag("json")) output.report(report, true);
  else output.line("drained: at one moment nothing was dirty; clients may have written again since");
  return exitCode.done;
}

async function offline(options: Options, output: Output): Promise<number> {
  if (options.text("control") !== undefined) {
    throw new UsageError("Options --control and --backing exclude each other: expected the one or the other");
  }
  const cachePath = options.text("cache");
  if (cachePath === undefined) {
    throw new UsageError("Option --cache is missing beside --backing: expected the path of the cache device");
  }
  const recovery = output.progress("recovering", "segments");
  const mirror = options.text("mirror");
  const cache = await openCache({
    cache: cachePath,
    ...(mirror === undefined ? {} : { mirror }),
    acceptMissingMirror: options.flag("accept-missing-mirror"),
    acceptChangedBacking: options.flag("accept-changed-backing"),
    backing: options.needed("backing"),
    warn: (message) => output.note(message),
    onProgress: recovery.update,
  }).finally(recovery.end);
  const progress = new PhaseProgress(output);
  let report: DrainReport;
  try {
    noteRecovery(cache.recovery, output);
    report = await cache.drain({ onProgress: progress.update, verify: options.flag("verify") });
  } finally {
    progress.end();
    await cache.close();
  }
  const compared = options.flag("verify")
    ? `, and ${report.comparedBlocks} blocks were read back and compared`
    : "";
  if (options.flag("json")) output.report(report, true);
  else output.line(`drained: the backing device is complete${compared}`);
  return exitCode.done;
}
