/**
 * What a long run says of itself while it goes on.
 *
 * @module
 */

const progressMs = 60_000;

/** Tells now and then how far it has come. */
export class Progress {
  readonly #what: string;
  readonly #count: number;
  readonly #startMs = performance.now();
  #toldMs = performance.now();
  #done = 0;

  /** There are `count` steps in all. */
  constructor(what: string, count: number) {
    this.#what = what;
    this.#count = count;
  }

  /** A step begins. */
  tell(): void {
    const nowMs = performance.now();
    const part = this.#done++ / this.#count;
    if (nowMs - this.#toldMs < progressMs) return;
    this.#toldMs = nowMs;
    const minutes = (nowMs - this.#startMs) * (1 / part - 1) / 60_000;
    console.log(
      `${this.#what}: ${(100 * part).toFixed(1)} % of ${this.#count} workloads, about ${
        minutes.toFixed(0)
      } minutes to go`,
    );
  }
}
