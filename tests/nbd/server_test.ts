import { NbdboostError, UsageError } from "../../src/errors.ts";
import type { Io } from "../../src/io/io.ts";
import { portableIo } from "../../src/io/portable.ts";
import { closingMsMax, shutdownLingerMs } from "../../src/nbd/constants.ts";
import { defaultLimits } from "../../src/nbd/limits.ts";
import { serve, type ServeOptions } from "../../src/nbd/mod.ts";
import { Client, RawClient } from "./client.ts";
import { FakeClock } from "./fake_clock.ts";
import { Gate, MemoryVolume } from "./memory_volume.ts";
import { temporarySocket } from "./temp.ts";
import { Cmd, Errno, Flag, Opt, pack, Rep, requestBytes } from "./wire.ts";
import {
  assert,
  assertEquals,
  assertLess,
  assertMatch,
  assertRejects,
  assertStringIncludes,
} from "../assert.ts";

const mib = 1 << 20;
const tcp = "nbd://127.0.0.1:0";

/** Lets sockets and promises have their turns until `condition` holds. */
async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 1));
}

async function serving(
  volume: MemoryVolume,
  use: (uri: string, server: Awaited<ReturnType<typeof serve>>, warnings: string[]) => Promise<void>,
  options: Partial<ServeOptions> = {},
): Promise<void> {
  const warnings: string[] = [];
  const server = await serve(volume, { listen: tcp, warn: (message) => warnings.push(message), ...options });
  try {
    await use(server.uris[0]!, server, warnings);
  } finally {
    await server.close();
  }
}

Deno.test("serve: TCP and unix listeners at once show one volume, at the URIs that it tells", async () => {
  await using socket = await temporarySocket();
  await serving(new MemoryVolume(mib), async (_, server) => {
    assertMatch(server.uris[0]!, /^nbd:\/\/127\.0\.0\.1:[1-9]\d*\/disk$/);
    assertMatch(server.uris[1]!, /^nbd:\/\/\[::1\]:[1-9]\d*\/disk$/);
    assertEquals(server.uris[2], socket.uri.replace("///", "///disk"));
    const clients = await Promise.all(server.uris.map((uri) => Client.connect(uri, { structured: true })));
    assertEquals(server.clients, 3);
    for (const [i, client] of clients.entries()) {
      assertEquals(client.sizeBytes, mib);
      assertEquals(await client.write(i * 10, new Uint8Array(10).fill(i + 1)), 0);
      for (const other of clients) assertEquals((await other.read(i * 10, 10))[9], i + 1);
    }
    for (const client of clients) await client.disconnect();
    await until(() => server.clients === 0);
    assertEquals(server.statistics.write, 3);
  }, { listen: [tcp, "nbd://[::1]:0", socket.uri], exportName: "disk" });
  await assertRejects(() => Deno.lstat(`${socket.directory}/s`), Deno.errors.NotFound);
});

Deno.test("serve: refuses what cannot be meant, and leaves nothing listening", async () => {
  await using socket = await temporarySocket();
  const volume = new MemoryVolume(4096);
  const cases: [Partial<ServeOptions>, string][] = [
    [{ listen: [] }, "no address"],
    [{ listen: "/run/socket" }, "not an NBD URI"],
    [{ listen: "nbds://127.0.0.1:0" }, "TLS"],
    [{ listen: "nbd://127.0.0.1:0/?tls-type=anon" }, "TLS"],
    [{ listen: "nbd://127.0.0.1:0/a", exportName: "b" }, 'names the export "a"'],
    [{ listen: ["nbd://127.0.0.1:0/a", "nbd://127.0.0.1:0/b"] }, 'names the export "b"'],
    [{ listen: tcp, exportName: "x".repeat(5000) }, "at most 4096"],
    [{ listen: tcp, exportName: "a\0b" }, "without NUL"],
    [{ listen: tcp, description: "x".repeat(5000) }, "at most 4096"],
  ];
  for (const [options, reason] of cases) {
    await assertRejects(() => serve(volume, { listen: tcp, ...options }), UsageError, reason);
  }
  const twice = { name: "a", description: "", readOnly: false, volume };
  await assertRejects(() => serve([twice, twice], { listen: tcp }), UsageError, "twice");
  await assertRejects(() => serve([], { listen: tcp }), UsageError, "no export");
  await assertRejects(
    () => serve(volume, { listen: [socket.uri, `nbd+unix:///?socket=${socket.directory}/no/such`] }),
    NbdboostError,
  );
  await assertRejects(() => Deno.lstat(`${socket.directory}/s`), Deno.errors.NotFound);
});

Deno.test("serve: several exports under their names, the URI's name by default", async () => {
  const [a, b] = [new MemoryVolume(4096), new MemoryVolume(8192)];
  const exports = [
    { name: "a", description: "first", readOnly: false, volume: a },
    { name: "b", description: "", readOnly: true, volume: b },
  ];
  await using server = await serve(exports, { listen: tcp });
  const sizes = { a: 4096, b: 8192, "": 4096 };
  for (const [exportName, size] of Object.entries(sizes)) {
    const client = await Client.connect(server.uris[0]!, { exportName });
    assertEquals(client.sizeBytes, size);
    assertEquals(await client.write(0, pack("x")), exportName === "b" ? Errno.EPERM : 0);
    await client.disconnect();
  }
  await using named = await serve(a, { listen: "nbd://127.0.0.1:0/disk" });
  assertStringIncludes(named.uris[0]!, "/disk");
});

