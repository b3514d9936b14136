/**
 * What is done to each crash image: the real recovery opens it and all of the volume is read; the power goes at once, it is
 * opened again, read again, and drained.
 *
 * @module
 */

import { assert } from "../../src/errors.ts";
import { KernelPool } from "./kernel_pool.ts";
import { Violation } from "./oracle.ts";
import { type Leaf, Recorder, type View } from "./tiny_course.ts";
import { TinyMedium } from "./tiny_disk.ts";
import { type Media, TinyLife } from "./tiny_life.ts";
import { type Content, type DeviceName, spanOf, unitCount, unitOf, type Units } from "./tiny_units.ts";

/** What sectors hold, by device. */
export interface Numbers {
  cache: Int32Array;
  backing: Int32Array;
}

/** What units hold instead of what they held. */
export type Overlay = Map<number, readonly Content[]>;

/** A sync inside a recovery: what is durable by then, and what of all else that was written may be. */
export interface Sync {
  durable: Overlay;
  /** By unit and sector within it. */
  pending: Map<number, number[][]>;
}

/** What a recovery came to. */
export interface Outcome {
  /** Why it failed. */
  error: string | undefined;
  /** What the volume showed. */
  shown: number[];
  /** What it made durable; after a drain nobody asks. */
  durable: Overlay;
  /** What the backing held in the end. */
  backing: number[];
  syncs: Sync[];
}

/** A run's outcome, with what it depends on. */
export interface Run extends Leaf<Outcome> {
  glances: Recorder["glances"];
}

/** Opens crash images. */
export class Recoveries {
  /** Openings. */
  count = 0;
  readonly #units: Units;
  readonly #pool = new KernelPool();

  constructor(units: Units) {
    this.#units = units;
  }

  /** Opens what reads see, of which `durable` survives, and reads it all. `syncs`: they are noted. */
  async first(live: Numbers, durable: Numbers, syncs: boolean): Promise<Run> {
    const media = {
      cache: new TinyMedium(durable.cache, live.cache),
      backing: new TinyMedium(durable.backing, live.backing),
    };
    return await this.#run(media, async (life, recorder, outcome) => {
      if (syncs) {
        const note = () => void outcome.syncs.push(this.#syncOf(media, recorder));
        life.cacheDisk.onSync = life.backingDisk.onSync = note;
      }
      await life.run(life.open(), () => {}, false);
      recorder.opening = false;
      outcome.shown = await readAll(life);
      life.stop();
      outcome.durable = this.#durableOf(media, recorder);
    });
  }

  /** Opens what survived, reads it all, and drains it. */
  async second(durable: Numbers): Promise<Run> {
    const media = { cache: new TinyMedium(durable.cache), backing: new TinyMedium(durable.backing) };
    return await this.#run(media, async (life, recorder, outcome) => {
      await life.run(life.open(), () => {}, false);
      recorder.opening = false;
      outcome.shown = await readAll(life);
      await life.run(life.cache.drain(), () => {}, false);
      life.stop();
      const { backing } = media;
      recorder.watcher("backing").read(0, backing.durable.length, backing.durable);
      outcome.backing = [...backing.durable];
    });
  }

  async #run(
    media: Media,
    steps: (life: TinyLife, recorder: Recorder, outcome: Outcome) => Promise<void>,
  ): Promise<Run> {
    this.count++;
    const recorder = new Recorder(this.#units);
    const life = new TinyLife(media, {
      life: 1000,
      stepped: false,
      pool: this.#pool,
      tunables: { writeback: "off" },
    });
    life.cacheDisk.watcher = recorder.watcher("cache");
    life.backingDisk.watcher = recorder.watcher("backing");
    const outcome: Outcome = { error: undefined, shown: [], durable: new Map(), backing: [], syncs: [] };
    try {
      await steps(life, recorder, outcome);
    } catch (error) {
      life.stop();
      if (!(error instanceof Error)) throw error;
      outcome.error = error instanceof Violation ? error.message : error.stack!;
    }
    return { glances: recorder.glances, outcome };
  }

  #durableOf(media: Media, { settled }: Recorder): Overlay {
    const durable: Overlay = new Map();
    for (let unit = 0; unit < unitCount; unit++) {
      if (settled[unit]) {
        durable.set(unit, [this.#units.on(unit, media[spanOf(unit).device].durable)]);
      }
    }
    return durable;
  }

  #syncOf(media: Media, recorder: Recorder): Sync {
    const pending = new Map<number, number[][]>();
    for (const device of ["cache", "backing"] as const) {
      for (const [sector, numbers] of media[device].pending()) {
        const unit = unitOf(device, sector);
        const span = spanOf(unit);
        let bySector = pending.get(unit);
        if (!bySector) pending.set(unit, bySector = Array.from({ length: span.count }, () => []));
        bySector[sector - span.sector] = numbers;
      }
    }
    return { durable: this.#durableOf(media, recorder), pending };
  }
}

async function readAll(life: TinyLife): Promise<number[]> {
  let numbers: number[] = [];
  await life.run(life.read().then((all) => void (numbers = all)), () => {}, false);
  return numbers;
}

/** Makes one image of the many that `view` stands for, from `numbers`, on which it was decided. */
export function imageOf(view: View, numbers: Numbers): Numbers {
  const image = { cache: numbers.cache.slice(), backing: numbers.backing.slice() };
  const layers: View[] = [view];
  for (let base = view.base; "decided" in base; base = (base as View).base) layers.push(base as View);
  for (const { decided } of layers.reverse()) {
    for (const [unit, contents] of decided) {
      const { device, sector } = spanOf(unit);
      image[device].set(contents[0]!.numbers, sector);
    }
  }
  assert(layers.length > 0);
  return image;
}

/** What a power cut at a sync of a recovery may leave of what was there before it. */
export function overlayOf(units: Units, before: View, { durable, pending }: Sync): Overlay {
  const overlay: Overlay = new Map(durable);
  for (const [unit, bySector] of pending) {
    let list = (overlay.get(unit) ?? before.at(unit)).map(({ numbers }) => numbers);
    for (const [i, more] of bySector.entries()) {
      if (more.length === 0) continue;
      list = list.flatMap((numbers) => [numbers, ...more.map((number) => numbers.with(i, number))]);
    }
    overlay.set(unit, [...new Set(list.map((numbers) => units.of(unit, numbers)))]);
  }
  return overlay;
}

/** For messages. */
export function describe(view: View, durable: Numbers): string {
  const image = imageOf(view, durable);
  const kept: string[] = [];
  for (const device of ["cache", "backing"] satisfies DeviceName[]) {
    for (const [sector, number] of image[device].entries()) {
      if (number !== durable[device][sector]) kept.push(`${device} ${sector}`);
    }
  }
  return kept.length === 0 ? "none survives" : `these survive: ${kept.join(", ")}`;
}
