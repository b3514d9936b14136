import { MemoryVolume } from "./memory_volume.ts";
import { Peer } from "./peer.ts";
import { clientFlags, contextData, infoData, Opt, optionBytes, pack, Rep, requestBytes } from "./wire.ts";
import { assert, assertEquals, assertStringIncludes } from "../assert.ts";
import type { Export } from "../../src/nbd/exports.ts";

const size = 1 << 20;
const twoExports = (): Export[] => [
  { name: "disk", description: "a disk", readOnly: false, volume: new MemoryVolume(size) },
  { name: "photos", description: "", readOnly: true, volume: new MemoryVolume(4096) },
];

function greeted(exports?: Export[]): Peer {
  const peer = new Peer(new MemoryVolume(size), exports ? { exports } : {});
  peer.feed(clientFlags());
  peer.drain();
  peer.take(18);
  return peer;
}

/** Transmission flags that GO gives. */
async function goFlags(peer: Peer, name = ""): Promise<number> {
  await peer.exchange(optionBytes(Opt.GO, infoData(name)));
  const reply = (await peer.optionReplies()).find(({ type }) => type === Rep.INFO)!;
  return new DataView(reply.data.buffer).getUint16(10);
}

Deno.test("Session: greets with fixed newstyle and no zeroes before anything is sent", () => {
  const peer = new Peer(new MemoryVolume(size));
  peer.drain();
  assertEquals(peer.received, pack([8, 0x4e42444d41474943n], [8, 0x49484156454f5054n], [2, 3]));
});

Deno.test("Session: an unknown client flag ends the connection", () => {
  for (const flags of [4, 32, 0x80000003]) {
    const peer = new Peer(new MemoryVolume(size));
    peer.feed(clientFlags(flags));
    peer.drain();
    assert(peer.session.isClosed);
    assertStringIncludes(peer.warnings[0]!, "unknown client flags");
  }
});

Deno.test("Session: a client without the fixed-newstyle flag may use EXPORT_NAME", async () => {
  const peer = new Peer(new MemoryVolume(size));
  peer.feed(clientFlags(0));
  await peer.exchange(optionBytes(Opt.EXPORT_NAME));
  assertEquals(peer.received.length, 18 + 10 + 124);
  assert(!peer.session.isHandshaking);
});

Deno.test("EXPORT_NAME: gives size and flags, with zeroes only for clients that want them", async () => {
  for (const [flags, zeroes] of [[1, 124], [3, 0]] as const) {
    const peer = new Peer(new MemoryVolume(size));
    peer.feed(clientFlags(flags));
    peer.drain();
    peer.take(18);
    await peer.exchange(optionBytes(Opt.EXPORT_NAME));
    const view = new DataView(peer.received.buffer, peer.received.byteOffset);
    assertEquals(peer.received.length, 10 + zeroes);
    assertEquals(view.getBigUint64(0), BigInt(size));
    assertEquals(view.getUint16(8), 0x0d6d);
    assert(peer.received.subarray(10).every((byte) => byte === 0));
  }
});

Deno.test("EXPORT_NAME: an unknown, oversize or malformed name ends the connection", async () => {
  for (const name of ["nope", "x".repeat(5000), "x".repeat(2 << 20), "a\0b"]) {
    const peer = greeted(twoExports());
    await peer.exchange(optionBytes(Opt.EXPORT_NAME, pack(name)));
    assert(peer.session.isClosed);
    assertEquals(peer.received.length, 0);
  }
});

Deno.test("ABORT: is acknowledged, with or without data, and closes", async () => {
  for (const data of [pack(), pack("bye"), new Uint8Array(2 << 20)]) {
    const peer = greeted();
    assertEquals(await peer.option(Opt.ABORT, data), [Rep.ACK]);
    assert(peer.session.isClosed);
    assertEquals(peer.warnings, []);
  }
});

Deno.test("Session: a bad option magic ends the connection", async () => {
  const peer = greeted();
  await peer.exchange(pack("IHAVENOT", [4, 3], [4, 0]));
  assert(peer.session.isClosed);
  assertEquals(peer.received.length, 0);
});

Deno.test("Session: unknown options get ERR_UNSUP and the stream stays in sync", async () => {
  const peer = greeted();
  for (const code of [0, Opt.PEEK_EXPORT, 99, 0xffffffff]) {
    for (const data of [pack(), pack("some data"), new Uint8Array(300_000), new Uint8Array(2 << 20)]) {
      assertEquals(await peer.option(code, data), [Rep.ERR_UNSUP], `option ${code}, ${data.length} bytes`);
    }
  }
  assertEquals(await peer.option(Opt.LIST), [Rep.SERVER, Rep.ACK]);
});

