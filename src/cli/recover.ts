/**
 * `recover`: replays the log and writes all dirty data to the backing device, or to a copy of it, offline.
 *
 * @module
 */

import { exitCode } from "../errors.ts";
import { assumeOption, isForeign, recoverForeign } from "./dm_writeboost.ts";
import { recoverCache } from "./engine.ts";
import { PhaseProgress } from "./progress.ts";
import {
  acceptChangedBackingOption,
  acceptMissingMirrorOption,
  backingOption,
  cacheOption,
  type Command,
  jsonOption,
  mirrorOption,
} from "./table.ts";

/** The verb. */
export const recover: Command = {
  name: "recover",
  summary: "save what a cache holds to its backing device",
  description:
    "Replays the log of a cache that no server is using and writes all dirty data to the backing device, or, " +
    "with --output, to a copy of it in a new file. If anything is damaged it changes nothing and says what would " +
    "be lost, unless --accept-loss is given. Recovers caches of dm-writeboost, too, without its kernel module.",
  destroys:
    "with --accept-loss: the older content of ranges whose newer data is damaged stays in place as if it were " +
    "current. Without it: nothing.",
  options: [
    cacheOption,
    backingOption,
    mirrorOption,
    acceptMissingMirrorOption,
    acceptChangedBackingOption,
    { name: "dry-run", kind: "flag", summary: "only say what would be done" },
    {
      name: "accept-loss",
      kind: "flag",
      summary: "go on although something is damaged, without the damaged ranges",
    },
    {
      name: "output",
      kind: "text",
      value: "FILE",
      summary: "leave the backing device alone; write a full copy to FILE",
    },
    assumeOption,
    jsonOption,
  ],
  examples: [
    {
      line: "nbdboost recover --cache /ssd/cache.nbb --backing /dev/sdb --dry-run",
      says: "says what it would write, and what is damaged",
    },
    {
      line: "nbdboost recover --cache /ssd/cache.nbb --backing /dev/sdb --output /big/rescued.img",
      says: "leaves both devices as they are; the image holds what the server would have shown",
    },
    {
      line: "nbdboost recover --cache /dev/nvme0n1p3 --backing /dev/sdb",
      says: "for a cache of dm-writeboost: the disk is complete afterwards (see docs/rescue.md)",
    },
  ],
  async run(options, output) {
    const mirror = options.text("mirror");
    if (mirror === undefined && await isForeign(options)) return await recoverForeign(options, output);
    const progress = new PhaseProgress(output);
    const copy = options.text("output");
    const report = await recoverCache({
      cache: options.needed("cache"),
      ...(mirror === undefined ? {} : { mirror }),
      acceptMissingMirror: options.flag("accept-missing-mirror"),
      acceptChangedBacking: options.flag("accept-changed-backing"),
      backing: options.needed("backing"),
      dryRun: options.flag("dry-run"),
      acceptLoss: options.flag("accept-loss"),
      ...(copy === undefined ? {} : { output: copy }),
      warn: (message) => output.note(message),
      onProgress: progress.update,
    }).finally(progress.end);
    output.report(report, options.flag("json"));
    // Without --accept-loss only a dry run gets here with a loss.
    return report.lostBlocks > 0 && !options.flag("accept-loss") ? exitCode.damage : exitCode.done;
  },
};
