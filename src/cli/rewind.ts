/**
 * `rewind`: puts the volume back to a flush point, offline.
 *
 * @module
 */

import { exitCode, RefusedError } from "../errors.ts";
import { planRewind, rewindCache } from "./engine.ts";
import {
  acceptChangedBackingOption,
  backingOption,
  cacheOption,
  type Command,
  jsonOption,
  mirrorOption,
} from "./table.ts";

/** The verb. */
export const rewind: Command = {
  name: "rewind",
  summary: "put the volume back to a flush point",
  description:
    "Makes the volume as it was at a flush point the present again; see history for which there are. The cache must not be " +
    "served. Without --yes it only says what would be undone, and is refused. It is refused as well when something newer " +
    "than the flush point may have reached the backing device, as always after a crash of a server that did not hold " +
    "history. A crash in the middle leaves the old present or the new one.",
  destroys: "with --yes: everything that was written after the flush point, for good.",
  options: [
    cacheOption,
    mirrorOption,
    backingOption,
    {
      name: "to",
      kind: "number",
      value: "SEQUENCE",
      required: true,
      summary: "the flush point, as history lists it",
    },
    acceptChangedBackingOption,
    { name: "yes", kind: "flag", summary: "do it" },
    jsonOption,
  ],
  examples: [
    {
      line: "nbdboost rewind --cache /ssd/cache.nbb --backing /dev/sdb --to 4711",
      says: "says what would be undone",
    },
    {
      line: "nbdboost rewind --cache /ssd/cache.nbb --backing /dev/sdb --to 4711 --yes",
      says: "undoes it: the next serve shows the volume as it was",
    },
  ],
  exits: {
    3: "refused: without --yes, no such flush point, something newer may have reached the backing device, not a pair, in use",
    4: "damage found: a record before the flush point is lost",
  },
  async run(options, output) {
    const [cache, to] = [options.needed("cache"), options.number("to")!];
    const acceptChangedBacking = options.flag(acceptChangedBackingOption.name);
    const mirror = options.text("mirror");
    const legs = { cache, ...(mirror === undefined ? {} : { mirror }) };
    const plan = await planRewind({ ...legs, to, acceptChangedBacking });
    const what =
      `${plan.undoneFlushPoints} flush points, ${plan.undoneRecords} records with ${plan.undoneBlocks} blocks`;
    if (!options.flag("yes")) {
      throw new RefusedError(
        `Rewinding ${cache} to flush point ${to} would undo ${what}, for good: add --yes to do it`,
      );
    }
    const report = await rewindCache({
      ...legs,
      backing: options.needed("backing"),
      to,
      acceptChangedBacking,
      warn: (message) => output.note(message),
    });
    if (options.flag("json")) output.report(report, true);
    else output.line(`rewound to flush point ${to}: ${what} are undone`);
    return exitCode.done;
  },
};
