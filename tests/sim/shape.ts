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

/** Draws a world. */
export function drawShape(random: SeededRandom, faulty: boolean): Shape {
  const pick = <T>(...choices: T[]): T => choices[random.below(choices.length)]!;
  const blocks = pick(3, 8, 8, 16, 16, 33, 64);
  const segmentBlocks = pick(4, 4, 8, 8, 16);
  const segmentCount = pick(6, 6, 7, 9, 12, 20);
  const partial = random.chance(0.3) ? sectorBytes * (1 + random.below(7)) : 0;
  return {
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
      writebackBatch: pick(1, 3, 8, 1024),
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
