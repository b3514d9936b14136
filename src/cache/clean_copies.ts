/**
 * The read cache: copies of what was read from the backing device, in the log like everything else, but needed by nobody.
 *
 * Invariants (log-rules.md, "Clean copies"):
 * - A copy never supersedes anything: it is put only where the log has nothing of the block, nothing of it is dirty, lost or
 *   un-synced, and no operation of the backing on it is in flight.
 * - It is what the backing holds: nothing that may have changed the block has happened since its read began, which a
 *   generation tells that grows with all of that.
 * - A crash forgets it. Nothing waits for it: it does not hold up the tail, no flush makes it durable, and where space is
 *   short, or a writer waits, it is dropped.
 *
 * @module
 */

import { entryKind, segmentsReserved } from "../log/layout.ts";
import type { LogWriter } from "../log/writer.ts";
import { blockBytes, fullMask, mib } from "../units.ts";
import { noSlot } from "../wasm/kernels.ts";
import { BlockSet } from "./block_set.ts";
import type { Core } from "./core.ts";
import type { Room } from "./room.ts";
import { Streams } from "./streams.ts";

/** Of the log, in parts: so much stays free for writers, and as much again while something is dirty. */
const freeParts = 4;
/** Bytes that one read of a prefetch may merge. */
const prefetchBytes = mib;
/** Blocks that one prefetch looks at, and prefetches at once: it is a hint, and may cost neither time nor memory without end. */
const prefetchBlocksMax = 65_536;
const prefetchesMax = 8;

type Parts = Pick<
  Core,
  | "kernels"
  | "versions"
  | "segments"
  | "locks"
  | "tunables"
  | "statistics"
  | "bypassed"
  | "backing"
  | "history"
>;

/** Puts clean copies. */
export class CleanCopies {
  readonly #core: Parts;
  /** Of reads only what follows at once is a run: others in the neighbourhood are what a cache is for. */
  readonly #streams = new Streams(0);
  #writer: LogWriter | undefined;
  #room: Room | undefined;
  readonly #slots: BlockSet;
  #generation = 0;
  #prefetches = 0;
  /** Drains and the like under way, which need the log to end. */
  #holds = 0;
  /** A copy was dropped for want of space, which the tail may give. */
  wantsSpace = false;
  /** Asked when that begins. */
  onSpaceWanted: () => void = () => {};

  constructor(core: Parts) {
    this.#core = core;
    this.#slots = new BlockSet(core.segments.count * core.segments.blocks);
  }

  /** The log may be written. */
  attach(writer: LogWriter, room: Room): void {
    const { segments, versions } = this.#core;
    this.#writer = writer;
    this.#room = room;
    segments.onReuse = (segment) => {
      versions.forgetSegment(segment);
      this.#slots.deleteRange(segment * segments.blocks, (segment + 1) * segments.blocks);
      this.forget();
    };
  }

  /** Whether what the index holds at `slot` is a copy, which a crash forgets. */
  holds(slot: number): boolean {
    return this.#slots.has(slot);
  }

  // ---- hot path ----

  /** To be taken when a read of the backing begins, and given to {@linkcode keep}. */
  get generation(): number {
    return this.#generation + this.#core.bypassed.changes;
  }

  /** Something left the log, so that it does not tell any more what happened to a block. */
  forget(): void {
    this.#generation++;
  }

  /** Whether blocks that a client's read misses are to be kept: not those of a long run. */
  wants(offset: number, length: number): boolean {
    const limit = this.#core.tunables.readCacheThreshold;
    // While history is held the log gives nothing back, so it is for writes.
    return limit > 0 && this.#writer !== undefined && !this.#core.history.held &&
      this.#streams.note(offset, length) <= limit * blockBytes;
  }

