/**
 * How a machine ends: its process is killed, or its power goes.
 *
 * @module
 */

import type { SeededRandom } from "../../src/random.ts";
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
