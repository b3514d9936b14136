/**
 * A model of dm-writeboost: its published format and replay rule, no more than the facts that stand in
 * `src/foreign/dm_writeboost_layout.ts` and in docs/durability.md. What the engine of this project is measured against.
 *
 * The rules, as the module was seen to follow them:
 * - A wrong magic is formatted. The largest id of all slots counts, unchecked. All slots are applied in order, from the one
 *   behind it: id 0 is skipped, and the first wrong checksum ends it, with that segment and all behind it dropped.
 * - What is read from a segment later, for a client or for write-back, is not verified.
 * - Nothing tells whether the backing device is the right one.
 * - A failed sync of the backing device is not looked at.
 * - Segment n goes into the slot of segment n minus the number of slots, once that has been written back.
 *
 * Scaled down: a segment takes few blocks, so that a log laps soon. Kinder than the module: a flush leaves no empty segment
 * behind, and two versions of a block are merged in the log.
 *
 * @module
 */

import type { BlockDevice } from "../../src/device/block_device.ts";
import {
  lastWritebackOffset,
  lengthMax,
  magic,
  type Metablock,
  readHeader,
  readMetablock,
  segmentBytes,
  segmentField,
  slotCountOf,
  slotOf,
  slotOffset,
} from "../../src/foreign/dm_writeboost_layout.ts";
import { blockBytes, fullMask, sectorBytes, sectorsPerBlock } from "../../src/units.ts";
import { crc32c } from "../../src/wasm/crc32c.ts";
import { encodeSegment } from "./writeboost_format.ts";

/** Data blocks of a segment, instead of 127. */
const segmentBlocks = 7;

/** What the module does instead of working. */
export class KernelOops extends Error {}

interface Cached {
  id: number;
  slot: number;
  /** Not sealed yet: its data is in RAM. */
  segment?: OpenSegment;
  index: number;
  mask: number;
}

interface OpenSegment {
  id: number;
  metablocks: Metablock[];
  data: Uint8Array<ArrayBuffer>[];
}

/** A cache as the module would run it. */
export class WriteboostModel {
  readonly #cache: BlockDevice;
  readonly #backing: BlockDevice;
  readonly #slotCount: number;
  readonly #index = new Map<number, Cached>();
  #open: OpenSegment = { id: 1, metablocks: [], data: [] };
  /** All segments up to this one are written back. */
  #writtenBack = 0;
  /** Segment writes under way. */
  readonly #underWay = new Set<Promise<void>>();

  private constructor(cache: BlockDevice, backing: BlockDevice) {
    this.#cache = cache;
    this.#backing = backing;
    this.#slotCount = slotCountOf(cache.sizeBytes);
  }

  /** As the module does when it is given a device for the first time. */
  static async format(cache: BlockDevice): Promise<void> {
    for (let slot = 0; slot < slotCountOf(cache.sizeBytes); slot++) {
      await cache.write(slotOffset(slot), new Uint8Array(blockBytes));
    }
    const first = new Uint8Array(sectorBytes);
    new DataView(first.buffer).setUint32(0, magic, true);
    await cache.write(0, first);
    await cache.sync();
  }

  /** As the module does when the target is created: replays, or formats. */
  static async resume(cache: BlockDevice, backing: BlockDevice): Promise<WriteboostModel> {
    const first = new Uint8Array(sectorBytes);
    await cache.read(0, first);
    if (new DataView(first.buffer).getUint32(0, true) !== magic) await WriteboostModel.format(cache);
    const model = new WriteboostModel(cache, backing);
    await model.#replay();
    return model;
  }

