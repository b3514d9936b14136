/** Many clients, greedy ones and slow ones, against the real cache on both backends: bounded memory, and nobody starves. */

import type { Cache } from "../../mod.ts";
import { portableIo } from "../../src/io/portable.ts";
import { ringIo } from "../../src/io/ring/mod.ts";
import { defaultLimits } from "../../src/nbd/limits.ts";
import { serve, type Server } from "../../src/nbd/mod.ts";
import { kib, mib } from "../../src/units.ts";
import { assert, assertEquals, assertLess } from "../assert.ts";
import { skipRingTests, untilRingCloses } from "../io/ring.ts";
import { Client } from "../nbd/client.ts";
import { temporarySocket } from "../nbd/temp.ts";
import { Cmd, Flag, pack, requestBytes } from "../nbd/wire.ts";
import { makeVolume } from "./volume.ts";

const sizeBytes = 64 * mib;

function test(name: string, body: (uri: string, cache: Cache, server: Server) => Promise<void>): void {
  for (const io of [portableIo, ringIo]) {
    Deno.test({
      name: `${name} (${io.name})`,
      ignore: io === ringIo && skipRingTests,
      fn: untilRingCloses(async () => {
        await using socket = await temporarySocket();
        await using made = await makeVolume(sizeBytes, io);
        await using server = await serve(made.volume, { listen: socket.uri, io });
        await body(server.uris[0]!, made.volume as Cache, server);
      }),
    });
  }
}

/** Blocks of the volume, each with its own content. */
function content(block: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(4096).fill(1 + block % 250);
}

/** Resolves when `count` has not changed for a while. */
async function settled(count: () => number): Promise<number> {
  for (let before = -1; before !== count();) {
    before = count();
    await new Promise((resolve) => setTimeout(resolve, 300));
  }
  return count();
}

test(
  "serve: a client that asks for 128 MiB and reads nothing holds bounded memory, others are served",
  async (uri, _cache, server) => {
    const greedy = await Client.connect(uri);
    const count = 512;
    const reads = Array.from({ length: count }, (_, i) => {
      const offset = i % 4 * 13 * mib;
      return requestBytes({ type: Cmd.READ, offset, length: 256 * kib, cookie: BigInt(i) });
    });
    const rssBefore = Deno.memoryUsage().rss;
    const sent = greedy.raw.send(pack(...reads));
    const answered = await settled(() => server.statistics.read);
    // What may wait, and what the kernel's socket buffers took.
    assertLess(answered * 256 * kib, defaultLimits.connectionBytes + 8 * mib);
    // This process is client and server and test; what is held may have been copied once on its way.
    assertLess(Deno.memoryUsage().rss - rssBefore, 3 * defaultLimits.connectionBytes);
    const other = await Client.connect(uri);
    for (let block = 0; block < 200; block++) {
      assertEquals(await other.write(block * 4096, content(block)), 0);
      assertEquals(await other.read(block * 4096, 4096), content(block));
    }
    await other.disconnect();
    for (let i = 0; i < count; i++) {
      assertEquals(new DataView((await greedy.raw.take(16))!.buffer).getUint32(4), 0);
      await greedy.raw.take(256 * kib);
    }
    await sent;
    await greedy.disconnect();
  },
);

test("serve: 64 clients at once each get what is theirs", async (uri, _cache, server) => {
  const clients = await Promise.all(Array.from({ length: 64 }, () => Client.connect(uri)));
  assertEquals(server.clients, 64);
  await Promise.all(clients.map(async (client, index) => {
    const blocks = Array.from({ length: 30 }, (_, i) => i * 64 + index);
    const written = blocks.map((block) => client.write(block * 4096, content(block)));
    assertEquals(new Set(await Promise.all(written)), new Set([0]));
    assertEquals(await client.flush(), 0);
    const read = await Promise.all(blocks.map((block) => client.read(block * 4096, 4096)));
    assertEquals(read, blocks.map(content));
    await client.disconnect();
  }));
});

async function writeThrough(client: Client, first: number, count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    assertEquals(await client.write((first + i) * 4096, content(first + i), Flag.FUA), 0);
  }
}

test("serve: writes with FUA of many clients share syncs, those of one have one each", async (uri, cache) => {
  const clients = await Promise.all(Array.from({ length: 16 }, () => Client.connect(uri)));
  const syncs = () => cache.status().log.syncs;
  const start = syncs();
  await writeThrough(clients[0]!, 0, 20);
  const alone = syncs();
  // Nothing was won by a wait, and nothing lost.
  assertEquals(alone - start, 20);
  await Promise.all(clients.map((client, index) => writeThrough(client, 100 + index * 50, 40)));
  const perSync = 16 * 40 / (syncs() - alone);
  assert(perSync > 2, `${perSync} writes per sync`);
  assert(cache.status().log.flushesPerSync > 1);
  await Promise.all(clients.map((client) => client.disconnect()));
});
