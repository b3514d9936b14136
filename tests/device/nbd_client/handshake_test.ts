/** Servers that are old, foreign, or lie: nothing they say makes the client hang, or take bytes for what they are not. */

import fc from "../../property.ts";
import { Coverage } from "../../../src/device/nbd_client/coverage.ts";
import { openDevice } from "../../../src/device/open.ts";
import { DeviceError, NbdboostError } from "../../../src/errors.ts";
import { temporarySocket } from "../../nbd/temp.ts";
import { IHAVEOPT, NBDMAGIC, OPTION_REPLY, pack } from "../../nbd/wire.ts";
import { assert, assertEquals, assertRejects } from "../../assert.ts";

const greeting = pack([8, NBDMAGIC], [8, IHAVEOPT], [2, 3]);
const reply = (option: number, type: number, data: Uint8Array = new Uint8Array()) =>
  pack([8, OPTION_REPLY], [4, option], [4, type], [4, data.length], data);
const mib = 1024 * 1024;
/** HAS_FLAGS, FLUSH and FUA; no multi-conn. */
const exportInfo = pack([2, 0], [8, mib], [2, 0xd]);
/** A handshake with structured replies that goes well. */
const goodHandshake = pack(greeting, reply(8, 1), reply(7, 3, exportInfo), reply(7, 1));

/** Serves `handshake` at once to every client, and `answer` after the first request; reads whatever comes. */
async function withScript(
  handshake: Uint8Array,
  answer: (cookie: Uint8Array) => Uint8Array,
  body: (uri: string) => Promise<void>,
): Promise<void> {
  await using socket = await temporarySocket();
  const listener = Deno.listen({ transport: "unix", path: `${socket.directory}/s` });
  const serving: Promise<void>[] = [];
  const connections: Deno.Conn[] = [];
  const accepting = (async () => {
    for await (const connection of listener) {
      connections.push(connection);
      serving.push(serveScript(connection, handshake, answer));
    }
  })();
  try {
    await body(`${socket.uri}&x-wait=1`);
  } finally {
    listener.close();
    await accepting;
    await Promise.all(serving);
  }
}

async function serveScript(
  connection: Deno.Conn,
  handshake: Uint8Array,
  answer: (cookie: Uint8Array) => Uint8Array,
): Promise<void> {
  try {
    await connection.write(handshake);
    let seen = new Uint8Array();
    const buffer = new Uint8Array(4096);
    for (let count = await connection.read(buffer); count !== null; count = await connection.read(buffer)) {
      seen = pack(seen, buffer.subarray(0, count));
      const at = seen.findIndex((_, i) => seen[i] === 0x25 && seen[i + 1] === 0x60 && seen[i + 2] === 0x95);
      if (at < 0 || seen.length < at + 28) continue;
      await connection.write(answer(seen.slice(at + 8, at + 16)));
      seen = seen.slice(at + 28);
    }
  } catch {
    // The client had enough.
  }
  connection.close();
}

const silent = () => new Uint8Array();

Deno.test("openDevice: what is no NBD server, or an old one, or says no, is told apart", async () => {
  const cases: [Uint8Array, string][] = [
    [new TextEncoder().encode("HTTP/1.1 400 Bad Request\r\n\r\n"), "is no NBD server"],
    [pack([8, NBDMAGIC], [8, 0x0000420281861253n], new Uint8Array(136)), "too old"],
    [pack([8, NBDMAGIC], [8, IHAVEOPT], [2, 0]), "too old"],
    [pack(greeting, reply(8, 1), reply(7, 0x80000001)), "does not know the option GO"],
    [pack(greeting, reply(8, 0x80000001), reply(7, 0x80000006, pack("nope\u0007"))), "no export"],
    [pack(greeting, reply(8, 0x80000005), reply(7, 0x80000005)), "wants TLS"],
    [pack(greeting, reply(8, 1), reply(7, 0x80000002)), "refuses"],
    [pack(greeting, reply(8, 1), reply(7, 1)), "does not tell the size"],
    [pack(greeting, reply(8, 1), reply(6, 1)), "does not follow the protocol"],
    [pack(greeting, pack([8, OPTION_REPLY], [4, 8], [4, 1], [4, 0x7fffffff])), "far too many"],
    [
      pack(greeting, reply(8, 1), ...Array.from({ length: 65 }, () => reply(7, 3, exportInfo))),
      "without an end",
    ],
  ];
  for (const [handshake, words] of cases) {
    await withScript(handshake, silent, async (uri) => {
      await assertRejects(() => openDevice(uri, { write: true }), DeviceError, words);
    });
  }
});

