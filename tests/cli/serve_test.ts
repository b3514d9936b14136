/**
 * `serve` as scripts see it: the lines it prints, signals, exit codes, the process id, --run, and the fewest
 * permissions that it works with. Real processes, since signals and exit codes belong to processes.
 *
 * @module
 */

import { assert, assertEquals, assertMatch, assertRejects, assertStringIncludes } from "../assert.ts";
import { blockContent } from "../../src/cli/demo_blocks.ts";
import { DemoClient } from "../../src/cli/demo_client.ts";
import { exitCode, NbdboostError } from "../../src/errors.ts";
import { probeRing } from "../../src/io/ring/mod.ts";
import { cliPath, runChild, runHere, ServerProcess, Temp } from "./support.ts";

const anyPort = ["--listen", "nbd://127.0.0.1:0"];
const windows = Deno.build.os === "windows";

function exists(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch {
    return false;
  }
}

Deno.test("serve: a line per listener, then ready; SIGTERM ends it with 0 and the data is there again", async () => {
  await using temp = await Temp.make();
  const { pair } = await temp.pair();
  const socket = temp.join("s");
  const listen = windows ? anyPort : [...anyPort, "--listen", `nbd+unix:///?socket=${socket}`];
  const content = blockContent(3, 1);
  {
    const server = await ServerProcess.start([...pair, ...listen]);
    assertMatch(server.uris[0]!, /^nbd:\/\/127\.0\.0\.1:[1-9]\d*$/);
    if (!windows) assertEquals(server.uris[1], `nbd+unix:///?socket=${socket}`);
    const client = await DemoClient.connect(server.uris[0]!);
    assertEquals(client.sizeBytes, 64 << 20);
    await client.write(3 * 4096, content);
    await client.close();
    assertEquals(await server.stop(), 0);
    assert(!exists(socket), "the socket is gone");
  }
  const server = await ServerProcess.start([...pair, ...anyPort]);
  const client = await DemoClient.connect(server.uris[0]!);
  const shown = new Uint8Array(4096);
  await client.read(3 * 4096, shown);
  assertEquals(shown, content);
  await client.close();
  assertEquals(await server.stop(), 0);
});

Deno.test("serve: SIGTERM ends it although a client stays connected", async () => {
  await using temp = await Temp.make();
  const { pair } = await temp.pair();
  const server = await ServerProcess.start([...pair, ...anyPort]);
  const client = await DemoClient.connect(server.uris[0]!);
  await client.write(0, blockContent(0, 1));
  assertEquals(await server.stop(), 0);
  await client.close();
});

Deno.test("serve: --pid-file holds the process id while it serves, and goes away", async () => {
  await using temp = await Temp.make();
  const { pair } = await temp.pair();
  const pidFile = temp.join("pid");
  const server = await ServerProcess.start([...pair, ...anyPort, "--pid-file", pidFile]);
  assertEquals(Deno.readTextFileSync(pidFile), `${server.pid}\n`);
  assertEquals(await server.stop(), 0);
  assert(!exists(pidFile));
});

Deno.test("serve: --read-only refuses writes and serves reads", async () => {
  await using temp = await Temp.make();
  const { pair } = await temp.pair();
  const server = await ServerProcess.start([...pair, ...anyPort, "--read-only"]);
  const client = await DemoClient.connect(server.uris[0]!);
  await client.read(0, new Uint8Array(512));
  await assertRejects(() => client.write(0, new Uint8Array(512)), NbdboostError, "errno 1");
  await client.close();
  assertEquals(await server.stop(), 0);
});

Deno.test("serve: a second server on the same cache is refused with 3 and a sentence", async () => {
  await using temp = await Temp.make();
  const { pair } = await temp.pair();
  const server = await ServerProcess.start([...pair, ...anyPort]);
  const second = await runChild(["serve", ...pair, ...anyPort, "--run", "exit 0"]);
  assertEquals([second.code, second.out], [3, ""]);
  assertMatch(second.err, /^nbdboost: .*cache\.nbb.*\n$/);
  assertEquals(await server.stop(), 0);
});

Deno.test("serve: an address in use is refused with 3 and a sentence, and the cache stays clean", async () => {
  await using temp = await Temp.make();
  const { pair } = await temp.pair();
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const uri = `nbd://127.0.0.1:${listener.addr.port}`;
  const { code, out, err } = await runChild(["serve", ...pair, "--listen", uri, "--run", "exit 0"]);
  assertEquals([code, out], [3, ""]);
  assertStringIncludes(err, String(listener.addr.port));
  assertEquals((await runHere("check", "--cache", pair[1]!)).code, 0);
});

Deno.test("serve: a URI that is none ends it with 2 before anything is opened", async () => {
  await using temp = await Temp.make();
  const { pair } = await temp.pair();
  const { code, err } = await runChild(["serve", ...pair, "--listen", "http://127.0.0.1", "--run", "exit 0"]);
  assertEquals(code, 2);
  assertStringIncludes(err, "http://127.0.0.1");
});

