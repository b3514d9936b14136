/**
 * A moment at which the power goes, or the process dies: what each unit of the devices may hold then.
 *
 * Invariant: the first content of each unit is the durable one.
 *
 * @module
 */

import { SeededRandom } from "../../src/random.ts";
import type { Holdings } from "./tiny_course.ts";
import type { Choice } from "./tiny_disk.ts";
import type { Media } from "./tiny_life.ts";
import type { Numbers } from "./tiny_recovery.ts";
import { type Content, type DeviceName, spanOf, unitCount, unitOf, type Units } from "./tiny_units.ts";

/** Contents of one unit beyond which classes are tried. */
export const contentsMax = 4096;
/** Random contents of a unit that is sampled. */
const randomContents = 64;

/** One sector's choices, with the device they belong to. */
export interface Place extends Choice {
  device: DeviceName;
}

/** What all units may hold. */
export class Base implements Holdings {
  readonly numbers: Numbers;
  readonly places: readonly Place[];
  /** Whether some unit has too many contents for all. */
  readonly sampled: boolean;
  readonly #units: Units;
  readonly #placesOf = new Map<number, Place[]>();
  readonly #contents: (readonly Content[])[] = new Array(unitCount);

  constructor(units: Units, numbers: Numbers, places: readonly Place[]) {
    this.#units = units;
    this.numbers = numbers;
    this.places = places;
    for (const place of places) {
      const unit = unitOf(place.device, place.sector);
      const list = this.#placesOf.get(unit);
      if (list) list.push(place);
      else this.#placesOf.set(unit, [place]);
    }
    this.sampled = [...this.#placesOf.values()].some((list) => subsetsOf(list) > contentsMax);
  }

  at(unit: number): readonly Content[] {
    return this.#contents[unit] ??= this.#contentsOf(unit);
  }

  #contentsOf(unit: number): Content[] {
    const { device, sector, count } = spanOf(unit);
    const durable = Array.from(this.numbers[device].subarray(sector, sector + count));
    const places = this.#placesOf.get(unit);
    if (!places) return [this.#units.of(unit, durable)];
    const contents = new Set<Content>();
    for (const pick of picksOf(places)) {
      const numbers = [...durable];
      for (const [i, place] of places.entries()) numbers[place.sector - sector] = place.numbers[pick[i]!]!;
      contents.add(this.#units.of(unit, numbers));
    }
    return [...contents];
  }
}

/** How many subsets there are. */
export function subsetsOf(places: readonly Place[]): number {
  let count = 1;
  for (const { numbers } of places) count *= numbers.length;
  return count;
}

/** Everything that a power cut may decide; with `done`, of what had completed. */
export function placesOf(media: Media, done = false): Place[] {
  const places: Place[] = [];
  for (const device of ["cache", "backing"] as const) {
    for (const choice of media[device].choices(done)) places.push({ ...choice, device });
  }
  return places;
}

/** Every subset, by place: which of the numbers is on the medium; or classes of them, where they are too many. */
export function* picksOf(places: readonly Place[], subsetsMax = contentsMax): Generator<number[]> {
  if (subsetsOf(places) <= subsetsMax) {
    const pick = places.map(() => 0);
    for (;;) {
      yield pick;
      let at = 0;
      while (at < pick.length && ++pick[at]! === places[at]!.numbers.length) pick[at++] = 0;
      if (at === pick.length) return;
    }
  }
  // By the order in which they were written; a sector's later writes count as one with its last.
  const order = places.map((_, i) => i).sort((a, b) => places[a]!.orders[1]! - places[b]!.orders[1]!);
  const last = (i: number) => places[i]!.numbers.length - 1;
  const of = (keep: (rank: number) => boolean): number[] => {
    const pick = places.map(() => 0);
    for (const [rank, i] of order.entries()) if (keep(rank)) pick[i] = last(i);
    return pick;
  };
  yield of(() => false);
  yield of(() => true);
  for (let chosen = 0; chosen < order.length; chosen++) {
    yield of((rank) => rank === chosen);
    yield of((rank) => rank !== chosen);
    yield of((rank) => rank < chosen);
  }
  const random = new SeededRandom(places.length);
  for (let i = 0; i < randomContents; i++) yield places.map(({ numbers }) => random.below(numbers.length));
}
