/**
 * The cache: a {@linkcode Volume} whose writes go to the log and whose content reaches the backing later.
 *
 * Made by `openCache`. The way of a write: `writeNow` → index and open record in wasm memory → reply. When the record is
 * full, or a flush asks: seal → one log write → sync → replies to flushes. Later: dirty bitmap → verified reads from the
 * log → merged writes to the backing → backing sync → the tail moves.
 *
 * @module
 */

import { DamageError, DeviceError } from "../errors.ts";
import { emptySlotBits, writeCheckpoint } from "../log/checkpoint.ts";
import { entryKind } from "../log/layout.ts";
import type { SuperblockStore } from "../log/superblock_store.ts";
import { formatUuid, type Superblock } from "../log/superblock.ts";
import type { LogWriter } from "../log/writer.ts";
import { blockBytes } from "../units.ts";
import { checkRange, type Core } from "./core.ts";
import { eachExtent, type LoggedExtent, loggedExtents } from "./extents.ts";
import { IdleMark } from "./idle_mark.ts";
import type { RecoveryReport } from "./open.ts";
import { takeSamples } from "./pair.ts";
import { Reads } from "./reads.ts";
import { Room } from "./room.ts";
import { type CacheStatus, makeStatus } from "./status.ts";
import { Tail } from "./tail.ts";
import type { Extent, Volume, WriteOptions } from "./volume.ts";
import { WriteBack } from "./writeback.ts";
import { readOnlyError, Writes } from "./writes.ts";

/** The parts that exist only when the log may be written. */
interface Engine {
  writer: LogWriter;
  store: SuperblockStore;
  room: Room;
  tail: Tail;
  writes: Writes;
  writeback: WriteBack;
  idleMark: IdleMark;
}

/** An open cache. Every call may reject with `DeviceError`; see `Volume` for shapes and units. */
export class Cache implements Volume {
  readonly #core: Core;
  readonly #reads: Reads;
  readonly #engine: Engine | undefined;
  readonly #superblock: Superblock;
  readonly #openedMs: number;
  #stopTimer: () => void = () => {};
  #closed: Promise<void> | undefined;
  #draining = 0;
  /** What opening found. */
  readonly recovery: RecoveryReport;

