/**
 * `format`: makes a new cache for a backing device. The only verb that may overwrite what a device held.
 *
 * @module
 */

import { exitCode } from "../errors.ts";
import { formatCache } from "./engine.ts";
import { backingOption, cacheOption, type Command, jsonOption, mirrorOption } from "./table.ts";

/** The verb. */
export const format: Command = {
  name: "format",
  summary: "make a new cache for a backing device",
  description:
    "Writes an empty cache onto the cache device and ties it to this backing device, whose data stays as it " +
    "is. A missing regular file is created when --cache-size is given. Anything that holds a known signature (a " +
    "cache, a filesystem, a partition table) or data in its first MiB is refused, unless --force is given.",
  destroys:
    "everything on the cache device and on its mirror; with --force even what looks valuable. The backing device is only read.",
  options: [
    cacheOption,
    backingOption,
    {
      ...mirrorOption,
      summary: "a second device that gets all that the cache device gets, so that either is enough",
    },
    {
      name: "cache-size",
      kind: "size",
      value: "SIZE",
      summary: "create the cache file, and that of the mirror, with this size",
    },
    {
      name: "segment-size",
      kind: "size",
      value: "SIZE",
      standard: "512KiB",
      summary: "128KiB to 8MiB, a power of two",
    },
    { name: "force", kind: "flag", summary: "overwrite whatever the cache device holds" },
    jsonOption,
  ],
  examples: [
    {
      line: "nbdboost format --cache /ssd/cache.nbb --cache-size 4GiB --backing /dev/sdb",
      says: "a cache of 4 GiB in a new file, for the disk /dev/sdb",
    },
    {
      line: "nbdboost format --cache /dev/nvme0n1p3 --backing /dev/md0",
      says: "a whole partition as the cache of an array",
    },
    {
      line: "nbdboost format --cache /dev/nvme0n1p3 --mirror /dev/nvme1n1p3 --backing /dev/md0",
      says: "a cache on two SSDs, of which one may die",
    },
  ],
  exits: { 3: "refused: the cache device holds something, is in use, or does not fit; nothing was changed" },
  async run(options, output) {
    const progress = output.progress("formatting", "bytes");
    const cacheSize = options.size("cache-size");
    const segmentSize = options.size("segment-size");
    const mirror = options.text("mirror");
    try {
      const report = await formatCache({
        cache: options.needed("cache"),
        backing: options.needed("backing"),
        ...(mirror === undefined ? {} : { mirror }),
        ...(cacheSize === undefined ? {} : { cacheSize }),
        ...(segmentSize === undefined ? {} : { segmentSize }),
        force: options.flag("force"),
        onProgress: progress.update,
      });
      progress.end();
      output.report(report, options.flag("json"));
    } finally {
      progress.end();
    }
    return exitCode.done;
  },
};