Deno.test({
  name: "serve: --run gets the URI, and its exit code is the server's",
  ignore: windows,
  async fn() {
    await using temp = await Temp.make();
    const { pair } = await temp.pair();
    const command = 'echo "got $uri $NBD_URI"; exit 7';
    const { code, out } = await runChild(["serve", ...pair, ...anyPort, "--run", command]);
    assertEquals(code, 7);
    assertMatch(out, /^listening on (\S+)\nready\ngot \1 \1\n$/);
    assertEquals((await runChild(["serve", ...pair, ...anyPort, "--run", "true"])).code, 0);
  },
});

Deno.test({
  name: "serve: a second signal ends it at once with 1, and nothing flushed is lost",
  ignore: windows,
  async fn() {
    await using temp = await Temp.make();
    const { cache, pair } = await temp.pair();
    // A command that does not want to end keeps the first signal from getting through.
    const server = await ServerProcess.start([
      ...pair,
      ...anyPort,
      "--run",
      "trap '' TERM; exec sleep 3 >&- 2>&-",
    ]);
    const client = await DemoClient.connect(server.uris[0]!);
    const content = blockContent(5, 1);
    await client.write(5 * 4096, content);
    await client.flush();
    const ended = server.stop();
    await new Promise((resolve) => setTimeout(resolve, 300));
    Deno.kill(server.pid, "SIGTERM");
    assertEquals(await ended, 1);
    await client.close();
    const inspected = JSON.parse((await runHere("inspect", "--cache", cache, "--json")).out);
    assertEquals([inspected.clean, inspected.dirtyBlocks], [false, 1]);
  },
});

/** Serves with `permissions` only, writes and reads a block where `connect` says, stops it, and returns its stderr. */
async function serveWith(
  permissions: string[],
  pair: string[],
  uri: string,
  connect?: string,
): Promise<string> {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "--quiet", "--no-prompt", ...permissions, cliPath, "serve", ...pair, "--listen", uri],
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const lines = child.stdout.pipeThrough(new TextDecoderStream())[Symbol.asyncIterator]();
  let said = "";
  while (!said.includes("ready\n")) {
    const { value, done } = await lines.next();
    if (done) break;
    said += value;
  }
  if (said.includes("ready\n")) {
    if (connect) {
      const client = await DemoClient.connect(connect);
      const content = blockContent(9, 1);
      await client.write(9 * 4096, content);
      await client.flush();
      const shown = new Uint8Array(4096);
      await client.read(9 * 4096, shown);
      assertEquals(shown, content);
      await client.close();
    }
    child.kill("SIGTERM");
  }
  while (!(await lines.next()).done);
  const err = await new Response(child.stderr).text();
  assertEquals([said, (await child.status).code], [`listening on ${uri}\nready\n`, 0], err);
  return err;
}

Deno.test("serve: takes the ring where it can, else the portable backend, and says which and why", async () => {
  await using temp = await Temp.make();
  const { pair } = await temp.pair();
  const uri = `nbd://${freeAddress()}`;
  const said = await serveWith(["--allow-all"], pair, uri, uri);
  const probe = probeRing();
  assertStringIncludes(said, `I/O backend: ${probe.usable ? "ring" : "portable"} (`);
  if (!probe.usable) assertStringIncludes(said, probe.why);
  const without = ["--allow-all", "--deny-ffi"];
  assertStringIncludes(
    await serveWith(without, pair, uri, uri),
    "I/O backend: portable (no io_uring: Deno was not given the permission to call",
  );
  const forced = await runChild(["serve", ...pair, "--listen", uri, "--io", "ring"], without);
  assertEquals([forced.code, forced.out], [exitCode.refused, ""]);
  assertStringIncludes(forced.err, "Cannot use --io ring: Deno was not given the permission");
});

Deno.test("serve: works with access to its own two files and its own address only", async () => {
  await using temp = await Temp.make();
  const { cache, backing, pair } = await temp.pair();
  const address = freeAddress();
  const files = `${cache},${backing}`;
  const permissions = [`--allow-read=${files}`, `--allow-write=${files}`, `--allow-net=${address}`];
  for (const more of [[], ["--allow-ffi"]]) {
    await serveWith([...permissions, ...more], pair, `nbd://${address}`, `nbd://${address}`);
  }
});

Deno.test({
  name: "serve: works with access to its own two files and its own unix socket only",
  // Deno 2.6 cannot read --allow-net=unix:PATH.
  ignore: windows || /^2\.[0-8]\./.test(Deno.version.deno),
  async fn() {
    await using temp = await Temp.make();
    const { cache, backing, pair } = await temp.pair();
    const socket = temp.join("s");
    const files = [cache, backing, socket].join();
    const permissions = [`--allow-read=${files}`, `--allow-write=${files}`, `--allow-net=unix:${socket}`];
    await serveWith(permissions, pair, `nbd+unix:///?socket=${socket}`);
  },
});

Deno.test("serve: without the permission for its files it says so, and asks nobody", async () => {
  await using temp = await Temp.make();
  const { pair } = await temp.pair();
  const { code, err } = await runChild(["serve", ...pair, ...anyPort, "--run", "exit 0"], []);
  assertEquals(code, 3);
  assertStringIncludes(err, "--allow-read");
});

/** An address that was free a moment ago; permissions name a port, so 0 will not do. */
function freeAddress(): string {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return `127.0.0.1:${listener.addr.port}`;
}