Deno.test("serve: 256 reads of 256 KiB by a client that does not read hold bounded memory", async () => {
  await serving(new MemoryVolume(mib, { hot: false }), async (uri, server) => {
    const client = await Client.connect(uri);
    const reads = Array.from(
      { length: 512 },
      (_, i) => requestBytes({ type: Cmd.READ, length: 256 << 10, cookie: BigInt(i) }),
    );
    const sent = client.raw.send(pack(...reads));
    let answered = -1;
    while (answered !== server.statistics.read) {
      answered = server.statistics.read;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    // 64 MiB that may wait, and what the kernel's socket buffers took.
    assertLess(answered, 256 + 100);
    // Others are served meanwhile, and the client gets everything once it reads.
    const other = await Client.connect(uri);
    assertEquals((await other.read(0, 4096)).length, 4096);
    other.close();
    for (let i = 0; i < 512; i++) {
      const head = await client.raw.take(16);
      assertEquals(new DataView(head!.buffer).getUint32(4), 0);
      await client.raw.take(256 << 10);
    }
    await sent;
    await client.disconnect();
  });
});

Deno.test("serve: a write answered on one connection is seen and flushed by another", async () => {
  const volume = new MemoryVolume(mib);
  await serving(volume, async (uri) => {
    const [a, b] = [await Client.connect(uri), await Client.connect(uri)];
    assert((a.flags & 0x100) !== 0, "CAN_MULTI_CONN");
    await a.write(4096, pack("hello"));
    assertEquals(await b.read(4096, 5), pack("hello"));
    assertEquals(await b.flush(), 0);
    assertEquals(volume.calls.map(({ call }) => call), ["flush"]);
    a.close();
    b.close();
  });
});

Deno.test("serve: a hostile client costs itself its connection and nobody else anything", async () => {
  await serving(new MemoryVolume(mib), async (uri, server, warnings) => {
    const good = await Client.connect(uri);
    const bad = await Client.connect(uri);
    await bad.raw.send(new Uint8Array(100_000).fill(0x41));
    await bad.raw.rest();
    bad.close();
    const raw = await RawClient.connect(uri);
    await raw.send(pack("GET / HTTP/1.1\r\n\r\n"));
    assertEquals((await raw.rest()).length, 18);
    raw.close();
    const rude = await Client.connect(uri);
    rude.raw.send(
      pack(requestBytes({ type: Cmd.READ, length: 32 << 10 }), requestBytes({ type: 1, length: 99 })),
    );
    rude.close();
    assertEquals(await good.write(0, pack("still here")), 0);
    await good.disconnect();
    await until(() => server.clients === 0);
    assertEquals(warnings.length, 2);
    assertStringIncludes(warnings[0]!, "bad request magic");
    assertStringIncludes(warnings[1]!, "unknown client flags");
  });
});

Deno.test("serve: connections beyond the limit are closed at once, and may come back later", async () => {
  await serving(new MemoryVolume(mib), async (uri, server, warnings) => {
    const first = await Client.connect(uri);
    const second = await Client.connect(uri);
    for (let i = 0; i < 3; i++) await assertRejects(() => Client.connect(uri), Error, "no greeting");
    assertEquals(warnings.length, 1);
    await first.disconnect();
    await until(() => server.clients === 1);
    const third = await Client.connect(uri);
    third.close();
    second.close();
  }, { limits: { connections: 2 } });
});

Deno.test("serve: a client that does not finish its handshake in time is dropped, others are not", async () => {
  const clock = new FakeClock();
  const warnings: string[] = [];
  const server = await serve(new MemoryVolume(mib), {
    listen: tcp,
    clock,
    warn: (text) => warnings.push(text),
  });
  const uri = server.uris[0]!;
  const done = await Client.connect(uri);
  const slow = await RawClient.connect(uri);
  await slow.greet();
  assertEquals((await slow.option(Opt.LIST)).length, 2);
  clock.advance(defaultLimits.handshakeSeconds * 1000 - 1);
  assertEquals((await slow.option(Opt.LIST)).at(-1)!.type, Rep.ACK);
  clock.advance(1);
  assertEquals((await slow.rest()).length, 0);
  slow.close();
  assertEquals(warnings.length, 1);
  assertEquals(await done.write(0, pack("x")), 0);
  await done.disconnect();
  await until(() => server.clients === 0);
  assertEquals(clock.pending, 0);
  await server.close();
});

Deno.test("Server.close: requests under way finish, new ones get ESHUTDOWN, then everyone is disconnected", async () => {
  await using socket = await temporarySocket();
  const clock = new FakeClock();
  const gate = new Gate();
  const volume = new MemoryVolume(mib, { hot: false, before: gate.pass });
  const server = await serve(volume, { listen: [tcp, socket.uri], clock });
  const busy = await Client.connect(server.uris[0]!);
  const idle = await Client.connect(server.uris[1]!);
  const shaking = await RawClient.connect(server.uris[0]!);
  await shaking.greet();
  const write = busy.write(0, pack("in time"), Flag.FUA);
  await until(() => volume.underWay === 1);
  let closed = false;
  const closing = server.close().then(() => closed = true);
  await until(() => clock.pending >= 6);
  assertEquals(await idle.flush(), Errno.ESHUTDOWN);
  assertEquals((await shaking.option(Opt.LIST)).at(-1)!.type, Rep.ERR_SHUTDOWN);
  clock.advance(shutdownLingerMs);
  assertEquals((await idle.raw.rest()).length, 0);
  assertEquals((await shaking.rest()).length, 0);
  await assertRejects(() => RawClient.connect(server.uris[0]!));
  assert(!closed);
  gate.open();
  assertEquals(await write, 0);
  clock.advance(shutdownLingerMs);
  await closing;
  assertEquals([server.clients, clock.pending], [0, 0]);
  assertEquals(volume.bytes.slice(0, 7), pack("in time"));
  for (const client of [busy, idle, shaking]) client.close();
  await server.close();
});

Deno.test("Server.close: takes bounded time, whatever the volume and the clients do", async () => {
  const clock = new FakeClock();
  const gate = new Gate();
  const volume = new MemoryVolume(mib, { before: gate.pass });
  const server = await serve(volume, { listen: tcp, clock });
  const stuck = await Client.connect(server.uris[0]!);
  const flush = stuck.flush();
  flush.catch(() => {});
  await until(() => volume.underWay === 1);
  let closed = false;
  const closing = server.close().then(() => closed = true);
  await until(() => clock.pending >= 3);
  clock.advance(closingMsMax - 1);
  await new Promise((resolve) => setTimeout(resolve, 10));
  assert(!closed);
  clock.advance(1);
  await closing;
  await assertRejects(() => flush);
  gate.open();
  await until(() => server.clients === 0);
  assertEquals(clock.pending, 0);
  stuck.close();
});

Deno.test("Connection: a client that is to go but takes no replies is dropped after a while", async () => {
  const clock = new FakeClock();
  const server = await serve(new MemoryVolume(32 * mib), { listen: tcp, clock, warn: () => {} });
  const client = await Client.connect(server.uris[0]!);
  await client.raw.send(pack(
    requestBytes({ type: Cmd.READ, length: 32 * mib }),
    requestBytes({ type: Cmd.DISC }),
  ));
  await until(() => server.statistics.read === 1 && clock.pending === 2);
  assertEquals(server.clients, 1);
  // Each time that some bytes leave the clock starts anew, so the buffers of the kernel have to be full first.
  for (let i = 0; server.clients > 0; i++) {
    assertLess(i, 1000);
    clock.advance(closingMsMax);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  client.close();
  assertEquals(clock.pending, 0);
  await server.close();
});

Deno.test("Connection: a client that shuts down its sending side still gets its replies", async () => {
  const gate = new Gate();
  const volume = new MemoryVolume(mib, { before: gate.pass });
  await serving(volume, async (uri) => {
    const client = await Client.connect(uri);
    const flush = client.flush();
    await until(() => volume.underWay === 1);
    await (client.raw.conn as Deno.TcpConn).closeWrite();
    gate.open();
    assertEquals(await flush, 0);
    assertEquals((await client.raw.rest()).length, 0);
    client.close();
  });
});

Deno.test("serve: an address that is still in use for a moment is waited for", async () => {
  const volume = new MemoryVolume(4096);
  const first = await serve(volume, { listen: "nbd://127.0.0.1:0" });
  const [listen] = first.uris;
  const second = serve(volume, { listen: listen! });
  // Long enough for a first try to have failed.
  await new Promise((resolve) => setTimeout(resolve, 20));
  await first.close();
  const server = await second;
  assertEquals(server.uris, [listen!]);
  await server.close();
});

Deno.test("serve: while no connection can be accepted it says so now and then, not each time that it tries", async () => {
  const clock = new FakeClock();
  let tries = 0;
  const io: Io = {
    ...portableIo,
    listen: async (address) => {
      const listener = await portableIo.listen(address);
      const accept = () => tries++ < 70 ? Promise.reject(new Error("no descriptors")) : listener.accept();
      return { address: listener.address, accept, close: () => listener.close() };
    },
  };
  await serving(new MemoryVolume(mib), async (uri, _, warnings) => {
    for (let passed = 0; tries <= 70; passed++) {
      assertLess(passed, 1000);
      clock.advance(1000);
      await new Promise((resolve) => setTimeout(resolve, 0));
    }
    assertEquals(warnings.length, 2);
    assertStringIncludes(warnings[1]!, "Cannot accept a connection: no descriptors");
    const client = await Client.connect(uri);
    assertEquals(client.sizeBytes, mib);
    await client.disconnect();
  }, { io, clock });
});
