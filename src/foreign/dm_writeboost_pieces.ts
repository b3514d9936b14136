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
import { type EntryTable, type Piece, PieceList } from "./dm_writeboost_entries.ts";
import { slotOffset } from "./dm_writeboost_layout.ts";

/** Called with what is done and what there is in all, in bytes. */
export type Progress = (done: number, total: number) => void;

/** Largest write to the backing device. */
const writeBytesMax = mib;
/** Writes under way at once: enough for the device to sort them. */
const writesInFlight = 8;

/** Pieces whose blocks are read ahead of their turn. */
const piecesAhead = 32;

/** A cache device that was scanned. */
export interface ScannedCache {
  device: BlockDevice;
  table: EntryTable;
}

/** Reads the data block of a piece. */
async function readPiece(
  { device: cache, table }: ScannedCache,
  piece: Piece,
): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = new Uint8Array(blockBytes);
  const offset = slotOffset(piece.slot) + (1 + table.index(piece.entry)) * blockBytes;
  await cache.read(offset, bytes);
  if (crc32c(bytes) !== table.crc(piece.entry)) {
    throw new DeviceError(
      "EIO",
      `Cannot use the block at byte ${offset} of ${cache.name}: it is not what it was a moment ago; the device is ` +
        `failing or in use; copy it to a good one and begin again`,
    );
  }
  return bytes;
}

/** What `load` makes of each piece, by ascending block, some of them at work ahead of their turn. */
async function* inOrder<T>(
  pieces: PieceList,
  load: (piece: Piece) => Promise<T>,
): AsyncGenerator<{ piece: Piece; loaded: T }> {
  const order = pieces.order();
  const underWay: { piece: Piece; loading: Promise<T> }[] = [];
  let next = 0;
  try {
    for (;;) {
      while (next < order.length && underWay.length < piecesAhead) {
        const piece = pieces.at(order[next++]!);
        const loading = load(piece);
        // Heard of when its turn comes, if it comes.
        loading.catch(() => {});
        underWay.push({ piece, loading });
      }
      const first = underWay.shift();
      if (first === undefined) return;
      yield { piece: first.piece, loaded: await first.loading };
    }
  } finally {
    // Nothing is under way any more when this ends, and nobody else hears of their failures.
    await Promise.allSettled(underWay.map(({ loading }) => loading));
  }
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
  cache: ScannedCache,
  backing: BlockDevice,
  pieces: PieceList,
  onProgress?: Progress,
): Promise<PieceList> {
  const found = new PieceList();
  let done = 0;
  const load = async (piece: Piece) => {
    const offset = piece.block * blockBytes;
    const there = new Uint8Array(Math.min(blockBytes, backing.sizeBytes - offset));
    const [here] = await Promise.all([readPiece(cache, piece), backing.read(offset, there)]);
    return differingSectors(here, there, piece.mask);
  };
  for await (const { piece, loaded: mask } of inOrder(pieces, load)) {
    if (mask !== 0) found.add({ ...piece, mask });
    onProgress?.(++done * blockBytes, pieces.count * blockBytes);
  }
  return found;
}

/** The sectors of `mask` in which the two differ, as far as `there` goes. */
function differingSectors(here: Uint8Array, there: Uint8Array, mask: number): number {
  let differing = 0;
  for (let at = 0; at < there.length; at += sectorBytes) {
    const bit = 1 << at / sectorBytes & mask;
    if (bit === 0) continue;
    for (let j = at; j < at + sectorBytes; j++) {
      if (here[j] === there[j]) continue;
      differing |= bit;
      break;
    }
  }
  return differing;
}

/** Writes all pieces to the backing device, in order, merged, and syncs it. */
export async function writePieces(
  cache: ScannedCache,
  backing: BlockDevice,
  pieces: PieceList,
  onProgress?: Progress,
): Promise<void> {
  const writer = new MergingWriter(backing);
  let done = 0;
  for await (const { piece, loaded: bytes } of inOrder(pieces, (piece) => readPiece(cache, piece))) {
    const runs: [number, number][] = [];
    eachRun(piece.mask, (first, end) => runs.push([first, end]));
    for (const [first, end] of runs) {
      const offset = piece.block * blockBytes + first * sectorBytes;
      await writer.put(offset, bytes.subarray(first * sectorBytes, end * sectorBytes));
    }
    onProgress?.(++done * blockBytes, pieces.count * blockBytes);
  }
  await writer.finish();
  await backing.sync();
}

/** Merges what follows each other into large writes. */
class MergingWriter {
  readonly #device: BlockDevice;
  readonly #underWay = new Set<Promise<void>>();
  /** Buffers that no write uses: a new one for each would cost more than the writes. */
  readonly #spare: Uint8Array<ArrayBuffer>[] = [];
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
      const write = this.#write(this.#offset, this.#buffer, this.#length)
        .finally(() => this.#underWay.delete(write));
      this.#underWay.add(write);
      this.#buffer = this.#spare.pop() ?? new Uint8Array(writeBytesMax);
      this.#length = 0;
    }
    if (this.#underWay.size >= writesInFlight) await Promise.race(this.#underWay);
    if (this.#failure !== undefined) throw this.#failure;
  }

  async #write(offset: number, buffer: Uint8Array<ArrayBuffer>, length: number): Promise<void> {
    try {
      await this.#device.write(offset, buffer.subarray(0, length));
    } catch (error) {
      this.#failure ??= error;
    }
    this.#spare.push(buffer);
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
  cache: ScannedCache,
  backing: BlockDevice,
  pieces: PieceList,
  output: string,
  onProgress?: Progress,
): Promise<void> {
  let copy: IoFile | undefined;
  try {
    copy = await portableIo.openFile(output, { write: true, create: true }).catch((cause) => {
      throw createFailure(output, cause);
    });
    await layOver(cache, backing, pieces, copy, onProgress);
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
  cache: ScannedCache,
  backing: BlockDevice,
  pieces: PieceList,
  copy: IoFile,
  onProgress?: Progress,
): Promise<void> {
  const total = backing.sizeBytes;
  const loaded = inOrder(pieces, (piece) => readPiece(cache, piece));
  try {
    let next = await loaded.next();
    for (let offset = 0; offset < total; offset += writeBytesMax) {
      const bytes = new Uint8Array(Math.min(writeBytesMax, total - offset));
      await backing.read(offset, bytes);
      for (; !next.done; next = await loaded.next()) {
        const { piece, loaded: data } = next.value;
        const at = piece.block * blockBytes - offset;
        if (at >= bytes.length) break;
        eachRun(
          piece.mask,
          (first, end) =>
            bytes.set(data.subarray(first * sectorBytes, end * sectorBytes), at + first * sectorBytes),
        );
      }
      // All-zero parts stay holes; the last one gives the file its size.
      if (offset + bytes.length === total || bytes.some((byte) => byte !== 0)) {
        for (let done = 0; done < bytes.length;) {
          done += await copy.write(offset + done, bytes.subarray(done));
        }
      }
      onProgress?.(offset + bytes.length, total);
    }
  } finally {
    await loaded.return(undefined);
  }
}
