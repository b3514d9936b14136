/**
 * The checkpoint of a clean close: one bit a slot of the log, set where the version at that slot still has to be written
 * back (or, at a header's slot, where a range of that record is not settled). With it a restart does not write back again
 * what was written back. It counts only for the clean close that it names; without it everything is dirty, which is safe.
 *
 * @module
 */

import type { BlockDevice } from "../device/block_device.ts";
import { copiesOf } from "../device/copies.ts";
import { DeviceError } from "../errors.ts";
import { blockBytes } from "../units.ts";
import { crc32c } from "../wasm/crc32c.ts";
import { type Bytes, crcWithout, getU64, hasMagic, putMagic, putU64, viewOf } from "./codec.ts";
import type { Geometry } from "./geometry.ts";
import { checkpointField as field, checkpointMagic, checkpointOffset } from "./layout.ts";
import type { Superblock } from "./superblock.ts";

/** One bit a slot. */
export class SlotBits {
  readonly bytes: Bytes;
  constructor(bytes: Bytes) {
    this.bytes = bytes;
  }
  has(slot: number): boolean {
    return ((this.bytes[slot >>> 3]! >>> (slot & 7)) & 1) === 1;
  }
  add(slot: number): void {
    this.bytes[slot >>> 3]! |= 1 << (slot & 7);
  }
}

/** Empty bits for a log. */
export function emptySlotBits(geometry: Geometry): SlotBits {
  return new SlotBits(new Uint8Array(geometry.checkpointBytes - blockBytes));
}

/** Writes the checkpoint that belongs to `superblock`, a clean one; not synced. */
export async function writeCheckpoint(
  device: BlockDevice,
  superblock: Superblock,
  bits: SlotBits,
): Promise<void> {
  const header = new Uint8Array(blockBytes);
  const view = viewOf(header);
  putMagic(header, field.magic, checkpointMagic);
  header.set(superblock.uuid, field.uuid);
  view.setUint32(field.epoch, superblock.epoch.number, true);
  putU64(view, field.headSequence, superblock.head.sequence);
  putU64(view, field.headSlot, superblock.head.slot);
  putU64(view, field.slotCount, superblock.geometry.slotCount);
  view.setUint32(field.bitmapCrc, crc32c(bits.bytes), true);
  view.setUint32(field.crc, crc32c(header), true);
  await device.write(checkpointOffset + blockBytes, bits.bytes);
  await device.write(checkpointOffset, header);
}

/** Reads the checkpoint that `superblock` calls for; undefined with the reason when there is none that can be used. */
export async function readCheckpoint(
  device: BlockDevice,
  superblock: Superblock,
): Promise<Found> {
  if (!superblock.clean) return { bits: undefined, problem: undefined };
  let problem: string | undefined;
  for (const copy of copiesOf(device)) {
    const found = await readCopy(copy, superblock);
    if (found.bits !== undefined) return found;
    problem ??= found.problem;
  }
  return { bits: undefined, problem };
}

/** A checkpoint that can be used, or why there is none. */
interface Found {
  bits: SlotBits | undefined;
  problem: string | undefined;
}

async function readCopy(copy: Pick<BlockDevice, "read">, superblock: Superblock): Promise<Found> {
  try {
    return await decodeCopy(copy, superblock);
  } catch (error) {
    if (!(error instanceof DeviceError) || error.code !== "EIO") throw error;
    return {
      bits: undefined,
      problem: `the checkpoint of the clean close cannot be read (${error.message})`,
    };
  }
}

async function decodeCopy(copy: Pick<BlockDevice, "read">, superblock: Superblock): Promise<Found> {
  const header = new Uint8Array(blockBytes);
  await copy.read(checkpointOffset, header);
  const view = viewOf(header);
  const unusable = (why: string) => ({
    bits: undefined,
    problem: `the checkpoint of the clean close ${why}`,
  });
  if (!hasMagic(header, field.magic, checkpointMagic)) return unusable("is missing");
  if (crcWithout(header, field.crc) !== view.getUint32(field.crc, true)) {
    return unusable("has a damaged header");
  }
  const fits = superblock.uuid.every((byte, i) => header[field.uuid + i] === byte) &&
    view.getUint32(field.epoch, true) === superblock.epoch.number &&
    getU64(view, field.headSequence) === superblock.head.sequence &&
    getU64(view, field.headSlot) === superblock.head.slot &&
    getU64(view, field.slotCount) === superblock.geometry.slotCount;
  if (!fits) return unusable("belongs to another close");
  const bits = emptySlotBits(superblock.geometry);
  await copy.read(checkpointOffset + blockBytes, bits.bytes);
  if (crc32c(bits.bytes) !== view.getUint32(field.bitmapCrc, true)) {
    return unusable("does not match its checksum");
  }
  return { bits, problem: undefined };
}
