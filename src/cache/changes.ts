/**
 * Which blocks changed after a sequence: what the records behind it touched, whatever they did.
 *
 * Invariant: a block that is not in the set did not change between the sequence and what was asked for last.
 *
 * @module
 */

import { DeviceError } from "../errors.ts";
import { eachEntry } from "../log/codec.ts";
import { entryKind } from "../log/layout.ts";
import { LogReader } from "../log/reader.ts";
import { walkLog } from "../log/recovery.ts";
import type { LogPosition, Superblock } from "../log/superblock.ts";
import { blockBytes } from "../units.ts";
import { BlockSet } from "./block_set.ts";
import type { Core } from "./core.ts";
import type { MarkedExtent } from "./volume.ts";

/** Blocks of one run, so that no client can keep the engine busy. */
const runBlocksMax = 262_144;

/** The blocks that changed after a sequence. */
export class Changes {
  readonly sequence: number;
  readonly #core: Core;
  readonly #blocks: BlockSet;
  readonly #blockCount: number;
  /** The record that is looked at next; undefined before the first look. */
  #position: LogPosition | undefined;
  #line: Promise<void> = Promise.resolve();

  constructor(core: Core, sequence: number) {
    this.sequence = sequence;
    this.#core = core;
    this.#blockCount = core.versions.backingBlocks;
    this.#blocks = new BlockSet(this.#blockCount);
  }

  /** The changes between two records. */
  static async of(core: Core, superblock: Superblock, sequence: number, until: number): Promise<Changes> {
    const changes = new Changes(core, sequence);
    await changes.extend(superblock, until);
    return changes;
  }

  /**
   * Looks at the log up to the record `until`, which is durable. `superblock` says where the log begins.
   *
   * @throws {DeviceError} when the log does not tell what changed any more
   */
  extend(superblock: Superblock, until: number): Promise<void> {
    const done = this.#line.then(() => this.#extend(superblock, until));
    this.#line = done.catch(() => {});
    return done;
  }

  async #extend(superblock: Superblock, until: number): Promise<void> {
    const { device, geometry, history } = this.#core;
    const start = this.#position ?? superblock.tail;
    if (start.sequence > until) return;
    const from = this.#position?.sequence ?? this.sequence + 1;
    const reader = new LogReader(device, geometry, superblock.uuid);
    const walk = await walkLog(reader, { ...superblock, tail: start }, {
      placed() {},
      lost() {},
      loseAll() {},
      apply: (entries, _slot, sequence) => {
        if (sequence < from) return;
        for (const { kind, block, count } of eachEntry(entries)) {
          if (kind === entryKind.clean) continue;
          this.#blocks.addRange(block, Math.min(block + count, this.#blockCount));
        }
      },
    }, until);
    const isWhole = from >= start.sequence && walk.gaps.length === 0 && walk.head.sequence === until + 1;
    if (!isWhole || this.sequence < history.unlogged) {
      throw new DeviceError(
        "EIO",
        `Cannot tell what changed after sequence ${this.sequence} of ${device.name}: the log does not hold all of it any ` +
          `more; copy everything instead`,
      );
    }
    this.#position = walk.head;
  }

  /** Runs from byte `offset` on that changed, or did not. They may cover less than `length`. */
  runs(offset: number, length: number, limit: number): MarkedExtent[] {
    const end = offset + length;
    const extents: MarkedExtent[] = [];
    for (let position = offset; position < end && extents.length < limit;) {
      const block = Math.floor(position / blockBytes);
      const last = Math.min(Math.ceil(end / blockBytes), block + runBlocksMax);
      const marked = this.#blocks.has(block);
      const found = marked ? this.#blocks.nextAbsent(block, last) : this.#blocks.next(block, last);
      const to = Math.min((found < 0 ? last : found) * blockBytes, end);
      const before = extents.at(-1);
      if (before?.marked === marked) before.length += to - position;
      else extents.push({ length: to - position, marked });
      position = to;
      if (last === block + runBlocksMax) break;
    }
    return extents;
  }
}
