/** Everything that may take long tells how far it is: never back, and to the end. @module */

import { checkCache, formatCache, inspectCache, openCache, recoverCache } from "../../mod.ts";
import { blockBytes, mib } from "../../src/units.ts";
import { assert, assertEquals } from "../assert.ts";

/** Takes progress, checks it, and remembers the phases. */
class Told {
  readonly phases: string[] = [];
  #done = 0;
  #total = 0;

  readonly take = (done: number, total: number, phase = ""): void => {
    if (this.phases.at(-1) !== phase) {
      this.phases.push(phase);
      this.#done = 0;
    }
    assert(
      done >= this.#done && done <= total && total > 0,
      `${phase}: ${done} of ${total} after ${this.#done}`,
    );
    this.#done = done;
    this.#total = total;
  };

  get atEnd(): boolean {
    return this.#done === this.#total && this.#total > 0;
  }
}

Deno.test("onProgress: format, open, drain, check, inspect and recover tell how far they are", async () => {
  const directory = await Deno.makeTempDir();
  try {
    const pair = { cache: `${directory}/cache.nbb`, backing: `${directory}/disk.img` };
    await Deno.writeFile(pair.backing, new Uint8Array(8 * mib));
    const told = async (
      action: (onProgress: Told["take"]) => Promise<unknown>,
    ): Promise<Told> => {
      const one = new Told();
      await action(one.take);
      return one;
    };
    const formatting = await told((onProgress) => formatCache({ ...pair, cacheSize: 16 * mib, onProgress }));
    assert(formatting.atEnd);
    const fill = async () => {
      const cache = await openCache({ ...pair, tunables: { writeback: "off" }, warn: () => {} });
      for (let i = 0; i < 300; i++) await cache.write(i * blockBytes, new Uint8Array(blockBytes).fill(i));
      await cache.close();
    };
    await fill();
    assertEquals((await told((onProgress) => inspectCache({ cache: pair.cache, onProgress }))).phases, [""]);
    const checking = await told((onProgress) => checkCache({ ...pair, onProgress }));
    assertEquals([checking.phases, checking.atEnd], [["reading", "verifying"], true]);

    const output = `${directory}/copy.img`;
    const copying = await told((onProgress) => recoverCache({ ...pair, output, onProgress }));
    assertEquals([copying.phases, copying.atEnd], [["reading", "verifying", "replaying", "copying"], true]);
    const recovering = await told((onProgress) => recoverCache({ ...pair, onProgress }));
    assertEquals([recovering.phases, recovering.atEnd], [
      ["reading", "verifying", "replaying", "draining"],
      true,
    ]);

    await fill();
    const opening = new Told();
    const cache = await openCache({ ...pair, onProgress: opening.take, tunables: { writeback: "off" } });
    assertEquals(opening.phases, [""]);
    const draining = await told((onProgress) => cache.drain({ onProgress, verify: true }));
    assertEquals([draining.phases, draining.atEnd], [["draining", "comparing"], true]);
    await cache.close();
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});
