/**
 * A running server from the outside: status, set, drain, detach, metrics, over both backends; how it is found, who may ask
 * it, and what it says in its log. Real processes and a real client.
 *
 * @module
 */

import { blockContent } from "../../src/cli/demo_blocks.ts";
import { DemoClient } from "../../src/cli/demo_client.ts";
import { assert, assertEquals, assertMatch, assertStringIncludes } from "../assert.ts";
import { skipRingTests } from "../io/ring.ts";
import { type Ended, runChild, runHere, ServerProcess, Temp } from "./support.ts";

const windows = Deno.build.os === "windows";
const blockBytes = 4096;

/** A formatted pair, a port to listen on, and a runtime directory for nobody else. */
async function withPair(
  body: (temp: Temp, pair: { cache: string; backing: string; words: string[] }) => Promise<void>,
): Promise<void> {
  await using temp = await Temp.make();
  const before = Deno.env.get("NBDBOOST_RUNTIME_DIR");
  Deno.env.set("NBDBOOST_RUNTIME_DIR", temp.join("run"));
  try {
    const { cache, backing, pair } = await temp.pair();
    const words = [...pair, "--listen", "nbd://127.0.0.1:0"];
    await body(temp, { cache, backing, words });
  } finally {
    if (before === undefined) Deno.env.delete("NBDBOOST_RUNTIME_DIR");
    else Deno.env.set("NBDBOOST_RUNTIME_DIR", before);
  }
}

const test = (name: string, body: Parameters<typeof withPair>[0], ignore = false) =>
  Deno.test({ name, ignore: windows || ignore, fn: () => withPair(body) });

async function write(server: ServerProcess, from: number, to: number, version = 1): Promise<void> {
  const client = await DemoClient.connect(server.uris[0]!);
  for (let i = from; i < to; i++) await client.write(i * blockBytes, blockContent(i, version));
  await client.flush();
  await client.read(from * blockBytes, new Uint8Array(blockBytes));
  await client.close();
}

function exists(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch {
    return false;
  }
}

function succeeded({ code, out, err }: Ended): string {
  assertEquals([code, err], [0, ""]);
  return out;
}

for (const io of ["portable", "ring"]) {
  test(
    `serve --io ${io}: is shown, tuned, drained and detached from outside; then the backing file alone is complete`,
    async (temp, { cache, backing, words }) => {
      const server = await ServerProcess.start([...words, "--io", io, "--set", "writeback=off"]);
      const socket = `${cache}.sock`;
      assertEquals(Deno.statSync(socket).mode! & 0o777, 0o600);
      await write(server, 0, 100);
      // Found by its socket, by its cache, and because it is the only one.
      const ways = [["--control", socket], ["--control", `unix:${socket}`], ["--cache", cache], []];
      for (const way of ways) {
        const status = JSON.parse(succeeded(await runHere("status", "--json", ...way)));
        assertEquals([status.state, status.io, status.cache.dirtyBlocks], ["serving", io, 100]);
        assertEquals(
          [status.requests.write, status.requests.flush, status.requests.read, status.bytes.written],
          [100, 1, 1, 100 * blockBytes],
        );
        assertEquals([status.backing.target, status.cache.path], [backing, cache]);
        const { write, flush } = status.latencyMicros;
        assert(write.p50 > 0 && write.p50 <= write.p99 && write.p99 <= write.max && flush.max > 0);
      }
      const screen = succeeded(await runHere("status"));
      for (
        const text of [
          " serving ",
          "All is well: 100 blocks wait",
          `i/o         ${io}, `,
          "write       100",
          "no errors",
        ]
      ) {
        assertStringIncludes(screen, text);
      }
      assert(!screen.includes("\x1b"));

      const tuned = succeeded(await runHere("set", "full_timeout=77", "writeback=off"));
      assertStringIncludes(tuned, "full_timeout=77\n");
      const wrong = await runHere("set", "full_timeout=0");
      assertEquals(wrong.code, 2);

      assertMatch(succeeded(await runHere("drain", "--cache", cache)), /^drained: /);
      const drained = JSON.parse(succeeded(await runHere("status", "--json")));
      assertEquals([drained.cache.dirtyBlocks, drained.blocks.writtenBack], [0, 100]);
      assertEquals([drained.tunables.fullTimeout, drained.tunables.writeback], [77, "off"]);

      await write(server, 100, 150);
      const idle = await DemoClient.connect(server.uris[0]!);
      const detached = JSON.parse(succeeded(await runHere("detach", "--verify", "--json")));
      assert(detached.comparedBlocks >= 50);
      assertEquals(await server.ended(), 0);
      await idle.close();
      for (let i = 0; i < 150; i++) {
        using file = await Deno.open(backing);
        file.seekSync(i * blockBytes, Deno.SeekMode.Start);
        const bytes = new Uint8Array(blockBytes);
        file.readSync(bytes);
        assertEquals(bytes, blockContent(i, 1));
      }
      assertEquals([exists(socket), [...Deno.readDirSync(temp.join("run"))].length], [false, 0]);
      const inspected = JSON.parse(succeeded(await runHere("inspect", "--cache", cache, "--json")));
      assertEquals([inspected.clean, inspected.dirtyBlocks], [true, 0]);
    },
    io === "ring" && skipRingTests,
  );
}

