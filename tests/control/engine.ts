/** An engine for tests of what talks to one: a real cache on memory devices, served on a port, or one that lies. @module */

import { formatCache, MemoryDevice, openCache } from "../../mod.ts";
import type { ControlTarget } from "../../src/control/target.ts";
import type { ServedCache } from "../../src/host/served.ts";
import { ServedCaches } from "../../src/host/served_caches.ts";
import { mib } from "../../src/units.ts";

/** A cache that is served, as a target of control. */
export class TestEngine implements AsyncDisposable {
  readonly target: ControlTarget;
  readonly served: ServedCache;

  private constructor(readonly caches: ServedCaches) {
    const served = this.served = caches.all[0]!;
    this.target = {
      io: "portable",
      ioReason: "the test says so",
      status: () => Promise.resolve(served.status()),
      map: () => Promise.resolve(served.map()),
      tune: (settings) => Promise.resolve(served.tune(settings)),
      mirror: (action, onProgress) => served.mirror(action, onProgress),
      drain: (onProgress) => served.drain(onProgress),
      history: (limit) => served.history(limit),
      hold: (release) => served.hold(release),
      detach: (verify, onProgress) => served.detach(verify, onProgress),
    };
  }

  static async start(): Promise<TestEngine> {
    const pair = { cache: new MemoryDevice(16 * mib), backing: new MemoryDevice(32 * mib) };
    await formatCache(pair);
    const cache = await openCache({ ...pair, tunables: { writeback: "off" }, warn: () => {} });
    return new TestEngine(
      await ServedCaches.start([{ cache }], { listen: "nbd://127.0.0.1:0", warn: () => {} }),
    );
  }

  /** Writes `count` blocks. */
  async write(count: number): Promise<void> {
    for (let i = 0; i < count; i++) await this.served.cache.write(i * 4096, new Uint8Array(4096).fill(i + 1));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.caches.close();
  }
}
