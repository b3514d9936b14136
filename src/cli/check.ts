/**
 * `check`: verifies every checksum and the pairing, read-only.
 *
 * @module
 */

import { exitCode } from "../errors.ts";
import { assumeOption, checkForeign, isForeign } from "./dm_writeboost.ts";
import { checkCache } from "./engine.ts";
import { PhaseProgress } from "./progress.ts";
import {
  acceptChangedBackingOption,
  backingOption,
  cacheOption,
  type Command,
  jsonOption,
  mirrorOption,
} from "./table.ts";

/** The verb. */
export const check: Command = {
  name: "check",
  summary: "verify every checksum and the pairing",
  description:
    "Reads the whole log, verifies every header and every block, and, with --backing, that the two devices " +
    "belong together. Names each damaged range. Checks caches of dm-writeboost, too.",
  destroys: "nothing; it only reads.",
  options: [
    cacheOption,
    mirrorOption,
    { ...backingOption, required: false },
    acceptChangedBackingOption,
    assumeOption,
    jsonOption,
  ],
  examples: [
    {
      line: "nbdboost check --cache /ssd/cache.nbb",
      says: "ends with 0 when all is well, with 4 when anything is not",
    },
    {
      line: "nbdboost check --cache /ssd/cache.nbb --backing /dev/sdb --json",
      says: "also verifies the pairing; the findings as JSON",
    },
  ],
  async run(options, output) {
    const mirror = options.text("mirror");
    if (mirror === undefined && await isForeign(options)) return await checkForeign(options, output);
    const progress = new PhaseProgress(output);
    const backing = options.text("backing");
    const report = await checkCache({
      cache: options.needed("cache"),
      ...(mirror === undefined ? {} : { mirror }),
      ...(backing === undefined ? {} : { backing }),
      acceptChangedBacking: options.flag(acceptChangedBackingOption.name),
      onProgress: progress.update,
    }).finally(progress.end);
    output.report(report, options.flag("json"));
    return report.problems.length === 0 ? exitCode.done : exitCode.damage;
  },
};
