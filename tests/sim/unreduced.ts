/**
 * The check of what exhaustive.ts leaves out: every image by itself is opened by the real recovery, and what that shows is
 * compared with what was said of it without running it.
 *
 * @module
 */

import { assert } from "../../src/errors.ts";
import type { Moment } from "./exhaustive.ts";
import { Violation } from "./oracle.ts";
import { type Courses, type Holdings, View } from "./tiny_course.ts";
import { Base, picksOf, type Place } from "./tiny_moment.ts";
import { imageOf, type Numbers, type Outcome, Recoveries } from "./tiny_recovery.ts";
import type { Units } from "./tiny_units.ts";

/** Images of a moment beyond which classes and drawn ones are compared. */
const imagesMax = 4096;

/** What is known by now. */
interface Known {
  first: Courses<Outcome>;
  second: Courses<Outcome>;
  units: Units;
}

/** Tries images one at a time. */
export class Unreduced {
  /** Images that were compared. */
  images = 0;
  recoveries = 0;
  readonly #tried = new Set<number>();

  /** Compares all images of a moment. All that it can lead to must be known. */
  async compare(moment: Moment, known: Known): Promise<void> {
    const { numbers: { visible, durable } } = moment;
    if (!(moment.visible instanceof Base)) return;
    const places: readonly Place[] = (moment.durable as Base | undefined ?? moment.visible).places;
    const recoveries = new Recoveries(known.units);
    for (const pick of picksOf(places, imagesMax)) {
      const image = { cache: durable.cache.slice(), backing: durable.backing.slice() };
      for (const [i, { device, sector, numbers }] of places.entries()) {
        image[device][sector] = numbers[pick[i]!]!;
      }
      const live = moment.durable ? visible : image;
      const key = hashOf([image.cache, image.backing, live.cache, live.backing]);
      if (this.#tried.has(key)) continue;
      this.#tried.add(key);
      this.images++;
      await this.#compare(recoveries, known, live, image);
    }
    this.recoveries += recoveries.count;
  }

  async #compare(recoveries: Recoveries, known: Known, live: Numbers, durable: Numbers): Promise<void> {
    const reads = new View(new Base(known.units, live, []));
    const first = only(known.first, reads);
    const { outcome: ran } = await recoveries.first(live, durable, false);
    same("opened", ran, first);
    if (ran.error !== undefined) return;
    const survives: Holdings = new Base(known.units, durable, []);
    const second = only(known.second, new View(survives, new Map(first.durable)));
    const again = imageOf(new View(survives, new Map(ran.durable)), durable);
    same("opened again", (await recoveries.second(again)).outcome, second);
  }
}

/** The one outcome that is known of an image. */
function only(courses: Courses<Outcome>, view: View): Outcome {
  const found: Outcome[] = [];
  courses.walk(view, (outcome) => found.push(outcome), () => {
    throw new Violation("an image leads to something that was never run");
  });
  assert(found.length === 1);
  return found[0]!;
}

function same(what: string, ran: Outcome, said: Outcome): void {
  const text = ({ error, shown, durable, backing }: Outcome) =>
    JSON.stringify([
      error?.split("\n")[0],
      shown,
      backing,
      [...durable].map(([unit, [content]]) => [unit, content!.id]),
    ]);
  if (text(ran) !== text(said)) {
    throw new Violation(
      `the reduction is wrong: ${what}, an image shows ${text(ran)}, and ${text(said)} was said of it`,
    );
  }
}

/** 53 bits. */
function hashOf(parts: Int32Array[]): number {
  let low = 0x811c9dc5;
  let high = 0x1234567;
  for (const part of parts) {
    for (const number of part) {
      low = Math.imul(low ^ number, 0x01000193);
      high = Math.imul(high ^ number, 0x5bd1e995) ^ (high >>> 13);
    }
  }
  return (low >>> 0) * 0x20_0000 + (high & 0x1f_ffff);
}