  /**
   * Keeps what was read from byte `offset` of the backing, `bytes[at, at + length)`, as far as it is whole blocks and space
   * allows. Returns false when it does not.
   */
  keep(offset: number, bytes: Uint8Array, at: number, length: number, generation: number): boolean {
    const { backing, bypassed } = this.#core;
    if (generation !== this.generation || bypassed.inFlight > 0) return true;
    const end = offset + length;
    const last = end === backing.sizeBytes ? Math.ceil(end / blockBytes) : Math.floor(end / blockBytes);
    for (let block = Math.ceil(offset / blockBytes); block < last; block++) {
      if (!this.mayKeep(block)) continue;
      if (!this.#hasSpace()) return false;
      const start = block * blockBytes;
      this.#put(block, bytes, at + start - offset, Math.min(blockBytes, end - start));
    }
    return true;
  }

  /** Whether nothing but the backing has the block, all of it synced, and nobody is changing it. */
  mayKeep(block: number): boolean {
    const { kernels, versions, locks } = this.#core;
    if (kernels.indexGet(block) !== noSlot || versions.isLive(block) || kernels.zeroDirty.test(block)) {
      return false;
    }
    if (versions.poison.any && versions.poison.mask(block) !== 0) return false;
    if (locks.any && locks.overlaps(block, block)) return false;
    return !versions.touched.any(block, block + 1);
  }

  #hasSpace(): boolean {
    const { kernels, segments } = this.#core;
    const writer = this.#writer;
    const room = this.#room;
    if (!writer || !room || room.busy || room.closing || this.#holds > 0) return false;
    const share = segments.count / freeParts * (kernels.dirty.count > 0 ? 2 : 1);
    if (writer.freeSegments >= Math.max(segmentsReserved + 2, share)) return writer.canTake(1);
    if (!this.wantsSpace) {
      this.wantsSpace = true;
      this.onSpaceWanted();
    }
    return false;
  }

  #put(block: number, bytes: Uint8Array, at: number, length: number): void {
    const { kernels, versions, statistics } = this.#core;
    const writer = this.#writer!;
    if (writer.prepare("client") !== "none") return;
    const slot = writer.putData(block, fullMask, entryKind.clean);
    const pointer = writer.pointerOf(slot);
    kernels.copyIn(pointer, bytes, at, length);
    if (length < blockBytes) kernels.bytes.fill(0, pointer + length, pointer + blockBytes);
    versions.putClean(block, slot);
    this.#slots.add(slot);
    statistics.keptBlocks++;
  }
  // ---- end of the hot path ----

  /** Nothing is put until the returned function is called. */
  hold(): () => void {
    this.#holds++;
    return () => this.#holds--;
  }

  /**
   * Reads from the backing what the log lacks of [offset, offset + length), neighbours together, and keeps it: of the first
   * 256 MiB, and not while too many others do so.
   */
  async prefetch(offset: number, length: number): Promise<void> {
    const { tunables, history } = this.#core;
    const isOn = tunables.readCacheThreshold > 0 && this.#writer !== undefined && !history.held;
    if (!isOn || this.#prefetches >= prefetchesMax) return;
    this.#prefetches++;
    try {
      const first = Math.floor(offset / blockBytes);
      const end = Math.ceil((offset + length) / blockBytes);
      await this.#prefetch(first, Math.min(end, first + prefetchBlocksMax));
    } finally {
      this.#prefetches--;
    }
  }

  async #prefetch(first: number, end: number): Promise<void> {
    const { backing } = this.#core;
    for (let block = first; block < end;) {
      if (!this.mayKeep(block)) {
        block++;
        continue;
      }
      if (!this.#hasSpace()) return;
      let next = block + 1;
      while (next < end && next - block < prefetchBytes / blockBytes && this.mayKeep(next)) next++;
      const start = block * blockBytes;
      const bytes = new Uint8Array(Math.min(next * blockBytes, backing.sizeBytes) - start);
      const { generation } = this;
      await backing.read(start, bytes);
      this.#core.statistics.prefetchedBlocks += next - block;
      if (!this.keep(start, bytes, 0, bytes.length, generation)) return;
      block = next;
    }
  }
}
