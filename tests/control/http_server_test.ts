/** The server below the control address, spoken to in bytes: what is no request, and who is slow, greedy or gone. @module */

import type { Clock } from "../../src/clock.ts";
import { systemClock } from "../../src/clock.ts";
import { HttpServer } from "../../src/control/http_server.ts";
import { listenPortable } from "../../src/io/portable_socket.ts";
import { assert, assertEquals, assertMatch, assertStringIncludes } from "../assert.ts";
import { FakeClock } from "../nbd/fake_clock.ts";

const encoder = new TextEncoder();

async function withServer(
  handle: (request: Request) => Promise<Response>,
  body: (connect: () => Promise<Deno.Conn>, server: HttpServer) => Promise<void>,
  clock: Clock = systemClock,
): Promise<void> {
  const directory = await Deno.makeTempDir();
  try {
    const path = `${directory}/s`;
    const listener = await listenPortable({ transport: "unix", path }, { mode: 0o600 });
    assertEquals(Deno.statSync(path).mode! & 0o777, 0o600);
    const server = new HttpServer(listener, handle, clock, () => {});
    await body(() => Deno.connect({ transport: "unix", path }), server);
    await server.close();
    assert(await Deno.lstat(path).then(() => false, () => true), "the socket is gone");
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

const test = (name: string, ...args: Parameters<typeof withServer>) =>
  Deno.test({ name, ignore: Deno.build.os === "windows", fn: () => withServer(...args) });

/** Sends `text` and reads to the end. */
async function talk(connection: Deno.Conn, ...pieces: string[]): Promise<string> {
  for (const text of pieces) {
    const bytes = encoder.encode(text);
    for (let at = 0; at < bytes.length;) at += await connection.write(bytes.subarray(at));
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  return await new Response(connection.readable).text();
}

const echo = async (request: Request) => {
  const { method, url } = request;
  return Response.json({ method, url, body: await request.text(), marks: request.headers.get("x-mark") });
};

test("HttpServer: takes a request in pieces of any size, with a body", echo, async (connect) => {
  const whole =
    "POST /a?b=c HTTP/1.1\r\nHost: here\r\nX-Mark: 1\r\nx-mark:2 \r\nContent-Length: 5\r\n\r\nhello";
  for (const size of [1, 7, 1000]) {
    const pieces = whole.match(new RegExp(`[^]{1,${size}}`, "g"))!;
    const answer = await talk(await connect(), ...pieces);
    assertMatch(answer, /^HTTP\/1\.1 200 OK\r\n/);
    assertStringIncludes(answer.toLowerCase(), "\r\nconnection: close\r\n");
    assertEquals(JSON.parse(answer.split("\r\n\r\n")[1]!), {
      method: "POST",
      url: "http://here/a?b=c",
      body: "hello",
      marks: "1, 2",
    });
  }
});

/** What is sent, and how it is answered. */
const bad: readonly (readonly [what: string, text: string, status: number])[] = [
  ["no request at all", "hello\r\n\r\n", 400],
  ["binary", "\x00\x01\x02\r\n\r\n", 400],
  ["a proxy's request", "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400],
  ["spaces in the path", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400],
  ["no version", "GET /\r\nHost: a\r\n\r\n", 400],
  ["another version", "GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505],
  ["no Host", "GET / HTTP/1.1\r\n\r\n", 400],
  ["two Hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400],
  ["a Host that is none", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400],
  ["a folded header", "GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", 400],
  ["a space before the colon", "GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400],
  ["a line feed in a value", "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400],
  ["chunks", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411],
  ["a length that is none", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400],
  ["two lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400],
  ["a body that is too large", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 65537\r\n\r\n", 413],
  ["a body without end", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n", 400],
  ["headers without end", "GET / HTTP/1.1\r\nHost: a\r\n" + "X: y\r\n".repeat(5000), 431],
  ["one long line", "GET /" + "a".repeat(20_000) + " HTTP/1.1\r\nHost: a\r\n\r\n", 431],
  ["TRACE", "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 400],
];

for (const [what, text, status] of bad) {
  test(`HttpServer: ${what} is answered with ${status} and one sentence`, echo, async (connect) => {
    const answer = await talk(await connect(), text);
    assertMatch(answer, new RegExp(`^HTTP/1\\.1 ${status} `));
    const { error } = JSON.parse(answer.split("\r\n\r\n")[1]!);
    assertMatch(error.message, /^[A-Z][^\n]+$/);
    // It is still there for others.
    assertMatch(await talk(await connect(), "GET / HTTP/1.1\r\nHost: a\r\n\r\n"), /^HTTP\/1\.1 200/);
  });
}

test("HttpServer: clients that send nothing make room for those that do", echo, async (connect) => {
  const idle: Deno.Conn[] = [];
  for (let i = 0; i < 100; i++) idle.push(await connect());
  await idle[99]!.write(encoder.encode("GET / HT"));
  assertMatch(await talk(await connect(), "GET / HTTP/1.1\r\nHost: a\r\n\r\n"), /^HTTP\/1\.1 200/);
  // The first ones were closed.
  assertEquals(await idle[0]!.read(new Uint8Array(1)).catch(() => null), null);
  assertMatch(await talk(idle[99]!, "TP/1.1\r\nHost: a\r\n\r\n"), /^HTTP\/1\.1 200/);
  for (const connection of idle.slice(0, 99)) connection.close();
});

const clock = new FakeClock();
test("HttpServer: a request that does not come to its end is dropped in time", echo, async (connect) => {
  const slow = await connect();
  await slow.write(encoder.encode("GET / HTTP/1.1\r\nHo"));
  while (clock.pending === 0) await new Promise((resolve) => setTimeout(resolve, 1));
  await new Promise((resolve) => setTimeout(resolve, 20));
  clock.advance(9_999);
  const read = slow.read(new Uint8Array(1)).catch(() => null);
  assertEquals(
    await Promise.race([read, new Promise((resolve) => setTimeout(() => resolve("open"), 50))]),
    "open",
  );
  clock.advance(1);
  assertEquals(await read, null);
  slow.close();
}, clock);

let cancelled = 0;
let produced = 0;
const endless = () =>
  Promise.resolve(
    new Response(
      new ReadableStream({
        pull(controller) {
          produced++;
          controller.enqueue(new Uint8Array(64 * 1024));
        },
        cancel() {
          cancelled++;
        },
      }, { highWaterMark: 0 }),
    ),
  );

const streamClock = new FakeClock();
test(
  "HttpServer: one that takes no response is dropped, and nothing is piled up for it",
  endless,
  async (connect) => {
    const lazy = await connect();
    await lazy.write(encoder.encode("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    let before = -1;
    while (before !== produced || produced === 0) {
      before = produced;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    assert(produced < 64, `${produced} pieces`);
    streamClock.advance(10_000);
    while (cancelled === 0) await new Promise((resolve) => setTimeout(resolve, 1));
    lazy.close();
  },
  streamClock,
);

test(
  "HttpServer: one that leaves in the middle ends its response, and close waits for nobody for long",
  endless,
  async (connect, server) => {
    cancelled = 0;
    const leaving = await connect();
    await leaving.write(encoder.encode("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    await leaving.read(new Uint8Array(100));
    leaving.close();
    while (cancelled === 0) await new Promise((resolve) => setTimeout(resolve, 1));
    const staying = await connect();
    await staying.write(encoder.encode("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    await staying.read(new Uint8Array(100));
    await server.close();
    staying.close();
  },
);
