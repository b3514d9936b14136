import fc from "../property.ts";
import { defaultLimits } from "../../src/nbd/limits.ts";
import type { RequestKind } from "../../src/nbd/statistics.ts";
import { Gate, MemoryVolume } from "./memory_volume.ts";
import { Peer } from "./peer.ts";
import {
  clientFlags,
  Cmd,
  contextData,
  Flag,
  infoData,
  Opt,
  optionBytes,
  pack,
  type Request,
} from "./wire.ts";
import { assert, assertEquals, assertGreater, assertLess } from "../assert.ts";

const { connectionBytes: bytesInFlightMax, requests: requestsInFlightMax } = defaultLimits;
const kib = 1024;
const mib = 1024 * kib;

/** A conversation that uses most of the protocol, as one run of bytes. */
function conversation(peer: Peer): Uint8Array {
  const big = new Uint8Array(70_000).map((_, i) => i);
  return pack(
    clientFlags(),
    optionBytes(99, pack("junk")),
    optionBytes(Opt.STRUCTURED_REPLY),
    optionBytes(Opt.SET_META_CONTEXT, contextData("", "base:allocation")),
    optionBytes(Opt.INFO, pack("bad")),
    optionBytes(Opt.GO, infoData("", 3)),
    peer.encode({ type: Cmd.WRITE, offset: 3, payload: pack("hello") }),
    peer.encode({ type: Cmd.READ, offset: 0, length: 16 }),
    peer.encode({ type: Cmd.WRITE, offset: 1 << 30, payload: pack("lost") }),
    peer.encode({ type: Cmd.WRITE, offset: 1000, payload: big }),
    peer.encode({ type: 99, length: 77 }),
    peer.encode({ type: Cmd.READ, offset: 990, length: 70_020 }),
    peer.encode({ type: Cmd.READ, offset: 0, length: 0 }),
    peer.encode({ type: Cmd.DISC }),
    pack("after the end"),
  );
}

Deno.test("Session: pieces of any size give the same replies as one receive", async () => {
  const whole = new Peer(new MemoryVolume(1 * mib));
  whole.feed(conversation(whole));
  whole.drain();
  assertGreater(whole.received.length, 70_000);
  const pieces = [1, 2, 3, 5, 7, 11, 13, 16, 19, 20, 27, 28, 29, 31, 64, 100, 1000, 4096, 65_536];
  for (const piece of pieces) {
    const peer = new Peer(new MemoryVolume(1 * mib));
    await peer.exchange(conversation(peer), piece);
    assertEquals(peer.received, whole.received, `${piece} bytes at a time`);
    assert(peer.session.isClosed);
  }
});

Deno.test("Session: a cut at every byte boundary gives the same replies", () => {
  const small = (peer: Peer) =>
    pack(
      clientFlags(),
      optionBytes(Opt.STRUCTURED_REPLY),
      optionBytes(Opt.GO, infoData()),
      peer.encode({ type: Cmd.WRITE, offset: 3, payload: pack("hello") }),
      peer.encode({ type: Cmd.WRITE, flags: Flag.DF, payload: pack("no") }),
      peer.encode({ type: Cmd.READ, offset: 0, length: 16 }),
      peer.encode({ type: Cmd.DISC }),
    );
  const whole = new Peer(new MemoryVolume(4096));
  const bytes = small(whole);
  whole.feed(bytes);
  whole.drain();
  for (let cut = 1; cut < bytes.length; cut++) {
    const peer = new Peer(new MemoryVolume(4096));
    small(peer);
    peer.feed(bytes.subarray(0, cut));
    peer.feed(bytes.subarray(cut));
    peer.drain();
    assertEquals(peer.received, whole.received, `cut at ${cut}`);
  }
});