Deno.test("NbdDevice: a READ whose answer is not whole, not asked for, or malformed is never taken for data", async () => {
  const chunk = (cookie: Uint8Array, flags: number, type: number, data: Uint8Array) =>
    pack([4, 0x668e33ef], [2, flags], [2, type], cookie, [4, data.length], data);
  const data = (at: number, length: number) => pack([8, at], new Uint8Array(length).fill(7));
  const answers: [string, (cookie: Uint8Array) => Uint8Array][] = [
    ["done without data", (cookie) => chunk(cookie, 1, 0, new Uint8Array())],
    ["half of it", (cookie) => chunk(cookie, 1, 1, data(0, 512))],
    [
      "twice the same",
      (cookie) => pack(chunk(cookie, 0, 1, data(0, 512)), chunk(cookie, 1, 1, data(0, 512))),
    ],
    ["overlapping", (cookie) => pack(chunk(cookie, 0, 1, data(0, 600)), chunk(cookie, 1, 1, data(512, 512)))],
    ["before the range", (cookie) => chunk(cookie, 1, 1, data(mib, 1024))],
    ["too long", (cookie) => chunk(cookie, 1, 1, data(0, 1025))],
    ["a hole too long", (cookie) => chunk(cookie, 1, 2, pack([8, 0], [4, 2048]))],
    ["an empty hole", (cookie) => chunk(cookie, 1, 2, pack([8, 0], [4, 0]))],
    ["an unknown chunk", (cookie) => chunk(cookie, 1, 77, new Uint8Array(8))],
    ["a huge error", (cookie) => chunk(cookie, 1, 0x8001, new Uint8Array(60_000))],
    ["an unknown cookie", () => chunk(new Uint8Array(8).fill(9), 1, 0, new Uint8Array())],
    ["a simple reply", (cookie) => pack([4, 0x67446698], [4, 0], cookie, new Uint8Array(1024))],
    ["garbage", () => new Uint8Array(64).fill(0x55)],
  ];
  for (const [what, answer] of answers) {
    await withScript(goodHandshake, answer, async (uri) => {
      const device = await openDevice(uri, { write: true });
      await assertRejects(() => device.read(0, new Uint8Array(1024)), DeviceError, "away", what);
      await device.close();
    });
  }
});

Deno.test("NbdDevice: chunks in any order that cover the range once are taken", async () => {
  const answer = (cookie: Uint8Array) =>
    pack(
      pack([4, 0x668e33ef], [2, 0], [2, 1], cookie, [4, 8 + 512], [8, 512], new Uint8Array(512).fill(7)),
      pack([4, 0x668e33ef], [2, 0], [2, 2], cookie, [4, 12], [8, 0], [4, 512]),
      pack([4, 0x668e33ef], [2, 1], [2, 0], cookie, [4, 0]),
    );
  await withScript(goodHandshake, answer, async (uri) => {
    const device = await openDevice(uri, { write: true });
    const bytes = new Uint8Array(1024).fill(1);
    await device.read(0, bytes);
    assertEquals(bytes, new Uint8Array(1024).fill(7, 512));
    await device.close();
  });
});

Deno.test("openDevice: garbage in a handshake never hangs, and fails as a device does", async () => {
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 60 }), fc.nat(100), async (garbage, keep) => {
      const start = goodHandshake.slice(0, Math.min(keep, goodHandshake.length - 1));
      const handshake = pack(start, garbage);
      await using socket = await temporarySocket();
      const listener = Deno.listen({ transport: "unix", path: `${socket.directory}/s` });
      const served = (async () => {
        const connection = await listener.accept();
        await connection.write(handshake).catch(() => {});
        await connection.closeWrite().catch(() => {});
        const buffer = new Uint8Array(1000);
        while (await connection.read(buffer).catch(() => null) !== null);
        connection.close();
      })();
      // What the garbage spells may be valid by chance.
      await openDevice(`${socket.uri}&x-wait=1`, { write: true }).then(
        (device) => device.close(),
        (error) => assert(error instanceof NbdboostError, String(error)),
      );
      listener.close();
      await served;
    }),
    { numRuns: 60 },
  );
});

Deno.test("Coverage: is whole exactly when every byte came once", () => {
  fc.assert(fc.property(fc.array(fc.tuple(fc.nat(20), fc.nat(20)), { maxLength: 12 }), (parts) => {
    const coverage = new Coverage(16);
    const model = new Uint8Array(16);
    for (const [start, end] of parts) {
      const possible = start < end && end <= 16 && model.subarray(start, end).every((byte) => byte === 0);
      assertEquals(coverage.add(start, end), possible);
      if (possible) model.fill(1, start, end);
    }
    assertEquals(coverage.isWhole, model.every((byte) => byte === 1));
  }));
  assert(new Coverage(0).isWhole);
});
