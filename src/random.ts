/**
 * Randomness, as the engine gets to see it: uuids and epoch values. The simulator brings a seeded source.
 *
 * @module
 */

/** Fills `bytes` with random values. */
export type RandomSource = (bytes: Uint8Array<ArrayBuffer>) => void;

/** The machine's cryptographic source. */
export const systemRandom: RandomSource = (bytes) => {
  crypto.getRandomValues(bytes);
};

/**
 * A small seeded generator (xorshift128+ in 32-bit steps, after Marsaglia 2003) for tests, sampling and the
 * simulator; never for secrets. Same seed, same values.
 */
export class SeededRandom {
  #state: Uint32Array;
  constructor(seed: number) {
    this.#state = new Uint32Array(4);
    let mix = (seed ^ 0x9e3779b9) >>> 0;
    for (let i = 0; i < 4; i++) {
      mix = (mix + 0x6d2b79f5) >>> 0;
      let word = Math.imul(mix ^ (mix >>> 15), mix | 1);
      word ^= word + Math.imul(word ^ (word >>> 7), word | 61);
      this.#state[i] = (word ^ (word >>> 14)) >>> 0;
    }
    this.#state[0]! |= 1;
  }
  /** The next u32. */
  next(): number {
    const state = this.#state;
    let mix = state[0]!;
    mix ^= mix << 11;
    mix ^= mix >>> 8;
    state[0] = state[1]!;
    state[1] = state[2]!;
    state[2] = state[3]!;
    mix ^= state[3]! ^ (state[3]! >>> 19);
    state[3] = mix;
    return state[3]!;
  }
  /** An integer from 0 up to, and without, `limit`. */
  below(limit: number): number {
    return Math.floor((this.next() / 0x1_0000_0000) * limit);
  }
  /** True with probability `share`. */
  chance(share: number): boolean {
    return this.next() / 0x1_0000_0000 < share;
  }
  /** Fills `bytes`; a {@linkcode RandomSource}. */
  fill = (bytes: Uint8Array): void => {
    for (let i = 0; i < bytes.length; i++) bytes[i] = this.next();
  };
}
