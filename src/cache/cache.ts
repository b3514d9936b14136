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
import type { SuperblockStore } from "../log/superblock_store.ts";
import { formatUuid, type Superblock } from "../log/superblock.ts";
import { announce } from "./announce.ts";
import { closeCleanly } from "./close.ts";
import { checkRange, type Core } from "./core.ts";
import { drainCache, type DrainOptions, type DrainReport } from "./drain.ts";
import { eachExtent, eachMark, readsZeroNow } from "./extents.ts";
import { CacheHistory, type FrozenVolume } from "./cache_history.ts";
import { type Engine, makeEngine } from "./engine.ts";
import { FlushTimer } from "./flush_timer.ts";
import { LentBuffers } from "./lent_buffers.ts";
import { loseVersion, lostRanges, persistLosses } from "./losses.ts";
import { type CacheMap, MapMaker } from "./map.ts";
import type { Mirror } from "./mirror.ts";
import type { RecoveryReport } from "./open.ts";
import { LongReads } from "./long_reads.ts";
import { ReadSlots } from "./read_slots.ts";
import { Reads } from "./reads.ts";
import { Room } from "./room.ts";
import { type CacheStatus, makeStatus } from "./status.ts";
import { checkTunables, type Tunables } from "./tunables.ts";
import type { Extent, MarkedExtent, MarkKind, ReadEnd, Volume, WriteOptions } from "./volume.ts";
import { readOnlyError } from "./writes.ts";

/** What a cache is made of. */
interface Parts {
  core: Core;
  superblock: Superblock;
  /** Absent when the cache is read-only. */
  store: SuperblockStore | undefined;
  recovery: RecoveryReport;
  mirror: Mirror | undefined;
}

/** What opening alone may do with a cache; not part of the library's face. */
export let cacheSeam: {
  make(parts: Parts): Cache;
  /** See {@linkcode Core.onRot}. */
  lose(cache: Cache, block: number, slot: number, why: string): void;
  /** Makes durable what recovery found lost. */
  persistLosses(cache: Cache): Promise<void>;
};

/**
 * An open cache, made by {@linkcode openCache}: a {@linkcode Volume} of the backing device's size, which `serve` takes, or
 * which a program reads and writes by itself.
 *
 * Offsets and lengths are bytes, at any alignment, inside `sizeBytes`. Any number of calls may be under way at once; a
 * buffer belongs to the call until its promise settles. Calls reject with `DeviceError`: `EINVAL` outside the volume,
 * `EROFS` for writing when `readOnly`, `ESHUTDOWN` after `close`, `EIO` when a device fails or the bytes are lost.
 *
 * What may be relied on: a read sees every write that had resolved before it was called. What had resolved before a
 * `flush` was called, or was written with `fua`, survives any crash once that has resolved. A write that was not flushed is
 * there or not after a crash, and never mixed with older content within a sector of 512 bytes. Bytes whose checksum does
 * not match are never returned.
 *
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { formatCache, MemoryDevice, openCache } from "../../mod.ts";
 * const [fast, slow] = [new MemoryDevice(16 * 1024 * 1024), new MemoryDevice(64 * 1024 * 1024)];
 * await formatCache({ cache: fast, backing: slow });
 * const cache = await openCache({ cache: fast, backing: slow });
 *
 * await cache.write(1000, new TextEncoder().encode("hello"));
 * await cache.flush(); // "hello" survives a crash from here on
 * await cache.trim(1024 * 1024, 8 * 1024 * 1024);
 *
 * const bytes = new Uint8Array(5);
 * await cache.read(1000, bytes);
 * assert(new TextDecoder().decode(bytes) === "hello");
 *
 * await cache.drain(); // the backing device is complete by itself
 * assert(cache.status().cache.dirtyBlocks === 0);
 * await cache.close();
 * ```
 */