test(
  "detach: without --verify it drains among clients, and reads back what the log still holds",
  async (_temp, { words }) => {
    const server = await ServerProcess.start([...words, "--set", "writeback=off"]);
    await write(server, 0, 200);
    const text = succeeded(await runHere("detach"));
    assertMatch(
      text,
      /^detached: the backing device alone is complete; 200 blocks were read back and compared\n$/,
    );
    assertEquals(await server.ended(), 0);
  },
);

test("detach: is refused while blocks are lost; the server goes on", async (_temp, { cache, words }) => {
  {
    const server = await ServerProcess.start([...words, "--set", "writeback=off"]);
    await write(server, 0, 20);
    assertEquals(await server.stop(), 0);
  }
  // The last byte of a block that the log holds, found by its content.
  const bytes = Deno.readFileSync(cache);
  const wanted = blockContent(7, 1);
  let at = -1;
  for (let from = 0; at < 0 && from < bytes.length; from += blockBytes) {
    if (bytes.subarray(from, from + blockBytes).every((byte, i) => byte === wanted[i])) at = from;
  }
  assert(at > 0);
  bytes[at + 4000]! ^= 1;
  Deno.writeFileSync(cache, bytes);
  const server = await ServerProcess.start([...words, "--set", "writeback=off"]);
  for (let i = 0; i < 2; i++) {
    const { code, err } = await runHere("detach");
    assertEquals(code, 4);
    assertMatch(err, /^nbdboost: .*1 blocks are lost.*\n$/);
  }
  const status = JSON.parse(succeeded(await runHere("status", "--json")));
  assertEquals([status.state, status.cache.lostBlocks], ["degraded", 1]);
  assertStringIncludes(succeeded(await runHere("status")), "1 block is lost");
  // A new write heals it, and then it can go.
  await write(server, 7, 8, 2);
  succeeded(await runHere("detach"));
  assertEquals(await server.ended(), 0);
});

test("detach: is refused when read-only, and drain says why it cannot", async (_temp, { words }) => {
  const server = await ServerProcess.start([...words, "--read-only"]);
  const refused = await runHere("detach");
  assertEquals(refused.code, 3);
  assertStringIncludes(refused.err, "read-only");
  assertEquals((await runHere("drain")).code, 1);
  assertEquals(await server.stop(), 0);
});

test(
  "status: says what was looked for when no server runs, and names them when several do",
  async (temp, { cache, words }) => {
    const none = await runHere("status");
    assertEquals(none.code, 1);
    assertStringIncludes(none.err, temp.join("run"));
    const gone = await runHere("status", "--cache", cache);
    assertEquals(gone.code, 1);
    assertStringIncludes(gone.err, `${cache}.sock`);
    await using other = await Temp.make();
    const second = (await other.pair()).pair;
    const servers = [
      await ServerProcess.start(words),
      await ServerProcess.start([...second, "--listen", "nbd://127.0.0.1:0"]),
    ];
    const many = await runHere("status");
    assertEquals(many.code, 2);
    assertStringIncludes(many.err, "2 servers run");
    assertEquals((await runHere("status", "--cache", cache)).code, 0);
    // One that was killed leaves its link, and is not taken for a server.
    await servers[1]!.kill();
    assertEquals((await runHere("status")).code, 0);
    assertEquals(await servers[0]!.stop(), 0);
    assertEquals((await runHere("status")).code, 1);
  },
);

test("status --watch: goes on until it is told to stop", async (_temp, { words }) => {
  const server = await ServerProcess.start(words);
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--quiet",
      "-A",
      new URL("../../cli.ts", import.meta.url).pathname,
      "status",
      "--watch",
      "--json",
    ],
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  let text = "";
  const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  while (text.split("\n").length < 3) {
    const { value, done } = await reader.read();
    assert(!done);
    text += value;
  }
  child.kill("SIGINT");
  while (!(await reader.read()).done);
  assertEquals((await child.status).code, 0);
  for (const line of text.split("\n").slice(0, 2)) assertEquals(JSON.parse(line).state, "serving");
  assertEquals(await server.stop(), 0);
});