/** Requests that stay inside a volume of 64 KiB. */
const requests: fc.Arbitrary<Request[]> = fc.array(
  fc.record({
    type: fc.constantFrom(Cmd.READ, Cmd.WRITE, Cmd.WRITE, Cmd.TRIM, Cmd.WRITE_ZEROES, Cmd.FLUSH),
    offset: fc.nat(40_000),
    length: fc.nat(20_000),
    fua: fc.boolean(),
    fill: fc.nat(255),
  }).map(({ type, offset, length, fua, fill }) => {
    const flags = fua ? Flag.FUA : 0;
    if (type === Cmd.FLUSH) return { type, flags };
    if (type === Cmd.WRITE) return { type, flags, offset, payload: new Uint8Array(length).fill(fill) };
    return { type, flags, offset, length };
  }),
  { maxLength: 30 },
);

Deno.test("Session: random requests one after another match a plain array, hot or not", async () => {
  await fc.assert(
    fc.asyncProperty(
      requests,
      fc.boolean(),
      fc.boolean(),
      fc.integer({ min: 1, max: 30_000 }),
      async (all, hot, structured, piece) => {
        const model = new Uint8Array(64 * kib);
        const volume = new MemoryVolume(64 * kib, { hot });
        const peer = Peer.transmitting(volume, { structured });
        for (const request of all) {
          await peer.exchange(peer.encode(request), piece);
          const reply = (await peer.replies())[0]!;
          assertEquals(reply.error, 0);
          const { type, payload } = request;
          const length = Number(request.length ?? 0);
          const offset = Number(request.offset ?? 0);
          if (type === Cmd.READ) assertEquals(reply.data, model.slice(offset, offset + length));
          else if (type === Cmd.WRITE) model.set(payload!, offset);
          else if (type !== Cmd.FLUSH) model.fill(0, offset, offset + length);
        }
        assertEquals(volume.bytes, model);
        assert(peer.session.isQuiet && !peer.session.isEnding);
      },
    ),
    { numRuns: 60 },
  );
});

Deno.test("Session: many requests at once are each answered exactly once", async () => {
  await fc.assert(
    fc.asyncProperty(
      requests,
      fc.boolean(),
      fc.integer({ min: 1, max: 300_000 }),
      async (all, hot, piece) => {
        const peer = Peer.transmitting(new MemoryVolume(64 * kib, { hot }), { structured: true });
        await peer.exchange(
          pack(...all.map((request, i) => peer.encode({ ...request, cookie: BigInt(i) }))),
          piece,
        );
        const cookies = (await peer.replies()).map(({ cookie }) => Number(cookie)).sort((a, b) => a - b);
        assertEquals(cookies, all.map((_, i) => i));
      },
    ),
    { numRuns: 60 },
  );
});

Deno.test("Session: garbage never throws, and what is held stays bounded", async () => {
  const garbage = fc.array(
    fc.oneof(
      fc.uint8Array({ maxLength: 200 }),
      fc.tuple(fc.nat(12), fc.uint8Array({ maxLength: 64 })).map(([code, data]) => optionBytes(code, data)),
      fc.tuple(fc.nat(12), fc.nat(0xffffffff)).map(([code, length]) =>
        pack("IHAVEOPT", [4, code], [4, length])
      ),
      fc.record({
        type: fc.nat(10),
        flags: fc.nat(0x3f),
        offset: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
        length: fc.nat(0xffffffff),
        cookie: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
      }).map(({ type, flags, offset, length, cookie }) =>
        pack([4, 0x25609513], [2, flags], [2, type], [8, cookie], [8, offset], [4, length])
      ),
    ),
    { maxLength: 20 },
  );
  await fc.assert(
    fc.asyncProperty(garbage, fc.boolean(), fc.boolean(), fc.nat(300), async (parts, early, hot, piece) => {
      const volume = new MemoryVolume(64 * kib, { hot });
      const peer = early ? new Peer(volume) : Peer.transmitting(volume, { allocation: true });
      if (early) peer.feed(clientFlags());
      await peer.exchange(pack(...parts), piece + 1);
      peer.session.ended();
      peer.drain();
      assert(peer.session.isClosed);
      assertLess(peer.queuedBytesMax, bytesInFlightMax + mib);
      assert(peer.warnings.every((warning) => !warning.includes("failure in the server")), peer.warnings[0]);
    }),
    { numRuns: 300 },
  );
});

