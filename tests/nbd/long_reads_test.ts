// Why: long READs are read straight into what is sent; their memory must be nobody else's until then, and theirs no longer.
import { systemClock } from "../../src/clock.ts";
import { kib } from "../../src/units.ts";
import { assert, assertEquals } from "../assert.ts";
import { Gate, MemoryVolume } from "./memory_volume.ts";
import { Peer, type PeerOptions } from "./peer.ts";
import { Cmd, pack } from "./wire.ts";

const size = 3 * 1024 * kib;
/** What a connection has on loan by itself. */
const ownBuffers = 3;

function made(gate: Gate, options: PeerOptions = {}): { peer: Peer; volume: MemoryVolume } {
  const volume = new MemoryVolume(size, { hot: false, into: true, before: gate.pass });
  for (let i = 0; i < size; i++) volume.bytes[i] = i * 7 + (i >>> 12);
  return { peer: Peer.transmitting(volume, { ...options, borrows: true }), volume };
}

function later(): Promise<void> {
  return new Promise((resolve) => systemClock.after(0, resolve));
}

const lengths = [64 * kib, 128 * kib + 1, 256 * kib, 256 * kib + 1, 1024 * kib, 2 * 1024 * kib + 512];

for (const options of [{}, { structured: true }, { extended: true }]) {
  Deno.test(`Session: long READs are answered with what the volume holds (${JSON.stringify(options)})`, async () => {
    const gate = new Gate();
    const { peer, volume } = made(gate, options);
    peer.feed(pack(
      ...lengths.map((length, i) =>
        peer.encode({ type: Cmd.READ, offset: i * 1000, length, cookie: BigInt(i) })
      ),
    ));
    const pieces = lengths.reduce((sum, length) => sum + Math.ceil(length / (256 * kib)), 0);
    assertEquals([peer.session.requestsInFlight, gate.waiting], [lengths.length, pieces]);
    assertEquals(volume.lent.size, ownBuffers + pieces);
    gate.open();
    await peer.exchange(pack());
    const replies = await peer.replies();
    assertEquals(replies.length, lengths.length);
    for (const { cookie, error, data } of replies) {
      const at = Number(cookie) * 1000;
      assertEquals(error, 0);
      assert(data !== undefined);
      assertEquals(data, volume.bytes.slice(at, at + lengths[Number(cookie)]!));
    }
    assertEquals(peer.statistics.read, lengths.length);
    assertEquals(volume.lent.size, ownBuffers, "sent memory goes back");
    peer.session.drop();
    peer.session.returnBuffers();
    assertEquals(volume.lent.size, 0);
  });
}

Deno.test("Session: a long READ of which a piece fails, or for which no memory is left, is had another way", async () => {
  const gate = new Gate();
  gate.open();
  const { peer, volume } = made(gate);
  let calls = 0;
  volume.before = () => {
    if (++calls === 2) throw new Error("not this way");
  };
  const read = { type: Cmd.READ, offset: 5, length: 700 * kib };
  assertEquals((await peer.request(read))!.data, volume.bytes.slice(5, 5 + 700 * kib));
  assertEquals([calls, peer.statistics.read, volume.lent.size], [4, 1, ownBuffers]);
  volume.buffers = ownBuffers + 2;
  assertEquals((await peer.request(read))!.data, volume.bytes.slice(5, 5 + 700 * kib));
  assertEquals([calls, peer.statistics.read, volume.lent.size], [5, 2, ownBuffers]);
});

Deno.test("Session: what RAM has of a long READ is answered at once", async () => {
  const { peer, volume } = made(new Gate());
  volume.hot = true;
  const read = { type: Cmd.READ, offset: 512, length: 300 * kib };
  assertEquals((await peer.request(read))!.data, volume.bytes.slice(512, 512 + 300 * kib));
  assertEquals([volume.calls.length, peer.statistics.read, volume.lent.size], [0, 1, ownBuffers]);
});

Deno.test("Session: a dropped one gives back the memory of long READs, whether under way, queued or being sent", async () => {
  const gate = new Gate();
  const { peer, volume } = made(gate);
  const read = (length: number) => peer.feed(peer.encode({ type: Cmd.READ, length }));
  read(512 * kib);
  gate.openOne();
  gate.openOne();
  await later();
  assertEquals(volume.lent.size, ownBuffers + 2);
  const sending = peer.session.output()!;
  const before = sending.slice();
  read(256 * kib);
  peer.session.drop();
  assertEquals(
    [sending, volume.lent.size],
    [before, ownBuffers + 3],
    "the kernel may still read what is being sent",
  );
  gate.open();
  await later();
  assertEquals([peer.session.requestsInFlight, peer.session.queuedBytes], [0, 0]);
  peer.session.returnBuffers();
  assertEquals(volume.lent.size, 0);
});
