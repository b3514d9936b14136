/**
 * What the cache does besides, in some simulated worlds. It is drawn apart from everything else, so that the world of a seed
 * is the same with and without.
 *
 * @module
 */

import type { Tunables } from "../../src/cache/tunables.ts";
import { SeededRandom } from "../../src/random.ts";
import { blockBytes } from "../../src/units.ts";
import type { Trouble } from "./faults.ts";

/** The features of a world. */
export interface Features {
  /** Bytes after which a stream of writes goes past the log; 0 for never. */
  bypassBytes: number;
  /** Share of the writes that continue a stream. */
  streams: number;
}

/** Another row of numbers than that of everything else. */
const salt = 0x5eed;

/** Draws the features of the world `seed`. */
export function drawFeatures(seed: number): Features {
  const random = new SeededRandom(seed ^ salt);
  for (let i = 0; i < 8; i++) random.next();
  const bypass = random.chance(0.3);
  return {
    bypassBytes: bypass ? blockBytes * (1 + random.below(3)) : 0,
    streams: bypass ? [0.2, 0.6, 0.9][random.below(3)]! : 0,
  };
}

/** The settings that they come to in a life with this trouble. */
export function featureTunables(features: Features, trouble: Trouble | undefined): Partial<Tunables> {
  return {
    // A device that goes away may lose what nobody synced before anybody knows, and no log has what went past it.
    bypassSequential: trouble === "backing away" ? 0 : features.bypassBytes,
  };
}
