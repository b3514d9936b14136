/**
 * Closing in order: everything durable, a checkpoint of what is dirty, and superblocks that say so. The next opening then
 * does not write back again what was written back.
 *
 * Invariant: the checkpoint is durable before a superblock calls for it.
 *
 * @module
 */

import { DeviceError } from "../errors.ts";
import { emptySlotBits, writeCheckpoint } from "../log/checkpoint.ts";
import type { SuperblockStore } from "../log/superblock_store.ts";
import type { Superblock } from "../log/superblock.ts";
import type { LogWriter } from "../log/writer.ts";
import type { Core } from "./core.ts";
import { closedHistory } from "./history.ts";
import { takeSamples } from "./pair.ts";
import type { Tail } from "./tail.ts";
import type { WriteBack } from "./writeback.ts";
import type { Writes } from "./writes.ts";

/** Marks the cache clean. REQUIRES: nobody puts anything any more, and write-back has stopped. */
export async function closeCleanly(
  core: Core,
  engine: { writer: LogWriter; store: SuperblockStore; tail: Tail; writes: Writes; writeback: WriteBack },
): Promise<void> {
  const { kernels, clock, device, backing, geometry } = core;
  await engine.writes.durable();
  // Clean copies too: the head that is named comes after them.
  await engine.writer.makeDurable(engine.writer.lastPutSequence);
  if (core.statistics.unrecordedLosses > 0) {
    throw new DeviceError(
      "EIO",
      `Cannot mark ${device.name} clean: the log had no room to say which blocks are lost`,
    );
  }
  // A failed backing sync only means that more stays dirty.
  await engine.writeback.settle().catch((error) =>
    core.warn(
      `Backing sync failed at close: ${error.message}; what it would have covered stays in the cache, and nothing is lost`,
    )
  );
  const bits = emptySlotBits(geometry);
  for (let block = kernels.dirty.next(0, kernels.dirty.length); block >= 0;) {
    bits.add(kernels.indexGet(block));
    block = kernels.dirty.next(block + 1, kernels.dirty.length);
  }
  for (const range of engine.tail.unsettledRanges()) bits.add(range.headerSlot);
  const closing: Superblock = {
    ...engine.store.current,
    clean: true,
    head: engine.writer.head,
    history: closedHistory(engine.store.current.history, core.history),
    closedMs: clock.wallMs(),
    backing: await backing.identity(),
    samples: await takeSamples(core),
  };
  await writeCheckpoint(device, closing, bits);
  // The checkpoint is durable before a superblock calls for it.
  await engine.writer.syncDevice();
  const { clean, head, history, closedMs, backing: identity, samples } = closing;
  await engine.store.write({ clean, head, history, closedMs, backing: identity, samples });
}
