/**
 * Cache and backing know each other: opening both, and refusing a pair that does not belong together.
 *
 * A raw backing holds no mark of ours, so the cache knows its backing, and not the reverse. After a clean close the backing
 * must be what it was: same size, same modification time (files), same content in some sampled blocks.
 *
 * @module
 */

import type { BlockDevice, DeviceIdentity } from "../device/block_device.ts";
import { openDevice } from "../device/open.ts";
import { DeviceError, RefusedError } from "../errors.ts";
import { superblockBytes, superblockOffsets } from "../log/layout.ts";
import {
  chooseSuperblock,
  decodeSuperblock,
  type Sample,
  type Superblock,
  type SuperblockProblem,
} from "../log/superblock.ts";
import { SeededRandom } from "../random.ts";
import { blockBytes, formatSize } from "../units.ts";
import { crc32c } from "../wasm/crc32c.ts";
import { blockLength, type Core } from "./core.ts";

/** Backing blocks that are sampled at a clean close. */
const samplesMax = 32;
/** Blocks that are tried to find them. */
const sampleTriesMax = 128;

/** Opens the path or URI of a cache device or of a backing device. */
export type OpenTarget = (target: string, write: boolean, role: "cache" | "backing") => Promise<BlockDevice>;

/** Opens `target` if it is a path; a device that was handed in is used as it is. */
export async function openTarget(target: string | BlockDevice, write: boolean): Promise<BlockDevice> {
  return typeof target === "string" ? await openDevice(target, { write }) : target;
}

/** Reads the pair of superblocks and chooses. Throws `RefusedError` with the reason when there is none to use. */
export async function readSuperblocks(
  device: BlockDevice,
): Promise<{ superblock: Superblock; copy: number; problems: SuperblockProblem[] }> {
  const copies: (Superblock | SuperblockProblem)[] = [];
  if (device.sizeBytes < superblockOffsets[1] + superblockBytes) {
    throw new RefusedError(
      `Cannot open ${device.name}: it has ${device.sizeBytes} bytes, too few for an nbdboost cache; check the path`,
    );
  }
  for (const [copy, offset] of superblockOffsets.entries()) {
    copies.push(await readSuperblock(device, offset, copy));
  }
  return chooseSuperblock(copies, device.name, device.sizeBytes);
}

/** A copy that the device cannot read is one that cannot be used, no more. */
async function readSuperblock(
  device: BlockDevice,
  offset: number,
  copy: number,
): Promise<Superblock | SuperblockProblem> {
  const bytes = new Uint8Array(superblockBytes);
  try {
    await device.read(offset, bytes);
  } catch (error) {
    if (!(error instanceof DeviceError) || error.code !== "EIO") throw error;
    return { problem: "torn", message: `superblock ${copy} cannot be read (${error.message})` };
  }
  return decodeSuperblock(bytes, copy);
}

/** Throws `RefusedError` when `backing` is not the device that this cache was formatted for. */
export async function checkPair(
  superblock: Superblock,
  device: BlockDevice,
  backing: BlockDevice,
  acceptChanged: boolean,
): Promise<void> {
  const identity = await backing.identity();
  if (backing.sizeBytes !== superblock.backingBytes) {
    throw new RefusedError(
      `Cannot pair ${device.name} with ${backing.name}: the cache belongs to a device of ` +
        `${superblock.backingBytes} bytes (${formatSize(superblock.backingBytes)}), and this one has ` +
        `${backing.sizeBytes} (${formatSize(backing.sizeBytes)}); restore its size or name the right device`,
    );
  }
  if (acceptChanged) return;
  if (identity.kind !== superblock.backing.kind || identity.id !== superblock.backing.id) {
    throw new RefusedError(
      `Cannot pair ${device.name} with ${backing.name}: the cache belongs to ${
        describe(superblock.backing)
      }, and this ` +
        `is ${
          describe(identity)
        }; name the right device, or, if it is the same one moved, add --accept-changed-backing`,
    );
  }
  if (!superblock.clean) return;
  const change = await findChange(superblock, backing, identity);
  if (change) {
    throw new RefusedError(
      `Cannot pair ${device.name} with ${backing.name}: ${change} since the cache was closed, so something else wrote to ` +
        `it; serving on would mix old and new data. If that is meant, add --accept-changed-backing`,
    );
  }
}

function describe(identity: DeviceIdentity): string {
  return `the ${identity.kind === "block" ? "block device" : identity.kind} ${identity.id}`;
}

async function findChange(
  superblock: Superblock,
  backing: BlockDevice,
  identity: DeviceIdentity,
): Promise<string | undefined> {
  const stored = Math.floor(superblock.backing.modifiedMs);
  if (stored !== 0 && stored !== Math.floor(identity.modifiedMs)) {
    return `its modification time changed from ${new Date(stored).toISOString()} to ` +
      `${new Date(identity.modifiedMs).toISOString()}`;
  }
  for (const { block, crc } of superblock.samples) {
    const bytes = new Uint8Array(Math.min(blockBytes, backing.sizeBytes - block * blockBytes));
    if (bytes.length === 0) continue;
    await backing.read(block * blockBytes, bytes);
    if (crc32c(bytes) !== crc) return `the content of its block ${block} changed`;
  }
  return undefined;
}

/** Samples blocks of the backing that hold nothing dirty. The same cache samples other blocks at each close. */
export async function takeSamples(core: Core): Promise<Sample[]> {
  const { kernels, versions, backing } = core;
  const random = new SeededRandom(Math.floor(core.clock.wallMs()) >>> 0);
  const samples: Sample[] = [];
  for (let i = 0; i < sampleTriesMax && samples.length < samplesMax; i++) {
    const block = random.below(versions.backingBlocks);
    if (samples.some((sample) => sample.block === block)) continue;
    if (kernels.dirty.test(block) || kernels.zeroDirty.test(block) || versions.poison.mask(block) !== 0) {
      continue;
    }
    const bytes = new Uint8Array(blockLength(core, block));
    // Samples are worth no wait for each of them.
    if (backing.away?.() !== undefined) break;
    try {
      await backing.read(block * blockBytes, bytes);
    } catch {
      continue;
    }
    samples.push({ block, crc: crc32c(bytes) });
  }
  return samples;
}
