/**
 * The two legs under a simulated past: they are given up, copied to, left out, named in any order, and lost for good.
 *
 * Invariant: a leg is taken away only while the other one has everything, as far as the cache has said so itself.
 *
 * @module
 */

import type { Cache } from "../../src/cache/cache.ts";
import type { SeededRandom } from "../../src/random.ts";
import { NbdboostError } from "../../src/errors.ts";
import type { HistoryCounts } from "./history_counts.ts";
import type { Machine } from "./machine.ts";
import { Medium } from "./medium.ts";

/** The legs of one machine; nothing happens to a plain cache device. */
export class HistoryLegs {
  readonly #machine: Machine;
  readonly #random: SeededRandom;
  readonly #counts: HistoryCounts;
  /** A leg that may lack something. */
  #old: Medium | undefined;

  constructor(machine: Machine, random: SeededRandom, counts: HistoryCounts) {
    this.#machine = machine;
    this.#random = random;
    this.#counts = counts;
  }

  get #mirrored(): boolean {
    return this.#machine.allLegs.length > 1;
  }

  /** One that has everything. */
  get good(): Medium {
    const good = this.#machine.allLegs.filter((leg) => leg !== this.#old);
    return good[this.#random.below(good.length)]!;
  }

  /** Chooses what the next life is given. What is written without a leg makes that one old. */
  plan(writes: boolean): void {
    if (!this.#mirrored) return;
    const { allLegs } = this.#machine;
    const { good } = this;
    const other = allLegs.find((leg) => leg !== good)!;
    const one = this.#random.chance(this.#old ? 0.4 : 0.15);
    this.#machine.legs = one ? [good] : this.#random.chance(0.5) ? [good, other] : [other, good];
    if (!one) return;
    this.#counts.oneLeg++;
    if (writes) this.#old = other;
  }

  /** Gives a leg up, or has one copied to, while the cache goes on. */
  async step(cache: Cache): Promise<void> {
    const { mirror } = cache;
    if (!mirror) return;
    const { whole, copy, legs } = mirror.status();
    if (whole) {
      const leg = legs[this.#random.below(2)]!;
      this.#old = this.#machine.allLegs.find(({ name }) => name === leg.path);
      await this.#machine.run(mirror.drop(leg.path));
      return;
    }
    const gone = this.#machine.allLegs.find(({ name }) =>
      legs.every(({ path, state }) => path !== name || state === "missing")
    );
    if (copy || !gone) return;
    if (this.#random.chance(0.3)) this.#lose(gone);
    const target = this.#machine.allLegs.find(({ name }) => name === gone.name)!;
    const copied = mirror.attach(this.#machine.disk(target), { force: true }).catch((error) => {
      if (!(error instanceof NbdboostError)) throw error;
    });
    if (this.#random.chance(0.5)) await this.#machine.run(copied);
  }

  /** The life of this cache is over; perhaps a leg with it. */
  ended(cache: Cache): void {
    const { mirror } = cache;
    if (!mirror) return;
    const { whole, legs } = mirror.status();
    if (whole) {
      this.#old = undefined;
      this.#counts.wholeEnds++;
    } else this.#old ??= this.#machine.allLegs.find(({ name }) => legs.every((leg) => !serves(leg, name)));
    if (this.#random.chance(0.3)) this.#lose(this.#old ?? this.good);
  }

  /** The leg is lost for good, and an empty device takes its place. */
  #lose(leg: Medium): void {
    const fresh = new Medium(leg.sizeBytes, leg.name);
    const { allLegs } = this.#machine;
    this.#machine.allLegs = allLegs.map((each) => each === leg ? fresh : each);
    this.#old = fresh;
    this.#counts.legsLost++;
  }
}

function serves({ path, state }: { path: string; state: string }, name: string): boolean {
  return path === name && state === "in service";
}
