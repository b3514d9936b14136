/** `serve --config`: several exports from one process; and what a service manager is told. */

import { parseServeConfig } from "../../src/cli/serve_config.ts";
import { UsageError } from "../../src/errors.ts";
import { openNotifier } from "../../src/io/notify.ts";
import { Client, RawClient } from "../nbd/client.ts";
import { Opt, Rep } from "../nbd/wire.ts";
import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "../assert.ts";
import { cliPath, runHere, ServerProcess, Temp } from "./support.ts";
import { probeRing } from "../../src/io/ring/mod.ts";

const full = `
listen = ["nbd://127.0.0.1:0", "nbd+unix:///?socket=/run/s"]
io = "portable"
[limits]
connections = 9
total_bytes = "256M"
[[export]]
name = "disk"
cache = "/a"
backing = "/b"
description = "a disk"
read-only = true
at = 4711
set = { writeback = "on", full_timeout = 5 }
[[export]]
name = "other"
cache = "/c"
backing = "nbd://host/x"
`;

Deno.test("parseServeConfig: reads all that there is", () => {
  const config = parseServeConfig("f.toml", full);
  assertEquals(config.listen.length, 2);
  assertEquals([config.io, config.limits], ["portable", { connections: 9, totalBytes: 256 << 20 }]);
  const [disk, other] = config.exports;
  assertEquals([disk!.name, disk!.cache, disk!.backing, disk!.description], ["disk", "/a", "/b", "a disk"]);
  assertEquals([disk!.readOnly, disk!.at, disk!.tunables], [true, 4711, { writeback: "on", fullTimeout: 5 }]);
  assertEquals([other!.readOnly, other!.description, other!.backing], [false, "nbdboost", "nbd://host/x"]);
});

Deno.test("parseServeConfig: says what is wrong, where, and what was expected", () => {
  const one = '[[export]]\ncache = "a"\nbacking = "b"\n';
  const cases: [string, string][] = [
    ["listen = [", "line 1"],
    ["", "no export"],
    ["export = 3", '"export" is 3'],
    [`colour = "red"\n${one}`, '"colour" is unknown; expected one of listen, io, limits, export'],
    [`${one}colour = "red"`, '"colour" in export 1 is unknown'],
    ['[[export]]\ncache = "a"', '"backing" in export 1 is missing'],
    [`${one}read-only = "yes"`, '"read-only" in export 1 is "yes"; expected true or false'],
    [`${one}at = 3`, '"at" in export 1 is 3 without read-only'],
    [`${one}read-only = true\nat = -1`, "expected a whole number"],
    [`${one}set = { writeback = "maybe" }`, "expected auto, on or off"],
    [`limits = { connections = 0 }\n${one}`, "expected a whole number from 1"],
    [`listen = [1]\n${one}`, '"listen" is [1]'],
    [`${one}name = "x"\n${one}name = "x"`, 'the name "x"'],
    [`${one}name = "x"\n${one}name = "y"`, 'the cache "a"'],
  ];
  for (const [text, words] of cases) {
    const error = assertThrows(() => parseServeConfig("f.toml", text), UsageError);
    assertStringIncludes(error.message, words);
    assertStringIncludes(error.message, "f.toml");
  }
});

async function severalExports(io: string): Promise<void> {
  await using temp = await Temp.make();
  const pairs = [];
  for (const name of ["one", "two"]) {
    const backing = await temp.sparse(`${name}.img`, 16 << 20);
    const cache = temp.join(`${name}.nbb`);
    const made = await runHere("format", "--cache", cache, "--backing", backing, "--cache-size", "16MiB");
    assertEquals(made.code, 0, made.err);
    pairs.push({ name, cache, backing });
  }
  const path = temp.join("serve.toml");
  await Deno.writeTextFile(
    path,
    [
      `listen = "nbd+unix:///?socket=${temp.join("s")}"`,
      ...pairs.map(({ name, cache, backing }) =>
        `[[export]]\nname = "${name}"\ncache = "${cache}"\nbacking = "${backing}"\ndescription = "number ${name}"\n` +
        `read-only = ${name === "two"}\n`
      ),
    ].join("\n"),
  );
  const server = await ServerProcess.start(["--config", path, "--io", io]);
  assertStringIncludes(server.notes.join(), `I/O backend: ${io} (asked for by --io ${io})`);
  for (const name of ["one", "two"]) assertStringIncludes(server.notes.join(), `export "${name}": opened`);
  const uri = `nbd+unix:///?socket=${temp.join("s")}`;
  const raw = await RawClient.connect(uri);
  await raw.greet();
  const listed = (await raw.option(Opt.LIST)).filter(({ type }) => type === Rep.SERVER);
  assertEquals(listed.map(({ data }) => new TextDecoder().decode(data.subarray(4))), [
    "onenumber one",
    "twonumber two",
  ]);
  raw.close();
  const [one, two] = await Promise.all(
    ["one", "two"].map((exportName) => Client.connect(uri, { exportName })),
  );
  assertEquals(await one!.write(4096, new Uint8Array(4096).fill(1)), 0);
  assertEquals(await two!.write(4096, new Uint8Array(4096).fill(1)), 1, "EPERM");
  assertEquals(await one!.flush(), 0);
  assertEquals(await two!.read(4096, 8), new Uint8Array(8), "not the other one's");
  await Promise.all([one!.disconnect(), two!.disconnect()]);
  assertEquals(await server.stop(), 0, server.notes.join("\n"));
  for (const { cache, backing } of pairs) {
    assertEquals((await runHere("check", "--cache", cache, "--backing", backing)).code, 0);
  }
}