Deno.test("Session: cookies come back byte for byte", async () => {
  for (const hot of [true, false]) {
    const peer = Peer.transmitting(new MemoryVolume(4096, { hot }), { structured: true });
    for (const cookie of [0n, 1n, 0x80000000n, 0xffffffff00000000n, 0x8000000000000001n, 2n ** 64n - 1n]) {
      for (const type of [Cmd.READ, Cmd.WRITE, Cmd.FLUSH, 99]) {
        const payload = type === Cmd.WRITE ? { payload: pack("x") } : { length: type === Cmd.READ ? 4 : 0 };
        assertEquals((await peer.request({ type, cookie, ...payload }))!.cookie, cookie);
      }
    }
  }
});

Deno.test("Session: offsets beyond 4 GiB reach the volume exactly", async () => {
  const volume = new MemoryVolume(4096);
  const seen: number[] = [];
  const huge = Object.defineProperty(volume, "sizeBytes", { value: Number.MAX_SAFE_INTEGER - 4095 });
  huge.readNow = (offset) => seen.push(offset) > 0;
  const peer = Peer.transmitting(huge);
  const offsets = [2 ** 32 - 1, 2 ** 32, 2 ** 44 + 512, Number.MAX_SAFE_INTEGER - 4096];
  for (const offset of offsets) assertEquals((await peer.request({ type: 0, offset, length: 1 }))!.error, 0);
  assertEquals((await peer.request({ type: 0, offset: Number.MAX_SAFE_INTEGER, length: 1 }))!.error, 22);
  assertEquals(seen, offsets);
});

Deno.test("Session: hot requests are answered within received(), all of a receive in one send", () => {
  const volume = new MemoryVolume(1 * mib);
  const peer = Peer.transmitting(volume);
  const writes = Array.from(
    { length: 50 },
    (_, i) => peer.encode({ type: Cmd.WRITE, offset: i * 4096, payload: new Uint8Array(4096) }),
  );
  peer.feed(pack(...writes));
  assertEquals(peer.session.output()!.length, 50 * 16);
  assertEquals(volume.calls, []);
  peer.drain();
  peer.feed(pack(...Array.from({ length: 20 }, () => peer.encode({ type: Cmd.READ, length: 8192 }))));
  assertEquals(peer.session.output()!.length, 20 * (16 + 8192));
});

Deno.test("Session: FUA and keepAllocated reach the volume, a hot write without FUA does not wait", async () => {
  const volume = new MemoryVolume(64 * kib);
  const peer = Peer.transmitting(volume);
  const fua = Flag.FUA;
  await peer.request({ type: Cmd.WRITE, flags: fua, offset: 1, payload: pack("x") });
  await peer.request({ type: Cmd.TRIM, flags: fua, offset: 2, length: 3 });
  await peer.request({
    type: Cmd.WRITE_ZEROES,
    flags: fua | Flag.NO_HOLE | Flag.FAST_ZERO,
    offset: 4,
    length: 5,
  });
  assertEquals(volume.calls, [
    { call: "write", offset: 1, length: 1, fua: true },
    { call: "trim", offset: 2, length: 3, fua: true },
    { call: "zero", offset: 4, length: 5, fua: true },
  ]);
  assert(volume.keptAllocated);
});

Deno.test("Session: a slow request does not hold up those behind it", async () => {
  const gate = new Gate();
  const volume = new MemoryVolume(64 * kib, { before: gate.pass });
  const peer = Peer.transmitting(volume);
  peer.feed(
    pack(
      peer.encode({ type: Cmd.FLUSH, cookie: 1n }),
      peer.encode({ type: Cmd.READ, length: 4, cookie: 2n }),
    ),
  );
  peer.drain();
  assertEquals((await peer.replies()).map(({ cookie }) => cookie), [2n]);
  gate.open();
  await peer.exchange(pack());
  assertEquals((await peer.replies()).map(({ cookie }) => cookie), [1n]);
});

