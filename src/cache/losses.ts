/**
 * What becomes of content of which no good version is left (log-rules.md 12).
 *
 * Invariants: a lost range reads as EIO until it is written again, also after a restart: a poisoned entry in the log says so,
 * and until that entry is in a record the segment that held the lost version is not passed by the tail.
 *
 * @module
 */

import { entryKind } from "../log/layout.ts";
import type { LogWriter } from "../log/writer.ts";
import { blockBytes } from "../units.ts";
import type { Core } from "./core.ts";
import type { Room } from "./room.ts";
import type { Tail } from "./tail.ts";
import type { Writes } from "./writes.ts";

/** The engine's reaction to a version that cannot be read: a poisoned entry at the head. Read-only, it only remembers. */
export function loseVersion(
  core: Core,
  engine: { writer: LogWriter; room: Room } | undefined,
  block: number,
  slot: number,
  why: string,
): void {
  const { kernels, versions, segments, warn } = core;
  if (kernels.indexGet(block) !== slot) return;
  const mask = kernels.masks[slot]!;
  warn(
    `Block ${block} (bytes ${block * blockBytes} to ${
      (block + 1) * blockBytes
    }) is lost: its only copy, in the log of ` +
      `${core.device.name}, cannot be used (${why}); reads there get EIO until it is written again`,
    "error",
  );
  const segment = segments.of(slot);
  versions.losePart(block, block + 1, mask, engine?.writer.openSequence ?? 0);
  if (!engine || engine.writer.failure) return;
  // Until the entry is in a record, the old place is held and the cache cannot be closed as clean: nothing else says that
  // the block is lost.
  const list = segments.losses.get(segment);
  if (list) list.push({ block, mask });
  else segments.losses.set(segment, [{ block, mask }]);
  core.statistics.unrecordedLosses++;
  // If the log is too full for that, the tail does it when it gets there.
  void engine.room.take("engine", () => recordLoss(core, engine.writer, segment)).catch(() => {});
}

/** Puts the entry for one of the losses of `segment`, if there are any; the writer is known to take it. */
export function recordLoss(core: Core, writer: LogWriter, segment: number): void {
  const { segments, versions } = core;
  const list = segments.losses.get(segment);
  const loss = list?.shift();
  if (!list || !loss) return;
  if (list.length === 0) segments.losses.delete(segment);
  core.statistics.unrecordedLosses--;
  const { block, mask } = loss;
  const left = versions.poison.mask(block) & mask;
  if (left !== 0) {
    const headerSlot = writer.putRange(entryKind.poisoned, block, 1, left);
    segments.addRange(segments.poisoned, segments.of(headerSlot), {
      start: block,
      end: block + 1,
      headerSlot,
    });
  }
  // Either the entry, or the newer version that healed it meanwhile, must be durable before the old place goes.
  segments.supersede(segment, writer.lastPutSequence);
}

/** Writes poisoned entries for everything that recovery found lost, durably: it must survive the next restart too. */
export async function persistLosses(core: Core, engine: { tail: Tail; writes: Writes }): Promise<void> {
  const { poison, backingBlocks } = core.versions;
  for (const { start, end, mask } of [...poison.ranges(0, backingBlocks)]) {
    await engine.tail.poison(start, end, mask);
  }
  await engine.writes.durable();
}

/** The bytes of the volume that are lost, in address order. */
export function* lostRanges(core: Core): Generator<{ offset: number; length: number }> {
  const { poison, backingBlocks } = core.versions;
  for (const { start, end } of poison.ranges(0, backingBlocks)) {
    const offset = start * blockBytes;
    yield { offset, length: Math.min(end * blockBytes, core.backing.sizeBytes) - offset };
  }
}
