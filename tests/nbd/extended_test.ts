/** Extended headers: 64-bit lengths, payloads that are told by a flag, and every reply in chunks of 32 bytes. */

import { DeviceError } from "../../src/errors.ts";
import type { MarkedExtent, MarkKind } from "../../src/cache/volume.ts";
import { MemoryVolume } from "./memory_volume.ts";
import { Peer } from "./peer.ts";
import { clientFlags, Cmd, contextData, Errno, Flag, infoData, Opt, optionBytes, pack, Rep } from "./wire.ts";
import { assert, assertEquals, assertGreater, assertStringIncludes } from "../assert.ts";

const kib = 1024;
const mib = 1024 * kib;
const tib = 1024 * 1024 * mib;

/** A volume whose size nobody has RAM for; it notes what it is asked. */
class HugeVolume extends MemoryVolume {
  override readonly sizeBytes = 16 * tib;
  constructor() {
    super(mib);
  }
}

/** A volume with contexts of a cache: everything below 8 KiB is dirty, everything below 16 KiB cached. */
class MarkedVolume extends MemoryVolume {
  marks(kind: MarkKind, offset: number, length: number, limit: number): Promise<MarkedExtent[]> {
    const edge = kind === "dirty" ? 8 * kib : 16 * kib;
    const below = Math.max(0, Math.min(length, edge - offset));
    const extents = [{ length: below, marked: true }, { length: length - below, marked: false }];
    return Promise.resolve(extents.filter(({ length }) => length > 0).slice(0, limit));
  }
}

function greeted(volume = new MemoryVolume(mib)): Peer {
  const peer = new Peer(volume);
  peer.feed(clientFlags());
  peer.drain();
  peer.take(18);
  return peer;
}

Deno.test("EXTENDED_HEADERS: is acknowledged, refuses data, and goes before structured replies", async () => {
  const peer = greeted();
  assertEquals(await peer.option(Opt.EXTENDED_HEADERS, pack("x")), [Rep.ERR_INVALID]);
  assertEquals(await peer.option(Opt.STRUCTURED_REPLY), [Rep.ACK]);
  assertEquals(await peer.option(Opt.EXTENDED_HEADERS), [Rep.ACK]);
  assertEquals(await peer.option(Opt.EXTENDED_HEADERS), [Rep.ACK]);
  assertEquals(await peer.option(Opt.STRUCTURED_REPLY), [Rep.ERR_EXT_HEADER_REQD]);
  assertEquals(await peer.option(Opt.SET_META_CONTEXT, contextData("", "base:allocation")), [
    Rep.META_CONTEXT,
    Rep.ACK,
  ]);
  await peer.exchange(optionBytes(Opt.GO, infoData()));
  const info = (await peer.optionReplies())[0]!;
  assertEquals(new DataView(info.data.buffer).getUint16(10), 0x1ded, "DF and BLOCK_STATUS_PAYLOAD");
});

Deno.test("EXTENDED_HEADERS: EXPORT_NAME after it ends the connection", async () => {
  const peer = greeted();
  await peer.option(Opt.EXTENDED_HEADERS);
  await peer.option(Opt.EXPORT_NAME);
  assert(peer.session.isClosed);
});

Deno.test("EXTENDED_HEADERS: without a context there is no BLOCK_STATUS_PAYLOAD", async () => {
  const peer = greeted();
  await peer.option(Opt.EXTENDED_HEADERS);
  await peer.exchange(optionBytes(Opt.GO, infoData()));
  const info = (await peer.optionReplies())[0]!;
  assertEquals(new DataView(info.data.buffer).getUint16(10), 0x0ded);
});

Deno.test("extended: headers of the other kind end the connection", async () => {
  for (const extended of [true, false]) {
    const peer = Peer.transmitting(new MemoryVolume(mib), { extended });
    peer.extended = !extended;
    await peer.exchange(peer.encode({ type: Cmd.READ, length: 512 }));
    await peer.exchange(new Uint8Array(32));
    assert(peer.session.isClosed);
    assertStringIncludes(peer.warnings[0]!, "bad request magic");
  }
});

Deno.test("extended: every reply repeats cookie and offset, also an offset that no volume has", async () => {
  const peer = Peer.transmitting(new MemoryVolume(mib), { extended: true, allocation: true });
  const requests = [
    { type: Cmd.READ, offset: 4096, length: 512 },
    { type: Cmd.READ, offset: 5000, length: 0 },
    { type: Cmd.WRITE, offset: 4096, payload: new Uint8Array(512) },
    { type: Cmd.FLUSH, offset: 0 },
    { type: Cmd.TRIM, offset: 8192, length: 4096 },
    { type: Cmd.BLOCK_STATUS, offset: 12288, length: 4096 },
    { type: Cmd.READ, offset: 0xfedc_ba98_7654_3211n, length: 512 },
    { type: Cmd.TRIM, offset: 2n ** 64n - 1n, length: 2n ** 64n - 1n },
    { type: Cmd.WRITE, offset: 0x8000_0000_0000_0001n, payload: new Uint8Array(400_000) },
  ];
  for (const request of requests) {
    const reply = (await peer.request({ ...request, cookie: 0xffee_ddcc_0000_0001n }))!;
    assertEquals([reply.form, reply.echo], ["extended", BigInt(request.offset)]);
    const beyond = typeof request.offset === "bigint";
    assertEquals(reply.error, beyond ? (request.type === Cmd.WRITE ? Errno.ENOSPC : Errno.EINVAL) : 0);
  }
});

