/** The cache in front of servers that other people wrote: they answer, hang, fail, die, and come back. */

import { type BlockDevice, type Cache, checkCache, formatCache, openCache, openDevice } from "../../mod.ts";
import { DeviceError } from "../../src/errors.ts";
import { SeededRandom } from "../../src/random.ts";
import { probeRing } from "../../src/io/ring/mod.ts";
import { ServerProcess } from "../../src/cli/self.ts";
import { assertSame } from "../device/contract.ts";
import { runHere } from "../cli/support.ts";
import { assert, assertEquals, assertGreater, assertRejects } from "../assert.ts";
import { ForeignServer, nbdkit, qemuNbd } from "./servers.ts";
import type { Tool } from "./tools.ts";

const kib = 1024;
const mib = 1024 * kib;
const sizeBytes = 32 * mib;
const blockBytes = 4096;

/** Writes, zeroes, reads and syncs at random, compares with a model, and once more over a new connection. */
async function exercise(server: ForeignServer): Promise<void> {
  const device = await openDevice(server.uri, { write: true });
  const random = new SeededRandom(5);
  const model = new Uint8Array(sizeBytes);
  for (let step = 0; step < 150; step++) {
    const offset = random.below(sizeBytes / 512 - 600) * 512;
    const length = (1 + random.below(600)) * 512;
    if (random.chance(0.3)) {
      await device.zero(offset, length, { keepAllocated: random.chance(0.5) });
      model.fill(0, offset, offset + length);
    } else {
      const bytes = new Uint8Array(length);
      random.fill(bytes);
      await device.write(offset, bytes);
      model.set(bytes, offset);
    }
    if (random.chance(0.1)) await device.sync();
  }
  const compare = async (device: BlockDevice) => {
    const all = new Uint8Array(sizeBytes);
    await device.read(0, all);
    assertSame(all, model, "all of it");
  };
  await compare(device);
  await device.sync();
  await device.close();
  const again = await openDevice(server.uri, { write: false });
  await compare(again);
  await again.close();
}

const servers: [Tool, string, (socket: string, directory: string) => string[]][] = [
  ["qemu-nbd", "as it is", qemuNbd(sizeBytes)],
  ["nbdkit", "as it is", nbdkit(sizeBytes)],
  ["nbdkit", "without zeroing, structured replies and several connections", (socket, directory) => [
    "--no-sr",
    ...nbdkit(sizeBytes, ["nozero", "multi-conn"], ["multi-conn-mode=disable"])(socket, directory),
  ]],
  ["nbdkit", "with delays", nbdkit(sizeBytes, ["delay"], ["delay-read=2ms", "delay-write=2ms"])],
];

for (const [tool, how, args] of servers) {
  Deno.test(`NbdDevice: in front of ${tool} ${how}`, async () => {
    await using server = await ForeignServer.start(tool, args);
    if (server !== undefined) await exercise(server);
  });
}

Deno.test("NbdDevice: a server that comes back with a smaller limit gets smaller requests", async () => {
  let limit: string[] = [];
  await using server = await ForeignServer.start(
    "nbdkit",
    (socket, directory) =>
      nbdkit(sizeBytes, limit.length > 0 ? ["blocksize-policy"] : [], limit)(socket, directory),
  );
  if (server === undefined) return;
  const device = await openDevice(`${server.uri}&x-wait=20`, { write: true });
  const bytes = new Uint8Array(2 * mib).fill(1);
  await device.write(0, bytes);
  await server.kill();
  limit = [
    "blocksize-minimum=1",
    "blocksize-preferred=4096",
    "blocksize-maximum=131072",
    "blocksize-error-policy=error",
  ];
  // One is cut for the old server and done by the new one, another is cut for that.
  const early = device.write(2 * mib, bytes);
  await server.start();
  await early;
  await device.write(4 * mib, bytes.fill(2));
  const found = new Uint8Array(6 * mib);
  await device.read(0, found);
  assertSame(
    found.subarray(2 * mib),
    new Uint8Array(4 * mib).fill(1).fill(2, 2 * mib),
    "what was written since",
  );
  await device.close();
});

