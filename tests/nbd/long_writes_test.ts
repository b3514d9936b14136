// Why: long WRITEs are collected in lent memory and wait there; all of them must land once, and the memory go back.
import { kib } from "../../src/units.ts";
import { assert, assertEquals } from "../assert.ts";
import { FakeClock } from "./fake_clock.ts";
import { Gate, MemoryVolume } from "./memory_volume.ts";
import { Peer, type PeerOptions } from "./peer.ts";
import { Cmd, Flag, pack } from "./wire.ts";

const size = 3 * 1024 * kib;
/** What a connection has on loan by itself. */
const ownBuffers = 3;

function made(options: PeerOptions = {}): { peer: Peer; volume: MemoryVolume } {
  const volume = new MemoryVolume(size);
  return { peer: Peer.transmitting(volume, { ...options, borrows: true }), volume };
}

function content(length: number): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length }, (_, i) => i * 5 + (i >>> 10));
}

for (const pieceBytes of [Infinity, 100_000]) {
  Deno.test(`Session: long WRITEs land where they belong, in receives of ${pieceBytes}`, async () => {
    const { peer, volume } = made();
    const ranges = [[0, 1024 * kib], [4096, 300_001], [1234, 1_000_000], [511, 2_000_000]] as const;
    for (const [offset, length] of ranges) {
      volume.bytes.fill(0);
      const payload = content(length);
      await peer.exchange(peer.encode({ type: Cmd.WRITE, offset, payload }), pieceBytes);
      assertEquals((await peer.replies()).map(({ error }) => error), [0]);
      assertEquals(volume.bytes.slice(offset, offset + length), payload);
      assertEquals(
        volume.bytes.reduce((sum, byte) => sum + byte, 0),
        payload.reduce((sum, byte) => sum + byte, 0),
      );
    }
    assertEquals([volume.lent.size, volume.calls.length, peer.statistics.write], [ownBuffers, 0, 4]);
  });
}

Deno.test("Session: a WRITE for which there is no room just now waits where it is, and the next behind it", async () => {
  for (const length of [128 * kib, 700 * kib]) {
    const { peer, volume } = made();
    volume.full = true;
    const payload = content(length);
    const next = peer.encode({ type: Cmd.READ, offset: 4096, length: 4096 });
    const requests = pack(peer.encode({ type: Cmd.WRITE, offset: 4096, payload }), next);
    const fed = peer.feed(requests);
    assert(!peer.session.wantsInput);
    assertEquals([peer.session.requestsInFlight, volume.calls.length, peer.statistics.read], [0, 0, 0]);
    volume.again!();
    assert(!peer.session.wantsInput, "still full");
    volume.full = false;
    volume.again!();
    await peer.exchange(requests.subarray(fed));
    assertEquals((await peer.replies()).map(({ error, data }) => [error, data?.length ?? 0]), [[0, 0], [
      0,
      4096,
    ]]);
    assertEquals(volume.bytes.slice(4096, 4096 + length), payload);
    assertEquals([volume.calls.length, volume.lent.size], [0, ownBuffers]);
  }
});

Deno.test("Session: a WRITE that has waited for a second becomes an operation, as do those after it", async () => {
  const clock = new FakeClock();
  const { peer, volume } = made({ clock });
  clock.advance(5);
  const gate = new Gate();
  volume.before = gate.pass;
  volume.full = true;
  const payload = content(600 * kib);
  peer.feed(peer.encode({ type: Cmd.WRITE, offset: 0, payload }));
  assert(!peer.session.wantsInput);
  clock.advance(1000);
  volume.again!();
  assert(peer.session.wantsInput);
  peer.feed(peer.encode({ type: Cmd.WRITE, offset: 1024 * kib, payload: payload.subarray(0, 64 * kib) }));
  assertEquals(peer.session.requestsInFlight, 2);
  gate.open();
  await peer.exchange(pack());
  assertEquals((await peer.replies()).map(({ error }) => error), [0, 0]);
  assertEquals(volume.bytes.slice(0, payload.length), payload);
  assertEquals(volume.calls.map(({ call }) => call), Array(4).fill("write"));
  assertEquals([volume.lent.size, peer.statistics.bytesWritten], [ownBuffers, 664 * kib]);
});

Deno.test("Session: a long WRITE with FUA is one flush, and one that fails is one error", async () => {
  const { peer, volume } = made();
  const write = { type: Cmd.WRITE, flags: Flag.FUA, payload: content(600 * kib) };
  assertEquals((await peer.request(write))!.error, 0);
  assertEquals(volume.calls.map(({ call }) => call), ["write", "write", "write", "flush"]);
  assertEquals(volume.bytes.slice(0, 600 * kib), write.payload);
  volume.before = (_call, offset) => {
    if (offset > 300 * kib) throw new Error("not there");
  };
  assert((await peer.request(write))!.error !== 0);
  assertEquals(volume.lent.size, ownBuffers);
  volume.writeNow = () => {
    throw new RangeError("a bug");
  };
  assert((await peer.request({ ...write, flags: 0 }))!.error !== 0);
  assertEquals([volume.lent.size, peer.session.isClosed], [ownBuffers, false]);
});

Deno.test("Session: a long WRITE without lent memory has its own", async () => {
  const { peer, volume } = made();
  volume.buffers = ownBuffers + 2;
  const payload = content(600 * kib);
  assertEquals((await peer.request({ type: Cmd.WRITE, offset: 7, payload }))!.error, 0);
  assertEquals(volume.bytes.slice(7, 7 + payload.length), payload);
});

Deno.test("Session: a dropped one puts nothing of what it collects, and gives its memory back at the end", () => {
  const { peer, volume } = made();
  const request = peer.encode({ type: Cmd.WRITE, payload: content(800 * kib) });
  peer.feed(request.subarray(0, 500_000));
  assertEquals(volume.lent.size, ownBuffers + 4);
  peer.session.inputSpace();
  peer.session.drop();
  assertEquals(volume.lent.size, ownBuffers + 4, "the kernel may still write into it");
  peer.session.returnBuffers();
  assertEquals([volume.lent.size, volume.bytes.every((byte) => byte === 0)], [0, true]);
});
