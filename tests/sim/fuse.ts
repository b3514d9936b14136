/**
 * Lets the power go at the moments that matter: just after a superblock, a sync, a log write, an answered flush.
 *
 * Invariant: without a fuse a life ends at a random event, so every other moment is met as well.
 *
 * @module
 */

import type { SeededRandom } from "../../src/random.ts";
import { checkpointOffset, legMarkOffsets } from "../../src/log/layout.ts";
import { mib } from "../../src/units.ts";
import type { Call } from "./sim_disk.ts";

/** What a fuse waits for. */
const sparks = [
  "superblock",
  "checkpoint",
  "log write",
  "cache sync",
  "backing sync",
  "backing write",
  "backing zero",
  "opened",
  "flushed",
  "closing",
  "leg mark",
  "copied",
] as const;
/** See {@linkcode sparks}. */
export type Spark = typeof sparks[number];

/** What happens on a plain cache device. */
const plainSparks = sparks.filter((spark) => spark !== "leg mark" && spark !== "copied");
/** What matters most where there are two legs. */
export const legSparks: readonly Spark[] = ["leg mark", "leg mark", "leg mark", "flushed", "cache sync"];

/** Events of a life after the spark: few, or what fits into a slow call. After the beginning of a close, more. */
const eventsLeftMax = [6, 24] as const;
const closingEventsMax = 24;

/** A spark, and how often it comes before it counts. */
export class Fuse {
  readonly spark: Spark;
  #count: number;
  readonly #random: SeededRandom;

  /** `choice`: what it may wait for. */
  constructor(random: SeededRandom, choice: readonly Spark[] = plainSparks) {
    this.#random = random;
    this.spark = choice[random.below(choice.length)]!;
    if (this.spark === "copied") this.#count = 1;
    else this.#count = 1 + random.below(this.spark === "leg mark" ? 5 : [1, 4, 16][random.below(3)]!);
  }

  /** Something happened. Tells how many more events this life has, if it was that. */
  note(spark: Spark | undefined): number {
    if (spark !== this.spark) return Infinity;
    if (spark === "closing") return this.#random.below(closingEventsMax);
    return --this.#count === 0 ? this.#random.below(eventsLeftMax[this.#random.below(2)]!) : Infinity;
  }
}

/** What a call to a device may spark. */
export function sparkOf(device: string, { kind, offset }: Call): Spark | undefined {
  if (kind === "read") return undefined;
  if (device !== "backing" && legMarkOffsets.some((mark) => mark === offset)) return "leg mark";
  if (device === "mirror") return kind === "sync" ? "cache sync" : undefined;
  if (device !== "cache") return `backing ${kind}`;
  if (kind === "sync") return "cache sync";
  return offset >= mib ? "log write" : offset >= checkpointOffset ? "checkpoint" : "superblock";
}
