/**
 * Writes the superblock pair of an open cache.
 *
 * Invariants (log-rules.md 4): writes are one after the other; both copies are written, each synced before the other is
 * touched; once that succeeded, and only then, both durable copies name the given tail. A failure fails the log.
 *
 * @module
 */

import type { BlockDevice } from "../device/block_device.ts";
import { blockBytes } from "../units.ts";
import { crc32c } from "../wasm/crc32c.ts";
import {
  type Bytes,
  decodePrevious,
  decodeRecord,
  encodePrevious,
  type PreviousRecord,
  type RecordHeader,
  viewOf,
} from "./codec.ts";
import {
  entryBytes,
  halfBytes,
  previousField,
  recordEntriesMax,
  recordField,
  superblockCopySlot,
  superblockOffsets,
} from "./layout.ts";
import { encodeSuperblock, type Superblock } from "./superblock.ts";

/** The part of the writer that a superblock needs. */
export interface DurableLog {
  readonly durableSequence: number;
  readonly durableSlot: number;
  readonly failure: unknown;
  syncDevice(): Promise<void>;
  fail(error: unknown): void;
}

/** The superblocks of an open cache. */
export class SuperblockStore {
  readonly #device: BlockDevice;
  readonly #log: DurableLog;
  #current: Superblock;
  /** The copy that was written last; the other one is next. */
  #copy: number;
  #line: Promise<void> = Promise.resolve();
  /** Copies written. */
  writes = 0;

  constructor(device: BlockDevice, log: DurableLog, current: Superblock, copy: number) {
    this.#device = device;
    this.#log = log;
    this.#current = current;
    this.#copy = copy;
  }

  /** What was written last, or is being written. */
  get current(): Superblock {
    return this.#current;
  }

  /** Writes both copies with `changes` applied, each synced. */
  write(changes: Partial<Superblock>): Promise<void> {
    const done = this.#line.then(() => this.#writeBoth(changes));
    this.#line = done.catch(() => {});
    return done;
  }

  /**
   * Writes the durable mark, and nothing else that is new, un-synced, into the copy that the next {@linkcode write} begins
   * with. Whether it lands or not, the other copy is whole and names the same tail; if it does, less is undecidable after
   * a crash.
   */
  writeMark(): Promise<void> {
    const done = this.#line.then(async () => {
      const durableMark = this.#log.durableSequence;
      if (durableMark <= this.#current.durableMark || this.#log.failure) return;
      const previous = await this.#previous(durableMark);
      if (this.#log.failure) return;
      this.#current = { ...this.#current, durableMark, previous, generation: this.#current.generation + 1 };
      await this.#put(1 - this.#copy);
    });
    this.#line = done.catch(() => {});
    return done;
  }

  /** Resolves when nothing is under way. */
  settle(): Promise<void> {
    return this.#line;
  }

  async #put(copy: number): Promise<void> {
    this.writes++;
    try {
      await this.#device.write(superblockOffsets[copy]!, encodeSuperblock(this.#current, copy));
    } catch (error) {
      this.#log.fail(error);
      throw error;
    }
  }

  async #writeBoth(changes: Partial<Superblock>): Promise<void> {
    // After a failure the device alone knows what is true; nothing may say otherwise.
    if (this.#log.failure) throw this.#log.failure;
    const durableMark = this.#log.durableSequence;
    const previous = await this.#previous(durableMark);
    if (this.#log.failure) throw this.#log.failure;
    for (let i = 0; i < 2; i++) {
      this.#copy = 1 - this.#copy;
      this.#current = {
        ...this.#current,
        ...changes,
        durableMark,
        previous,
        generation: this.#current.generation + 1,
      };
      await this.#put(this.#copy);
      await this.#log.syncDevice();
    }
  }

  /** A copy of the entry list of the record at the mark: after it, no later header may exist that repeats it. */
  async #previous(mark: number): Promise<PreviousRecord | undefined> {
    const slot = this.#log.durableSlot;
    if (slot < 0) return undefined;
    const { geometry, uuid, previous } = this.#current;
    // If the record itself rots, or has rotten, this copy is all that is left of it.
    const known = previous?.sequence === mark ? previous : undefined;
    const bytes: Bytes = new Uint8Array(blockBytes);
    try {
      await this.#device.read(geometry.logOffset + slot * blockBytes, bytes);
    } catch {
      return known;
    }
    const header = decodeRecord(bytes, slot, uuid);
    return header && header.sequence === mark ? repeatRecord(header) : known;
  }
}

/** Makes the copy that a superblock keeps of a record's entry list. */
export function repeatRecord(header: RecordHeader): PreviousRecord {
  const block = new Uint8Array(blockBytes);
  const view = viewOf(block);
  const repeated = { ...header, epoch: header.epoch.number };
  encodePrevious(view, 0, repeated, header.crc, header.sequence + 1, superblockCopySlot);
  const entries = header.bytes.subarray(
    recordField.entries,
    recordField.entries + recordEntriesMax * entryBytes,
  );
  block.set(entries, previousField.entries);
  view.setUint32(previousField.crc, crc32c(block.subarray(halfBytes)), true);
  return decodePrevious(block)!;
}