export class Cache implements Volume {
  static {
    cacheSeam = {
      make: (parts) => new Cache(parts),
      lose: (cache, block, slot, why) => loseVersion(cache.#core, cache.#engine, block, slot, why),
      persistLosses: (cache) => persistLosses(cache.#core, cache.#writable()),
    };
  }

  readonly #core: Core;
  readonly #reads: Reads;
  readonly #readSlots: ReadSlots;
  readonly #longReads: LongReads;
  readonly #lentBuffers: LentBuffers;
  readonly #engine: Engine | undefined;
  readonly #superblock: Superblock;
  readonly #openedMs: number;
  readonly #flushTimer: FlushTimer | undefined;
  #closed: Promise<void> | undefined;
  #mapMaker: MapMaker | undefined;
  #draining = 0;
  /** Requests that are not answered yet. */
  #inFlight = 0;
  #onIdle: () => void = () => {};
  /** What opening found. */
  readonly recovery: RecoveryReport;
  /** The legs of a mirrored cache device, undefined when it is a plain one. */
  readonly mirror: Mirror | undefined;
  /** The past, as far as the log still holds it: flush points, views of them, and holding it. */
  readonly history: CacheHistory;

  /** @ignore Use `openCache`. */
  private constructor({ core, superblock, store, recovery, mirror }: Parts) {
    this.#core = core;
    this.mirror = mirror;
    this.#superblock = superblock;
    this.recovery = recovery;
    this.#openedMs = core.clock.monotonicMs();
    this.#reads = new Reads(core);
    this.history = new CacheHistory(
      core,
      () => this.#engine?.store,
      (action) => this.#counted(() => action(this.#writable())),
    );
    this.#lentBuffers = new LentBuffers(core.kernels);
    const { writer } = core;
    const room = writer && new Room(writer, core.clock, core.tunables);
    this.#readSlots = new ReadSlots(core, room, () => this.#readSlotEnded());
    this.#longReads = new LongReads(core, room, () => this.#readSlotEnded());
    if (!writer || !room || !store) return;
    this.#engine = makeEngine(core, writer, store, room, this.#reads);
    const { writeback, writes } = this.#engine;
    writeback.start();
    this.#flushTimer = new FlushTimer(core.clock, core.tunables, () => writes.durable());
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

  /** Fills `into[at, at + length)` from byte `offset` when all of it is in RAM; false when `read` must be used instead. */
  readNow(offset: number, into: Uint8Array, at: number, length: number): boolean {
    return this.#closed === undefined && this.#reads.now(offset, into, at, length);
  }

  /** See `Volume.readSoon`. */
  readSoon(offset: number, length: number, to: ReadEnd, tag: number): boolean {
    return this.#begun(this.#closed === undefined && this.#readSlots.start(offset, length, to, tag));
  }

  /** See `Volume.readInto`. */
  readInto(
    offset: number,
    into: Uint8Array<ArrayBuffer>,
    at: number,
    length: number,
    to: ReadEnd,
    tag: number,
  ): boolean {
    return this.#begun(!this.#closed && this.#longReads.start(offset, into, at, length, to, tag));
  }

  #begun(begun: boolean): boolean {
    if (begun) this.#inFlight++;
    return begun;
  }

  #readSlotEnded(): boolean {
    if (--this.#inFlight > 0 || this.#closed === undefined) return false;
    this.#onIdle();
    return true;
  }

  /** See `Volume.lendBuffer`. */
  lendBuffer(): Uint8Array<ArrayBuffer> | null {
    return this.#lentBuffers.lend();
  }

  /** See `Volume.returnBuffer`. */
  returnBuffer(buffer: Uint8Array<ArrayBuffer>): void {
    this.#lentBuffers.takeBack(buffer);
  }

  /**
   * Takes `source[at, at + length)` at byte `offset` when RAM and log have room at once, without allocating anything. As
   * durable as after `write`: not before the next `flush`.
   *
   * @returns false, without any effect, when `write` must be used instead, which also tells what is wrong
   */
  writeNow(offset: number, source: Uint8Array, at: number, length: number): boolean {
    return this.#closed === undefined && this.#engine !== undefined &&
      this.#engine.writes.now(offset, source, at, length);
  }

  /** See `Volume.announce`. */
  announce(offsets: Float64Array, count: number): void {
    announce(this.#core, offsets, count);
  }

  /** See `Volume.whenWritable`. */
  whenWritable(length: number, again: () => void): boolean {
    return !this.#closed && this.#engine !== undefined && this.#engine.writes.whenWritable(length, again);
  }

  /** Fills `into` from byte `offset`, from RAM, log and backing device as needed. */
  async read(offset: number, into: Uint8Array): Promise<void> {
    if (this.#closed) {
      throw new DeviceError("ESHUTDOWN", `Cannot read ${this.#core.device.name}: the cache is closed`);
    }
    await this.#counted(() => this.#reads.read(offset, into));
  }

  /**
   * Writes `bytes` at byte `offset`; they must not change until this resolves. It waits while the log is full, for as long
   * as something is written back: after `fullTimeout` seconds without that it rejects with `EIO`.
   *
   * @param options `fua`: durable when it resolves
   */
  async write(offset: number, bytes: Uint8Array, options: WriteOptions = {}): Promise<void> {
    await this.#counted(() => this.#writable().writes.write(offset, bytes, options));
  }

  /**
   * Makes durable all that had resolved before this call, by one sync of the cache device that all flushes under way
   * share. When it fails, writes and flushes fail with `EIO` from then on; reads go on.
   */
  async flush(): Promise<void> {
    const { statistics, clock } = this.#core;
    const start = clock.monotonicMs();
    statistics.flushRequests++;
    if (!this.#engine) return;
    await this.#counted(() => this.#writable().writes.flush());
    statistics.flushLatency.add((clock.monotonicMs() - start) * 1000);
  }

  /**
   * Drops the range: it reads as zeroes, and the backing device may give its space back. Takes one entry in the log,
   * however long the range is.
   */
  async trim(offset: number, length: number, options: WriteOptions = {}): Promise<void> {
    this.#core.statistics.trimRequests++;
    await this.#counted(() => this.#writable().writes.zero(offset, length, false, options));
  }

  /**
   * Makes the range read as zeroes. Takes one entry in the log, however long the range is.
   *
   * @param options `keepAllocated`: the backing device keeps its space, so that a later write cannot fail for lack of it
   */
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

  /** Brings the range into the read cache, 256 MiB of it and what that has room for; does nothing while that is off. */
  async prefetch(offset: number, length: number): Promise<void> {
    checkRange(this.#core, offset, length);
    await this.#counted(() => this.#core.copies.prefetch(offset, length));
  }

  /** See `Volume.extents`: zeroes that are not on the backing yet are holes, all else counts as data. */
  extents(offset: number, length: number, limit: number): Promise<Extent[]> {
    checkRange(this.#core, offset, length);
    return Promise.resolve(eachExtent(this.#core, offset, length, limit));
  }

  /** See `Volume.marks`; one call looks at 256 MiB at most when the answer has to be looked up block by block. */
  marks(kind: MarkKind, offset: number, length: number, limit: number): Promise<MarkedExtent[]> {
    checkRange(this.#core, offset, length);
    return Promise.resolve(eachMark(this.#core, kind, offset, length, limit));
  }

  /** See `Volume.frozen`. */
  frozen(sequence: number): Promise<FrozenVolume> {
    return this.history.view(sequence);
  }

  /** See `Volume.knowsChangesSince`. */
  knowsChangesSince(sequence: number): boolean {
    return this.#closed === undefined && this.history.knowsChangesSince(sequence);
  }

  /** See `Volume.changesSince`. */
  async changesSince(
    sequence: number,
    offset: number,
    length: number,
    limit: number,
  ): Promise<MarkedExtent[]> {
    checkRange(this.#core, offset, length);
    return await this.#counted(() => this.history.changesSince(sequence, offset, length, limit));
  }

  /** See `Volume.zeroesNow`: true where zeroes were written or trimmed, and the backing device does not know yet. */
  zeroesNow(offset: number, length: number): boolean {
    return this.#closed === undefined && readsZeroNow(this.#core, offset, length);
  }

  async #counted<T>(action: () => Promise<T>): Promise<T> {
    this.#inFlight++;
    try {
      return await action();
    } catch (error) {
      this.#core.statistics.errors++;
      throw error;
    } finally {
      if (--this.#inFlight === 0) this.#onIdle();
    }
  }

  /**
   * Writes everything back and syncs the backing device, which alone is complete afterwards; the log is empty then. What is
   * written meanwhile is written back too: it resolves at a moment at which nothing was dirty.
   *
   * @throws {DamageError} when blocks are lost, after everything else was written back (before, when read-only); when the
   * backing device does not return what was written to it, which then stays in the cache
   * @throws {DeviceError} when a device fails; what is not written back yet stays in the cache
   */
  async drain(options: DrainOptions = {}): Promise<DrainReport> {
    if (this.readOnly && this.recovery.damaged) {
      throw new DamageError(
        `Cannot drain ${this.#core.device.name}: ${this.recovery.lostBlocks} blocks of it are lost and that was not ` +
          `accepted; see nbdboost check, then nbdboost recover --accept-loss`,
      );
    }
    const { writeback } = this.#writable();
    this.history.refuseHeld("drain");
    this.#draining++;
    try {
      return await drainCache(this.#core, writeback, this.#reads, options);
    } finally {
      this.#draining--;
    }
  }

  /** The settings as they are now. */
  get tunables(): Readonly<Tunables> {
    return this.#core.tunables;
  }

  /** Changes settings while it runs; those that are not given stay. Throws `UsageError` when they contradict each other. */
  tune(settings: Partial<Tunables>): void {
    checkTunables({ ...this.#core.tunables, ...settings });
    Object.assign(this.#core.tunables, settings);
    if (!this.#closed) this.#flushTimer?.restart();
  }

  /** What is going on just now; costs little, also after `close`. */
  status(): CacheStatus {
    return makeStatus(this.#core, this.#superblock, this.#engine, {
      uptimeMs: this.#core.clock.monotonicMs() - this.#openedMs,
      draining: this.#draining > 0,
      stopping: this.#closed !== undefined,
      damaged: this.recovery.damaged,
      mirror: this.mirror?.status() ?? null,
    });
  }

  /** What the log holds and where the backing device lacks something, for a picture; may be asked every second. */
  map(): CacheMap {
    this.#mapMaker ??= new MapMaker(this.#core);
    const { writer, tail } = this.#engine ?? {};
    return this.#mapMaker.make(writer?.headSegment, tail?.segment, this.#superblock);
  }

  /**
   * Flushes, marks the cache clean and closes both devices, those handed in too. Dirty blocks stay in the log, for the next
   * opening; `drain` before this leaves none. A second call returns the first one's promise. When it rejects, both
   * devices are closed all the same and the cache is not marked clean: the next opening recovers it.
   */
  close(): Promise<void> {
    return this.#closed ??= this.#close();
  }

  async #close(): Promise<void> {
    this.#flushTimer?.stop();
    if (this.mirror) await this.mirror.stop();
    const engine = this.#engine;
    let failure: unknown;
    if (engine) {
      engine.idleMark.stop();
      engine.room.closing = true;
      engine.room.wake();
      await engine.writeback.stop();
    }
    // A request under way may still put something, which must not come after what the checkpoint says.
    if (this.#inFlight > 0) await new Promise<void>((resolve) => this.#onIdle = resolve);
    if (engine) {
      try {
        if (engine.writer.failure) throw engine.writer.failure;
        await closeCleanly(this.#core, engine);
      } catch (error) {
        failure = error;
      }
      await engine.store.settle();
      await engine.writer.settle();
    }
    const { device, backing } = this.#core;
    for (const each of [device, backing]) await each.close().catch((error) => failure ??= error);
    if (failure !== undefined) throw failure;
  }

  /** The bytes of the volume that are lost, in address order: reads there reject with `EIO` until they are written again. */
  lostRanges(): Generator<{ offset: number; length: number }> {
    return lostRanges(this.#core);
  }

  /**
   * Fills `into` from byte `offset` of the backing device, whatever the log says: for rescue, it may be old. Both are
   * multiples of 512 bytes.
   */
  async readBacking(offset: number, into: Uint8Array<ArrayBuffer>): Promise<void> {
    await this.#core.backing.read(offset, into);
  }
}
