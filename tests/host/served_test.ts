/** Detaching: the order of things, what is refused, and what a backing device that lies leads to. @module */

import {
  type Cache,
  DamageError,
  DeviceError,
  formatCache,
  MemoryDevice,
  openCache,
  RefusedError,
} from "../../mod.ts";
import type { ServedCache } from "../../src/host/served.ts";
import { ServedCaches } from "../../src/host/served_caches.ts";
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

async function opened(): Promise<{ cache: Cache; backing: OddDevice }> {
  const pair = { cache: new MemoryDevice(16 * mib), backing: new OddDevice(32 * mib) };
  await formatCache(pair);
  const cache = await openCache({ ...pair, tunables: { writeback: "off" }, warn: () => {} });
  return { cache, backing: pair.backing };
}

interface Serving {
  served: ServedCache;
  backing: OddDevice;
  uri: string;
}

async function serving(body: (serving: Serving) => Promise<void>): Promise<void> {
  const { cache, backing } = await opened();
  const caches = await ServedCaches.start([{ cache }], { listen: "nbd://127.0.0.1:0", warn: () => {} });
  try {
    await body({ served: caches.all[0]!, backing, uri: caches.server.uris[0]! });
  } finally {
    await caches.close();
  }
}

async function write(uri: string, count: number, exportName = ""): Promise<Client> {
  const client = await Client.connect(uri, { structured: true, exportName });
  for (let i = 0; i < count; i++) await client.write(i * 4096, new Uint8Array(4096).fill(i + 1));
  return client;
}

for (const verify of [false, true]) {
  Deno.test(`ServedCache.detach: with verify ${verify} all that was dirty is read back, clients go, it is closed`, () =>
    serving(async ({ served, uri }) => {
      const client = await write(uri, 100);
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
  serving(async ({ served, backing, uri }) => {
    (await write(uri, 100)).close();
    backing.lies = true;
    await assertRejects(() => served.detach(true, () => {}), DamageError, "100 of 100 blocks");
    assertEquals([served.status().serving, served.status().cache.cache.dirtyBlocks], [false, 100]);
    const bytes = new Uint8Array(4096);
    await served.cache.read(42 * 4096, bytes);
    assertEquals(bytes[0], 43);
  }));

Deno.test("ServedCache.detach: a backing that fails is no end of the serving, and it can be tried again", () =>
  serving(async ({ served, backing, uri }) => {
    const client = await write(uri, 100);
    backing.fails = true;
    await assertRejects(() => served.detach(false, () => {}), DeviceError);
    assertEquals(served.status().serving, true);
    assertEquals((await client.read(4096, 4096))[0], 2);
    backing.fails = false;
    client.close();
    assertEquals(await served.detach(false, () => {}), { comparedBlocks: 100 });
  }));

Deno.test("ServedCache.tune: changes what it is given, and says how all is set", () =>
  serving(({ served }) => {
    assertEquals(served.tune({ fullTimeout: 5 }).fullTimeout, 5);
    assertEquals(served.status().tunables.writeback, "off");
    return Promise.resolve();
  }));

Deno.test("ServedCaches: each is counted and detached on its own, and the server ends with the last", async () => {
  const [one, two] = [(await opened()).cache, (await opened()).cache];
  const exports = [{ name: "one", cache: one }, { name: "two", cache: two }];
  const caches = await ServedCaches.start(exports, { listen: "nbd://127.0.0.1:0", warn: () => {} });
  const uri = caches.server.uris[0]!.replace(/one$/, "");
  try {
    const [first, second] = [await write(uri, 3, "one"), await write(uri, 5, "two")];
    const counted = () => caches.all.map((each) => [each.status().clients, each.status().requests.write]);
    assertEquals([counted(), caches.server.statistics.write], [[[1, 3], [1, 5]], 8]);
    assertEquals(caches.all.map((each) => each.status().latencies.write.count), [3, 5]);

    assertEquals(await caches.all[0]!.detach(false, () => {}), { comparedBlocks: 3 });
    first.close();
    assertEquals(counted(), [[0, 3], [1, 5]]);
    // The other one does not notice, and the one that is gone is not to be had.
    assertEquals(await second.write(0, new Uint8Array(4096).fill(9)), 0);
    await assertRejects(() => Client.connect(uri, { exportName: "one" }));
    const third = await Client.connect(uri, { exportName: "two", structured: true });
    assertEquals((await third.read(0, 4096))[0], 9);
    third.close();

    assertEquals(await caches.all[1]!.detach(true, () => {}), { comparedBlocks: 5 });
    second.close();
    await assertRejects(() => Client.connect(uri, { exportName: "two" }), Deno.errors.ConnectionRefused);
  } finally {
    await caches.close();
  }
});

// Why: whoever asked for the default export had the first, and, on connecting again after that was detached, got the next: a disk of
// somebody else's, to write to.
Deno.test("ServedCaches: once the first is detached, nobody gets another one by asking for the default", async () => {
  const exports = [
    { name: "one", cache: (await opened()).cache },
    { name: "two", cache: (await opened()).cache },
  ];
  const caches = await ServedCaches.start(exports, { listen: "nbd://127.0.0.1:0", warn: () => {} });
  const uri = caches.server.uris[0]!.replace(/one$/, "");
  try {
    (await write(uri, 3)).close();
    assertEquals(caches.all.map((each) => each.status().requests.write), [3, 0]);
    await caches.all[0]!.detach(false, () => {});
    await assertRejects(() => Client.connect(uri, { structured: true }));
    (await write(uri, 1, "two")).close();
  } finally {
    await caches.close();
  }
});
