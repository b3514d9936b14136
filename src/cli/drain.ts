/**
 * `drain`: writes everything that the cache still holds back to the backing device, offline.
 *
 * @module
 */

import { exitCode } from "../errors.ts";
import { openCache } from "./engine.ts";
import { noteRecovery } from "./recovery_note.ts";
import { backingOption, cacheOption, type Command } from "./table.ts";

/** The verb. */
export const drain: Command = {
  name: "drain",
  summary: "write everything back to the backing device",
  description:
    "Opens a cache that no server is using, recovers it if it was not closed in order, writes all dirty blocks " +
    "to the backing device and closes the cache. Afterwards the backing device alone is complete. It may be " +
    "interrupted at any time and started again.",
  destroys: "nothing; it writes to both devices what a server would have written.",
  options: [cacheOption, backingOption],
  examples: [{
    line: "nbdboost drain --cache /ssd/cache.nbb --backing /dev/sdb",
    says: "brings /dev/sdb up to date",
  }],
  exits: {
    3: "refused: not a pair, in use, or the cache is damaged or the backing device changed meanwhile",
    4: "damage found: what is left is not all written back",
  },
  async run(options, output) {
    const recovery = output.progress("recovering", "segments");
    const cache = await openCache({
      cache: options.needed("cache"),
      backing: options.needed("backing"),
      warn: (message) => output.note(message),
      onProgress: recovery.update,
    }).finally(recovery.end);
    const progress = output.progress("draining", "blocks");
    try {
      noteRecovery(cache.recovery, output);
      await cache.drain({ onProgress: progress.update });
    } finally {
      progress.end();
      await cache.close();
    }
    output.line("drained: the backing device is complete");
    return exitCode.done;
  },
};
