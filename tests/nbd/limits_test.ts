/** What clients may cost, one by one and together. */

import { UsageError } from "../../src/errors.ts";
import { Budget, type ShareOwner } from "../../src/nbd/budget.ts";
import { assuredBytes, completeLimits, defaultLimits, limitNames, parseLimit } from "../../src/nbd/limits.ts";
import { serve } from "../../src/nbd/mod.ts";
import { SeededRandom } from "../../src/random.ts";
import { Client } from "./client.ts";
import { FakeClock } from "./fake_clock.ts";
import { Gate, MemoryVolume } from "./memory_volume.ts";
import { Peer } from "./peer.ts";
import { Cmd } from "./wire.ts";
import {
  assert,
  assertEquals,
  assertGreater,
  assertLess,
  assertStringIncludes,
  assertThrows,
} from "../assert.ts";

const mib = 1024 * 1024;

Deno.test("parseLimit: takes every name, and says what it expected of others", () => {
  assertEquals(parseLimit("connections=7"), { connections: 7 });
  assertEquals(parseLimit("total_bytes=2G"), { totalBytes: 2048 * mib });
  assertEquals(limitNames.length, Object.keys(defaultLimits).length);
  for (
    const text of ["connections=0", "connections=1.5", "requests=", "connection_bytes=1M", "stall_seconds=x"]
  ) {
    assertStringIncludes(assertThrows(() => parseLimit(text), UsageError).message, "expected");
  }
  assertStringIncludes(
    assertThrows(() => parseLimit("colour=red"), UsageError).message,
    limitNames.join(", "),
  );
  assertThrows(() => completeLimits({ requests: 0 }), UsageError, "requests");
  assertEquals(completeLimits({ requests: 5 }), { ...defaultLimits, requests: 5 });
});

const idle: ShareOwner = { roomCame() {}, waitsForClient: () => false, stalled() {} };

Deno.test("Budget: small requests always go; large ones wait for room, in their order", () => {
  const budget = new Budget(8 * mib, 1000, new FakeClock());
  const asked: string[] = [];
  const first = budget.share(idle);
  assert(first.admits(0, 7 * mib));
  const second = budget.share({ ...idle, roomCame: () => asked.push(`second ${second.admits(0, 6 * mib)}`) });
  const third = budget.share({ ...idle, roomCame: () => asked.push(`third ${third.admits(0, 2 * mib)}`) });
  assertEquals([second.admits(0, 6 * mib), third.admits(0, 2 * mib)], [false, false]);
  const small = budget.share(idle);
  assert(small.admits(0, assuredBytes), "whatever others hold");
  first.settle(5 * mib);
  assertEquals(asked, ["second false"], "nobody overtakes the one that has waited longest");
  first.settle(0);
  assertEquals(asked, ["second false", "second true", "third false"]);
  second.settle(0);
  assertEquals([asked.at(-1), budget.waiting], ["third true", 0]);
  for (const share of [first, second, third, small]) share.end(0);
  assertEquals(budget.usedBytes, 0);
});

Deno.test("Budget: whoever waits behind one that leaves is asked again", () => {
  const budget = new Budget(8 * mib, 1000, new FakeClock());
  const holder = budget.share(idle);
  assert(holder.admits(0, 5 * mib));
  const large = budget.share(idle);
  let turns = 0;
  const small = budget.share({ ...idle, roomCame: () => turns += Number(small.admits(0, 2 * mib)) });
  assertEquals([large.admits(0, 6 * mib), small.admits(0, 2 * mib)], [false, false]);
  large.end(0);
  assertEquals([turns, budget.waiting], [1, 0], "there was room for it all along");
});

