/**
 * Worlds bent towards the states that a fault needs to show: each profile changes some habits of a drawn world.
 *
 * @module
 */

import type { SeededRandom } from "../../src/random.ts";
import type { RequestKind, Shape } from "./shape.ts";
import type { Trouble } from "./faults.ts";
import type { Spark } from "./fuse.ts";

/** Habits that {@linkcode drawShape} knows nothing of. */
export interface Habits {
  /** Its name, for the trace and the coverage. */
  profile: string;
  /** Share of crashes that only kill the process, so that what was not synced stays un-synced. */
  kills: number;
  /** Share of lives that are meant to end in order. */
  closes: number;
  /** Share of lives with a fuse, and what it waits for; undefined leaves that to chance. */
  fuses: number;
  sparks: readonly Spark[] | undefined;
  /** Share of crashes after which something durable rots, in faulty worlds. */
  rots: number;
  /** How many times as long as others some calls take, by device and kind. */
  slow: Record<string, number>;
  /** What lives suffer from, in faulty worlds; undefined leaves it to chance. */
  troubles: readonly Trouble[] | undefined;
}

const usual: Habits = {
  profile: "usual",
  kills: 0.2,
  closes: 0.3,
  fuses: 0.3,
  sparks: undefined,
  rots: 0.05,
  slow: {},
  troubles: undefined,
};

type Bend = (shape: Shape, random: SeededRandom) => Partial<Shape & Habits>;

const tinyLog = { segmentBlocks: 4, segmentCount: 6, unsyncedBlocks: 8 };

/** Short lives with few records each: what a crash cut off lies right behind the head of the next life. */
const restarts: Bend = (shape, random) => ({
  ...blocks(shape, 3 + random.below(6)),
  lifeEvents: (shape.light ? 4 : 30) + random.below(16),
  clients: 1 + random.below(2),
  requestBlocksMax: 1 + random.below(2),
  weights: weights(shape, { write: 10, read: 0.3, flush: 2 + random.below(6), drain: 0.05, pause: 0.3 }),
  hot: 0.9,
  kills: 0.4,
  closes: 0.2,
  fuses: 0.5,
});

/** Syncs are slow and log writes many, so that both are under way together. */
const slowSyncs: Bend = (shape, random) => ({
  ...blocks(shape, 4 + random.below(8)),
  clients: 4,
  requestBlocksMax: 1 + random.below(2),
  weights: weights(shape, { write: 10, read: 1, flush: 4, pause: 0 }),
  slow: { "cache sync": 8 + random.below(60), "backing sync": 8 },
});

/** Trims and zeroes over few hot blocks, partial writes in between. */
const trims: Bend = (shape, random) => ({
  ...blocks(shape, 2 + random.below(6)),
  ...(random.chance(0.7) ? tinyLog : {}),
  lifeEvents: 30 + random.below(40),
  clients: 1 + random.below(4),
  slow: { "backing sync": random.chance(0.5) ? 1 : 50 },
  weights: weights(shape, {
    write: 8,
    read: 0.5,
    flush: 1 + random.below(4),
    trim: 4,
    zero: 2,
    drain: random.chance(0.5) ? 0.1 : 1,
  }),
  requestBlocksMax: 1 + random.below(3),
  tunables: { ...shape.tunables, writeback: random.chance(0.6) ? "on" : "auto" },
  fuses: 0.5,
});

/** The smallest log, mostly full. */
const full: Bend = (shape, random) => ({
  ...blocks(shape, 12 + random.below(12)),
  ...tinyLog,
  lifeEvents: 60 + random.below(60),
  clients: 2 + random.below(3),
  bufferCount: 2,
  slow: { "cache read": random.chance(0.5) ? 1 : 30 },
  weights: weights(shape, { write: 10, read: 2, flush: 0.5, pause: 0 }),
  requestBlocksMax: 4 + random.below(4),
  hot: 0,
});

const good: readonly [string, Bend][] = [
  ["restarts", restarts],
  ["slow syncs", slowSyncs],
  ["trims", trims],
  ["more trims", trims],
  ["full", full],
  // A close is the only time at which superblocks differ in more than one sector, so that they can be torn.
  [
    "closes",
    (shape, random) => ({ ...restarts(shape, random), closes: 0.9, fuses: 0.7, sparks: ["closing"] }),
  ],
];
const faulty: readonly [string, Bend][] = [
  ...good,
  // A sync fails and the page cache goes on showing what the medium never got; then the process restarts.
  ["dropped", (shape, random) => ({ ...restarts(shape, random), kills: 0.6, troubles: ["cache failure"] })],
  ["unsynced", (shape, random) => ({ ...trims(shape, random), troubles: ["backing sync errors"] })],
  ["refused", (shape, random) => ({ ...trims(shape, random), troubles: ["backing errors", "backing full"] })],
  [
    "misread",
    (shape, random) => ({
      ...full(shape, random),
      closes: 0.6,
      troubles: ["flipped reads", "cache read errors"],
    }),
  ],
  // Few records, and what a crash cut off behind them; then the image rots.
  [
    "rotten",
    (shape, random) => ({
      ...restarts(shape, random),
      closes: random.chance(0.5) ? 0 : 0.6,
      rots: 0.5,
      troubles: ["nothing"],
    }),
  ],
];

/** Two thirds of all worlds get a profile. */
export function bend(shape: Shape, random: SeededRandom): Shape & Habits {
  if (random.chance(1 / 3)) return { ...shape, ...usual };
  const list = shape.faulty ? faulty : good;
  const [profile, how] = list[random.below(list.length)]!;
  return { ...shape, ...usual, ...how(shape, random), profile };
}

/** A volume of so many blocks, the last of them as it was. */
function blocks({ backingBytes }: Shape, count: number): { backingBytes: number } {
  const missing = Math.ceil(backingBytes / 4096) * 4096 - backingBytes;
  return { backingBytes: count * 4096 - missing };
}

function weights(shape: Shape, changes: Partial<Record<RequestKind, number>>): Record<RequestKind, number> {
  return { ...shape.weights, ...changes };
}