Deno.test("extended: effect lengths have 64 bits", async () => {
  const volume = new HugeVolume();
  const peer = Peer.transmitting(volume, { extended: true });
  volume.trim = (offset, length) =>
    Promise.resolve(void volume.calls.push({ call: "trim", offset, length, fua: false }));
  volume.zero = (offset, length) =>
    Promise.resolve(void volume.calls.push({ call: "zero", offset, length, fua: false }));
  const request = (type: number, length: number | bigint, offset = 0) =>
    peer.request({ type, offset, length });
  assertEquals((await request(Cmd.TRIM, 16 * tib))!.error, 0);
  assertEquals((await request(Cmd.WRITE_ZEROES, 5 * 1024 * mib + 1, 3))!.error, 0);
  assertEquals(volume.calls.map(({ call, length }) => [call, length]), [["trim", 16 * tib], [
    "zero",
    5 * 1024 * mib + 1,
  ]]);
  assertEquals((await request(Cmd.TRIM, 16 * tib + 1))!.error, Errno.EINVAL);
  assertEquals((await request(Cmd.WRITE_ZEROES, 2n ** 64n - 1n, 1))!.error, Errno.ENOSPC);
  assertEquals((await request(Cmd.READ, 128 * mib))!.error, Errno.EOVERFLOW);
});

Deno.test("extended: BLOCK_STATUS_EXT tells extents of more than 4 GiB in one descriptor", async () => {
  const volume = new HugeVolume();
  volume.extents = (_offset, length) => Promise.resolve([{ length, hole: true, zero: true }]);
  const peer = Peer.transmitting(volume, { extended: true, allocation: true });
  const reply = (await peer.request({ type: Cmd.BLOCK_STATUS, length: 16 * tib }))!;
  assertEquals(reply.descriptors, [[16 * tib, 3]]);
});

Deno.test("extended: a WRITE must say that it has a payload, and nothing else may have one", async () => {
  const volume = new MemoryVolume(mib);
  const peer = Peer.transmitting(volume, { extended: true });
  assertEquals((await peer.request({ type: Cmd.WRITE, length: 512 }))!.error, Errno.EINVAL);
  assertEquals((await peer.request({ type: Cmd.WRITE, length: 0 }))!.error, 0);
  for (const type of [Cmd.READ, Cmd.TRIM, Cmd.FLUSH, Cmd.BLOCK_STATUS, 99]) {
    for (const length of [1, 1000, 700_000]) {
      const reply = await peer.request({ type, payload: new Uint8Array(length).fill(0x21) });
      assertEquals(reply?.error, Errno.EINVAL, `command ${type} with ${length} bytes`);
    }
  }
  assertEquals((await peer.request({ type: Cmd.READ, length: 8 }))!.data, new Uint8Array(8));
  peer.feed(peer.encode({ type: 99, flags: Flag.PAYLOAD_LEN, length: 64 * mib + 1 }));
  assert(peer.session.isClosed);
});

Deno.test("extended: BLOCK_STATUS with a payload answers for the contexts that it names", async () => {
  const contexts = ["base:allocation", "x-nbdboost:dirty", "x-nbdboost:cached"];
  const peer = Peer.transmitting(new MarkedVolume(mib), { extended: true, contexts });
  const status = (...payload: Parameters<typeof pack>) =>
    peer.request({ type: Cmd.BLOCK_STATUS, offset: 4096, payload: pack(...payload) });
  const both = (await status([8, 32 * kib], [4, 3], [4, 2]))!;
  assertEquals([...both.contexts], [
    [3, [[12 * kib, 1], [20 * kib, 0]]],
    [2, [[4 * kib, 1], [28 * kib, 0]]],
  ]);
  assertEquals([...(await status([8, 4096], [4, 1]))!.contexts.keys()], [1]);
  const malformed: Parameters<typeof pack>[] = [
    [[8, 4096]],
    [[8, 4096], [4, 9]],
    [[8, 4096], [4, 2], [4, 2]],
    [[8, 4096], [4, 1], [4, 2], [4, 3], [4, 1]],
    [[8, 4096], [2, 1]],
    [[4, 4096]],
    [[8, 0], [4, 1]],
    [[8, 2 * mib], [4, 1]],
    [[8, 2n ** 64n - 1n], [4, 1]],
  ];
  for (const payload of malformed) {
    assertEquals((await status(...payload))!.error, Errno.EINVAL, String(payload));
  }
  assertEquals((await status([8, 4096], [4, 1]))!.error, 0);
});