  async #replay(): Promise<void> {
    const count = this.#slotCount;
    let newest = 0;
    for (let slot = 0; slot < count; slot++) {
      newest = Math.max(newest, readHeader(await this.#readCache(slotOffset(slot), blockBytes)).id);
    }
    let last = 0;
    const versions: { block: number; found: Cached }[] = [];
    for (let i = 0; newest > 0 && i < count; i++) {
      const slot = (newest + i) % count;
      const header = await this.#readCache(slotOffset(slot), blockBytes);
      const { id, checksum, length } = readHeader(header);
      if (id === 0) continue;
      if (length > lengthMax) throw new KernelOops(`a segment of ${length} blocks`);
      const bytes = await this.#readCache(slotOffset(slot), segmentBytes(length));
      if (crc32c(bytes.subarray(segmentField.metablocks)) !== checksum) break;
      for (let index = 0; index < length; index++) {
        const found = readMetablock(header, index)!;
        versions.push({ block: found.block, found: { id, slot, index, mask: found.dirtyBits } });
      }
      last = id;
    }
    const recorded = new DataView((await this.#readCache(lastWritebackOffset, sectorBytes)).buffer);
    this.#writtenBack = Math.max(0, last - count, recorded.getUint32(0, true));
    this.#open = { id: last + 1, metablocks: [], data: [] };
    for (const { block, found } of versions) await this.#apply(block, found);
  }

  async #apply(block: number, found: Cached): Promise<void> {
    const older = this.#index.get(block);
    if (older && found.mask !== fullMask && this.#isDirty(older)) await this.#writeBack(block, older);
    this.#index.set(block, found);
  }

  #isDirty({ id, mask }: Cached): boolean {
    return mask !== 0 && id > this.#writtenBack;
  }

  async #readCache(offset: number, length: number): Promise<Uint8Array<ArrayBuffer>> {
    const bytes = new Uint8Array(length);
    await this.#cache.read(offset, bytes);
    return bytes;
  }

  /** The data of a version. Nothing is verified. */
  async #dataOf({ segment, slot, index }: Cached): Promise<Uint8Array<ArrayBuffer>> {
    if (segment === this.#open) return this.#open.data[index]!;
    // What is being written is still in RAM in the module; waiting for it is the same.
    await Promise.all(this.#underWay);
    return await this.#readCache(slotOffset(slot) + (1 + index) * blockBytes, blockBytes);
  }

  async #writeBack(block: number, version: Cached): Promise<void> {
    const data = await this.#dataOf(version);
    for (let sector = 0; sector < sectorsPerBlock; sector++) {
      const offset = block * blockBytes + sector * sectorBytes;
      if ((version.mask >> sector & 1) === 0 || offset >= this.#backing.sizeBytes) continue;
      await this.#backing.write(offset, data.slice(sector * sectorBytes, (sector + 1) * sectorBytes));
    }
  }

  /** Writes back all segments up to `id`. */
  async writeBackUpTo(id: number): Promise<void> {
    if (id <= this.#writtenBack) return;
    for (const [block, version] of this.#index) {
      if (version.id <= id && this.#isDirty(version)) await this.#writeBack(block, version);
    }
    await this.#backing.sync().catch(() => {});
    this.#writtenBack = id;
  }

  /** Everything that a clean shut-down would leave dirty, written back. */
  async drain(): Promise<void> {
    await this.flush();
    await this.writeBackUpTo(this.#open.id - 1);
  }

  /** Writes sectors of one block. */
  async write(offset: number, bytes: Uint8Array): Promise<void> {
    const block = Math.floor(offset / blockBytes);
    const from = offset / sectorBytes % sectorsPerBlock;
    let mask = 0;
    for (let i = 0; i < bytes.length / sectorBytes; i++) mask |= 1 << (from + i);
    const found = this.#index.get(block);
    const data = new Uint8Array(blockBytes);
    let index = this.#open.metablocks.findIndex((metablock) => metablock.block === block);
    if (index < 0) {
      if (found && this.#isDirty(found)) {
        const old = await this.#dataOf(found);
        for (let sector = 0; sector < sectorsPerBlock; sector++) {
          if ((found.mask >> sector & 1) === 0) continue;
          data.set(old.subarray(sector * sectorBytes, (sector + 1) * sectorBytes), sector * sectorBytes);
        }
        mask |= found.mask;
      }
      if (this.#open.metablocks.length === segmentBlocks) await this.#seal();
      index = this.#open.metablocks.length;
      this.#open.metablocks.push({ block, dirtyBits: mask });
      this.#open.data.push(data);
    }
    const metablock = this.#open.metablocks[index]!;
    metablock.dirtyBits |= mask;
    this.#open.data[index]!.set(bytes, from * sectorBytes);
    const { id } = this.#open;
    const slot = slotOf(id, this.#slotCount);
    this.#index.set(block, { id, slot, segment: this.#open, index, mask: metablock.dirtyBits });
  }

  /** Starts the write of the open segment, and opens the next. */
  async #seal(): Promise<void> {
    const { id, metablocks, data } = this.#open;
    const recycled = id - this.#slotCount;
    await this.writeBackUpTo(recycled);
    for (const [block, version] of this.#index) if (version.id <= recycled) this.#index.delete(block);
    const done = this.#cache.write(
      slotOffset(slotOf(id, this.#slotCount)),
      encodeSegment(id, metablocks, data),
    );
    const settled = done.finally(() => this.#underWay.delete(settled));
    this.#underWay.add(settled);
    this.#open = { id: id + 1, metablocks: [], data: [] };
  }

  async flush(): Promise<void> {
    if (this.#open.metablocks.length > 0) await this.#seal();
    await Promise.all(this.#underWay);
    await this.#cache.sync();
  }

  /** Reads sectors of one block: the backing, overlaid with what the cache holds. */
  async read(offset: number, into: Uint8Array<ArrayBuffer>): Promise<void> {
    await this.#backing.read(offset, into);
    const version = this.#index.get(Math.floor(offset / blockBytes));
    if (!version) return;
    const data = await this.#dataOf(version);
    const mask = version.mask === 0 ? fullMask : version.mask;
    for (let at = 0; at < into.length; at += sectorBytes) {
      const start = (offset + at) % blockBytes;
      if (mask >> (start / sectorBytes) & 1) into.set(data.subarray(start, start + sectorBytes), at);
    }
  }
}
