/**
 * Which beginnings of workloads come to the same state: what follows them need be gone through once.
 *
 * A machine that is off is what its devices hold, and what may be read from them; nothing else of it is left. So where a
 * beginning ends with a power cut, or with a close, it is compared with all that did before it; if the state was there, each
 * workload that goes on from it does what another one does, which is no longer and is gone through.
 *
 * Invariant: a beginning is only called the same as one before it in the order of length, then of {@linkcode eachWorkload}, so
 * no two leave each other out, whoever goes through which part.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { eachWorkload } from "./exhaustive.ts";
import { KernelPool } from "./kernel_pool.ts";
import { contents } from "./tiny_oracle.ts";
import { type Operation, prepare, type Prepared, type StartName, starts, TinyWorld } from "./tiny_world.ts";

const ends: readonly Operation[] = ["c", "k", "j"];

/** Beginnings that are the same as another one. */
export class Prefixes {
  readonly #same = new Set<string>();

  /** Compares all beginnings of workloads of up to `lengthMax` operations. */
  static async compare(names: readonly StartName[], lengthMax: number): Promise<Prefixes> {
    const prefixes = new Prefixes();
    const prepared = new Map<StartName, Prepared>();
    for (const start of names) {
      // Where that fails, all workloads fail, and the first one tells why.
      await prepare(starts[start]).then((each) => prepared.set(start, each), () => {});
    }
    const pool = new KernelPool();
    const known = new Set<string>();
    const contentsMin = contents.count;
    for (let length = 1; length < lengthMax; length++) {
      for (const workload of eachWorkload(length)) {
        if (!ends.includes(workload.at(-1)!)) continue;
        for (const start of names) {
          const begin = prepared.get(start);
          if (!begin || prefixes.cover(start, workload)) continue;
          const state = await stateAfter(begin, workload, pool);
          // One that fails is gone through, and tells why.
          if (state === undefined) continue;
          if (known.has(state)) prefixes.#same.add(keyOf(start, workload));
          known.add(state);
          if (contents.count > contentsMin + 50_000) contents.forget(contentsMin);
        }
      }
    }
    contents.forget(contentsMin);
    return prefixes;
  }

  /** How many there are. */
  get count(): number {
    return this.#same.size;
  }

  /** Whether `workload` goes on from a beginning that is the same as another one. */
  cover(start: StartName, workload: readonly Operation[]): boolean {
    for (let length = 1; length < workload.length; length++) {
      if (this.#same.has(keyOf(start, workload.slice(0, length)))) return true;
    }
    return false;
  }
}

function keyOf(start: StartName, workload: readonly Operation[]): string {
  return `${start} ${workload.join(" ")}`;
}

/** A digest of all that is left when the machine is off for the last time; undefined if it does not come to that. */
async function stateAfter(
  prepared: Prepared,
  workload: readonly Operation[],
  pool: KernelPool,
): Promise<string | undefined> {
  try {
    const world = await TinyWorld.begin(prepared, pool);
    let state: string | undefined;
    for (const [i, operation] of workload.entries()) {
      if (i === workload.length - 1) world.onOff = () => state = digestOf(world);
      await world.do(operation, () => {}, false);
    }
    world.stop();
    return state;
  } catch {
    return undefined;
  }
}

function digestOf(world: TinyWorld): string {
  const { media, oracle, lives, tunables } = world;
  const hash = createHash("sha256");
  hash.update(JSON.stringify([lives, tunables, oracle.version]));
  const add = (numbers: readonly number[] | Int32Array) => {
    hash.update(`${numbers.length}:`);
    for (const [i, number] of numbers.entries()) {
      if (number === 0) continue;
      hash.update(`${i}:`);
      hash.update(contents.bytesOf(number));
    }
  };
  // What may be read from them is a function of them: after a power cut it is what is read first, and after a close it is known.
  add(media.cache.durable);
  add(media.backing.durable);
  return hash.digest("base64");
}