Deno.test("Session: DISC lets requests under way finish and be answered; nothing after it is read", async () => {
  const gate = new Gate();
  const volume = new MemoryVolume(64 * kib, { before: gate.pass });
  const peer = Peer.transmitting(volume);
  const late = peer.encode({ type: Cmd.WRITE, payload: pack("late") });
  peer.feed(
    pack(peer.encode({ type: Cmd.FLUSH }), peer.encode({ type: Cmd.DISC, offset: 9, length: 9 }), late),
  );
  assert(!peer.session.wantsInput && !peer.session.isClosed);
  gate.open();
  await peer.exchange(pack());
  assertEquals((await peer.replies()).map(({ error }) => error), [0]);
  assert(peer.session.isClosed);
  assertEquals(volume.bytes[0], 0);
});

Deno.test("Session: a payload that waits for the volume is not touched by what comes after it", async () => {
  const gate = new Gate();
  const volume = new MemoryVolume(4 * mib, { hot: false, before: gate.pass });
  const peer = Peer.transmitting(volume);
  const writes: Uint8Array[] = [];
  for (let i = 0; i < 60; i++) {
    const payload = new Uint8Array(60_000).fill(i + 1);
    writes.push(peer.encode({ type: Cmd.WRITE, offset: i * 60_000, payload }));
  }
  peer.feed(pack(...writes), 50_000);
  gate.open();
  await peer.exchange(pack());
  assertEquals((await peer.replies()).length, 60);
  for (let i = 0; i < 60; i++) {
    const part = volume.bytes.subarray(i * 60_000, (i + 1) * 60_000);
    assert(part.every((byte) => byte === i + 1), `write ${i}`);
  }
});

Deno.test("Session: stops reading at the limit of requests in flight and goes on when they finish", async () => {
  const gate = new Gate();
  const volume = new MemoryVolume(64 * kib, { before: gate.pass });
  const peer = Peer.transmitting(volume);
  peer.feed(pack(...Array.from({ length: 1000 }, () => peer.encode({ type: Cmd.FLUSH }))));
  assertEquals(volume.calls.length, requestsInFlightMax);
  assertEquals(peer.session.requestsInFlight, requestsInFlightMax);
  assert(!peer.session.wantsInput);
  gate.openOne();
  await new Promise((resolve) => setTimeout(resolve));
  assertEquals(volume.calls.length, requestsInFlightMax + 1);
  gate.open();
  await peer.exchange(pack());
  assertEquals((await peer.replies()).length, 1000);
  assert(peer.session.wantsInput);
});

Deno.test("Session: a client that never takes replies holds bounded memory, and loses nothing", async () => {
  for (const hot of [true, false]) {
    const volume = new MemoryVolume(1 * mib, { hot });
    const peer = Peer.transmitting(volume);
    const reads = pack(
      ...Array.from({ length: 300 }, () => peer.encode({ type: Cmd.READ, length: 256 * kib })),
    );
    peer.feed(reads);
    for (let i = 0; i < 50; i++) await new Promise((resolve) => setTimeout(resolve));
    assert(!peer.session.wantsInput);
    assertLess(peer.session.queuedBytes, bytesInFlightMax + mib);
    assertGreater(peer.session.queuedBytes, bytesInFlightMax / 4);
    await peer.exchange(pack());
    assertEquals(peer.statistics.read, 300);
    assertEquals(peer.received.length, 300 * (16 + 256 * kib));
  }
});

Deno.test("Session: payloads that wait for the volume are bounded too", async () => {
  const gate = new Gate();
  const volume = new MemoryVolume(64 * mib, { hot: false, before: gate.pass });
  const peer = Peer.transmitting(volume);
  const write = peer.encode({ type: Cmd.WRITE, payload: new Uint8Array(20 * mib) });
  let taken = 0;
  for (let i = 0; i < 10; i++) taken += peer.feed(write);
  assertEquals(volume.underWay, 3);
  assertLess(taken, 4 * 20 * mib);
  gate.open();
  await peer.exchange(write.subarray(taken % write.length));
  assertEquals((await peer.replies()).map(({ error }) => error), [0, 0, 0, 0]);
});

