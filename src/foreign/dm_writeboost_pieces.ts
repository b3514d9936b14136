/**
 * Carries pieces of a dm-writeboost cache to where they belong: compares them with a backing device, writes them to it, or lays
 * them over a copy of it.
 *
 * Invariant: each block is verified once more, against the checksum of the scan, before any of it is compared or written.
 *
 * @module
 */

import type { BlockDevice } from "../device/block_device.ts";
import { createFailure } from "../device/create.ts";
import { DeviceError } from "../errors.ts";
import type { IoFile } from "../io/io.ts";
import { portableIo } from "../io/portable.ts";
import { blockBytes, mib, sectorBytes, sectorsPerBlock } from "../units.ts";
import { crc32c } from "../wasm/crc32c.ts";
import { slotOffset } from "./dm_writeboost_layout.ts";
import type { Piece } from "./dm_writeboost_plan.ts";

/** Called with what is done and what there is in all, in bytes. */
export type Progress = (done: number, total: number) => void;

/** Largest write to the backing device. */
const writeBytesMax = mib;
/** Writes under way at once: enough for the device to sort them. */
const writesInFlight = 8;

const byBlock = (a: Piece, b: Piece) => a.block - b.block;

/** Reads the data block of a piece. */
async function readPiece(cache: BlockDevice, { slot, entry }: Piece): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = new Uint8Array(blockBytes);
  const offset = slotOffset(slot) + (1 + entry.index) * blockBytes;
  await cache.read(offset, bytes);
  if (crc32c(bytes) !== entry.crc) {
    throw new DeviceError(
      "EIO",
      `Cannot use the block at byte ${offset} of ${cache.name}: it is not what it was a moment ago; the device is ` +
        `failing or in use; copy it to a good one and begin again`,
    );
  }
  return bytes;
}

/** Calls `part(first sector, end)` for each run of set bits. */
function eachRun(mask: number, part: (first: number, end: number) => void): void {
  for (let first = 0; first < sectorsPerBlock; first++) {
    if ((mask >> first & 1) === 0) continue;
    let end = first + 1;
    while (end < sectorsPerBlock && (mask >> end & 1) === 1) end++;
    part(first, end);
    first = end;
  }
}

/** The pieces with a mask of the sectors in which the backing device differs from them; others are left out. */
export async function differing(
  cache: BlockDevice,
  backing: BlockDevice,
  pieces: readonly Piece[],
  onProgress?: Progress,
): Promise<Piece[]> {
  const found: Piece[] = [];
  for (const [i, piece] of pieces.toSorted(byBlock).entries()) {
    const offset = piece.block * blockBytes;
    const there = new Uint8Array(Math.min(blockBytes, backing.sizeBytes - offset));
    await backing.read(offset, there);
    const here = await readPiece(cache, piece);
    let mask = 0;
    for (let at = 0; at < there.length; at += sectorBytes) {
      const bit = 1 << at / sectorBytes & piece.mask;
      if (bit === 0) continue;
      for (let j = at; j < at + sectorBytes; j++) {
        if (here[j] === there[j]) continue;
        mask |= bit;
        break;
      }
    }
    if (mask !== 0) found.push({ ...piece, mask });
    onProgress?.((i + 1) * blockBytes, pieces.length * blockBytes);
  }
  return found;
}

/** Writes all pieces to the backing device, in order, merged, and syncs it. */
export async function writePieces(
  cache: BlockDevice,
  backing: BlockDevice,
  pieces: readonly Piece[],
  onProgress?: Progress,
): Promise<void> {
  const writer = new MergingWriter(backing);
  for (const [i, piece] of pieces.toSorted(byBlock).entries()) {
    const bytes = await readPiece(cache, piece);
    const runs: [number, number][] = [];
    eachRun(piece.mask, (first, end) => runs.push([first, end]));
    for (const [first, end] of runs) {
      const offset = piece.block * blockBytes + first * sectorBytes;
      await writer.put(offset, bytes.subarray(first * sectorBytes, end * sectorBytes));
    }
    onProgress?.((i + 1) * blockBytes, pieces.length * blockBytes);
  }
  await writer.finish();
  await backing.sync();
}

/** Merges what follows each other into large writes. */
class MergingWriter {
  readonly #device: BlockDevice;
  readonly #underWay = new Set<Promise<void>>();
  #buffer = new Uint8Array(writeBytesMax);
  #offset = 0;
  #length = 0;
  #failure: unknown;

  constructor(device: BlockDevice) {
    this.#device = device;
  }

  async put(offset: number, bytes: Uint8Array): Promise<void> {
    if (offset !== this.#offset + this.#length || this.#length + bytes.length > writeBytesMax) {
      await this.#start();
      this.#offset = offset;
    }
    this.#buffer.set(bytes, this.#length);
    this.#length += bytes.length;
  }

  async #start(): Promise<void> {
    if (this.#length > 0) {
      const write = this.#device.write(this.#offset, this.#buffer.subarray(0, this.#length)).catch(
        (error) => {
          this.#failure ??= error;
        },
      ).finally(() => this.#underWay.delete(write));
      this.#underWay.add(write);
      this.#buffer = new Uint8Array(writeBytesMax);
      this.#length = 0;
    }
    if (this.#underWay.size >= writesInFlight) await Promise.race(this.#underWay);
    if (this.#failure !== undefined) throw this.#failure;
  }

  async finish(): Promise<void> {
    try {
      await this.#start();
    } finally {
      await Promise.all(this.#underWay);
    }
    if (this.#failure !== undefined) throw this.#failure;
  }
}

/** Writes the backing device's content with the pieces laid over it to the new file `output`, durably. */
export async function copyWithPieces(
  cache: BlockDevice,
  backing: BlockDevice,
  pieces: readonly Piece[],
  output: string,
  onProgress?: Progress,
): Promise<void> {
  let copy: IoFile | undefined;
  try {
    copy = await portableIo.openFile(output, { write: true, create: true }).catch((cause) => {
      throw createFailure(output, cause);
    });
    await layOver(cache, backing, pieces.toSorted(byBlock), copy, onProgress);
    await copy.sync();
  } catch (error) {
    // A copy that is not whole must not be taken for one; what was there before is not ours.
    if (copy) await portableIo.remove(output).catch(() => {});
    throw error;
  } finally {
    await copy?.close();
  }
  await portableIo.syncName(output);
}

async function layOver(
  cache: BlockDevice,
  backing: BlockDevice,
  pieces: readonly Piece[],
  copy: IoFile,
  onProgress?: Progress,
): Promise<void> {
  const total = backing.sizeBytes;
  let next = 0;
  for (let offset = 0; offset < total; offset += writeBytesMax) {
    const bytes = new Uint8Array(Math.min(writeBytesMax, total - offset));
    await backing.read(offset, bytes);
    for (; next < pieces.length && pieces[next]!.block * blockBytes < offset + bytes.length; next++) {
      const piece = pieces[next]!;
      const data = await readPiece(cache, piece);
      const at = piece.block * blockBytes - offset;
      eachRun(
        piece.mask,
        (first, end) =>
          bytes.set(data.subarray(first * sectorBytes, end * sectorBytes), at + first * sectorBytes),
      );
    }
    // All-zero parts stay holes; the last one gives the file its size.
    if (offset + bytes.length === total || bytes.some((byte) => byte !== 0)) {
      for (let done = 0; done < bytes.length;) done += await copy.write(offset + done, bytes.subarray(done));
    }
    onProgress?.(offset + bytes.length, total);
  }
}
