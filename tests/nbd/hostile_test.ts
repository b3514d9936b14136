/** Tricks of hostile clients, one by one, against a live server on both backends; `tests/nbd/fuzz` does it at random. */

import type { Io } from "../../src/io/io.ts";
import { portableIo } from "../../src/io/portable.ts";
import { ringIo } from "../../src/io/ring/mod.ts";
import { serve, type ServeOptions, type Server } from "../../src/nbd/mod.ts";
import { assert, assertEquals, assertStringIncludes } from "../assert.ts";
import { skipRingTests, untilRingCloses } from "../io/ring.ts";
import { Client, RawClient } from "./client.ts";
import { MemoryVolume } from "./memory_volume.ts";
import { temporarySocket } from "./temp.ts";
import { clientFlags, Cmd, Errno, Flag, infoData, Opt, Rep } from "./wire.ts";

const mib = 1 << 20;

interface World {
  uri: string;
  server: Server;
  volume: MemoryVolume;
  warnings: string[];
}

/** Registers a test for each backend. */
function test(
  name: string,
  body: (world: World) => Promise<void>,
  options: Partial<ServeOptions> & { readOnly?: boolean } = {},
): void {
  for (const io of [portableIo, ringIo] as Io[]) {
    const fn = untilRingCloses(async () => {
      await using socket = await temporarySocket();
      const volume = new MemoryVolume(mib, { readOnly: options.readOnly ?? false });
      const warnings: string[] = [];
      const warn = (message: string) => warnings.push(message);
      await using server = await serve(volume, { listen: socket.uri, warn, io, limits: options.limits });
      await body({ uri: server.uris[0]!, server, volume, warnings });
    });
    Deno.test({ name: `serve: ${name} (${io.name})`, ignore: io === ringIo && skipRingTests, fn });
  }
}

test(
  "clients that only connect, or dawdle in their handshake, keep nobody out",
  async ({ uri, server, warnings }) => {
    const good = await Client.connect(uri);
    const slow: RawClient[] = [];
    for (let i = 0; i < 40; i++) {
      const raw = await RawClient.connect(uri);
      // Every other one says a part of its flags, and no more.
      if (i % 2 === 0) await raw.conn.write(clientFlags().subarray(0, 1 + (i % 3)));
      slow.push(raw);
    }
    const late = await Client.connect(uri);
    assertEquals((await late.read(0, 512)).length, 512);
    assertEquals((await good.read(0, 512)).length, 512);
    assert(server.clients <= 8 + 2, `${server.clients} connections`);
    assertEquals(warnings.filter((warning) => warning.includes("refusing clients")).length, 1);
    // The oldest had to go first: it got a greeting and then the end.
    assertEquals((await slow[0]!.rest()).length, 18);
    for (const raw of slow) raw.close();
    await good.disconnect();
    await late.disconnect();
  },
  { limits: { connections: 8 } },
);

test("offsets and lengths that overflow 64 bits are errors of one request each", async ({ uri, volume }) => {
  for (const extended of [false, true]) {
    const client = await Client.connect(uri, extended ? { extended } : { structured: true });
    for (const offset of [2n ** 64n - 512n, 2n ** 64n - 1n, 2n ** 63n, 2n ** 53n + 1n, BigInt(mib) - 511n]) {
      for (const type of [Cmd.READ, Cmd.TRIM, Cmd.CACHE]) {
        assertEquals((await client.request({ type, offset, length: 512 })).error, Errno.EINVAL);
      }
      const zero = { type: Cmd.WRITE_ZEROES, offset, length: 512 };
      assertEquals((await client.request(zero)).error, Errno.ENOSPC);
      const write = { type: Cmd.WRITE, offset, payload: new Uint8Array(512).fill(1) };
      assertEquals((await client.request(write)).error, Errno.ENOSPC);
    }
    if (extended) {
      for (const length of [2n ** 64n - 1n, 2n ** 63n, 2n ** 53n + 1n]) {
        assertEquals((await client.request({ type: Cmd.TRIM, offset: 512n, length })).error, Errno.EINVAL);
      }
    }
    assertEquals((await client.read(0, 512)).length, 512);
    await client.disconnect();
  }
  assertEquals(volume.bytes, new Uint8Array(mib));
});

