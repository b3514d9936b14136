/** Requests that the volume does not end: each is answered EIO after the stated time, once, and the connection goes on. */

import type { Io } from "../../src/io/io.ts";
import { portableIo } from "../../src/io/portable.ts";
import { ringIo } from "../../src/io/ring/mod.ts";
import { serve } from "../../src/nbd/mod.ts";
import { assert, assertEquals, assertGreaterOrEqual, assertStringIncludes } from "../assert.ts";
import { skipRingTests, untilRingCloses } from "../io/ring.ts";
import { Client } from "./client.ts";
import { FakeClock } from "./fake_clock.ts";
import { Gate, MemoryVolume } from "./memory_volume.ts";
import { Peer } from "./peer.ts";
import { temporarySocket } from "./temp.ts";
import { Cmd, Errno, Flag, pack, type Request } from "./wire.ts";

const mib = 1 << 20;
const requestSeconds = 7;

const requests: Request[] = [
  { type: Cmd.READ, length: 512 },
  { type: Cmd.READ, length: 512 * 1024 },
  { type: Cmd.WRITE, flags: Flag.FUA, payload: pack("late") },
  { type: Cmd.FLUSH },
  { type: Cmd.TRIM, length: 4096 },
  { type: Cmd.WRITE_ZEROES, length: 4096 },
  { type: Cmd.BLOCK_STATUS, length: 4096 },
  { type: Cmd.CACHE, length: 4096 },
];

async function turns(): Promise<void> {
  for (let i = 0; i < 20; i++) await null;
}

for (const form of ["structured", "extended"] as const) {
  for (const soon of [false, true]) {
    Deno.test(`Session: what the volume does not end is answered EIO in time, and once (${form}, soon ${soon})`, async () => {
      const clock = new FakeClock();
      const gate = new Gate();
      const volume = new MemoryVolume(mib, { hot: false, soon, into: soon, before: gate.pass });
      const options = {
        borrows: soon,
        clock,
        limits: { requestSeconds },
        allocation: true,
        extended: form === "extended",
      };
      const peer = Peer.transmitting(volume, options);
      const feed = (request: Request) => {
        peer.feed(peer.encode(request));
        peer.drain();
      };
      for (const request of requests) feed(request);
      clock.advance(3000);
      // A younger one has its own time.
      feed({ type: Cmd.FLUSH, cookie: 99n });
      clock.advance(requestSeconds * 1000 - 3001);
      peer.drain();
      assertEquals(peer.received.length, 0);
      clock.advance(1);
      peer.drain();
      const replies = await peer.replies();
      assertEquals(replies.map(({ error }) => error), requests.map(() => Errno.EIO));
      assertEquals(new Set(replies.map(({ cookie }) => cookie)).size, requests.length);
      clock.advance(3000);
      peer.drain();
      assertEquals((await peer.replies()).map(({ cookie, error }) => [cookie, error]), [[99n, Errno.EIO]]);
      assertStringIncludes(peer.warnings.join(), "8 requests were answered EIO");
      gate.open();
      while (peer.session.requestsInFlight > 0) await turns();
      peer.drain();
      assertEquals(peer.received.length, 0, "nothing is answered twice");
      assertEquals((await peer.request({ type: Cmd.READ, length: 4 }))!.error, 0);
      assertEquals(volume.bytes.subarray(0, 4), new Uint8Array(4), "the zeroes came after the late write");
      peer.session.drop();
      assertEquals(clock.pending, 0);
      peer.session.returnBuffers();
      assertEquals(volume.lent.size, 0);
    });
  }
}

Deno.test("Session: goodbye does not wait for what was given up", async () => {
  const clock = new FakeClock();
  const gate = new Gate();
  const volume = new MemoryVolume(mib, { before: gate.pass });
  const peer = Peer.transmitting(volume, { clock, limits: { requestSeconds } });
  peer.feed(peer.encode({ type: Cmd.FLUSH }));
  peer.feed(peer.encode({ type: Cmd.DISC }));
  assert(!peer.session.isClosed);
  clock.advance(requestSeconds * 1000);
  peer.drain();
  assertEquals((await peer.replies()).map(({ error }) => error), [Errno.EIO]);
  assertEquals([peer.session.isClosed, peer.session.requestsInFlight], [true, 1]);
  gate.open();
  await turns();
  assertEquals(peer.session.requestsInFlight, 0);
  peer.session.closed();
  assertEquals(clock.pending, 0);
});

for (const soon of [false, true]) {
  Deno.test(`Session: a volume that ends nothing any more costs the connection, when its limit is reached (soon ${soon})`, async () => {
    const clock = new FakeClock();
    const gate = new Gate();
    const volume = new MemoryVolume(mib, { hot: false, soon, before: gate.pass });
    const peer = Peer.transmitting(volume, { clock, limits: { requestSeconds, requests: 4 } });
    const read = (count: number) => {
      let taken = 0;
      for (let i = 0; i < count; i++) {
        if (peer.feed(peer.encode({ type: Cmd.READ, length: 512 })) > 0) taken++;
      }
      return taken;
    };
    read(3);
    clock.advance(requestSeconds * 1000);
    peer.drain();
    // Those that were given up leave room for others, which are given up in their turn.
    read(2);
    assertEquals(peer.session.isEnding, false);
    clock.advance(requestSeconds * 1000);
    peer.drain();
    assertEquals((await peer.replies()).length, 5);
    read(1);
    assert(peer.session.isEnding);
    assertStringIncludes(peer.warnings.join(), "4 requests that the volume does not end");
    gate.open();
    while (peer.session.requestsInFlight > 0) await turns();
    peer.session.closed();
    assertEquals(clock.pending, 0);
  });
}

for (const io of [portableIo, ringIo] as Io[]) {
  const fn = untilRingCloses(async () => {
    await using socket = await temporarySocket();
    const gate = new Gate();
    const volume = new MemoryVolume(mib, {
      hot: false,
      before: (call) => call === "read" ? gate.pass() : undefined,
    });
    const limits = { requestSeconds: 1 };
    const warnings: string[] = [];
    const warn = (message: string) => warnings.push(message);
    await using server = await serve(volume, { listen: socket.uri, io, limits, warn });
    const [stuck, other] = [await Client.connect(server.uris[0]!), await Client.connect(server.uris[0]!)];
    const startMs = performance.now();
    const answer = stuck.request({ type: Cmd.READ, length: 512 });
    assertEquals(await other.flush(), 0);
    assertEquals((await answer).error, Errno.EIO);
    assertGreaterOrEqual(performance.now() - startMs, 900);
    assertEquals(await stuck.flush(), 0, "the connection goes on");
    await stuck.disconnect();
    gate.open();
    assertEquals((await other.read(0, 512)).length, 512);
    await other.disconnect();
    assertEquals(warnings.length, 1);
  });
  Deno.test({
    name: `serve: a read that never ends is EIO after request_seconds (${io.name})`,
    ignore: io === ringIo && skipRingTests,
    fn,
  });
}
