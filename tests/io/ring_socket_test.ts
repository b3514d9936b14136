import { RefusedError, UsageError } from "../../src/errors.ts";
import type { IoConnection, IoListener, SocketAddress } from "../../src/io/io.ts";
import { tellsByEvents } from "../../src/io/io.ts";
import { ringIo } from "../../src/io/ring/mod.ts";
import { kib, mib } from "../../src/units.ts";
import { assert, assertEquals, assertRejects } from "../assert.ts";
import { withDirectory } from "../device/temp.ts";
import { ringDescriptors, skipRingTests as ignore, untilRingCloses } from "./ring.ts";

const test = (name: string, fn: () => Promise<void>) => Deno.test({ name, ignore, fn: untilRingCloses(fn) });
const local: SocketAddress = { transport: "tcp", hostname: "127.0.0.1", port: 0 };

function connect(address: SocketAddress): Promise<Deno.Conn> {
  return address.transport === "tcp"
    ? Deno.connect({ hostname: address.hostname, port: address.port })
    : Deno.connect({ transport: "unix", path: address.path });
}

async function pair(listener: IoListener): Promise<{ ours: IoConnection; theirs: Deno.Conn }> {
  const [ours, theirs] = await Promise.all([listener.accept(), connect(listener.address)]);
  assert(ours !== null);
  return { ours, theirs };
}

async function readWhole(from: Deno.Conn, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  for (let done = 0; done < length;) {
    const count = await from.read(bytes.subarray(done));
    assert(count !== null, "the connection lasts");
    done += count;
  }
  return bytes;
}

async function echo(connection: IoConnection): Promise<void> {
  const bytes = new Uint8Array(64 * kib);
  for (let count = await connection.read(bytes); count !== null; count = await connection.read(bytes)) {
    for (let sent = 0; sent < count;) sent += await connection.write(bytes.subarray(sent, count));
  }
  connection.close();
}

async function exchange(listener: IoListener): Promise<void> {
  const { ours, theirs } = await pair(listener);
  await theirs.write(new Uint8Array([1, 2, 3]));
  const into = new Uint8Array(100).subarray(50);
  assertEquals(await ours.read(into), 3);
  assertEquals([...into.subarray(0, 3)], [1, 2, 3]);
  assertEquals(await ours.write(into.subarray(1, 3)), 2);
  assertEquals([...await readWhole(theirs, 2)], [2, 3]);
  theirs.close();
  assertEquals(await ours.read(into), null);
  ours.close();
  ours.close();
}

test("ringIo.listen: serves TCP, IPv4 and IPv6, names too, and tells the address that it got", async () => {
  for (const hostname of ["127.0.0.1", "::1", "localhost"]) {
    const listener = await ringIo.listen({ ...local, hostname } as SocketAddress);
    assert(listener.address.transport === "tcp" && listener.address.port > 0);
    if (hostname !== "localhost") assertEquals(listener.address.hostname, hostname);
    await exchange(listener);
    listener.close();
    listener.close();
  }
});

test("ringIo.listen: serves a unix socket, replaces a stale one, refuses a live one and other things", () =>
  withDirectory(async (directory) => {
    const path = `${directory}/socket`;
    const address: SocketAddress = { transport: "unix", path };
    const stale = Deno.listen(address);
    const held = await Deno.stat(path);
    assert(held.isSocket);
    await assertRejects(() => ringIo.listen(address), RefusedError, "another process answers");
    stale.close();
    if (!await Deno.stat(path).then(() => true, () => false)) {
      // Deno removed it; one that nobody listens on any more is made by hand.
      const other = Deno.listen({ transport: "unix", path: `${path}2` });
      await Deno.rename(`${path}2`, path);
      other.close();
    }
    const listener = await ringIo.listen(address);
    await exchange(listener);
    await assertRejects(() => ringIo.listen(address), RefusedError, "another process answers");
    listener.close();
    assertEquals(await Deno.lstat(path).then(() => true, () => false), false);
    await Deno.writeTextFile(path, "mine");
    await assertRejects(() => ringIo.listen(address), RefusedError, "not a socket");
    assertEquals(await Deno.readTextFile(path), "mine");
    await assertRejects(() => ringIo.listen({ transport: "unix", path: `/${"x".repeat(200)}` }), UsageError);
  }));

test("ringIo.listen: refuses an address that is taken or not of this machine", async () => {
  const listener = await ringIo.listen(local);
  await assertRejects(() => ringIo.listen(listener.address), RefusedError, "in use");
  listener.close();
  await assertRejects(
    () => ringIo.listen({ ...local, hostname: "no.such.host.invalid" } as SocketAddress),
    UsageError,
  );
  await assertRejects(() => ringIo.listen({ ...local, hostname: "192.0.2.1" } as SocketAddress), UsageError);
  await assertRejects(() => ringIo.listen({ ...local, port: 70000 } as SocketAddress), UsageError);
});

