/**
 * What a cache may say of itself, opened or drained.
 *
 * @module
 */

import type { Cache } from "../../src/cache/cache.ts";
import type { Coverage } from "./coverage.ts";
import { Violation } from "./oracle.ts";
import { WorldEnd } from "./settled.ts";

/** What the world knows of the image that was opened. */
export interface Past {
  /** Something of the log, or of what was read of it, may be wrong by more than a crash. */
  mayBeDamaged: boolean;
  /** The cache was closed in order, and nothing has happened to it since. */
  closedInOrder: boolean;
  /** Something rotted since the cache was closed in order. */
  rotten: boolean;
}

/** Throws when the report of opening cannot be true. */
export function checkRecovery(cache: Cache, { mayBeDamaged, closedInOrder, rotten }: Past): void {
  const { recovery, readOnly } = cache;
  const { clean, dropped, gaps, lostBlocks, damaged } = recovery;
  if ((gaps.length > 0 || lostBlocks > 0 || damaged || readOnly) && !mayBeDamaged) {
    throw new Violation(`an undamaged log is called damaged: ${JSON.stringify(recovery)}`);
  }
  if (closedInOrder && !clean) throw new Violation("the cache was closed in order and is not clean");
  if (clean && dropped > 0 && !rotten) throw new Violation("records were dropped after a clean close");
  if (readOnly && !damaged) throw new Violation("an undamaged cache opens read-only");
}

/** Throws unless nothing is left in the log. */
export function checkDrained(cache: Cache): void {
  const { dirtyBlocks, zeroBlocks, tailSequence, headSequence } = cache.status().cache;
  if (dirtyBlocks + zeroBlocks === 0 && tailSequence === headSequence) return;
  throw new Violation(
    `after a drain ${dirtyBlocks} + ${zeroBlocks} blocks are dirty, tail ${tailSequence}, head ${headSequence}`,
  );
}

/** A log of a handful of segments can fill up with the records of what is lost; only recover helps, and the world ends. */
export function endIfFullOfLosses(cache: Cache, coverage: Coverage): void {
  const { freeSegments, dirtyBlocks, lostBlocks } = cache.status().cache;
  if (freeSegments > 0 || dirtyBlocks > 0 || lostBlocks === 0) return;
  coverage.count("logs filled by what is lost");
  throw new WorldEnd();
}

/** Whether a warning tells of damage to the log. */
export function saysLoss(message: string): boolean {
  return / lost[:;]|damaged/.test(message) && !/superblock/.test(message);
}
