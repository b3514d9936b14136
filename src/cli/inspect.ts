/**
 * `inspect`: what is on a cache device, read-only.
 *
 * @module
 */

import { exitCode } from "../errors.ts";
import { assumeOption, inspectForeign, isForeign } from "./dm_writeboost.ts";
import { inspectCache } from "./engine.ts";
import { cacheOption, type Command, jsonOption } from "./table.ts";

/** The verb. */
export const inspect: Command = {
  name: "inspect",
  summary: "show what is on a cache device",
  description:
    "Prints both superblocks, the geometry, the backing device that the cache belongs to and how full the log " +
    "is; with --records also each record. It does not verify data; check does. Reads caches of dm-writeboost, too.",
  destroys: "nothing; it only reads.",
  options: [
    cacheOption,
    { name: "records", kind: "flag", summary: "also list the records of the log" },
    assumeOption,
    jsonOption,
  ],
  examples: [
    { line: "nbdboost inspect --cache /ssd/cache.nbb", says: "what this file or device is" },
    { line: "nbdboost inspect --cache /ssd/cache.nbb --records --json", says: "everything, for a script" },
  ],
  exits: { 3: "refused: this is no cache, or one whose segments fit no order" },
  async run(options, output) {
    if (await isForeign(options)) return await inspectForeign(options, output);
    const report = await inspectCache({ cache: options.needed("cache"), records: options.flag("records") });
    output.report(report, options.flag("json"));
    return exitCode.done;
  },
};
