/** Hostile clients: they cost themselves their connection and nobody else anything. `deno task fuzz` does it for longer. */

import fc from "fast-check";
import { systemClock } from "../../../src/clock.ts";
import { serve } from "../../../src/nbd/mod.ts";
import { Client, RawClient } from "../client.ts";
import { MemoryVolume } from "../memory_volume.ts";
import { Peer } from "../peer.ts";
import { temporarySocket } from "../temp.ts";
import {
  clientFlags,
  Cmd,
  contextData,
  Errno,
  Flag,
  infoData,
  Opt,
  optionBytes,
  pack,
  Rep,
  requestBytes,
} from "../wire.ts";
import { fuzzCodec } from "./codec.ts";
import { fuzzLive, leftOpen, openDescriptors, runtimeDescriptors } from "./live.ts";
import { assert, assertEquals, assertGreater, assertLess } from "../../assert.ts";

const mib = 1 << 20;

Deno.test("Session: hostile sessions never break it, and always come to an end", async () => {
  const report = await fuzzCodec(1, 10_000);
  assertEquals(report.sessions, 10_000);
  assertGreater(report.ended, 1000);
  assertGreater(report.transmitting, 1000);
  assertGreater(report.messages, 10_000);
});

Deno.test("Session: any bytes after any start of a valid session never break it", async () => {
  const start = pack(
    clientFlags(),
    optionBytes(Opt.EXTENDED_HEADERS),
    optionBytes(Opt.SET_META_CONTEXT, contextData("", "base:allocation")),
    optionBytes(Opt.GO, infoData()),
    requestBytes({ type: Cmd.READ, length: 512 }, true),
  );
  await fc.assert(
    fc.asyncProperty(fc.nat(start.length), fc.uint8Array({ maxLength: 300 }), async (keep, bytes) => {
      const peer = new Peer(new MemoryVolume(mib));
      await peer.exchange(pack(start.subarray(0, keep), bytes));
      peer.session.ended();
      peer.drain();
      assert(peer.session.isClosed);
      assertEquals(peer.warnings.filter((warning) => /failure/.test(warning)), []);
    }),
    { numRuns: 300 },
  );
});

/** A session of which every byte counts: handshake, two writes, a read, a trim, goodbye. */
function everyByte(
  extended: boolean,
): { bytes: Uint8Array; writes: [end: number, offset: number, payload: Uint8Array][] } {
  const parts = [
    clientFlags(),
    optionBytes(extended ? Opt.EXTENDED_HEADERS : Opt.STRUCTURED_REPLY),
    optionBytes(Opt.SET_META_CONTEXT, contextData("", "base:allocation")),
    optionBytes(Opt.INFO, infoData("", 3)),
    optionBytes(Opt.GO, infoData("")),
    requestBytes({ type: Cmd.WRITE, offset: 100, payload: pack("first") }, extended),
    requestBytes({ type: Cmd.READ, length: 64 }, extended),
    requestBytes({ type: Cmd.WRITE, offset: 200, flags: Flag.FUA, payload: pack("second") }, extended),
    requestBytes({ type: Cmd.BLOCK_STATUS, length: 4096 }, extended),
    requestBytes({ type: Cmd.FLUSH }, extended),
    requestBytes({ type: Cmd.DISC }, extended),
  ];
  const endOf = (index: number) => parts.slice(0, index + 1).reduce((sum, { length }) => sum + length, 0);
  return { bytes: pack(...parts), writes: [[endOf(5), 100, pack("first")], [endOf(7), 200, pack("second")]] };
}

for (const extended of [false, true]) {
  const form = extended ? "extended" : "structured";
  Deno.test(`Session: a disconnect at every byte does all whole requests and nothing else (${form})`, async () => {
    const { bytes, writes } = everyByte(extended);
    for (const hot of [false, true]) {
      for (let cut = 0; cut <= bytes.length; cut++) {
        const volume = new MemoryVolume(4096, { hot });
        const peer = new Peer(volume);
        await peer.exchange(bytes.subarray(0, cut));
        peer.session.ended();
        for (let turns = 0; !peer.session.isClosed && turns < 100; turns++) {
          peer.drain();
          await new Promise((resolve) => setTimeout(resolve, 0));
        }
        assert(peer.session.isClosed, `cut at ${cut}`);
        const model = new Uint8Array(4096);
        for (const [end, offset, payload] of writes) if (cut >= end) model.set(payload, offset);
        assertEquals(volume.bytes, model, `cut at ${cut}`);
      }
    }
  });

  Deno.test(`serve: a disconnect at every byte costs nobody else anything (${form})`, async () => {
    const { bytes, writes } = everyByte(extended);
    const before = openDescriptors();
    await using socket = await temporarySocket();
    const volume = new MemoryVolume(4096);
    const server = await serve(volume, { listen: socket.uri, warn: () => {} });
    const witness = await Client.connect(server.uris[0]!);
    for (let cut = 0; cut <= bytes.length; cut++) {
      const { conn } = await RawClient.connect(server.uris[0]!);
      for (let at = 0; at < cut;) at += await conn.write(bytes.subarray(at, cut));
      conn.close();
      if (cut % 16 === 0) assertEquals((await witness.read(0, 16)).length, 16);
    }
    // Who leaves without waiting for replies may leave before it is served; who waits is served.
    const patient = await RawClient.connect(server.uris[0]!);
    await patient.send(bytes);
    await patient.rest();
    patient.close();
    const last = writes[1]![2];
    assertEquals(await witness.read(200, last.length), last);
    await witness.disconnect();
    await server.close();
    assertEquals(server.clients, 0);
    assert(openDescriptors() <= before, "descriptors are left open");
  });
}

Deno.test("serve: hostile connections by the hundred leave a working server, its memory and its descriptors", async () => {
  await fuzzLive(7_000_000, 50);
  const report = await fuzzLive(1, 600);
  assertEquals(report.connections, 600);
  assertGreater(report.victimRequests, 0);
  assert(leftOpen(report) <= runtimeDescriptors, `descriptors ${report.descriptors}`);
  assertLess(report.rssMib[1] - report.rssMib[0], 600);
});

Deno.test("serve: FAST_ZERO that was not advertised is EINVAL for one client, and the server lives on", async () => {
  // nbdkit 1.32 ends for all clients on such a request.
  await using socket = await temporarySocket();
  const volume = new MemoryVolume(mib, { readOnly: true });
  await using server = await serve(volume, { listen: socket.uri, warn: () => {} });
  const client = await Client.connect(server.uris[0]!, { structured: true });
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
});

Deno.test("serve: an INFO of three bytes is answered at once, and the handshake goes on", async () => {
  // nbd-server 3.24 waits for ever for the rest of such an option.
  await using socket = await temporarySocket();
  await using server = await serve(new MemoryVolume(mib), {
    listen: socket.uri,
    warn: () => {},
    clock: systemClock,
  });
  const raw = await RawClient.connect(server.uris[0]!);
  await raw.greet();
  for (const code of [Opt.INFO, Opt.GO]) {
    assertEquals((await raw.option(code, new Uint8Array(3))).map(({ type }) => type), [Rep.ERR_INVALID]);
  }
  assertEquals((await raw.option(Opt.GO, infoData())).at(-1)!.type, Rep.ACK);
  raw.close();
});
