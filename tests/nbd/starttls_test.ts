/** STARTTLS: what may be said before it and after it, and that nothing said in the clear counts as secret. */

import { MemoryVolume } from "./memory_volume.ts";
import { Peer } from "./peer.ts";
import { clientFlags, Cmd, contextData, infoData, Opt, optionBytes, pack, Rep } from "./wire.ts";
import { assert, assertEquals, assertStringIncludes } from "../assert.ts";
import type { TlsMode } from "../../src/nbd/negotiation.ts";

function greeted(tls: TlsMode): Peer {
  const peer = new Peer(new MemoryVolume(1 << 20), { tls });
  peer.feed(clientFlags());
  peer.drain();
  peer.take(18);
  return peer;
}

/** Sends STARTTLS and does what the driver does. */
function startTls(peer: Peer): void {
  peer.feed(optionBytes(Opt.STARTTLS));
  const reply = peer.session.tlsReply!;
  assertEquals([...reply.slice(12, 16)], [0, 0, 0, Rep.ACK]);
  assert(!peer.session.wantsInput, "nothing more is read in the clear");
  peer.session.tlsStarted();
}

Deno.test("STARTTLS: with require everything but ABORT is ERR_TLS_REQD, EXPORT_NAME ends the connection", async () => {
  const peer = greeted("require");
  const name = infoData();
  for (
    const [code, data] of [
      [Opt.LIST],
      [Opt.INFO, name],
      [Opt.GO, name],
      [Opt.INFO, pack("bad")],
      [Opt.STRUCTURED_REPLY],
      [Opt.EXTENDED_HEADERS],
      [Opt.SET_META_CONTEXT, contextData("")],
      [99, pack("x")],
      [Opt.LIST, new Uint8Array(2 << 20)],
    ] as [number, Uint8Array?][]
  ) assertEquals(await peer.option(code, data), [Rep.ERR_UNSUP + 4], `option ${code}`);
  assertEquals(await greeted("require").option(Opt.ABORT), [Rep.ACK]);
  const old = greeted("require");
  await old.option(Opt.EXPORT_NAME);
  assert(old.session.isClosed);
  assertEquals(old.received.length, 0);
});

Deno.test("STARTTLS: with data it is invalid, a second one too; without TLS it is refused by policy", async () => {
  assertEquals(await greeted("off").option(Opt.STARTTLS), [Rep.ERR_POLICY]);
  const peer = greeted("on");
  assertEquals(await peer.option(Opt.STARTTLS, pack("x")), [Rep.ERR_INVALID]);
  startTls(peer);
  assertEquals(await peer.option(Opt.STARTTLS), [Rep.ERR_INVALID]);
  assertEquals(await peer.option(Opt.LIST), [Rep.SERVER, Rep.ACK]);
});

Deno.test("STARTTLS: what was agreed in the clear does not count afterwards", async () => {
  const peer = greeted("on");
  await peer.option(Opt.STRUCTURED_REPLY);
  await peer.option(Opt.SET_META_CONTEXT, contextData("", "base:allocation"));
  startTls(peer);
  assertEquals(await peer.option(Opt.SET_META_CONTEXT, contextData("", "base:allocation")), [
    Rep.ERR_INVALID,
  ]);
  await peer.option(Opt.GO, infoData());
  assertEquals((await peer.request({ type: Cmd.READ, length: 8 }))!.form, "simple");
});

Deno.test("STARTTLS: plain text that follows it at once is an attack and ends the connection", () => {
  for (const mode of ["on", "require"] as const) {
    const peer = greeted(mode);
    peer.feed(pack(optionBytes(Opt.STARTTLS), optionBytes(Opt.LIST)));
    assert(peer.session.isClosed);
    assertEquals(peer.session.tlsReply, null);
    assertStringIncludes(peer.warnings[0]!, "plain text after STARTTLS");
  }
});

Deno.test("STARTTLS: with on clients may do without it", async () => {
  const peer = greeted("on");
  assertEquals((await peer.option(Opt.GO, infoData())).at(-1), Rep.ACK);
});

Deno.test("STARTTLS: is refused to clients that do not speak the fixed newstyle", async () => {
  for (const mode of ["on", "require"] as const) {
    const peer = new Peer(new MemoryVolume(1 << 20), { tls: mode });
    peer.feed(new Uint8Array(4));
    peer.drain();
    peer.take(18);
    assertEquals(await peer.option(Opt.STARTTLS), [Rep.ERR_POLICY]);
    assertEquals(peer.session.tlsReply, null);
  }
});
