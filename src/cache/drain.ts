/**
 * Draining: everything to the backing device, and, if that is asked for, the proof that it is there.
 *
 * @module
 */

import { DamageError } from "../errors.ts";
import type { Core } from "./core.ts";
import { proveBacking } from "./prove.ts";
import type { Reads } from "./reads.ts";
import type { WriteBack } from "./writeback.ts";

/** How to drain. */
export interface DrainOptions {
  /** Gets blocks done and blocks in all, of writing back (`draining`) or of reading back (`comparing`). */
  onProgress?: (done: number, total: number, phase: "draining" | "comparing") => void;
  /**
   * Reads back what was written and compares it with the checksums in the log, which is given up only after that. The log
   * keeps all its blocks meanwhile, so nobody should write: a full log would make writers wait.
   */
  verify?: boolean;
  /**
   * Leaves the copies in the log where they are, as long as a quarter of it stays free, so that a later drain with `verify`
   * compares them too.
   */
  keepLog?: boolean;
}

/** What a drain did. */
export interface DrainReport {
  /** Blocks that were read back and compared; 0 without `verify`. */
  comparedBlocks: number;
}

/** See `Cache.drain`. */
export async function drainCache(
  core: Core,
  writeback: WriteBack,
  reads: Reads,
  { onProgress = () => {}, keepLog = false, verify = false }: DrainOptions,
): Promise<DrainReport> {
  const report: DrainReport = { comparedBlocks: 0 };
  const letCopiesIn = core.copies.hold();
  try {
    if (keepLog || verify) writeback.holdTail = verify ? "yes" : "while roomy";
    await writeback.drain((done, total) => onProgress(done, total, "draining"));
    if (verify) {
      report.comparedBlocks = await prove(core, reads, (done, total) => onProgress(done, total, "comparing"));
      writeback.holdTail = "no";
      await writeback.drain();
    }
    if (!keepLog) writeback.holdTail = "no";
  } catch (error) {
    writeback.holdTail = "no";
    throw error;
  } finally {
    letCopiesIn();
  }
  const lost = core.versions.poison.blocks;
  if (lost > 0) {
    throw new DamageError(
      `Everything that can be written back is on ${core.backing.name}, but ${lost} blocks are lost: see nbdboost check`,
    );
  }
  return report;
}

async function prove(
  core: Core,
  reads: Reads,
  onProgress: (done: number, total: number) => void,
): Promise<number> {
  // Checksums are made when a record is sealed: what the read cache put last has none.
  await core.writer?.makeDurable(core.writer.lastPutSequence);
  const { comparedBlocks, wrongBlocks } = await proveBacking(core, reads, onProgress);
  if (wrongBlocks > 0) {
    throw new DamageError(
      `${core.backing.name} does not return what was written to it: ${wrongBlocks} of ${comparedBlocks} blocks that ` +
        `were read back differ; the cache still holds them and nothing is lost, but look at that device first`,
    );
  }
  return comparedBlocks;
}