test(
  "serve --control 127.0.0.1:0: wants the token that it wrote, and obeys no web page",
  async (temp, { words }) => {
    const tokenFile = temp.join("token");
    // One that an earlier server left behind, which anybody may read.
    Deno.writeTextFileSync(tokenFile, "0".repeat(48) + "\n", { mode: 0o666 });
    const server = await ServerProcess.start([
      ...words,
      "--control",
      "127.0.0.1:0",
      "--token-file",
      tokenFile,
    ]);
    const note = server.notes.find((one) => one.includes("control address"))!;
    const address = /http:\/\/127\.0\.0\.1:\d+/.exec(note)![0];
    assertStringIncludes(note, tokenFile);
    assertEquals(Deno.statSync(tokenFile).mode! & 0o777, 0o600);
    const token = Deno.readTextFileSync(tokenFile).trim();
    assertMatch(token, /^[0-9a-f]{48}$/);
    const authorization = `Bearer ${token}`;
    const metrics = await fetch(`${address}/metrics`, { headers: { authorization } });
    assertStringIncludes(await metrics.text(), "\nnbdboost_clients 0\n");
    for (
      const [headers, status] of [[{}, 401], [{ authorization, origin: "http://evil.example" }, 403]] as const
    ) {
      const response = await fetch(`${address}/drain`, { method: "POST", headers });
      await response.body?.cancel();
      assertEquals(response.status, status);
    }
    const words1 = ["status", "--json", "--control", address.replace("http://", "")];
    assertEquals(JSON.parse(succeeded(await runHere(...words1, "--token-file", tokenFile))).state, "serving");
    const refused = await runHere(...words1);
    assertEquals(refused.code, 3);
    assertStringIncludes(refused.err, "token");
    assertEquals(await server.stop(), 0);
    assert(!exists(tokenFile));
  },
);

test(
  "serve --control: a port is one of this machine alone, and the socket is for its owner alone",
  async (_temp, { cache, words }) => {
    for (
      const address of [
        "0.0.0.0:9809",
        "10.0.0.7:9809",
        "[::]:9809",
        "example.com:9809",
        "http://0.0.0.0:80/",
      ]
    ) {
      const { code, err } = await runHere("serve", ...words, "--control", address);
      assertEquals(code, 2, address);
      assertMatch(err, /is not this machine alone; expected 127\.0\.0\.1, ::1 or localhost/);
    }
    const server = await ServerProcess.start(words);
    assertEquals(Deno.statSync(`${cache}.sock`).mode! & 0o777, 0o600);
    const ask = async (path: string) => {
      using connection = await Deno.connect({ transport: "unix", path: `${cache}.sock` });
      await connection.write(new TextEncoder().encode(`GET ${path} HTTP/1.1\r\nhost: localhost\r\n\r\n`));
      let text = "";
      const bytes = new Uint8Array(65536);
      for (let count = await connection.read(bytes); count !== null; count = await connection.read(bytes)) {
        text += new TextDecoder().decode(bytes.subarray(0, count));
      }
      return text;
    };
    const page = await ask("/");
    assertMatch(page, /^HTTP\/1\.1 200 OK\r\n/);
    assertMatch(page, /\r\ncontent-security-policy: default-src 'none'; script-src 'sha256-/);
    assertStringIncludes(page, "</html>");
    assertMatch(await ask("/map"), /\r\n\r\n\{"segments":\{"count":/);
    assertEquals(await server.stop(), 0);
  },
);

test("serve --control off: listens nowhere but for NBD", async (temp, { cache, words }) => {
  const server = await ServerProcess.start([...words, "--control", "off"]);
  assertEquals([exists(`${cache}.sock`), exists(temp.join("run"))], [false, false]);
  assertEquals(await server.stop(), 0);
});

test(
  "serve: a control address that nobody asked for and that cannot be had is no reason not to serve",
  async (_temp, { cache, words }) => {
    Deno.writeTextFileSync(`${cache}.sock`, "no socket");
    const server = await ServerProcess.start(words);
    const note = server.notes.find((one) => one.includes("control address"))!;
    assertMatch(note, /^warning: there is no control address: .*not a socket.*; all is served the same/);
    assertEquals(await server.stop(), 0);
    assertEquals(Deno.readTextFileSync(`${cache}.sock`), "no socket");
    // One that was asked for is.
    const { code, out } = await runChild(["serve", ...words, "--control", `${cache}.sock`]);
    assertEquals([code, out], [3, ""]);
    assertEquals((await runHere("check", "--cache", cache)).code, 0);
  },
);

test(
  "serve --log-format json: every line is an object; --log-level leaves out what is less grave",
  async (_temp, { words }) => {
    const server = await ServerProcess.start([...words, "--log-format", "json"]);
    await runHere("set", "writeback=on");
    assertEquals(await server.stop(), 0);
    const messages = server.notes.map((line) => JSON.parse(line));
    assert(messages.length >= 3);
    for (const { time, level, message } of messages) {
      assertMatch(time, /^\d{4}-\d\d-\d\dT[\d:.]+Z$/);
      assertEquals([level, typeof message], ["info", "string"]);
    }
    const quiet = await ServerProcess.start([...words, "--log-level", "warning"]);
    assertEquals(await quiet.stop(), 0);
    assertEquals(quiet.notes, []);
  },
);

test("drain --verify: offline, reads back what it wrote", async (_temp, { words }) => {
  const server = await ServerProcess.start([...words, "--set", "writeback=off"]);
  await write(server, 0, 30);
  assertEquals(await server.stop(), 0);
  const { code, out } = await runHere("drain", ...words.slice(0, 4), "--verify");
  assertEquals(code, 0);
  assertStringIncludes(out, "30 blocks were read back and compared");
});
