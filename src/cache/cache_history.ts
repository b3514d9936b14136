/**
 * `Cache.history`: what people and clients may ask of the past of an open cache.
 *
 * @module
 */

import { assert, RefusedError } from "../errors.ts";
import { LogReader } from "../log/reader.ts";
import type { SuperblockStore } from "../log/superblock_store.ts";
import type { Superblock } from "../log/superblock.ts";
import type { LogWriter } from "../log/writer.ts";
import { Changes } from "./changes.ts";
import type { Core } from "./core.ts";
import { type HistoryOptions, type HistoryReport, historyReport, listPoints } from "./flush_points.ts";
import { FrozenView } from "./frozen_view.ts";
import type { HistoryHold, HistoryStatus } from "./history_hold.ts";
import { overwrittenError } from "./past.ts";
import type { MarkedExtent, Volume } from "./volume.ts";
import type { Writes } from "./writes.ts";

/** Flush points that are looked at at once: each has an index of its own. */
const viewsMax = 4;
/** Sequences after which changes are known at once: each has a bitmap of the volume. */
const changesMax = 4;
/** A list is made again so often when the tail passed what was being read. */
const listTriesMax = 3;

/** The volume as it was at a flush point; to be closed by whoever asked for it. */
export interface FrozenVolume extends Volume {
  /** The flush point. */
  readonly sequence: number;
  /** Gives it up. */
  close(): void;
}

/** What it needs of a cache that is written to. */
interface HistoryParts {
  writer: LogWriter;
  store: SuperblockStore;
  hold: HistoryHold;
  writes: Writes;
}

/** Does something with them, of which closing waits for the end; rejects when it is closed, or not written to. */
type Use = <T>(action: (parts: HistoryParts) => Promise<T>) => Promise<T>;

interface SharedView {
  view: Promise<FrozenView>;
  opened: FrozenView | undefined;
  users: number;
}

/** The past of an open cache. */
export class CacheHistory {
  readonly #core: Core;
  readonly #use: Use;
  readonly #store: () => SuperblockStore | undefined;
  readonly #views = new Map<number, SharedView>();
  readonly #changes = new Map<number, Changes>();
  #line: Promise<unknown> = Promise.resolve();

  /**
   * Use `Cache.history`.
   *
   * @ignore
   */
  constructor(core: Core, store: () => SuperblockStore | undefined, use: Use) {
    this.#core = core;
    this.#store = store;
    this.#use = use;
  }