/** A cache in front of `uri`. */
async function withCache(uri: string, body: (cache: Cache, path: string) => Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir({ prefix: "nbdboost-backing-" });
  try {
    const path = `${directory}/cache`;
    await formatCache({ cache: path, cacheSize: 16 * mib, backing: uri });
    const cache = await openCache({ cache: path, backing: uri, tunables: { writeback: "on" } });
    try {
      await body(cache, path);
    } finally {
      await cache.close();
    }
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

/** What is in the model is in the cache. */
async function expectAll(cache: Cache, model: Uint8Array): Promise<void> {
  const all = new Uint8Array(sizeBytes);
  await cache.read(0, all);
  assertSame(all, model, "all of it");
}

for (const [tool, args] of [["qemu-nbd", qemuNbd(sizeBytes)], ["nbdkit", nbdkit(sizeBytes)]] as const) {
  Deno.test(`Cache: nothing is lost when ${tool} behind it is killed and started again under load`, async () => {
    await using server = await ForeignServer.start(tool, args);
    if (server === undefined) return;
    await withCache(`${server.uri}&x-wait=20`, async (cache) => {
      const random = new SeededRandom(3);
      const model = new Uint8Array(sizeBytes);
      let killing = true;
      const killer = (async () => {
        for (let round = 0; round < 5; round++) {
          await new Promise((resolve) => setTimeout(resolve, 300));
          await server.kill();
          await new Promise((resolve) => setTimeout(resolve, 200));
          await server.start();
        }
        killing = false;
      })();
      let writes = 0;
      while (killing) {
        const block = random.below(sizeBytes / blockBytes - 8);
        const bytes = new Uint8Array((1 + random.below(8)) * blockBytes);
        random.fill(bytes.subarray(0, 64));
        await cache.write(block * blockBytes, bytes);
        model.set(bytes, block * blockBytes);
        if (++writes % 16 === 0) await cache.flush();
        // A miss now and then, which waits for the server.
        if (writes % 64 === 0) {
          await cache.read(random.below(sizeBytes / blockBytes) * blockBytes, new Uint8Array(4096));
        }
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
      await killer;
      assertGreater(writes, 50);
      await expectAll(cache, model);
      await cache.drain();
      await expectAll(cache, model);
      assertEquals(cache.status().backing.away, null);
      const backing = await openDevice(server.uri, { write: false });
      const bytes = new Uint8Array(sizeBytes);
      await backing.read(0, bytes);
      assertSame(bytes, model, "the backing alone");
      await backing.close();
    });
  });
}

Deno.test("Cache: with the server away writes and hits go on, misses fail in time, status says it; then all is well", async () => {
  await using server = await ForeignServer.start("qemu-nbd", qemuNbd(sizeBytes));
  if (server === undefined) return;
  await withCache(`${server.uri}&x-wait=1`, async (cache) => {
    const bytes = new Uint8Array(64 * kib).fill(1);
    await cache.write(0, bytes);
    await cache.flush();
    await server.kill();
    await cache.write(mib, bytes);
    await cache.flush();
    const back = new Uint8Array(64 * kib);
    await cache.read(mib, back);
    assertEquals(back, bytes);
    const error = await assertRejects(
      () => cache.read(8 * mib, new Uint8Array(4096)),
      DeviceError,
      "is away",
    );
    assertEquals(error.code, "ETIMEDOUT");
    const status = cache.status();
    assert(status.backing.away !== null);
    assertEquals(status.state, "degraded");
    await assertRejects(() => cache.drain(), DeviceError);
    await server.start();
    const miss = new Uint8Array(4096).fill(9);
    await cache.read(8 * mib, miss);
    assertEquals(miss, new Uint8Array(4096));
    // Write-back may still rest after its failures; a drain asks for a pass at once.
    await cache.drain().catch(() => cache.drain());
    assertEquals([cache.status().cache.dirtyBlocks, cache.status().backing.away], [0, null]);
  });
});

Deno.test("Cache: a server that hangs costs misses a stated time, and writes nothing", async () => {
  await using server = await ForeignServer.start("nbdkit", nbdkit(sizeBytes));
  if (server === undefined) return;
  await withCache(`${server.uri}&x-wait=1`, async (cache) => {
    const bytes = new Uint8Array(4096).fill(1);
    server.signal("SIGSTOP");
    try {
      await cache.write(0, bytes);
      await cache.flush();
      await assertRejects(
        () => cache.read(8 * mib, new Uint8Array(4096)),
        DeviceError,
        "did not answer for 1 s",
      );
      assert(cache.status().backing.away !== null);
    } finally {
      server.signal("SIGCONT");
    }
    await cache.read(8 * mib, bytes);
    assertEquals(bytes, new Uint8Array(4096));
    await cache.drain().catch(() => cache.drain());
  });
});

Deno.test("NbdDevice: a server that takes longer than the stated time for each request is given up in time", async () => {
  await using server = await ForeignServer.start("nbdkit", nbdkit(sizeBytes, ["delay"], ["delay-read=20"]));
  if (server === undefined) return;
  const device = await openDevice(`${server.uri}&x-wait=1`, { write: true });
  await device.write(0, new Uint8Array(4096).fill(1));
  await device.sync();
  // It is asked once or twice, for a second each, and not waited for until the server is so far.
  const error = await assertRejects(() => device.read(0, new Uint8Array(4096)), DeviceError);
  assertEquals(error.code, "ETIMEDOUT");
  await device.write(4096, new Uint8Array(4096).fill(2));
  await device.close();
});

for (const request of ["pread", "zero"]) {
  Deno.test(`NbdDevice: in front of nbdkit whose ${request} fails, only that fails, and what it says is told`, async () => {
    const args = nbdkit(sizeBytes, ["error"], [`error-${request}=ENOSPC`, `error-${request}-rate=1`]);
    await using server = await ForeignServer.start("nbdkit", args);
    if (server === undefined) return;
    const device = await openDevice(server.uri, { write: true });
    const calls: Record<string, () => Promise<void>> = {
      pread: () => device.read(4096, new Uint8Array(4096)),
      pwrite: () => device.write(4096, new Uint8Array(4096)),
      zero: () => device.zero(4096, 4096, { keepAllocated: false }),
      sync: () => device.sync(),
    };
    for (const [name, call] of Object.entries(calls)) {
      if (name !== request) await call();
      else assertEquals((await assertRejects(call, DeviceError, "the server says")).code, "ENOSPC");
    }
    assertEquals(device.away!(), undefined);
    await device.close();
  });
}

Deno.test("Cache: errors of the server are EIO where they happen, and write-back goes on", async () => {
  const args = nbdkit(sizeBytes, ["error"], ["error-pwrite=EIO", "error-pwrite-rate=10%"]);
  await using server = await ForeignServer.start("nbdkit", args);
  if (server === undefined) return;
  await withCache(server.uri, async (cache) => {
    const model = new Uint8Array(sizeBytes);
    const random = new SeededRandom(8);
    for (let i = 0; i < 200; i++) {
      const at = random.below(sizeBytes / blockBytes) * blockBytes;
      const bytes = new Uint8Array(blockBytes).fill(1 + i % 255);
      await cache.write(at, bytes);
      model.set(bytes, at);
    }
    for (let tries = 0; cache.status().cache.dirtyBlocks > 0; tries++) {
      assert(tries < 100);
      await cache.drain().catch((error) => assert(error instanceof DeviceError, String(error)));
    }
    await expectAll(cache, model);
  });
});

Deno.test("cli: format, serve, check, drain and recover take an NBD URI as --backing", async () => {
  await using server = await ForeignServer.start("qemu-nbd", qemuNbd(sizeBytes));
  if (server === undefined) return;
  const directory = await Deno.makeTempDir({ prefix: "nbdboost-cli-" });
  try {
    const pair = ["--cache", `${directory}/cache`, "--backing", server.uri];
    const run = async (...args: string[]) => {
      const { code, err } = await runHere(...args);
      assertEquals(code, 0, err);
    };
    await run("format", ...pair, "--cache-size", "16MiB");
    const listen = `nbd+unix:///?socket=${directory}/s`;
    for (const [index, io] of ["portable", ...(probeRing().usable ? ["ring"] : [])].entries()) {
      const settings = ["--io", io, "--listen", listen, "--set", "writeback=on"];
      const serving = await ServerProcess.start([...pair, ...settings]);
      const client = await openDevice(listen, { write: true });
      await client.write(4096 + 4096 * index, new Uint8Array(8192).fill(7));
      await client.sync();
      await server.kill();
      await client.write(4096 + 4096 * index, new Uint8Array(8192).fill(7));
      await client.sync();
      await server.start();
      const miss = new Uint8Array(4096).fill(1);
      await client.read(8 * mib + 4096 * index, miss);
      assertEquals(miss, new Uint8Array(4096));
      await client.close();
      assertEquals(await serving.stop(), 0, serving.notes.join("\n"));
    }
    assertEquals((await checkCache({ cache: pair[1]!, backing: pair[3]! })).problems, []);
    await run("check", ...pair);
    await run("recover", ...pair);
    await run("drain", ...pair);
    const backing = await openDevice(server.uri, { write: false });
    const bytes = new Uint8Array(8192);
    await backing.read(4096, bytes);
    assertEquals(bytes, new Uint8Array(8192).fill(7));
    await backing.close();
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});