  /** Use `openCache`. */
  constructor(
    options: {
      core: Core;
      superblock: Superblock;
      store: SuperblockStore | undefined;
      recovery: RecoveryReport;
    },
  ) {
    const { core, store } = options;
    this.#core = core;
    this.#superblock = options.superblock;
    this.recovery = options.recovery;
    this.#openedMs = core.clock.monotonicMs();
    this.#reads = new Reads(core);
    if (!core.writer || !store) return;
    const { writer } = core;
    const room = new Room(writer, core.clock, core.tunables);
    const tail = new Tail(core, writer, store, room, this.#reads);
    const writeback = new WriteBack(core, writer, tail, room);
    room.onSpaceNeeded = () => writeback.needSpace();
    const idleMark = new IdleMark(core.clock, writer, store);
    writer.onProgress = () => {
      room.wake();
      idleMark.noteProgress();
    };
    writer.onFailure = (error) => core.warn(error.message);
    this.#engine = {
      writer,
      store,
      room,
      tail,
      writeback,
      idleMark,
      writes: new Writes(core, writer, this.#reads, room),
    };
    writeback.start();
    this.#scheduleFlush();
  }

  /** The size of the volume in bytes: the backing's. */
  get sizeBytes(): number {
    return this.#core.backing.sizeBytes;
  }

  /** True when writing calls are refused. */
  get readOnly(): boolean {
    return this.#engine === undefined;
  }

  /** The cache's uuid, as text. */
  get uuid(): string {
    return formatUuid(this.#superblock.uuid);
  }

  #writable(): Engine {
    if (!this.#engine) throw readOnlyError(this.#core.device.name);
    if (this.#closed) {
      throw new DeviceError("ESHUTDOWN", `Cannot access ${this.#core.device.name}: the cache is closed`);
    }
    return this.#engine;
  }

  /** Serves a read that RAM can serve; else false. */
  readNow(offset: number, into: Uint8Array, at: number, length: number): boolean {
    return this.#closed === undefined && this.#reads.now(offset, into, at, length);
  }

  /** Takes a write that fits; else false. */
  writeNow(offset: number, source: Uint8Array, at: number, length: number): boolean {
    return this.#closed === undefined && this.#engine !== undefined &&
      this.#engine.writes.now(offset, source, at, length);
  }

  /** Fills `into` from byte `offset`. */
  async read(offset: number, into: Uint8Array): Promise<void> {
    if (this.#closed) {
      throw new DeviceError("ESHUTDOWN", `Cannot read ${this.#core.device.name}: the cache is closed`);
    }
    await this.#counted(() => this.#reads.read(offset, into));
  }

  /** Writes `bytes` at byte `offset`; they must not change until this resolves. */
  async write(offset: number, bytes: Uint8Array, options: WriteOptions = {}): Promise<void> {
    await this.#counted(() => this.#writable().writes.write(offset, bytes, options));
  }

  /** Makes every acknowledged write durable. */
  async flush(): Promise<void> {
    const { statistics, clock } = this.#core;
    const start = clock.monotonicMs();
    statistics.flushRequests++;
    if (!this.#engine) return;
    await this.#counted(() => this.#writable().writes.flush());
    statistics.flushLatency.add((clock.monotonicMs() - start) * 1000);
  }

  /** Drops the range; it reads as zeroes and the backing may give its space back. O(1) in the log. */
  async trim(offset: number, length: number, options: WriteOptions = {}): Promise<void> {
    this.#core.statistics.trimRequests++;
    await this.#counted(() => this.#writable().writes.zero(offset, length, false, options));
  }

  /** Makes the range read as zeroes. O(1) in the log. */
  async zero(
    offset: number,
    length: number,
    options: WriteOptions & { keepAllocated?: boolean } = {},
  ): Promise<void> {
    this.#core.statistics.zeroRequests++;
    await this.#counted(() =>
      this.#writable().writes.zero(offset, length, options.keepAllocated ?? false, options)
    );
  }

  /** A hint; this version keeps no clean copies, so there is nothing to fetch ahead. */
  prefetch(offset: number, length: number): Promise<void> {
    return this.#counted(() => {
      checkRange(this.#core, offset, length);
      return Promise.resolve();
    });
  }

  /** See `Volume.extents`: zeroes that are not on the backing yet are holes, all else counts as data. */
  extents(offset: number, length: number, limit: number): Promise<Extent[]> {
    checkRange(this.#core, offset, length);
    return Promise.resolve(eachExtent(this.#core, offset, length, limit));
  }

  /** The runs that the backing lacks, in address order: for tools that carry them elsewhere. */
  loggedExtents(): Generator<LoggedExtent> {
    return loggedExtents(this.#core);
  }

  async #counted<T>(action: () => Promise<T>): Promise<T> {
    try {
      return await action();
    } catch (error) {
      this.#core.statistics.errors++;
      throw error;
    }
  }

  /**
   * Writes everything back and moves the tail to the head; afterwards the backing alone is complete.
   *
   * @param options `onProgress` gets blocks done and blocks in all
   */
  async drain(options: { onProgress?: (done: number, total: number) => void } = {}): Promise<void> {
    if (this.readOnly && this.recovery.damaged) {
      throw new DamageError(
        `Cannot drain ${this.#core.device.name}: ${this.recovery.lostBlocks} blocks of it are lost and that was not ` +
          `accepted; see nbdboost check, then nbdboost recover --accept-loss`,
      );
    }
    const { writeback } = this.#writable();
    this.#draining++;
    try {
      await writeback.drain(options.onProgress);
    } finally {
      this.#draining--;
    }
    const lost = this.#core.versions.poison.blocks;
    if (lost > 0) {
      throw new DamageError(
        `Everything that can be written back is on ${this.#core.backing.name}, but ${lost} blocks are lost: ` +
          `see nbdboost check`,
      );
    }
  }

  /** What is going on, in the fields of `status --json`. */
  status(): CacheStatus {
    return makeStatus(this.#core, this.#superblock, this.#engine, {
      uptimeMs: this.#core.clock.monotonicMs() - this.#openedMs,
      draining: this.#draining > 0,
      stopping: this.#closed !== undefined,
      damaged: this.recovery.damaged,
    });
  }

  /** Flushes, marks the cache clean and releases both devices. Dirty blocks stay in the log. */
  close(): Promise<void> {
    return this.#closed ??= this.#close();
  }

  async #close(): Promise<void> {
    this.#stopTimer();
    const engine = this.#engine;
    let failure: unknown;
    if (engine) {
      engine.idleMark.stop();
      engine.room.closing = true;
      engine.room.wake();
      await engine.writeback.stop();
      try {
        if (engine.writer.failure) throw engine.writer.failure;
        await this.#closeCleanly(engine);
      } catch (error) {
        failure = error;
      }
      await engine.writer.settle();
    }
    for (const device of [this.#core.device, this.#core.backing]) {
      await device.close().catch((error) => failure ??= error);
    }
    if (failure !== undefined) throw failure;
  }

  async #closeCleanly(engine: Engine): Promise<void> {
    const { kernels, clock, device, backing, geometry } = this.#core;
    await engine.writes.durable();
    // A failed backing sync only means that more stays dirty.
    await engine.writeback.settle().catch((error) =>
      this.#core.warn(`Backing sync failed at close: ${error.message}`)
    );
    const bits = emptySlotBits(geometry);
    for (let block = kernels.dirty.next(0, kernels.dirty.length); block >= 0;) {
      bits.add(kernels.indexGet(block));
      block = kernels.dirty.next(block + 1, kernels.dirty.length);
    }
    for (const range of engine.tail.unsettledRanges()) bits.add(range.headerSlot);
    const closing: Superblock = {
      ...engine.store.current,
      clean: true,
      head: engine.writer.head,
      closedMs: clock.wallMs(),
      backing: await backing.identity(),
      samples: await takeSamples(this.#core),
    };
    await writeCheckpoint(device, closing, bits);
    // The checkpoint is durable before a superblock calls for it.
    await engine.writer.syncDevice();
    const { clean, head, closedMs, backing: identity, samples } = closing;
    await engine.store.write({ clean, head, closedMs, backing: identity, samples });
  }

  #scheduleFlush(): void {
    const { clock, tunables } = this.#core;
    const again = () => {
      if (this.#closed) return;
      if (tunables.flushInterval > 0) this.#engine!.writes.flush().catch(() => {});
      this.#stopTimer = clock.after(Math.max(1, tunables.flushInterval) * 1000, again);
    };
    this.#stopTimer = clock.after(Math.max(1, tunables.flushInterval) * 1000, again);
  }

  /** The engine's reaction to a version that cannot be read: a poisoned entry at the head (log-rules.md 12). */
  lose(block: number, slot: number, why: string): void {
    const { kernels, versions, segments, warn } = this.#core;
    if (kernels.indexGet(block) !== slot) return;
    const mask = kernels.masks[slot]!;
    warn(
      `Block ${block} (bytes ${block * blockBytes} to ${
        (block + 1) * blockBytes
      }) is lost: its only copy, in the log of ` +
        `${this.#core.device.name}, cannot be used (${why}); reads there get EIO until it is written again`,
    );
    const engine = this.#engine;
    const segment = segments.of(slot);
    versions.losePart(block, block + 1, mask, engine?.writer.openSequence ?? 0);
    if (!engine || engine.writer.failure) return;
    // Until the entry is in a record, the old place is held: nothing else says that the block is lost.
    segments.live[segment]!++;
    void engine.room.take("engine", () => {
      segments.live[segment]!--;
      const left = versions.poison.mask(block) & mask;
      if (left === 0) return;
      const headerSlot = engine.writer.putRange(entryKind.poisoned, block, 1, left);
      segments.addRange(segments.poisoned, segments.of(headerSlot), {
        start: block,
        end: block + 1,
        headerSlot,
      });
      segments.supersede(segment, engine.writer.openSequence);
    }).catch(() => {});
  }

  /** The bytes of the volume that are lost. */
  *lostRanges(): Generator<{ offset: number; length: number }> {
    const { poison, backingBlocks } = this.#core.versions;
    for (const { start, end } of poison.ranges(0, backingBlocks)) {
      const offset = start * blockBytes;
      yield { offset, length: Math.min(end * blockBytes, this.sizeBytes) - offset };
    }
  }

  /** Reads what the backing device holds, whatever the log says; for rescue. Multiples of 512. */
  async readBacking(offset: number, into: Uint8Array<ArrayBuffer>): Promise<void> {
    await this.#core.backing.read(offset, into);
  }

  /** Writes poisoned entries for everything that recovery found lost, durably: it must survive the next restart too. */
  async persistLosses(): Promise<void> {
    const { tail, writes } = this.#writable();
    const { poison, backingBlocks } = this.#core.versions;
    for (const { start, end, mask } of [...poison.ranges(0, backingBlocks)]) {
      await tail.poison(start, end, mask);
    }
    await writes.durable();
  }
}
