/**
 * The connections to one server: as many as wanted where it allows several, and none while it is away.
 *
 * Invariants: all connections belong to one generation. When one is lost, all are given up, before anybody hears of it:
 * what an old one may still deliver must not be taken for something that the server of today knows. While none is there,
 * new ones are tried for with growing pauses, for as long as the pool is open.
 *
 * @module
 */

import type { Clock } from "../../clock.ts";
import type { Link } from "./link.ts";
import { reconnectMsMin } from "./settings.ts";

/** What a pool needs from around it. */
export interface PoolOptions {
  /** Makes the connections of a new generation. */
  connect(onLost: (link: Link, reason: string) => void): Promise<Link[]>;
  readonly clock: Clock;
  /** Longest pause between attempts. */
  readonly pauseMsMax: number;
  /** Called when the server is lost, with whether writes were unanswered then, before any request is rejected. */
  onAway(writing: boolean): void;
  /** Called when it is back. */
  onBack(): void;
}

interface Waiter {
  take(link: Link): void;
  giveUp(): void;
}

/** The connections to one server. */
export class Pool {
  readonly #options: PoolOptions;
  readonly #waiters = new Set<Waiter>();
  #links: readonly Link[] = [];
  #away: string | undefined;
  #awaySinceMs = 0;
  #closing = false;
  #cancelRetry: () => void = () => {};
  #connecting: Promise<void> = Promise.resolve();

  constructor(options: PoolOptions) {
    this.#options = options;
  }

  /** Why the server cannot be reached, undefined while it can. */
  get away(): string | undefined {
    return this.#away;
  }

  /** For how long that has been so. */
  get awayMs(): number {
    return this.#away === undefined ? 0 : this.#options.clock.monotonicMs() - this.#awaySinceMs;
  }

  /** The connections there are. */
  get links(): readonly Link[] {
    return this.#links;
  }

  /** Connects for the first time; rejects when that fails. */
  async open(): Promise<void> {
    await this.#connect();
  }

  /** The connection with the least to do; waits for one until `deadlineMs`, then resolves to undefined. */
  acquire(deadlineMs: number): Promise<Link | undefined> {
    const link = this.#idlest();
    if (link !== undefined) return Promise.resolve(link);
    const { clock } = this.#options;
    if (this.#closing) return Promise.resolve(undefined);
    return new Promise((resolve) => {
      const end = (link: Link | undefined) => {
        cancel();
        this.#waiters.delete(waiter);
        resolve(link);
      };
      const waiter: Waiter = { take: end, giveUp: () => end(undefined) };
      const cancel = clock.after(Math.max(0, deadlineMs - clock.monotonicMs()), waiter.giveUp);
      this.#waiters.add(waiter);
    });
  }

  /** Gives all connections up and tries for new ones. */
  lose(reason: string): void {
    if (this.#links.length === 0) return;
    const links = this.#links;
    this.#links = [];
    this.#away = reason;
    this.#awaySinceMs = this.#options.clock.monotonicMs();
    this.#options.onAway(links.some((link) => link.isWriting));
    for (const link of links) link.drop(reason);
    if (!this.#closing) this.#retry(reconnectMsMin);
  }

  /** Nobody needs the server any more: what is under way is lost, and nobody waits. */
  abandon(): void {
    this.#closing = true;
    this.#cancelRetry();
    this.lose("it is not needed any more");
    for (const { giveUp } of this.#waiters) giveUp();
  }

  /** Says goodbye to the server. Whoever waits for it gives up. */
  async close(): Promise<void> {
    this.#closing = true;
    this.#cancelRetry();
    for (const { giveUp } of this.#waiters) giveUp();
    await this.#connecting;
    const links = this.#links;
    this.#links = [];
    await Promise.all(links.map((link) => link.disconnect()));
  }

  #idlest(): Link | undefined {
    let found: Link | undefined;
    for (const link of this.#links) {
      if (!link.isLost && (found === undefined || link.inFlight < found.inFlight)) found = link;
    }
    return found;
  }

  async #connect(): Promise<void> {
    // A connection that is lost while others of its generation are being made ends this attempt.
    let early: string | undefined;
    const links = await this.#options.connect((link, reason) => {
      if (this.#links.includes(link)) this.lose(reason);
      else early ??= reason;
    });
    if (early !== undefined || this.#closing) {
      await Promise.all(links.map((link) => link.disconnect()));
      throw new Error(early ?? "it was closed");
    }
    this.#links = links;
    this.#away = undefined;
    this.#options.onBack();
    for (const { take } of this.#waiters) take(this.#idlest()!);
  }

  #retry(pauseMs: number): void {
    this.#cancelRetry = this.#options.clock.after(pauseMs, () => {
      this.#connecting = this.#connect().catch((error) => {
        this.#away = error instanceof Error ? error.message : String(error);
        if (!this.#closing) this.#retry(Math.min(2 * pauseMs, this.#options.pauseMsMax));
      });
    });
  }
}
