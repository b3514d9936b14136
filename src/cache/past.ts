/**
 * Which flush point is meant, and whether the volume as it was then can be had.
 *
 * @module
 */

import { DamageError, RefusedError } from "../errors.ts";
import type { LogReader } from "../log/reader.ts";
import { walkLog } from "../log/recovery.ts";
import type { Superblock } from "../log/superblock.ts";
import { eachEntry } from "../log/codec.ts";
import { entryKind, recordFlagFlushPoint } from "../log/layout.ts";
import { historyFloor } from "./history.ts";

/** The log of a cache that is not being served, as seen from a flush point. */
export interface FoundPoint {
  /** The sequence that the next record would have had in the present. */
  head: number;
  /** The oldest sequence of which an image can be had. */
  floor: number;
  /** What the present has and the flush point has not. */
  undone: { flushPoints: number; records: number; blocks: number };
}

/** Looks for the flush point `sequence` in a log that nobody changes. Throws when the volume of that moment cannot be had. */
export async function findPoint(
  reader: LogReader,
  superblock: Superblock,
  sequence: number,
  backingMayDiffer: boolean,
): Promise<FoundPoint> {
  const { name } = reader.device;
  let before = -1;
  let after = -1;
  let isFlushPoint = false;
  const undone = { flushPoints: 0, records: 0, blocks: 0 };
  const walk = await walkLog(reader, superblock, {
    placed() {},
    lost() {},
    loseAll() {},
    apply(entries, _slot, at) {
      if (at <= sequence) return;
      for (const { kind } of eachEntry(entries)) if (kind === entryKind.data) undone.blocks++;
    },
    header(header) {
      const flagged = (header.flags & recordFlagFlushPoint) !== 0;
      if (header.sequence > sequence) {
        undone.records++;
        if (flagged) undone.flushPoints++;
      }
      if (!flagged) return;
      if (header.sequence < sequence) before = header.sequence;
      else if (header.sequence === sequence) isFlushPoint = true;
      else if (after < 0) after = header.sequence;
    },
  });
  const head = walk.head.sequence;
  const floor = historyFloor(superblock, head, backingMayDiffer);
  if (sequence < floor) throw overwrittenError(name, sequence, floor);
  if (!isFlushPoint) {
    const near = [before, after].filter((point) => point >= floor).join(" and ");
    throw unknownError(name, sequence, near);
  }
  const gap = walk.gaps.find(({ lost, firstSequence }) => lost && firstSequence <= sequence);
  if (gap) {
    throw new DamageError(
      `Cannot show ${name} as of flush point ${sequence}: records ${gap.firstSequence} to ${gap.lastSequence} before it ` +
        `are lost; see nbdboost check`,
    );
  }
  return { head, floor, undone };
}

/** A flush point whose image is gone. */
export function overwrittenError(name: string, sequence: number, floor: number): RefusedError {
  return new RefusedError(
    `Cannot show ${name} as of flush point ${sequence}: content up to sequence ${floor} may have reached the backing ` +
      `device, so nothing older can be had; see nbdboost history for what can, and nbdboost hold to keep it`,
  );
}

/** A sequence that is no flush point of the log. `near`: neighbours that are. */
export function unknownError(name: string, sequence: number, near: string): RefusedError {
  const advice = near === "" ? "there is none nearby; see nbdboost history" : `the nearest are ${near}`;
  return new RefusedError(`There is no flush point ${sequence} in the log of ${name}: ${advice}`);
}
