/**
 * Worlds with a mirror, bent towards the states in which one leg alone must have everything: a copy that was made while
 * clients wrote and is read alone right afterwards, and a leg that rots while the other one is good. It is drawn apart from
 * everything else, so that the worlds without a mirror are what they were.
 *
 * @module
 */

import { SeededRandom } from "../../src/random.ts";
import type { Spark } from "./fuse.ts";
import type { Habits } from "./profiles.ts";
import type { Shape } from "./shape.ts";

/** What befalls the legs of a mirror. */
export interface LegHabits {
  /** Its name, for the trace and the coverage. */
  name: "usual" | "copies" | "rots";
  /** Share of ends after which the leg is lost that another one was copied from in this life. */
  losesSource: number;
  /** Share of openings that leave out a leg, while both are good. */
  leavesOut: number;
  /** Share of clean closes after which one of two good legs rots. */
  rots: number;
  /** What lives with a fuse wait for; undefined leaves it to chance. */
  sparks: readonly Spark[] | undefined;
  /** Share of lives with a fuse. */
  fuses: number;
  /** How many latencies a leg that broke, or is to be copied to, is left alone, at least. */
  pauses: readonly number[];
}

/** Legs that break now and then, and are seldom lost. */
export const usualLegs: LegHabits = {
  name: "usual",
  losesSource: 0.03,
  leavesOut: 0.1,
  rots: 0.3,
  sparks: undefined,
  fuses: 0.6,
  pauses: [1, 3, 10, 100],
};

/** Another row of numbers than that of everything else. */
const salt = 0x1e65;

/** Draws the habits of the world `seed`. */
export function drawLegHabits(seed: number): LegHabits {
  const random = new SeededRandom(seed ^ salt);
  for (let i = 0; i < 8; i++) random.next();
  const choice = random.below(8);
  if (choice < 3) {
    return { ...usualLegs, name: "copies", losesSource: 0.8, sparks: ["copied"], fuses: 0.9, pauses: [1, 3] };
  }
  if (choice < 5) {
    return { ...usualLegs, name: "rots", losesSource: 0, leavesOut: 0, rots: 1, fuses: 0.1, pauses: [1000] };
  }
  return usualLegs;
}

/** A world whose legs have such habits. */
export function withLegHabits<T extends Shape & Habits>(
  shape: T,
  habits: LegHabits | undefined,
  seed: number,
): T {
  const name = habits?.name ?? "usual";
  if (name === "usual") return shape;
  const random = new SeededRandom(~seed ^ salt);
  for (let i = 0; i < 8; i++) random.next();
  const weights = { ...shape.weights, drain: Math.min(shape.weights.drain, 0.05), pause: 0 };
  if (name === "rots") {
    return { ...shape, lifeEvents: Math.max(shape.lifeEvents, 20), closes: 0.9, weights };
  }
  // A copy takes some forty calls; the record that is written then must lie in a segment that is copied.
  const segmentBlocks = Math.max(shape.segmentBlocks, 8 << random.below(2));
  return {
    ...shape,
    segmentBlocks,
    unsyncedBlocks: Math.max(shape.unsyncedBlocks, 2 * segmentBlocks),
    lifeEvents: Math.max(shape.lifeEvents, 150),
    clients: Math.max(shape.clients, 2),
    closes: 0.05,
    sparks: undefined,
    // What is read wrongly once must not stand on the copy.
    troubles: random.chance(0.4) ? ["flipped reads"] : shape.troubles,
    weights: { ...weights, write: 10, flush: Math.max(weights.flush, 4) },
    // What is copied was read a while ago, or lands later than what clients write.
    slow: { ...shape.slow, ...overtaken[random.below(overtaken.length)] },
  };
}

const overtaken: readonly Record<string, number>[] = [
  {},
  { "cache read": 20, "mirror read": 20 },
  { "cache write": 5, "mirror write": 5 },
];