for (const io of probeRing().usable ? ["ring", "portable"] : ["portable"]) {
  Deno.test(`serve --config: several exports from one process, each with its own cache, description and rights (${io})`, () =>
    severalExports(io));
}

/** Two exports: both have a control address beside their caches, and one is on a port. */
async function severalControls(io: string): Promise<void> {
  await using temp = await Temp.make();
  const exports = [];
  for (const name of ["one", "two"]) {
    const [cache, backing] = [temp.join(`${name}.nbb`), await temp.sparse(`${name}.img`, 16 << 20)];
    const made = await runHere("format", "--cache", cache, "--backing", backing, "--cache-size", "16MiB");
    assertEquals(made.code, 0, made.err);
    exports.push(
      `[[export]]\nname = "${name}"\ncache = "${cache}"\nbacking = "${backing}"\nset = { writeback = "off" }\n`,
    );
  }
  const [file, token] = [temp.join("serve.toml"), temp.join("token")];
  await Deno.writeTextFile(file, `${exports.join("")}control = "127.0.0.1:0"\ntoken-file = "${token}"\n`);
  const server = await ServerProcess.start(["--config", file, "--io", io, "--listen", "nbd://127.0.0.1:0"]);
  try {
    const uri = server.uris[0]!.replace(/one$/, "");
    const port = /export "two": control address: (http:\S+), with the token in/.exec(
      server.notes.join("\n"),
    )![1]!;
    const [first, second] = [["--cache", temp.join("one.nbb")], ["--control", port, "--token-file", token]];
    const status = async (where: string[]) => {
      const { code, out, err } = await runHere("status", ...where, "--json");
      assertEquals(code, 0, err);
      return JSON.parse(out);
    };
    const clients = await Promise.all(
      ["one", "two"].map((exportName) => Client.connect(uri, { exportName })),
    );
    assertEquals(await clients[0]!.write(4096, new Uint8Array(8192).fill(1)), 0);
    assertEquals(await clients[1]!.write(4096, new Uint8Array(4096).fill(2)), 0);
    assertEquals([(await status(first)).cache.dirtyBlocks, (await status(second)).cache.dirtyBlocks], [
      2,
      1,
    ]);
    const set = await runHere("set", "full_timeout=7", ...second);
    assertEquals(set.code, 0, set.err);

    const detached = await runHere("detach", ...first);
    assertEquals(detached.code, 0, detached.err);
    assertEquals((await Deno.readFile(temp.join("one.img")))[4096 + 8191], 1);
    assertEquals(
      (await runHere("check", "--cache", temp.join("one.nbb"), "--backing", temp.join("one.img"))).code,
      0,
    );
    await assertRejects(() => Deno.lstat(temp.join("one.nbb.sock")), Deno.errors.NotFound);
    await assertRejects(() => Client.connect(uri, { exportName: "one" }));
    assertEquals(
      await clients[1]!.write(8192, new Uint8Array(4096).fill(3)),
      0,
      "the other one is served on",
    );
    assertEquals((await status(second)).cache.dirtyBlocks, 2);

    const last = await runHere("detach", ...second);
    assertEquals(last.code, 0, last.err);
    for (const client of clients) client.close();
    assertEquals(await server.ended(), 0, server.notes.join("\n"));
    assertEquals((await Deno.readFile(temp.join("two.img")))[8192], 3);
    await assertRejects(() => Deno.lstat(token), Deno.errors.NotFound);
  } finally {
    await server.kill();
  }
}