Deno.test("Session: too much option data is drained and refused, absurdly much ends the connection", async () => {
  const peer = greeted();
  assertEquals(await peer.option(Opt.INFO, new Uint8Array(2 << 20)), [Rep.ERR_TOO_BIG]);
  assertEquals(await peer.option(Opt.LIST), [Rep.SERVER, Rep.ACK]);
  peer.feed(pack("IHAVEOPT", [4, Opt.INFO], [4, 0xffffffff]));
  assert(peer.session.isClosed);
});

Deno.test("Session: options in one handshake are limited", async () => {
  const peer = greeted();
  for (let i = 0; i < 64; i++) assertEquals(await peer.option(Opt.LIST), [Rep.SERVER, Rep.ACK]);
  assertEquals(await peer.option(Opt.LIST), []);
  assert(peer.session.isClosed);
});

Deno.test("LIST: names and describes every export; data is refused", async () => {
  const peer = greeted(twoExports());
  await peer.exchange(optionBytes(Opt.LIST));
  const replies = await peer.optionReplies();
  assertEquals(replies.map(({ type }) => type), [Rep.SERVER, Rep.SERVER, Rep.ACK]);
  assertEquals(replies[0]!.data, pack([4, 4], "disk", "a disk"));
  assertEquals(replies[1]!.data, pack([4, 6], "photos"));
  assertEquals(await peer.option(Opt.LIST, pack("x")), [Rep.ERR_INVALID]);
  assertEquals(await peer.option(Opt.LIST), [Rep.SERVER, Rep.SERVER, Rep.ACK]);
});

Deno.test("STARTTLS: is refused by policy, with data as invalid", async () => {
  const peer = greeted();
  assertEquals(await peer.option(Opt.STARTTLS), [Rep.ERR_POLICY]);
  assertEquals(await peer.option(Opt.STARTTLS, pack("x")), [Rep.ERR_INVALID]);
});

Deno.test("STRUCTURED_REPLY: may be repeated; data is refused and changes nothing", async () => {
  const peer = greeted();
  assertEquals(await peer.option(Opt.STRUCTURED_REPLY, pack("x")), [Rep.ERR_INVALID]);
  assertEquals(await peer.option(Opt.STRUCTURED_REPLY), [Rep.ACK]);
  assertEquals(await peer.option(Opt.STRUCTURED_REPLY), [Rep.ACK]);
});

Deno.test("INFO: always gives size and flags, and what else was asked for and is known", async () => {
  const peer = greeted(twoExports());
  await peer.exchange(optionBytes(Opt.INFO, infoData("disk")));
  let replies = await peer.optionReplies();
  assertEquals(replies.map(({ type }) => type), [Rep.INFO, Rep.ACK]);
  assertEquals(replies[0]!.data, pack([2, 0], [8, size], [2, 0x0d6d]));
  await peer.exchange(optionBytes(Opt.INFO, infoData("", 3, 3, 2, 1, 0, 77)));
  replies = await peer.optionReplies();
  assertEquals(replies.slice(0, -1).map(({ data }) => data), [
    pack([2, 0], [8, size], [2, 0x0d6d]),
    pack([2, 1], "disk"),
    pack([2, 2], "a disk"),
    pack([2, 3], [4, 1], [4, 4096], [4, 32 << 20]),
  ]);
  assert(peer.session.isHandshaking);
});

Deno.test("INFO and GO: malformed data is answered, never waited for", async () => {
  const peer = greeted();
  const cases = [
    pack(),
    pack("abc"),
    pack([4, 0]),
    pack([4, 1], [2, 0]),
    pack([4, 0xffffffff], [2, 0]),
    pack([4, 0], [2, 1]),
    pack([4, 0], [2, 0], "x"),
    pack([4, 0], [2, 1], [1, 0]),
    infoData("x".repeat(5000)),
    infoData("a\0b"),
    pack([4, 1], [1, 0xff], [2, 0]),
  ];
  for (const code of [Opt.INFO, Opt.GO]) {
    for (const data of cases) assertEquals(await peer.option(code, data), [Rep.ERR_INVALID], String(data));
    assertEquals(await peer.option(code, infoData("nope")), [Rep.ERR_UNKNOWN]);
  }
  assert(peer.session.isHandshaking);
});

Deno.test("GO: an INFO before it gives the same, and requests may follow at once", async () => {
  const peer = greeted();
  const go = optionBytes(Opt.GO, infoData());
  await peer.exchange(
    pack(optionBytes(Opt.INFO, infoData()), go, requestBytes({ type: 1, payload: pack("hi") })),
  );
  const [info, ack, again, started] = [peer.take(32), peer.take(20), peer.take(32), peer.take(20)];
  assertEquals(info!.subarray(12), again!.subarray(12));
  assertEquals(ack!.subarray(12), started!.subarray(12));
  assertEquals((await peer.replies()).map(({ error }) => error), [0]);
});