Deno.test("contexts: one chunk each, the last of them ends the reply; REQ_ONE gives one descriptor each", async () => {
  for (const extended of [false, true]) {
    const contexts = ["x-nbdboost:dirty", "base:allocation", "x-nbdboost:cached"];
    const peer = Peer.transmitting(new MarkedVolume(mib), { extended, contexts });
    const reply = (await peer.request({ type: Cmd.BLOCK_STATUS, length: 64 * kib }))!;
    assertEquals(reply.chunks, 3);
    assertEquals([...reply.contexts], [
      [1, [[64 * kib, 3]]],
      [2, [[8 * kib, 1], [56 * kib, 0]]],
      [3, [[16 * kib, 1], [48 * kib, 0]]],
    ]);
    const one = (await peer.request({ type: Cmd.BLOCK_STATUS, length: 64 * kib, flags: Flag.REQ_ONE }))!;
    assertEquals([...one.contexts.values()], [[[64 * kib, 3]], [[8 * kib, 1]], [[16 * kib, 1]]]);
  }
});

Deno.test("LIST_META_CONTEXT: lists what the volume can tell, by namespace or in all", async () => {
  const names = async (...queries: string[]) => {
    const peer = greeted(new MarkedVolume(mib));
    await peer.exchange(optionBytes(Opt.LIST_META_CONTEXT, contextData("", ...queries)));
    const replies = (await peer.optionReplies()).slice(0, -1);
    return replies.map(({ data }) => new TextDecoder().decode(data.subarray(4)));
  };
  const ours = ["x-nbdboost:dirty", "x-nbdboost:cached"];
  assertEquals(await names(), ["base:allocation", ...ours]);
  assertEquals(await names("x-nbdboost:"), ours);
  assertEquals(await names("x-nbdboost:cached"), ["x-nbdboost:cached"]);
  assertEquals(await names("x-nbdboost:nothing", "x-nbdboost"), []);
});

Deno.test("READ: zeroes come as holes where the client takes chunks, as data where it does not", async () => {
  for (const form of [{}, { structured: true }, { extended: true }]) {
    for (const hot of [false, true]) {
      const volume = new MemoryVolume(mib, { hot });
      volume.bytes.fill(7, 64 * kib, 80 * kib);
      await volume.write(64 * kib, new Uint8Array(16 * kib).fill(7));
      const peer = Peer.transmitting(volume, form);
      const expected = volume.bytes.slice(1000, 301_000);
      const reply = (await peer.request({ type: Cmd.READ, offset: 1000, length: 300_000 }))!;
      assertEquals(reply.data, expected);
      if (reply.form === "simple") continue;
      assertGreater(reply.holeBytes, 200 * kib);
      const whole = (await peer.request({ type: Cmd.READ, offset: 1000, length: 300_000, flags: Flag.DF }))!;
      assertEquals([whole.data, whole.holeBytes, whole.chunks], [expected, 0, 1]);
    }
  }
});

Deno.test("READ: zeroes that are known at once are one hole, with DF too", async () => {
  const volume = Object.assign(new MemoryVolume(mib), { zeroesNow: () => true });
  for (const flags of [0, Flag.DF]) {
    const peer = Peer.transmitting(volume, { structured: true });
    const reply = (await peer.request({ type: Cmd.READ, offset: 4096, length: 128 * kib, flags }))!;
    assertEquals([reply.chunks, reply.holeBytes, reply.data], [1, 128 * kib, new Uint8Array(128 * kib)]);
  }
  const simple = Peer.transmitting(volume);
  assertEquals((await simple.request({ type: Cmd.READ, length: 128 * kib }))!.data.length, 128 * kib);
});

Deno.test("READ: a failure whose place is known is told of by ERROR_OFFSET", async () => {
  const failAt = (offset: number | undefined) => {
    const volume = new MemoryVolume(mib, { hot: false });
    volume.read = () =>
      Promise.reject(new DeviceError("EIO", "Broken", offset === undefined ? {} : { offset }));
    return Peer.transmitting(volume, { structured: true });
  };
  const failed = async (offset: number | undefined) =>
    (await failAt(offset).request({ type: Cmd.READ, offset: 8192, length: 8192 }))!;
  assertEquals([(await failed(12288)).error, (await failed(12288)).failedOffset], [Errno.EIO, 12288]);
  assertEquals((await failed(4096)).failedOffset, 8192, "a block that begins before the request");
  assertEquals((await failed(16384)).failedOffset, undefined, "outside of the request");
  assertEquals((await failed(undefined)).failedOffset, undefined);
});
