/**
 * Reads headers out of the log, segment by segment, with several segments under way at once.
 *
 * Invariant: everything handed out has been decoded by `codec.ts`, so its checksum, uuid and own address are right.
 * Whether it belongs to the present is for the walk to say.
 *
 * @module
 */

import type { BlockDevice } from "../device/block_device.ts";
import { copiesOf } from "../device/copies.ts";
import { DeviceError } from "../errors.ts";
import { blockBytes, mib } from "../units.ts";
import { type Bytes, decodeRecord, hasMagic, type RecordHeader } from "./codec.ts";
import type { Geometry } from "./geometry.ts";
import { halfBytes, recordMagic } from "./layout.ts";
import { unsyncedBlocksMax } from "./writer.ts";

/** Segments whose headers are read at the same time. */
const segmentsInFlight = 16;
/** Bytes of one read while every block is looked at. */
const scanBytes = mib;

/** Access to a log's headers. */
export class LogReader {
  readonly device: BlockDevice;
  readonly geometry: Geometry;
  readonly uuid: Uint8Array;
  /** Most blocks that the writer ever left un-synced: how far past a bad record the walk must look. */
  readonly unsyncedBlocks: number;
  readonly #ahead = new Map<number, Promise<RecordHeader[]>>();

  constructor(device: BlockDevice, geometry: Geometry, uuid: Uint8Array, unsyncedBlocks = unsyncedBlocksMax) {
    this.unsyncedBlocks = unsyncedBlocks;
    this.device = device;
    this.geometry = geometry;
    this.uuid = uuid;
  }

  /** Slots that the device could not read, with its error. They count as holding no header. */
  readonly unreadable: Map<number, unknown> = new Map();
  /** Whether such a place may be taken for a torn end, though it might hold what was flushed: a loss that was accepted. */
  acceptUnreadable = false;

  /** Copies of the log that may differ where one is damaged, or where a crash cut them off. */
  get copyCount(): number {
    return copiesOf(this.device).length;
  }

  /**
   * As {@linkcode blocks}, but what cannot be read is zeroes and noted: one bad place must cost only itself. `copy`: which one
   * is asked first, where the device has several.
   */
  async readable(slot: number, count: number, copy = 0): Promise<Bytes> {
    try {
      if (copy === 0 || copy >= this.copyCount) return await this.blocks(slot, count);
      return await this.#blocksOf(copy, slot, count).catch(() => this.blocks(slot, count));
    } catch (error) {
      if (!(error instanceof DeviceError) || error.code !== "EIO") throw error;
      if (count === 1) {
        this.unreadable.set(slot, error);
        return new Uint8Array(blockBytes);
      }
    }
    const bytes = new Uint8Array(count * blockBytes);
    for (let i = 0; i < count; i++) bytes.set(await this.readable(slot + i, 1), i * blockBytes);
    return bytes;
  }

  /**
   * Throws when a place in [slot, slot + count), which may wrap, could not be read and that was not accepted: what stands
   * there might be flushed data, so it is no reason to call anything torn.
   */
  refuseUnreadable(slot: number, count: number): void {
    if (this.acceptUnreadable) return;
    const { slotCount, logOffset } = this.geometry;
    for (const [bad, cause] of this.unreadable) {
      if ((bad - slot + slotCount) % slotCount >= count) continue;
      throw new DeviceError(
        "EIO",
        `Cannot tell where the log of ${this.device.name} ends: its block at byte ${
          logOffset + bad * blockBytes
        } cannot be ` +
          `read and might hold flushed data; try again, or copy the device to a good one. To go on with older data in its ` +
          `place, add --accept-unreadable (recover: --accept-loss)`,
        { cause },
      );
    }
  }

  /** Reads `count` blocks from `slot` on; they must not wrap. */
  async blocks(slot: number, count: number): Promise<Bytes> {
    const bytes = new Uint8Array(count * blockBytes);
    await this.device.read(this.geometry.logOffset + slot * blockBytes, bytes);
    return bytes;
  }

