/**
 * What a simulated world is like: sizes, habits of its clients, luck of its devices. Drawn from its seed.
 *
 * @module
 */

import type { Tunables } from "../../src/cache/tunables.ts";
import type { SeededRandom } from "../../src/random.ts";
import { blockBytes, sectorBytes } from "../../src/units.ts";

/** What a world is like; drawn from its seed. */
export interface Shape {
  /** Small and short-lived, so that most of what it costs is crashing. */
  light: boolean;
  backingBytes: number;
  segmentBlocks: number;
  segmentCount: number;
  bufferCount: number;
  /** Blocks of log that may be un-synced. */
  unsyncedBlocks: number;
  odd: boolean;
  clients: number;
  /** Microtask turns between two events. */
  turns: number;
  /** Mean events of a life. */
  lifeEvents: number;
  /** Milliseconds of a device call. */
  latencyMs: number;
  tunables: Partial<Tunables>;
  /** Weights of the requests. */
  weights: Record<RequestKind, number>;
  /** Most blocks of one request. */
  requestBlocksMax: number;
  /** Share of requests that go to the first quarter of the volume. */
  hot: number;
  /** Milliseconds that a client may pause. */
  pauseMs: number;
  /** Devices fail and rot, too. */
  faulty: boolean;
}

/** What clients ask for. */
export const requestKinds = ["write", "read", "flush", "trim", "zero", "drain", "pause", "look"] as const;
/** See {@linkcode requestKinds}. */
export type RequestKind = typeof requestKinds[number];

/** One world in so many is a heavy one: it takes some twenty times as long for a crash. */
const heavyOneIn = 32;

/** Draws a world; `light` decides what is otherwise left to the seed. */
export function drawShape(random: SeededRandom, faulty: boolean, light?: boolean): Shape {
  const isLight = random.below(heavyOneIn) > 0;
  return light ?? isLight ? drawLight(random, faulty) : drawHeavy(random, faulty);
}

/** A log of few blocks before a volume of few blocks, for lives of a few requests. */
function drawLight(random: SeededRandom, faulty: boolean): Shape {
  const pick = <T>(...choices: T[]): T => choices[random.below(choices.length)]!;
  const blocks = pick(2, 3, 4, 4, 6, 8);
  const segmentBlocks = pick(4, 4, 4, 8);
  const segmentCount = pick(6, 6, 6, 7, 8);
  const partial = random.chance(0.2) ? sectorBytes * (1 + random.below(7)) : 0;
  return {
    light: true,
    backingBytes: blocks * blockBytes - partial,
    segmentBlocks,
    segmentCount,
    bufferCount: pick(2, 3, 4),
    unsyncedBlocks: segmentBlocks * pick(2, 2, 3, 1000),
    odd: random.chance(0.2),
    clients: pick(1, 2, 3),
    turns: pick(2, 6, 12),
    lifeEvents: pick(6, 12, 24),
    latencyMs: pick(0.05, 0.2, 2),
    tunables: {
      writeback: pick("auto", "on", "on", "off"),
      writebackBatch: pick(1, 3, 1024),
      flushInterval: 0,
    },
    weights: {
      write: 10,
      read: pick(0.3, 1),
      flush: pick(1, 3, 6),
      trim: pick(0, 0.5, 2),
      zero: pick(0, 0.3, 1),
      drain: pick(0, 0.1, 0.5),
      pause: pick(0, 0.5),
      look: 0.1,
    },
    requestBlocksMax: pick(1, 1, 2),
    hot: pick(0, 0.5, 0.9),
    pauseMs: pick(1, 20, 700),
    faulty,
  };
}

function drawHeavy(random: SeededRandom, faulty: boolean): Shape {
  const pick = <T>(...choices: T[]): T => choices[random.below(choices.length)]!;
  const blocks = pick(3, 8, 8, 16, 16, 33, 64);
  const segmentBlocks = pick(4, 4, 8, 8, 16);
  const segmentCount = pick(6, 6, 7, 9, 12, 20);
  const partial = random.chance(0.3) ? sectorBytes * (1 + random.below(7)) : 0;
  return {
    light: false,
    backingBytes: blocks * blockBytes - partial,
    segmentBlocks,
    segmentCount,
    bufferCount: pick(2, 3, 4, 4, segmentCount),
    unsyncedBlocks: segmentBlocks * pick(2, 3, 4, 1000),
    odd: random.chance(0.35),
    clients: pick(1, 1, 2, 3, 4),
    turns: pick(2, 8, 30),
    lifeEvents: pick(15, 60, 200, 800),
    latencyMs: pick(0.05, 0.2, 2),
    tunables: {
      writeback: pick("auto", "auto", "on", "off"),
      writebackBatch: pick(1, 3, 8, 256),
      copyForward: pick(0, 10, 60, 60, 90),
      flushInterval: pick(0, 0, 0, 1),
    },
    weights: {
      write: 10,
      read: pick(1, 4),
      flush: pick(0.3, 1, 4),
      trim: pick(0, 0.5, 2),
      zero: pick(0, 0.3, 1),
      drain: pick(0, 0.05, 0.3),
      pause: pick(0, 0.5, 2),
      look: 0.3,
    },
    requestBlocksMax: pick(1, 2, 4, 6),
    hot: pick(0, 0.5, 0.9),
    pauseMs: pick(1, 20, 700),
    faulty,
  };
}