test(
  "FAST_ZERO that was not advertised is an error for one client, and the server lives on",
  async ({ uri }) => {
    // nbdkit 1.32 ends for all clients on such a request.
    const client = await Client.connect(uri, { structured: true });
    assertEquals(client.flags & 0x800, 0, "a read-only export does not advertise FAST_ZERO");
    const request = { type: Cmd.WRITE_ZEROES, flags: Flag.FAST_ZERO, offset: 0, length: 4096 };
    assertEquals((await client.request(request)).error, Errno.EPERM);
    for (const type of [Cmd.READ, Cmd.WRITE, Cmd.TRIM, Cmd.FLUSH, Cmd.CACHE, Cmd.BLOCK_STATUS]) {
      const payload = type === Cmd.WRITE
        ? { payload: new Uint8Array(512) }
        : { length: type === Cmd.FLUSH ? 0 : 512 };
      assertEquals((await client.request({ type, flags: Flag.FAST_ZERO, ...payload })).error, Errno.EINVAL);
    }
    assertEquals((await client.read(0, 512)).length, 512);
    await client.disconnect();
  },
  { readOnly: true },
);

test("an INFO of three bytes is answered at once, and the handshake goes on", async ({ uri }) => {
  // nbd-server 3.24 waits for ever for the rest of such an option.
  const raw = await RawClient.connect(uri);
  await raw.greet();
  for (const code of [Opt.INFO, Opt.GO]) {
    assertEquals((await raw.option(code, new Uint8Array(3))).map(({ type }) => type), [Rep.ERR_INVALID]);
  }
  assertEquals((await raw.option(Opt.GO, infoData())).at(-1)!.type, Rep.ACK);
  raw.close();
});

test("a read-only export refuses every kind of write, and says so before", async ({ uri, volume }) => {
  const client = await Client.connect(uri, { structured: true });
  assertEquals(client.flags & 0x2, 2);
  assertEquals(client.flags & (0x20 | 0x40), 0, "no TRIM and no WRITE_ZEROES");
  const reply = await client.request({ type: Cmd.WRITE, payload: new Uint8Array(512).fill(1) });
  assertEquals(reply.error, Errno.EPERM);
  assertStringIncludes(reply.message, "read-only");
  assertEquals((await client.request({ type: Cmd.TRIM, length: 512 })).error, Errno.EPERM);
  assertEquals((await client.request({ type: Cmd.WRITE_ZEROES, length: 512 })).error, Errno.EPERM);
  assertEquals(await client.flush(), 0);
  assertEquals(volume.bytes, new Uint8Array(mib));
  await client.disconnect();
}, { readOnly: true });

test("a payload that never comes whole has no effect, and holds up nobody else", async ({ uri, volume }) => {
  const other = await Client.connect(uri);
  const liar = await Client.connect(uri);
  const header = liar.raw;
  const bytes = new Uint8Array(28 + 100).fill(7);
  new DataView(bytes.buffer).setUint32(0, 0x25609513);
  new DataView(bytes.buffer).setUint16(4, 0);
  new DataView(bytes.buffer).setUint16(6, Cmd.WRITE);
  new DataView(bytes.buffer).setBigUint64(16, 0n);
  new DataView(bytes.buffer).setUint32(24, 512 * 1024);
  await header.send(bytes);
  assertEquals(await other.write(4096, new Uint8Array(4096).fill(1)), 0);
  liar.close();
  assertEquals((await other.read(0, 4096)).every((byte) => byte === 0), true);
  await other.disconnect();
  assertEquals(volume.bytes.subarray(0, 4096), new Uint8Array(4096));
});
