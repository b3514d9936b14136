/**
 * Proof that the backing device has what was written back: it is read, and compared with the checksums of what the log
 * still holds.
 *
 * Invariants: only clean, synced versions are compared; a block that a client rewrites meanwhile is left out; one that
 * does not match is dirty again before anybody is told, so that its good copy stays in the log.
 *
 * @module
 */

import { blockBytes, fullMask, sectorBytes } from "../units.ts";
import { blockLength, type Core } from "./core.ts";
import type { Reads } from "./reads.ts";

/** Blocks that are sorted by address together. */
const groupBlocks = 16_384;
/** Blocks that one read of the backing merges. */
const readBlocksMax = 256;
/** Reads of the backing in flight. */
const readsInFlightMax = 8;

/** What a comparison found. */
export interface Proof {
  /** Blocks that were read back and compared. */
  comparedBlocks: number;
  /** Of these, those that the backing device returned differently, or not at all; they are dirty again. */
  wrongBlocks: number;
}

interface Version {
  block: number;
  slot: number;
}

/** Compares all clean versions that the log holds. REQUIRES: the tail stands still. */
export async function proveBacking(
  core: Core,
  reads: Reads,
  onProgress: (done: number, total: number) => void,
): Promise<Proof> {
  const proof: Proof = { comparedBlocks: 0, wrongBlocks: 0 };
  const { kernels } = core;
  const total = kernels.count;
  let seen = 0;
  onProgress(0, total);
  for (let slot = 0; slot < kernels.reverse.length;) {
    const group: Version[] = [];
    for (; slot < kernels.reverse.length && group.length < groupBlocks; slot++) {
      const block = kernels.reverse[slot]!;
      // What the tail has passed could not be kept, and clean copies have never been written back.
      if (
        kernels.indexGet(block) === slot && !core.versions.isLive(block) &&
        core.writer?.isInUse(core.segments.of(slot)) === true && !core.copies.holds(slot)
      ) group.push({ block, slot });
    }
    group.sort((a, b) => a.block - b.block);
    let next = 0;
    const work = async () => {
      while (next < group.length) {
        const first = next;
        while (
          ++next < group.length && next - first < readBlocksMax &&
          group[next]!.block === group[next - 1]!.block + 1
        );
        const run = group.slice(first, next);
        await compareRun(core, reads, run, proof);
        seen += run.length;
        onProgress(Math.min(seen, total), total);
      }
    };
    await Promise.all(Array.from({ length: readsInFlightMax }, work));
  }
  return proof;
}

async function compareRun(core: Core, reads: Reads, run: readonly Version[], proof: Proof): Promise<void> {
  const { backing } = core;
  const first = run[0]!.block;
  const last = run[run.length - 1]!.block;
  const bytes = new Uint8Array((last - first) * blockBytes + blockLength(core, last));
  let failed = false;
  try {
    await backing.read(first * blockBytes, bytes);
  } catch (error) {
    if (run.length > 1) {
      // One by one, so that a bad place costs only itself.
      for (const version of run) await compareRun(core, reads, [version], proof);
      return;
    }
    failed = true;
    core.warn(
      `${backing.name} cannot be read at ${first * blockBytes} (${
        error instanceof Error ? error.message : error
      }): ` +
        "the block stays in the cache",
    );
  }
  for (const { block, slot } of run) {
    const at = (block - first) * blockBytes;
    const found = bytes.subarray(at, at + blockLength(core, block));
    const same = !failed && await isSame(core, reads, block, slot, found);
    if (!isStill(core, block, slot)) continue;
    proof.comparedBlocks++;
    if (same) continue;
    proof.wrongBlocks++;
    redirty(core, block, slot);
  }
}

/** Whether `found`, read from the backing, is what the log holds of the block. */
async function isSame(
  core: Core,
  reads: Reads,
  block: number,
  slot: number,
  found: Uint8Array<ArrayBuffer>,
): Promise<boolean> {
  const { kernels } = core;
  const mask = kernels.masks[slot]!;
  if (mask === fullMask && found.length === blockBytes) return kernels.crc32cOf(found) === kernels.crcs[slot];
  let held: Uint8Array;
  try {
    held = (await reads.fetch(block)).bytes;
  } catch {
    return false;
  }
  // A clean version that is rotten in the log has left the index, and the caller leaves it out.
  for (let sector = 0; sector < 8; sector++) {
    if (((mask >>> sector) & 1) === 0) continue;
    const end = Math.min((sector + 1) * sectorBytes, found.length);
    for (let i = sector * sectorBytes; i < end; i++) if (held[i] !== found[i]) return false;
  }
  return true;
}

function isStill({ kernels, versions }: Core, block: number, slot: number): boolean {
  return kernels.indexGet(block) === slot && !versions.isLive(block);
}

/** The backing lacks it after all. */
function redirty({ kernels, segments }: Core, block: number, slot: number): void {
  kernels.dirty.set(block);
  segments.live[segments.of(slot)]!++;
}