test("RingListener.accept: is null when closed, before or meanwhile", () =>
  withDirectory(async (directory) => {
    for (const address of [local, { transport: "unix", path: `${directory}/s` } as SocketAddress]) {
      const listener = await ringIo.listen(address);
      const waiting = listener.accept();
      await new Promise((resolve) => setTimeout(resolve, 5));
      listener.close();
      assertEquals(await waiting, null);
      assertEquals(await listener.accept(), null);
      const again = await ringIo.listen(address);
      const soon = again.accept();
      again.close();
      assertEquals(await soon, null);
    }
  }));

test("RingConnection.close: ends a read and a write under way, and later calls", async () => {
  const listener = await ringIo.listen(local);
  const { ours, theirs } = await pair(listener);
  const reading = ours.read(new Uint8Array(10));
  // More than the buffers of the socket take, and nobody reads.
  const large = new Uint8Array(64 * mib);
  const writing = (async () => {
    for (;;) await ours.write(large);
  })();
  await new Promise((resolve) => setTimeout(resolve, 20));
  ours.close();
  assertEquals(await reading, null);
  await assertRejects(() => writing);
  assertEquals(await ours.read(new Uint8Array(10)), null);
  await assertRejects(() => ours.write(new Uint8Array(10)));
  theirs.close();
  listener.close();
});

test("RingConnection: a peer that resets the connection is an error or the end, never a wait", async () => {
  const listener = await ringIo.listen(local);
  const { ours, theirs } = await pair(listener);
  await ours.write(new Uint8Array(mib));
  theirs.close();
  const bytes = new Uint8Array(10);
  await ours.read(bytes).catch((error) => assertEquals(error.code, "ECONNRESET"));
  await assertRejects(async () => {
    for (;;) await ours.write(new Uint8Array(mib));
  });
  ours.close();
  listener.close();
});

test("RingConnection: what a slow peer does not take waits, and arrives whole", async () => {
  const listener = await ringIo.listen(local);
  const { ours, theirs } = await pair(listener);
  const bytes = Uint8Array.from({ length: 20 * mib }, (_, i) => i % 251);
  const sending = (async () => {
    for (let sent = 0; sent < bytes.length;) sent += await ours.write(bytes.subarray(sent));
  })();
  await new Promise((resolve) => setTimeout(resolve, 10));
  const got = await readWhole(theirs, bytes.length);
  await sending;
  assert(got.every((byte, i) => byte === i % 251));
  theirs.close();
  ours.close();
  listener.close();
});

test("RingConnection: 100 connections echo at once", () =>
  withDirectory(async (directory) => {
    const listener = await ringIo.listen({ transport: "unix", path: `${directory}/s` });
    const echoing: Promise<void>[] = [];
    const accepting = (async () => {
      for (let next = await listener.accept(); next !== null; next = await listener.accept()) {
        echoing.push(echo(next));
      }
    })();
    await Promise.all(Array.from({ length: 100 }, async (_, i) => {
      const client = await connect(listener.address);
      for (let round = 0; round < 20; round++) {
        const sent = new Uint8Array(1000).fill(i + round);
        await client.write(sent);
        assertEquals(await readWhole(client, 1000), sent);
      }
      client.close();
    }));
    listener.close();
    await accepting;
    await Promise.all(echoing);
    assertEquals(echoing.length, 100);
  }));

test("RingConnection.useEvents: tells receives and sends, with one turn for all of them", async () => {
  const listener = await ringIo.listen(local);
  const { ours, theirs } = await pair(listener);
  assert(tellsByEvents(ours));
  const into = new Uint8Array(1000);
  const told: string[] = [];
  const ended = new Promise<void>((resolve) => {
    ours.useEvents({
      received(count) {
        told.push(`received ${count}`);
        ours.askTurn();
        ours.askTurn();
      },
      sent(count) {
        told.push(`sent ${count}`);
        ours.askTurn();
      },
      turn() {
        told.push("turn");
        const last = told[told.length - 2];
        if (last === "received 3") ours.send(into, 0, 3);
        else if (last === "sent 3") ours.receive(into, 0, into.length);
        else if (last === "received 0") resolve();
      },
      closed: () => told.push("closed"),
    });
  });
  ours.receive(into, 0, into.length);
  await theirs.write(new Uint8Array([7, 8, 9]));
  assertEquals([...await readWhole(theirs, 3)], [7, 8, 9]);
  theirs.close();
  await ended;
  assertEquals(told, ["received 3", "turn", "sent 3", "turn", "received 0", "turn"]);
  ours.close();
  assertEquals(told.pop(), "closed");
  listener.close();
});

test("ringIo: leaves no descriptor behind", async () => {
  const once = async () => {
    const listener = await ringIo.listen(local);
    await exchange(listener);
    const waiting = listener.accept();
    listener.close();
    await waiting;
    await new Promise((resolve) => setTimeout(resolve, 5));
  };
  await once();
  const before = ringDescriptors({ sockets: true });
  for (let i = 0; i < 5; i++) await once();
  assertEquals(ringDescriptors({ sockets: true }), before);
});
