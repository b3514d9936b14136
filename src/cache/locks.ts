/**
 * Serialises writing requests that touch the same block and cannot be done at once (log-rules.md 2). First come, first
 * served; requests on other blocks pass.
 *
 * @module
 */

interface Held {
  first: number;
  last: number;
  /** Undefined once granted. */
  grant: (() => void) | undefined;
}

/** Locks on ranges of blocks. */
export class RangeLocks {
  readonly #held: Held[] = [];

  /** Whether anything is held or waited for; the hot path asks this first. */
  get any(): boolean {
    return this.#held.length > 0;
  }

  /** Whether a block of [first, last] is held or waited for. */
  overlaps(first: number, last: number): boolean {
    // By index: an iterator would be an object for each request that comes while another waits.
    for (let i = 0; i < this.#held.length; i++) {
      const held = this.#held[i]!;
      if (held.first <= last && first <= held.last) return true;
    }
    return false;
  }

  /** Resolves with the function that releases [first, last]. */
  async acquire(first: number, last: number): Promise<() => void> {
    const own: Held = { first, last, grant: undefined };
    const blocked = this.overlaps(first, last);
    this.#held.push(own);
    if (blocked) await new Promise<void>((resolve) => own.grant = resolve);
    return () => this.#release(own);
  }

  #release(own: Held): void {
    this.#held.splice(this.#held.indexOf(own), 1);
    for (let i = 0; i < this.#held.length; i++) {
      const waiter = this.#held[i]!;
      if (!waiter.grant) continue;
      const blocked = this.#held.slice(0, i).some((held) =>
        held.first <= waiter.last && waiter.first <= held.last
      );
      if (blocked) continue;
      waiter.grant();
      waiter.grant = undefined;
    }
  }
}
