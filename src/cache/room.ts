/**
 * Waiting for log space, and for one's turn when write-back sets the pace. Writers that do not fit wait in one line; nobody
 * waits for ever: if nothing is written back for `fullTimeout` seconds, whoever has waited for so long fails with EIO.
 *
 * @module
 */

import type { Clock } from "../clock.ts";
import { DeviceError } from "../errors.ts";
import type { Appender } from "../log/appender.ts";
import type { LogWriter } from "../log/writer.ts";
import type { Tunables } from "./tunables.ts";

/** How often a waiting writer looks at the clock. */
const lookMs = 1000;

/** The line of writers. */
export class Room {
  readonly #writer: LogWriter;
  readonly #clock: Clock;
  readonly #tunables: Tunables;
  #line: Promise<void> = Promise.resolve();
  #lineLength = 0;
  readonly #watchers: (() => void)[] = [];
  readonly #wakened = new Set<() => void>();
  #looks = false;
  #cancelLook = () => {};
  /** When write-back last achieved something. */
  progressMs: number;
  /** Asked when a writer waits for log space. */
  onSpaceNeeded: () => void = () => {};
  /** While true, clients wait: what is lost must be in the log before anything newer of the same blocks. */
  holdClients: () => boolean = () => false;
  /** While it holds, clients wait: the log fills faster than it is written back. */
  pace: { readonly holds: boolean } = { holds: false };
  /** Why nothing can be written back, if that is wanted so. */
  fullReason: () => string = () => "see the state of the backing device";
  /** Asked when a client waits for its turn. */
  onPaced: () => void = () => {};
  /** True once closing: waiting makes no sense any more. */
  closing = false;

  constructor(writer: LogWriter, clock: Clock, tunables: Tunables) {
    this.#writer = writer;
    this.#clock = clock;
    this.#tunables = tunables;
    this.progressMs = clock.monotonicMs();
  }

  /** True while a writer waits, or must; new ones must not overtake it. */
  get busy(): boolean {
    return this.#lineLength > 0 || this.pace.holds || this.holdClients();
  }

  /** Writes that wait. */
  get waiting(): number {
    return this.#lineLength;
  }

  /** Something happened that may have made room. Tells whether somebody waited for that. */
  wake(): boolean {
    if (this.closing) this.#cancelLook();
    if (this.#watchers.length === 0 && this.#wakened.size === 0) return false;
    for (const watcher of this.#watchers.splice(0)) watcher();
    this.#callWakened();
    return true;
  }

  #callWakened(): void {
    for (const action of this.#wakened) queueMicrotask(action);
    this.#wakened.clear();
  }

  /** Calls `action` once, soon after the next {@linkcode wake} or after a while, however often it was given until then. */
  whenWoken(action: () => void): void {
    this.#wakened.add(action);
    if (this.#looks) return;
    this.#looks = true;
    this.#cancelLook = this.#clock.after(lookMs, () => {
      this.#looks = false;
      this.#callWakened();
    });
  }

  /** Resolves when the open record takes one more entry. `append` then runs at once, before anybody else can append. */
  async take<T>(appender: Appender, append: () => T): Promise<T> {
    // A wait in the line is a wait for the full log as well.
    const since = this.#clock.monotonicMs();
    if (appender !== "client") return await this.#wait(appender, append, since);
    this.#lineLength++;
    const before = this.#line;
    let leave = () => {};
    this.#line = new Promise((resolve) => leave = resolve);
    try {
      await before;
      return await this.#wait(appender, append, since);
    } finally {
      this.#lineLength--;
      leave();
    }
  }

  /**
   * As {@linkcode take}, but tells false at once when the log is too full: for write-back, from which alone space can come,
   * so that waiting for it would be for ever.
   */
  async takeUnlessFull(appender: "engine" | "tail", append: () => void): Promise<boolean> {
    for (;;) {
      const wait = this.#writer.prepare(appender);
      if (wait === "space") return false;
      if (wait === "none") break;
      if (wait === "failed") throw this.#writer.failure!;
      await this.#nextWake();
    }
    append();
    this.wake();
    return true;
  }

  async #wait<T>(appender: Appender, append: () => T, since: number): Promise<T> {
    for (;;) {
      const idleMs = this.#clock.monotonicMs() - Math.max(since, this.progressMs);
      const isLate = idleMs > this.#tunables.fullTimeout * 1000;
      const held = appender === "client" && this.holdClients();
      // A backing that does not answer sets no pace: what room there is can be used.
      const paced = appender === "client" && !held && !isLate && this.pace.holds;
      const wait = (held || paced) && !this.#writer.failure ? "space" : this.#writer.prepare(appender);
      if (wait === "none") {
        const result = append();
        if (appender !== "client") this.wake();
        return result;
      }
      if (wait === "failed") throw this.#writer.failure!;
      if (this.closing) throw new DeviceError("ESHUTDOWN", "Cannot write: the cache is closing");
      if (paced) this.onPaced();
      else if (wait === "space") this.onSpaceNeeded();
      if (wait === "space" && isLate) {
        throw new DeviceError(
          "EIO",
          `Cannot write: the log is full and nothing could be written back for ${this.#tunables.fullTimeout} s ` +
            `(full_timeout); ${this.fullReason()}`,
        );
      }
      await this.#nextWake();
    }
  }

  /** Resolves when something happened, or after a while. */
  #nextWake(): Promise<void> {
    return new Promise((resolve) => {
      const cancel = this.#clock.after(lookMs, resolve);
      this.#watchers.push(() => {
        cancel();
        resolve();
      });
    });
  }
}
