/** Detaching: the order of things, what is refused, and what a backing device that lies leads to. @module */

import { DamageError, DeviceError, formatCache, MemoryDevice, openCache, RefusedError } from "../../mod.ts";
import { ServedCache } from "../../src/host/served.ts";
import { mib } from "../../src/units.ts";
import { assertEquals, assertRejects } from "../assert.ts";
import { Client } from "../nbd/client.ts";

/** A backing device that can be told to lie or to fail. */
class OddDevice extends MemoryDevice {
  lies = false;
  fails = false;
  override async write(offset: number, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    if (this.fails) throw new DeviceError("EIO", "the disk is gone");
    if (!this.lies) await super.write(offset, bytes);
  }
}

async function serving(body: (served: ServedCache, backing: OddDevice) => Promise<void>): Promise<void> {
  const pair = { cache: new MemoryDevice(16 * mib), backing: new OddDevice(32 * mib) };
  await formatCache(pair);
  const cache = await openCache({ ...pair, tunables: { writeback: "off" }, warn: () => {} });
  const served = await ServedCache.start(cache, { listen: "nbd://127.0.0.1:0", warn: () => {} });
  try {
    await body(served, pair.backing);
  } finally {
    await served.close();
  }
}

async function write(served: ServedCache, count: number): Promise<Client> {
  const client = await Client.connect(served.server.uris[0]!, { structured: true });
  for (let i = 0; i < count; i++) await client.write(i * 4096, new Uint8Array(4096).fill(i + 1));
  return client;
}

for (const verify of [false, true]) {
  Deno.test(`ServedCache.detach: with verify ${verify} all that was dirty is read back, clients go, it is closed`, () =>
    serving(async (served) => {
      const client = await write(served, 100);
      const phases: string[] = [];
      const report = await served.detach(verify, (_done, _total, phase) => {
        if (phases.at(-1) !== phase) phases.push(phase);
      });
      assertEquals(report, { comparedBlocks: 100 });
      assertEquals(phases.at(-1), "comparing");
      const { serving, clients, cache } = served.status();
      assertEquals([serving, clients, cache.state, cache.cache.dirtyBlocks], [false, 0, "stopping", 0]);
      await assertRejects(() => served.detach(verify, () => {}), RefusedError);
      client.close();
    }));
}

Deno.test("ServedCache.detach: a backing that does not return what was written is told of, and nothing is let go", () =>
  serving(async (served, backing) => {
    (await write(served, 100)).close();
    backing.lies = true;
    await assertRejects(() => served.detach(true, () => {}), DamageError, "100 of 100 blocks");
    assertEquals([served.status().serving, served.status().cache.cache.dirtyBlocks], [false, 100]);
    const bytes = new Uint8Array(4096);
    await served.cache.read(42 * 4096, bytes);
    assertEquals(bytes[0], 43);
  }));

Deno.test("ServedCache.detach: a backing that fails is no end of the serving, and it can be tried again", () =>
  serving(async (served, backing) => {
    const client = await write(served, 100);
    backing.fails = true;
    await assertRejects(() => served.detach(false, () => {}), DeviceError);
    assertEquals(served.status().serving, true);
    assertEquals((await client.read(4096, 4096))[0], 2);
    backing.fails = false;
    client.close();
    assertEquals(await served.detach(false, () => {}), { comparedBlocks: 100 });
  }));

Deno.test("ServedCache.tune: changes what it is given, and says how all is set", () =>
  serving((served) => {
    assertEquals(served.tune({ fullTimeout: 5 }).fullTimeout, 5);
    assertEquals(served.status().tunables.writeback, "off");
    return Promise.resolve();
  }));