Deno.test("Budget: random holders never exceed it, and all of them get their turn", () => {
  const random = new SeededRandom(4);
  const total = 16 * mib;
  const budget = new Budget(total, 1000, new FakeClock());
  const holders = Array.from({ length: 20 }, () => {
    const holder = {
      held: 0,
      wants: 0,
      turns: 0,
      share: budget.share({ ...idle, roomCame: () => attempt() }),
    };
    const attempt = () => {
      if (holder.wants === 0 || !holder.share.admits(holder.held, holder.wants)) return;
      holder.held += holder.wants;
      holder.wants = 0;
      holder.turns++;
    };
    return { holder, attempt };
  });
  for (let step = 0; step < 20_000; step++) {
    const { holder, attempt } = holders[random.below(holders.length)]!;
    if (holder.held > 0 && random.chance(0.5)) holder.share.settle(holder.held = 0);
    else if (holder.wants === 0) {
      holder.wants = 1 + random.below(8 * mib);
      attempt();
    }
    const sum = holders.reduce((all, { holder }) => all + holder.held, 0);
    assertEquals(budget.usedBytes, sum);
    assert(sum <= total + holders.length * assuredBytes);
  }
  for (const { holder } of holders) assertGreater(holder.turns, 10);
});

Deno.test("Budget: who holds much and does nothing is ended while others wait, and only then", () => {
  const clock = new FakeClock();
  const budget = new Budget(8 * mib, 1000, clock);
  const stalled: string[] = [];
  const member = (name: string, waits: boolean) => {
    const share = budget.share({
      ...idle,
      waitsForClient: () => waits,
      stalled: () => {
        stalled.push(name);
        share.end(0);
      },
    });
    return share;
  };
  const lazy = member("lazy", true);
  const busy = member("busy", true);
  const waitsForUs = member("waits for us", false);
  for (const share of [lazy, busy, waitsForUs]) assert(share.admits(0, 2 * mib));
  clock.advance(100_000);
  assertEquals(stalled, [], "nobody waits");
  const other = member("other", true);
  assert(!other.admits(0, 4 * mib));
  clock.advance(999);
  busy.moves++;
  clock.advance(1);
  assertEquals([stalled, budget.waiting], [["lazy"], 0]);
  clock.advance(10_000);
  assertEquals(stalled, ["lazy"]);
  assertEquals(clock.pending, 0);
});

Deno.test("Session: many clients that send large payloads hold no more than the server's total", async () => {
  const limits = { totalBytes: 64 * mib };
  const budget = new Budget(limits.totalBytes, 1000, new FakeClock());
  const gate = new Gate();
  const volume = new MemoryVolume(32 * mib, { hot: false, before: gate.pass });
  const peers = Array.from({ length: 10 }, () => Peer.transmitting(volume, { limits, budget }));
  const payload = new Uint8Array(16 * mib);
  const sent = peers.map((peer) => peer.exchange(peer.encode({ type: Cmd.WRITE, payload })));
  assertEquals(budget.usedBytes, 64 * mib);
  assertEquals(gate.waiting, 4);
  assertEquals(peers.filter(({ session }) => session.wantsInput).length, 4, "the others are not read");
  gate.open();
  await Promise.all(sent);
  for (const peer of peers) assertEquals((await peer.replies()).map(({ error }) => error), [0]);
  for (const { session } of peers) session.ended();
  assertEquals([budget.usedBytes, budget.waiting], [0, 0]);
});

Deno.test("Session: what was asked for and not done is not held, though its reply is not taken", () => {
  const budget = new Budget(33 * mib, 1000, new FakeClock());
  const volume = new MemoryVolume(16 * mib);
  const refused = Peer.transmitting(volume, { budget });
  refused.feed(refused.encode({ type: Cmd.READ, offset: 0, length: 32 * mib }));
  assertEquals(budget.usedBytes, refused.session.queuedBytes);
  const other = Peer.transmitting(volume, { budget });
  other.feed(other.encode({ type: Cmd.WRITE, payload: new Uint8Array(8 * mib) }).subarray(0, 100));
  assertEquals([other.session.wantsInput, budget.waiting], [true, 0]);
});

Deno.test("Budget: who waits is asked again also when less is held by the time of the next request", () => {
  const budget = new Budget(8 * mib, 1000, new FakeClock());
  const holder = budget.share(idle);
  let turns = 0;
  const waiter = budget.share({ ...idle, roomCame: () => turns += Number(waiter.admits(0, 2 * mib)) });
  assert(holder.admits(0, 7 * mib));
  assert(!waiter.admits(0, 2 * mib));
  assert(holder.admits(0, 16));
  holder.settle(16);
  assertEquals([turns, budget.waiting], [1, 0]);
});

