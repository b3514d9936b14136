/** Hostile clients: they cost themselves their connection and nobody else anything. `deno task fuzz` does it for longer. */

import fc from "../../property.ts";
import type { Io } from "../../../src/io/io.ts";
import { portableIo } from "../../../src/io/portable.ts";
import { ringIo } from "../../../src/io/ring/mod.ts";
import { serve } from "../../../src/nbd/mod.ts";
import { skipRingTests, untilRingCloses } from "../../io/ring.ts";
import { Client, RawClient } from "../client.ts";
import { MemoryVolume } from "../memory_volume.ts";
import { Peer } from "../peer.ts";
import { temporarySocket } from "../temp.ts";
import {
  clientFlags,
  Cmd,
  contextData,
  Flag,
  infoData,
  Opt,
  optionBytes,
  pack,
  requestBytes,
} from "../wire.ts";
import { fuzzCodec } from "./codec.ts";
import { fuzzLive, leftOpen, openDescriptors, runtimeDescriptors } from "./live.ts";
import { assert, assertEquals, assertGreater, assertLess } from "../../assert.ts";

const mib = 1 << 20;

/** Registers a test for each backend; its name ends with an open bracket. */
function testOnBoth(name: string, body: (io: Io) => Promise<void>): void {
  for (const io of [portableIo, ringIo]) {
    const ignore = io === ringIo && skipRingTests;
    Deno.test({
      name: `${name} ${io.name})`.replace("( ", "("),
      ignore,
      fn: untilRingCloses(() => body(io)),
    });
  }
}

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

  testOnBoth(`serve: a disconnect at every byte costs nobody else anything (${form}`, async (io) => {
    const { bytes, writes } = everyByte(extended);
    const before = openDescriptors();
    await using socket = await temporarySocket();
    const volume = new MemoryVolume(4096);
    const server = await serve(volume, { listen: socket.uri, io, warn: () => {} });
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

testOnBoth(
  "serve: hostile connections by the hundred leave a working server, its memory and its descriptors (",
  async (io) => {
    await fuzzLive(7_000_000, 50, undefined, io);
    const report = await fuzzLive(1, 600, undefined, io);
    assertEquals(report.connections, 600);
    assertGreater(report.victimRequests, 0);
    assert(leftOpen(report) <= runtimeDescriptors, `descriptors ${report.descriptors}`);
    assertLess(report.rssMib[1] - report.rssMib[0], 600);
  },
);
