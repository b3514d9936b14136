// Why: READs that end in a call go past the promises that all other requests in flight share.
import { systemClock } from "../../src/clock.ts";
import { defaultLimits } from "../../src/nbd/limits.ts";
import { kib } from "../../src/units.ts";
import { assert, assertEquals } from "../assert.ts";
import { Gate, MemoryVolume } from "./memory_volume.ts";
import { Peer } from "./peer.ts";
import { Cmd, pack } from "./wire.ts";

const size = 64 * kib;

function made(gate: Gate, options: { structured?: boolean } = {}): { peer: Peer; volume: MemoryVolume } {
  const volume = new MemoryVolume(size, { hot: false, soon: true, before: gate.pass });
  for (let i = 0; i < size; i++) volume.bytes[i] = i * 7;
  return { peer: Peer.transmitting(volume, { ...options, borrows: true }), volume };
}

for (const structured of [false, true]) {
  Deno.test(`Session: READs that end in a call are answered as they end (structured ${structured})`, async () => {
    const gate = new Gate();
    const { peer, volume } = made(gate, { structured });
    const requests = Array.from(
      { length: defaultLimits.requests + 20 },
      (_, i) => peer.encode({ type: Cmd.READ, offset: i * 11, length: 100, cookie: BigInt(i) }),
    );
    peer.feed(pack(...requests));
    assertEquals(peer.session.requestsInFlight, defaultLimits.requests);
    assert(!peer.session.wantsInput);
    gate.open();
    await peer.exchange(pack());
    const replies = await peer.replies();
    assertEquals(replies.length, requests.length);
    for (const { cookie, error, data } of replies) {
      const at = Number(cookie) * 11;
      assertEquals([error, data], [0, volume.bytes.slice(at, at + 100)]);
    }
    assertEquals(peer.statistics.read, requests.length);
    assertEquals(peer.statistics.bytesRead, requests.length * 100);
    assert(peer.session.wantsInput);
  });
}

Deno.test("Session: a READ that cannot be had by a call is asked for again", async () => {
  const gate = new Gate();
  gate.open();
  const { peer, volume } = made(gate);
  let calls = 0;
  volume.before = () => {
    if (++calls === 1) throw new Error("not this way");
  };
  assertEquals(
    (await peer.request({ type: Cmd.READ, offset: 5, length: 9 }))!.data,
    volume.bytes.slice(5, 14),
  );
  assertEquals([calls, peer.statistics.read], [2, 1]);
});

Deno.test("Session: a dropped one gives the volume its memory back, once nothing is under way", async () => {
  const gate = new Gate();
  const { peer, volume } = made(gate);
  assertEquals(volume.lent.size, 3);
  peer.feed(peer.encode({ type: Cmd.READ, length: 100 }));
  peer.session.drop();
  assert(peer.session.isClosed);
  assertEquals(peer.session.requestsInFlight, 1);
  gate.open();
  await new Promise((resolve) => systemClock.after(0, () => resolve(undefined)));
  assertEquals([peer.session.requestsInFlight, peer.session.queuedBytes, peer.statistics.read], [0, 0, 0]);
  peer.session.returnBuffers();
  assertEquals(volume.lent.size, 0);
});