Deno.test("Session: whoever leaves, in whatever state, gives back what it held", async () => {
  const budget = new Budget(64 * mib, 1000, new FakeClock());
  const gate = new Gate();
  const volume = new MemoryVolume(32 * mib, { hot: false, before: gate.pass });
  const make = () => Peer.transmitting(volume, { budget, structured: true });
  const [half, waiting, unread, dropped] = [make(), make(), make(), make()];
  half.feed(half.encode({ type: Cmd.WRITE, payload: new Uint8Array(8 * mib) }).subarray(0, 5 * mib));
  waiting.feed(waiting.encode({ type: Cmd.WRITE, payload: new Uint8Array(8 * mib) }));
  dropped.feed(dropped.encode({ type: Cmd.WRITE, payload: new Uint8Array(8 * mib) }));
  volume.hot = true;
  volume.bytes.fill(1);
  for (let i = 0; i < 40; i++) unread.feed(unread.encode({ type: Cmd.READ, length: 200_000 }));
  assert(budget.usedBytes > 30 * mib);
  for (const { session } of [half, waiting, unread]) session.ended();
  dropped.session.drop();
  unread.session.drop();
  gate.open();
  await new Promise((resolve) => setTimeout(resolve, 0));
  waiting.drain();
  assertEquals(budget.usedBytes, 0);
});

Deno.test("serve: a client that takes no replies loses its connection when others wait for memory, they go on", async () => {
  const clock = new FakeClock();
  const volume = new MemoryVolume(48 * mib);
  volume.bytes.fill(1);
  const warnings: string[] = [];
  await using server = await serve(volume, {
    listen: "nbd://127.0.0.1:0",
    clock,
    limits: { totalBytes: 64 * mib, stallSeconds: 30 },
    warn: (message) => warnings.push(message),
  });
  const hog = await Client.connect(server.uris[0]!);
  const other = await Client.connect(server.uris[0]!);
  // Asked for, and never taken.
  await hog.raw.send(new Uint8Array());
  for (let i = 0; i < 3; i++) {
    const request = new Uint8Array(28);
    const view = new DataView(request.buffer);
    view.setUint32(0, 0x25609513);
    view.setUint32(24, 24 * mib);
    await hog.raw.send(request);
  }
  await new Promise((resolve) => setTimeout(resolve, 300));
  const small = await other.read(0, 4096);
  assertEquals(small.length, 4096, "small requests never wait");
  const large = other.read(0, 32 * mib);
  for (let i = 0; i < 100 && warnings.length === 0; i++) {
    await new Promise((resolve) => setTimeout(resolve, 20));
    clock.advance(10_000);
  }
  assertEquals((await large).length, 32 * mib);
  assertStringIncludes(warnings.join(), "while others waited for memory");
  assertLess(server.clients, 2);
  hog.close();
  await other.disconnect();
});

Deno.test("serve: TCP connections are kept alive, so that a peer that is gone is noticed", async () => {
  if (Deno.build.os !== "linux") return;
  await using server = await serve(new MemoryVolume(mib), { listen: "nbd://127.0.0.1:0", warn: () => {} });
  const client = await Client.connect(server.uris[0]!);
  const port = new URL(server.uris[0]!.replace("nbd:", "http:")).port;
  const suffix = `:${Number(port).toString(16).toUpperCase().padStart(4, "0")}`;
  /** The timer of the server's side: 2 is keepalive, 1 a retransmission that is about to be cancelled. */
  const timer = async () => {
    const rows = (await Deno.readTextFile("/proc/net/tcp")).split("\n").map((line) =>
      line.trim().split(/\s+/)
    );
    return rows.find((row) => row[1]?.endsWith(suffix) && row[3] === "01")?.[5]?.slice(0, 2);
  };
  let found = await timer();
  for (let tries = 0; found === "01" && tries < 200; tries++) {
    await new Promise((resolve) => setTimeout(resolve, 10));
    found = await timer();
  }
  assertEquals(found, "02");
  await client.disconnect();
});
