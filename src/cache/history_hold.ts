/**
 * Holding history: from then on nothing reaches the backing and the tail stands still, through crashes too, until it is
 * released. So every flush point from that moment on stays, until the log is full.
 *
 * Invariants: a superblock pair durably says that history is held before anybody hears that it is, and no longer says so
 * before anything is issued to the backing again. One change at a time.
 *
 * @module
 */

import { RefusedError } from "../errors.ts";
import { segmentsReserved } from "../log/layout.ts";
import type { SuperblockStore } from "../log/superblock_store.ts";
import type { LogWriter } from "../log/writer.ts";
import { blockBytes } from "../units.ts";
import type { Core } from "./core.ts";
import { openHistory } from "./history.ts";
import type { WriteBack } from "./writeback.ts";

/** How far back the past goes; blocks are 4096 bytes. */
export interface HistoryStatus {
  /** It is held: nothing is written back, and it goes back no less far later on. */
  held: boolean;
  /** The oldest sequence of which an image can be had: flush points from there on can be served. */
  oldestSequence: number;
  /** Bytes of log that are left for clients; while history is held nothing is given back. */
  freeBytes: number;
  /**
   * Seconds until the log is full, at the rate of the writes since history was held; null while it is not held, or nothing
   * was written.
   */
  fullInSeconds: number | null;
  /** Flush points that are being looked at. */
  views: number;
}

/** Holds and releases the history of a running cache. */
export class HistoryHold {
  readonly #core: Core;
  readonly #writer: LogWriter;
  readonly #store: SuperblockStore;
  readonly #writeback: WriteBack;
  /** When it was held, and what the log had taken by then. */
  #sinceMs: number;
  #sinceBlocks = 0;
  #line: Promise<void> = Promise.resolve();
  #givingUp = false;

  constructor(core: Core, writer: LogWriter, store: SuperblockStore, writeback: WriteBack) {
    this.#core = core;
    this.#writer = writer;
    this.#store = store;
    this.#writeback = writeback;
    this.#sinceMs = core.clock.monotonicMs();
  }

  /** Holds; resolves once that is durable. Holding what is held changes nothing. */
  hold(): Promise<void> {
    return this.#next(async () => {
      const { history, device, clock } = this.#core;
      if (history.held) return;
      if (this.#writeback.drains > 0) {
        throw new RefusedError(
          `Cannot hold the history of ${device.name}: it is being drained, which is the opposite; try again afterwards`,
        );
      }
      history.hold(true);
      try {
        await this.#writeback.park();
        this.#sinceMs = clock.monotonicMs();
        this.#sinceBlocks = this.#writer.appendedBlocks;
        await this.#write();
      } catch (error) {
        history.hold(false);
        throw error;
      }
    });
  }

  /** Releases; resolves once that is durable and write-back may go on. */
  release(): Promise<void> {
    return this.#next(async () => {
      const { history } = this.#core;
      if (!history.held) return;
      await this.#store.write({
        history: { ...this.#store.current.history, held: false, floor: undefined },
      });
      history.hold(false);
      this.#writeback.resume();
    });
  }

  /** The log is full, and who writes waits: lets go of the past, if that is wanted. */
  giveUp(): void {
    const { history, tunables, device, warn } = this.#core;
    if (this.#givingUp || !history.held || tunables.historyFull !== "release") return;
    this.#givingUp = true;
    warn(
      `The log of ${device.name} is full, so its history is held no longer: flush points before what is written back from ` +
        `now on are gone, and views of them end (history_full=release; with wait, writers would wait and then get EIO)`,
      "error",
    );
    this.release().catch(() => {}).finally(() => this.#givingUp = false);
  }

  /** See {@linkcode HistoryStatus}. */
  status(): HistoryStatus {
    const { history, clock, geometry } = this.#core;
    const { freeSegments, appendedBlocks } = this.#writer;
    const freeBlocks = Math.max(0, freeSegments - segmentsReserved) * geometry.segmentBlocks;
    const blocks = appendedBlocks - this.#sinceBlocks;
    const seconds = (clock.monotonicMs() - this.#sinceMs) / 1000;
    return {
      held: history.held,
      oldestSequence: history.floor,
      freeBytes: freeBlocks * blockBytes,
      fullInSeconds: history.held && blocks > 0 ? Math.round(freeBlocks / blocks * seconds) : null,
      views: history.views.size,
    };
  }

  async #write(): Promise<void> {
    await this.#store.write({ history: openHistory(this.#store.current.history, this.#core.history) });
  }

  #next(change: () => Promise<void>): Promise<void> {
    const done = this.#line.then(change);
    this.#line = done.catch(() => {});
    return done;
  }
}
