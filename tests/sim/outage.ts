/**
 * How a machine ends: its process is killed, or its power goes; and what that may do to a cache device.
 *
 * @module
 */

import type { Coverage } from "./coverage.ts";
import { rotMarked, wreckSuperblock } from "./faults.ts";
import type { SeededRandom } from "../../src/random.ts";
import type { Habits } from "./profiles.ts";
import { crashPolicies, type Medium } from "./medium.ts";

type End = (media: readonly Medium[], random: SeededRandom, note: (message: string) => void) => void;

/** The process dies; the system and its page cache live on, so nothing becomes durable by it. */
export const kill: End = (media, random, note) => {
  note("KILL");
  for (const medium of media) medium.kill(random);
};

/** The power goes, on all devices, each with its own luck. */
export const cutPower: End = (media, random, note) => {
  for (const medium of media) {
    const policy = crashPolicies[random.below(crashPolicies.length)]!;
    note(`POWER CUT, ${medium.name}: ${policy} of ${medium.unsyncedCount} writes`);
    medium.powerCut(policy, random);
  }
};

/** How it ended. */
export interface Ending {
  killed: boolean;
  /** What of the cache device is not as a crash may leave it. */
  damage: "none" | "superblock" | "record";
}

/** Ends a machine one way or the other. `victim`: what may be damaged besides, where devices rot by more than a superblock. */
export function endMachine(
  random: SeededRandom,
  habits: Habits & { faulty: boolean },
  media: readonly Medium[],
  victim: Medium,
  coverage: Coverage,
  note: (message: string) => void,
): Ending {
  const killed = random.chance(habits.kills);
  if (killed) coverage.count("kills");
  (killed ? kill : cutPower)(media, random, note);
  const wrecks = !killed && random.chance(habits.faulty ? habits.rots : 0.1);
  if (wrecks && !habits.faulty && wreckSuperblock(victim, random, note)) {
    coverage.count("superblocks wrecked");
    return { killed, damage: "superblock" };
  }
  const rotten = wrecks && habits.faulty && rotMarked(victim, random, note);
  return { killed, damage: rotten ? "record" : "none" };
}