Deno.test("Session: after drop() requests under way finish silently", async () => {
  const gate = new Gate();
  const peer = Peer.transmitting(new MemoryVolume(64 * kib, { hot: false, before: gate.pass }));
  peer.feed(peer.encode({ type: Cmd.READ, length: 4096 }));
  peer.session.drop();
  assert(peer.session.isClosed);
  assertEquals(peer.session.requestsInFlight, 1);
  gate.open();
  await peer.exchange(pack());
  assertEquals([peer.session.requestsInFlight, peer.received.length], [0, 0]);
  peer.session.sent(5);
});

Deno.test("BLOCK_STATUS: tells holes, zeroes and data; REQ_ONE gives one; neighbours are merged", async () => {
  const volume = new MemoryVolume(64 * kib);
  const peer = Peer.transmitting(volume, { allocation: true });
  const status = async (offset: number, length: number, flags = 0) =>
    (await peer.request({ type: Cmd.BLOCK_STATUS, offset, length, flags }))!.descriptors;
  assertEquals(await status(0, 64 * kib), [[64 * kib, 3]]);
  await peer.request({ type: Cmd.WRITE, offset: 8192, payload: new Uint8Array(4096).fill(1) });
  await peer.request({ type: Cmd.WRITE_ZEROES, flags: Flag.NO_HOLE, offset: 16384, length: 4096 });
  const all = [[8192, 3], [4096, 0], [4096, 3], [4096, 2], [45056, 3]] as [number, number][];
  assertEquals(await status(0, 64 * kib), all);
  assertEquals(await status(100, 64 * kib - 100, Flag.REQ_ONE), [[8092, 3]]);
  assertEquals(await status(9000, 100), [[100, 0]]);
  volume.extents = () =>
    Promise.resolve([
      { length: 10, hole: true, zero: true },
      { length: 20, hole: true, zero: true },
      { length: 5, hole: false, zero: false },
      { length: 1 * mib, hole: false, zero: true },
    ]);
  assertEquals(await status(0, 100), [[30, 3], [5, 0], [65, 2]]);
  volume.extents = () => Promise.resolve([]);
  assertEquals((await peer.request({ type: Cmd.BLOCK_STATUS, length: 100 }))!.error, 5);
});

Deno.test("Statistics: count requests, errors and bytes; the observer hears of every request", async () => {
  const heard = new Map<RequestKind, number>();
  const observer = {
    answered(kind: RequestKind, micros: number, count: number) {
      assert(micros >= 0);
      heard.set(kind, (heard.get(kind) ?? 0) + count);
    },
  };
  const peer = Peer.transmitting(new MemoryVolume(1 * mib), { allocation: true, observer });
  await peer.exchange(pack(
    peer.encode({ type: Cmd.READ, length: 100 }),
    peer.encode({ type: Cmd.READ, length: 400_000 }),
    peer.encode({ type: Cmd.READ, offset: 2 * mib, length: 1 }),
    peer.encode({ type: Cmd.WRITE, payload: new Uint8Array(10) }),
    peer.encode({ type: Cmd.WRITE, payload: new Uint8Array(10), flags: Flag.FUA }),
    peer.encode({ type: Cmd.FLUSH }),
    peer.encode({ type: Cmd.TRIM, length: 10 }),
    peer.encode({ type: Cmd.WRITE_ZEROES, length: 10 }),
    peer.encode({ type: Cmd.CACHE, length: 10 }),
    peer.encode({ type: Cmd.BLOCK_STATUS, length: 10 }),
    peer.encode({ type: 99 }),
  ));
  assertEquals(peer.statistics, {
    read: 3,
    write: 2,
    flush: 1,
    trim: 1,
    zero: 1,
    cache: 1,
    status: 1,
    error: 2,
    bytesRead: 400_100,
    bytesWritten: 20,
  });
  const expected = { read: 2, write: 2, flush: 1, trim: 1, zero: 1, cache: 1, status: 1 };
  assertEquals(Object.fromEntries(heard), expected);
});