Deno.test("transmissionFlags: DF only with structured replies; a read-only export cannot be written", async () => {
  assertEquals(await goFlags(greeted(twoExports()), "disk"), 0x0d6d);
  const structured = greeted(twoExports());
  await structured.option(Opt.STRUCTURED_REPLY);
  assertEquals(await goFlags(structured, "disk"), 0x0ded);
  assertEquals(await goFlags(greeted(twoExports()), "photos"), 0x050f);
});

Deno.test("LIST_META_CONTEXT: lists base:allocation, structured replies or not", async () => {
  const peer = greeted();
  for (const queries of [[], ["base:"], ["base:allocation"], ["qemu:x", "base:"]]) {
    await peer.exchange(optionBytes(Opt.LIST_META_CONTEXT, contextData("", ...queries)));
    const replies = await peer.optionReplies();
    assertEquals(replies.map(({ type }) => type), [Rep.META_CONTEXT, Rep.ACK]);
    assertEquals(replies[0]!.data, pack([4, 0], "base:allocation"));
  }
  for (const query of ["qemu:", "base:other", "nocolon"]) {
    assertEquals(await peer.option(Opt.LIST_META_CONTEXT, contextData("", query)), [Rep.ACK]);
  }
  assertEquals(await peer.option(Opt.LIST_META_CONTEXT, contextData("nope")), [Rep.ERR_UNKNOWN]);
});

Deno.test("SET_META_CONTEXT: needs structured replies and selects exact names only", async () => {
  const peer = greeted();
  const set = (...queries: string[]) => peer.option(Opt.SET_META_CONTEXT, contextData("", ...queries));
  assertEquals(await set("base:allocation"), [Rep.ERR_INVALID]);
  await peer.option(Opt.STRUCTURED_REPLY);
  for (const query of ["base:", "x-unknown:leaf", "nocolon"]) assertEquals(await set(query), [Rep.ACK]);
  assertEquals(await set(), [Rep.ACK]);
  assertEquals(await set("qemu:dirty-bitmap:b", "base:allocation"), [Rep.META_CONTEXT, Rep.ACK]);
  assertEquals(await peer.option(Opt.SET_META_CONTEXT, contextData("nope", "base:allocation")), [
    Rep.ERR_UNKNOWN,
  ]);
});

Deno.test("SET_META_CONTEXT: malformed data is refused", async () => {
  const peer = greeted();
  await peer.option(Opt.STRUCTURED_REPLY);
  const cases = [
    pack(),
    pack([4, 0]),
    pack([4, 0], [4, 1]),
    pack([4, 0], [4, 0xffffffff]),
    pack([4, 0], [4, 1], [4, 9], "base:"),
    pack([4, 0], [4, 0], "x"),
    contextData("", "x".repeat(5000)),
  ];
  for (const data of cases) assertEquals(await peer.option(Opt.SET_META_CONTEXT, data), [Rep.ERR_INVALID]);
});

Deno.test("SET_META_CONTEXT: hundreds of long queries are taken", async () => {
  const peer = greeted();
  await peer.option(Opt.STRUCTURED_REPLY);
  const queries = Array.from({ length: 200 }, (_, i) => `x-long:${i}`.padEnd(4096, "y"));
  const replies = await peer.option(Opt.SET_META_CONTEXT, contextData("", ...queries, "base:allocation"));
  assertEquals(replies, [Rep.META_CONTEXT, Rep.ACK]);
});

Deno.test("SET_META_CONTEXT: counts for its export only, and a failed one clears the selection", async () => {
  const exports = twoExports();
  const status = { type: 7, offset: 0, length: 4096 };
  const selecting = async (then: (peer: Peer) => Promise<unknown>, go: string) => {
    const peer = greeted(exports);
    await peer.option(Opt.STRUCTURED_REPLY);
    await peer.option(Opt.SET_META_CONTEXT, contextData("disk", "base:allocation"));
    await then(peer);
    await peer.option(Opt.GO, infoData(go));
    return (await peer.request(status))!.error;
  };
  const nothing = () => Promise.resolve();
  assertEquals(await selecting(nothing, "disk"), 0);
  assertEquals(await selecting(nothing, ""), 0, "the default export is the same one");
  assertEquals(await selecting(nothing, "photos"), 22);
  const failing = (peer: Peer) => peer.option(Opt.SET_META_CONTEXT, pack("x"));
  assertEquals(await selecting(failing, "disk"), 22);
});

Deno.test("Session: while shutting down every option but ABORT gets ERR_SHUTDOWN", async () => {
  const peer = greeted();
  peer.session.shutdown();
  for (const code of [Opt.LIST, Opt.INFO, Opt.GO, Opt.STRUCTURED_REPLY, 99]) {
    assertEquals(await peer.option(code), [Rep.ERR_SHUTDOWN]);
  }
  assertEquals(await peer.option(Opt.ABORT), [Rep.ACK]);
  const other = greeted();
  other.session.shutdown();
  await other.exchange(optionBytes(Opt.EXPORT_NAME));
  assert(other.session.isClosed);
});
