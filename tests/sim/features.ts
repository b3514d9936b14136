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
import type { Habits } from "./profiles.ts";
import type { Shape } from "./shape.ts";

/** The features of a world. */
export interface Features {
  /** Bytes after which a stream of writes goes past the log; 0 for never. */
  bypassBytes: number;
  /** Share of the writes that continue a stream. */
  streams: number;
  /** Longest run of missed blocks that is kept; 0 for no read cache. */
  readCacheBlocks: number;
  /** Share of the reads that only ask to fetch ahead. */
  prefetches: number;
  /** What reads weigh more, where they are kept. */
  readWeight: number;
  /** A call to the backing that takes long, so that others overtake it. */
  slowCall: string | undefined;
  /** Bytes of log of a step, when write-back goes from point to point; 0 when it does not. */
  stepBytes: number;
}

/** Another row of numbers than that of everything else. */
const salt = 0x5eed;

/** Draws the features of the world `seed`. */
export function drawFeatures(seed: number): Features {
  const random = new SeededRandom(seed ^ salt);
  for (let i = 0; i < 8; i++) random.next();
  const pick = <T>(...choices: T[]): T => choices[random.below(choices.length)]!;
  // Half of the worlds have none.
  const [bypass, readCache] = pick([true, true], [true, false], [false, true], [], [], []);
  const slowCall = bypass && readCache ? pick(undefined, "backing read", "backing write") : undefined;
  return {
    bypassBytes: bypass ? blockBytes * pick(1, 2, 3) : 0,
    streams: slowCall ? 0.97 : bypass ? pick(0.2, 0.6, 0.9) : 0,
    readCacheBlocks: readCache ? pick(1, 4, 1000) : 0,
    prefetches: readCache ? pick(0, 0.2, 0.5) : 0,
    readWeight: readCache ? pick(2, 8, 20) : 0,
    slowCall,
    stepBytes: !bypass && random.chance(0.3) ? blockBytes * pick(16, 64, 256) : 0,
  };
}

/** The world with its features: who keeps what is read reads more, and what may race meets somebody to race with. */
export function withFeatures<T extends Shape & Habits>(shape: T, features: Features): T & Features {
  const { readWeight, slowCall } = features;
  return {
    ...shape,
    ...features,
    // Trims keep blocks in the log, and so out of what may race.
    weights: {
      ...shape.weights,
      read: shape.weights.read + readWeight,
      ...(slowCall ? { trim: 0, zero: 0 } : {}),
    },
    clients: slowCall ? Math.max(shape.clients, 3) : shape.clients,
    slow: slowCall ? { ...shape.slow, [slowCall]: 30 } : shape.slow,
  };
}

/** The settings that they come to in a life with this trouble. */
export function featureTunables(features: Features, trouble: Trouble | undefined): Partial<Tunables> {
  return {
    readCacheThreshold: features.readCacheBlocks,
    ...(features.stepBytes > 0 ? { writebackOrder: "prefix", writebackStep: features.stepBytes } : {}),
    // A device that goes away may lose what nobody synced before anybody knows, and no log has what went past it.
    bypassSequential: trouble === "backing away" ? 0 : features.bypassBytes,
  };
}