  /**
   * Holds history: from now on nothing is written back and the tail stands still, after a crash or a restart too, so every
   * flush point from now on stays available until the log is full (see the tunable `historyFull`) or
   * {@linkcode release}. What was not flushed yet is, and ends with a flush point. Resolves once all that is durable.
   *
   * @throws {RefusedError} while it is being drained
   */
  hold(): Promise<HistoryStatus> {
    return this.#use(async ({ hold, writes }) => {
      await hold.hold();
      await writes.flush();
      return hold.status();
    });
  }

  /** Lets write-back go on; flush points before what is written back then are gone. Resolves once that is durable. */
  release(): Promise<HistoryStatus> {
    return this.#use(async ({ hold }) => {
      await hold.release();
      return hold.status();
    });
  }

  /** Lists the newest flush points, and says which can be had. Reads the headers of the whole log. */
  list(options: HistoryOptions = {}): Promise<HistoryReport> {
    return this.#next(async ({ writer }) => {
      const { history, device, geometry } = this.#core;
      for (let tries = 1;; tries++) {
        const superblock = this.#present();
        const reader = new LogReader(device, geometry, superblock.uuid);
        reader.acceptUnreadable = true;
        const { collector, walk } = await listPoints(reader, superblock, options, superblock.durableMark);
        const moved = this.#present().tail.sequence !== superblock.tail.sequence;
        if (moved && walk.gaps.length > 0 && tries < listTriesMax) continue;
        const { held, floor } = history;
        return historyReport(superblock, collector, walk, { held, floor, head: writer.openSequence });
      }
    });
  }

  /**
   * The volume as it was at a flush point, read-only, while the cache goes on. It stays true until something newer is written
   * back, which {@linkcode hold} prevents; then reads fail with `EIO`. It costs as much RAM as the index of the cache.
   *
   * @throws {RefusedError} when there is no such flush point, it cannot be had any more, or four are open already
   */
  async view(sequence: number): Promise<FrozenVolume> {
    const { history, device } = this.#core;
    // One that has ended may still be open.
    if (sequence < history.floor) throw overwrittenError(device.name, sequence, history.floor);
    let shared = this.#views.get(sequence);
    if (!shared) {
      if (this.#views.size >= viewsMax) {
        throw new RefusedError(
          `Cannot show ${device.name} as of flush point ${sequence}: ${viewsMax} flush points are being looked at, ` +
            `and no more can be; end one first`,
        );
      }
      const view = this.#next(() => FrozenView.open(this.#core, this.#present(), sequence));
      this.#views.set(sequence, shared = { view, opened: undefined, users: 0 });
    }
    shared.users++;
    try {
      const view = shared.opened = await shared.view;
      return this.#share(view, shared);
    } catch (error) {
      this.#leave(sequence, shared);
      throw error;
    }
  }

  /** A user's own handle on a shared view. */
  #share(view: FrozenView, shared: SharedView): FrozenVolume {
    let open = true;
    return {
      sequence: view.sequence,
      sizeBytes: view.sizeBytes,
      readOnly: true,
      readNow: () => view.readNow(),
      writeNow: () => view.writeNow(),
      read: (offset, into) => this.#use(() => view.read(offset, into)),
      write: () => view.write(),
      flush: () => view.flush(),
      trim: () => view.trim(),
      zero: () => view.zero(),
      // deno-lint-ignore require-await -- what it throws is a rejection
      prefetch: async (offset, length) => view.prefetch(offset, length),
      // deno-lint-ignore require-await -- what it throws is a rejection
      extents: async (offset, length, limit) => view.extents(offset, length, limit),
      knowsChangesSince: (sequence) => view.knowsChangesSince(sequence),
      changesSince: (sequence, offset, length, limit) =>
        this.#use(() => view.changesSince(sequence, offset, length, limit)),
      close: () => {
        if (open) this.#leave(view.sequence, shared);
        open = false;
      },
    };
  }

  #leave(sequence: number, shared: SharedView): void {
    if (--shared.users > 0) return;
    if (this.#views.get(sequence) === shared) this.#views.delete(sequence);
    shared.opened?.close();
  }

  /** See `Volume.knowsChangesSince`. */
  knowsChangesSince(sequence: number): boolean {
    const { history, writer } = this.#core;
    return writer !== undefined && sequence <= writer.durableSequence && sequence >= history.unlogged &&
      sequence + 1 >= this.#present().tail.sequence;
  }

  /** See `Volume.changesSince`. */
  changesSince(sequence: number, offset: number, length: number, limit: number): Promise<MarkedExtent[]> {
    return this.#use(async ({ writes }) => {
      let changes = this.#changes.get(sequence);
      if (!changes) {
        if (this.#changes.size >= changesMax) this.#changes.delete(this.#changes.keys().next().value!);
        this.#changes.set(sequence, changes = new Changes(this.#core, sequence));
      }
      // What was acknowledged before this call is in the durable part of the log after this.
      await writes.durable();
      const superblock = this.#present();
      try {
        await changes.extend(superblock, superblock.durableMark);
      } catch (error) {
        this.#changes.delete(sequence);
        throw error;
      }
      return changes.runs(offset, length, limit);
    });
  }

  /** Throws when history is held, which `verb` would end. */
  refuseHeld(verb: string): void {
    if (!this.#core.history.held) return;
    throw new RefusedError(
      `Cannot ${verb} ${this.#core.device.name}: its history is held, and that would end it; release it first ` +
        `(nbdboost hold --release; with --cache and --backing where no server runs)`,
    );
  }

  /** Where the log of a cache that is written to begins now, and which of its records are durable. */
  #present(): Superblock {
    const store = this.#store();
    assert(store !== undefined, "only a cache that is written to has its past beside its present");
    const durableMark = this.#core.writer!.durableSequence;
    return { ...store.current, clean: false, durableMark, previous: undefined };
  }

  /** One reading of the log at a time, however many ask. */
  #next<T>(action: (parts: HistoryParts) => Promise<T>): Promise<T> {
    return this.#use((parts) => {
      const turn = this.#line.then(() => action(parts));
      this.#line = turn.catch(() => {});
      return turn;
    });
  }
}