for (const io of probeRing().usable ? ["ring", "portable"] : ["portable"]) {
  Deno.test(`serve --config: each cache is looked at, tuned and detached on its own (${io})`, () =>
    severalControls(io));
}

Deno.test("serve: what does not go together is refused", async () => {
  await using temp = await Temp.make();
  const path = temp.join("f.toml");
  const one = (n: number) => `[[export]]\nname = "${n}"\ncache = "c${n}"\nbacking = "b${n}"\n`;
  await Deno.writeTextFile(path, one(1) + one(2));
  const cases: [string[], number, string][] = [
    [["--config", path, "--cache", "x"], 2, "--cache is given besides --config"],
    [["--config", path, "--read-only"], 2, "--read-only is given besides --config"],
    [["--config", path, "--control", "/tmp/x.sock"], 3, "of one cache"],
    [["--config", temp.join("none")], 1, "check the path"],
    [["--cache", "x"], 2, "lacks --backing TARGET"],
    [["--cache", "x", "--backing", "y", "--limit", "connections=0"], 2, "expected a whole number"],
  ];
  for (const [args, code, words] of cases) {
    const ended = await runHere("serve", ...args);
    assertEquals(ended.code, code, ended.err);
    assertStringIncludes(ended.err, words);
  }
});

/** Runs `body` with a datagram socket that another process listens on, and returns what that one got. */
async function withManager(path: string, messages: number, body: () => Promise<void>): Promise<string[]> {
  const program = `
    const socket = Deno.listenDatagram({ transport: "unixpacket", path: ${JSON.stringify(path)} });
    console.log("listening");
    for (let i = 0; i < ${messages}; i++) {
      const [bytes] = await socket.receive();
      console.log(JSON.stringify(new TextDecoder().decode(bytes)));
    }`;
  const file = `${path}.ts`;
  await Deno.writeTextFile(file, program);
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "--quiet", "--allow-all", "--unstable-net", file],
    stdout: "piped",
    stderr: "null",
  }).spawn();
  const lines: string[] = [];
  const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  const take = async () => {
    const { value, done } = await reader.read();
    text += value ?? "";
    return !done;
  };
  while (!text.includes("listening\n") && await take());
  await body();
  while (await take());
  await child.status;
  for (const line of text.split("\n").slice(1)) if (line !== "") lines.push(JSON.parse(line));
  return lines;
}

Deno.test("openNotifier: sends what it is told, and is silent without a manager", async () => {
  assertEquals([openNotifier("").tell("READY=1"), openNotifier("").why], [false, undefined]);
  if (Deno.build.os !== "linux") return;
  assertStringIncludes(openNotifier("relative").why!, "expected a path");
  assertStringIncludes(openNotifier(`/${"x".repeat(120)}`).why!, "at most 107 bytes");
  assertEquals(openNotifier("/nowhere/at/all").tell("READY=1"), false);
  await using temp = await Temp.make();
  const got = await withManager(temp.join("n"), 2, () => {
    const notifier = openNotifier(temp.join("n"));
    assert(notifier.tell("READY=1", "STATUS=a\nb"));
    assert(notifier.tell("STOPPING=1"));
    return Promise.resolve();
  });
  assertEquals(got, ["READY=1\nSTATUS=a b", "STOPPING=1"]);
});

Deno.test("serve: a service manager hears when it opens, is ready and stops", async () => {
  if (Deno.build.os !== "linux") return;
  await using temp = await Temp.make();
  const { pair } = await temp.pair();
  const listen = `nbd+unix:///?socket=${temp.join("s")}`;
  const got = await withManager(temp.join("n"), 3, async () => {
    const child = await new Deno.Command(Deno.execPath(), {
      args: ["run", "--quiet", "--allow-all", cliPath, "serve", ...pair, "--listen", listen, "--run", "true"],
      env: { NOTIFY_SOCKET: temp.join("n") },
      stdin: "null",
      stdout: "null",
    }).output();
    assertEquals(child.code, 0, new TextDecoder().decode(child.stderr));
  });
  assertEquals(got.map((message) => message.split("\n")[0]), [
    "STATUS=opening and recovering",
    "READY=1",
    "STOPPING=1",
  ]);
  assertStringIncludes(got[1]!, "STATUS=serving nbd+unix");
});