  async #blocksOf(copy: number, slot: number, count: number): Promise<Bytes> {
    const bytes = new Uint8Array(count * blockBytes);
    await copiesOf(this.device)[copy]!.read(this.geometry.logOffset + slot * blockBytes, bytes);
    return bytes;
  }

  /**
   * The headers that follow each other in `segment` from `offset` on, up to the first block that should be a header and
   * is none. Reads of the segments after it are started. `copy`: see {@linkcode readable}.
   */
  async headers(segment: number, offset: number, copy = 0): Promise<RecordHeader[]> {
    if (copy > 0 && copy < this.copyCount) return await this.#readHeaders(segment, offset, copy);
    const { segmentCount } = this.geometry;
    const wanted = offset === 0 ? this.#ahead.get(segment) : undefined;
    this.#ahead.delete(segment);
    for (let i = 1; i < Math.min(segmentsInFlight, segmentCount); i++) {
      const next = (segment + i) % segmentCount;
      if (this.#ahead.has(next)) continue;
      const promise = this.#readHeaders(next, 0);
      promise.catch(() => {});
      this.#ahead.set(next, promise);
    }
    return await (wanted ?? this.#readHeaders(segment, offset));
  }

  /** Forgets what was read ahead, waiting for it; the walk has ended. */
  async settle(): Promise<void> {
    await Promise.allSettled(this.#ahead.values());
    this.#ahead.clear();
  }

  async #readHeaders(segment: number, offset: number, copy = 0): Promise<RecordHeader[]> {
    const { segmentBlocks } = this.geometry;
    const first = segment * segmentBlocks;
    const headers: RecordHeader[] = [];
    if (segmentBlocks - offset < 2) return headers;
    const header = decodeRecord(await this.readable(first + offset, 1, copy), first + offset, this.uuid);
    if (!header) return headers;
    headers.push(header);
    offset += 1 + header.dataCount;
    if (segmentBlocks - offset < 2) return headers;
    // The rest of the segment in one read: small records come in crowds.
    const rest = await this.readable(first + offset, segmentBlocks - offset, copy);
    const base = offset;
    while (segmentBlocks - offset >= 2) {
      const at = (offset - base) * blockBytes;
      // A header keeps its block, so only what looks like one is copied.
      if (!hasMagic(rest, at, recordMagic)) break;
      const next = decodeRecord(rest.slice(at, at + blockBytes), first + offset, this.uuid);
      if (!next) break;
      headers.push(next);
      offset += 1 + next.dataCount;
    }
    return headers;
  }

  /** Looks at every block of [slot, slot + count), which may wrap, in all copies, and yields what decodes as a header. */
  async *scan(slot: number, count: number): AsyncGenerator<RecordHeader, void, void> {
    const { slotCount } = this.geometry;
    for (let done = 0; done < count;) {
      const from = (slot + done) % slotCount;
      const length = Math.min(scanBytes / blockBytes, count - done, slotCount - from);
      const bytes = await this.readable(from, length);
      yield* this.#headersIn(bytes, from);
      for (let copy = 1; copy < this.copyCount; copy++) {
        yield* this.#headersIn(await this.readable(from, length, copy), from, bytes);
      }
      done += length;
    }
  }

  /** What decodes as a header in `bytes`, which begin at `slot`, and is not the same in `known`. */
  *#headersIn(bytes: Bytes, slot: number, known?: Bytes): Generator<RecordHeader, void, void> {
    for (let at = 0; at < bytes.length; at += blockBytes) {
      if (!hasMagic(bytes, at, recordMagic)) continue;
      if (known !== undefined && isSame(bytes, known, at, at + halfBytes)) continue;
      const header = decodeRecord(bytes.slice(at, at + blockBytes), slot + at / blockBytes, this.uuid);
      if (header) yield header;
    }
  }
}

function isSame(a: Bytes, b: Bytes, from: number, to: number): boolean {
  for (let i = from; i < to; i++) if (a[i] !== b[i]) return false;
  return true;
}
