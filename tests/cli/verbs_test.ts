/**
 * The verbs on real files: what they print, what they refuse, what they leave alone.
 *
 * @module
 */

import { assert, assertEquals, assertMatch, assertNotEquals, assertStringIncludes } from "../assert.ts";
import { blockContent } from "../../src/cli/demo_blocks.ts";
import { DemoClient } from "../../src/cli/demo_client.ts";
import { runChild, runHere, ServerProcess, Temp } from "./support.ts";

const mib = 1 << 20;

/** Writes some blocks through a server that is then killed, or stopped. */
async function writeThrough(pair: string[], blocks: readonly number[], end: "kill" | "stop"): Promise<void> {
  const server = await ServerProcess.start([
    ...pair,
    "--listen",
    "nbd://127.0.0.1:0",
    "--set",
    "writeback=off",
  ]);
  const client = await DemoClient.connect(server.uris[0]!);
  await Promise.all(blocks.map((block) => client.write(block * 4096, blockContent(block, 1))));
  await client.flush();
  await client.close();
  await server[end]();
}

/** What makes a `serve` that should have refused end by itself. */
function briefly(verb: string): string[] {
  return verb === "serve" ? ["--listen", "nbd://127.0.0.1:0", "--run", "exit 0"] : [];
}

function blockOf(path: string, block: number): Uint8Array {
  using file = Deno.openSync(path);
  file.seekSync(block * 4096, Deno.SeekMode.Start);
  const bytes = new Uint8Array(4096);
  for (let at = 0; at < bytes.length;) {
    const count = file.readSync(bytes.subarray(at));
    if (count === null) break;
    at += count;
  }
  return bytes;
}

/** `assertEquals` shows where megabytes differ, which takes minutes; this says only that they do. */
function assertSameBytes(actual: Uint8Array, expected: Uint8Array, message = ""): void {
  const at = expected.findIndex((byte, i) => actual[i] !== byte);
  assertEquals([actual.length, at], [expected.length, -1], `bytes differ ${message}`);
}

Deno.test("format: prints what it made, for people and as JSON; creates a file only when a size is given", async () => {
  await using temp = await Temp.make();
  const backing = await temp.sparse("disk.img", 64 * mib);
  const cache = temp.join("cache.nbb");
  const words = ["format", "--cache", cache, "--backing", backing];
  const without = await runHere(...words);
  assertNotEquals(without.code, 0);
  assertStringIncludes(without.err, cache);
  const made = await runHere(...words, "--cache-size", "16MiB", "--json");
  assertEquals([made.code, made.err], [0, ""]);
  const report = JSON.parse(made.out);
  assertEquals([report.cacheBytes, report.segmentBytes, report.backingBytes], [
    16 * mib,
    512 << 10,
    64 * mib,
  ]);
  assertMatch(report.uuid, /^[0-9a-f-]{32,36}$/);
  const again = await runHere(...words, "--force");
  assertEquals(again.code, 0);
  assertMatch(again.out, /^uuid +[0-9a-f-]+\n/);
});

Deno.test("format: refuses what looks valuable with 3, and leaves it as it was", async () => {
  await using temp = await Temp.make();
  const { cache, backing, pair } = await temp.pair();
  const ext4 = await temp.sparse("ext4.img", 16 * mib);
  {
    using file = Deno.openSync(ext4, { write: true });
    file.seekSync(0x438, Deno.SeekMode.Start);
    file.writeSync(new Uint8Array([0x53, 0xef]));
  }
  const data = await temp.sparse("data.img", 16 * mib);
  {
    using file = Deno.openSync(data, { write: true });
    file.seekSync(500_000, Deno.SeekMode.Start);
    file.writeSync(new Uint8Array([1]));
  }
  for (const target of [cache, ext4, data]) {
    const before = Deno.readFileSync(target);
    const { code, out, err } = await runHere("format", "--cache", target, "--backing", backing);
    assertEquals([code, out], [3, ""]);
    assertMatch(err, /^nbdboost: [^\n]*--force[^\n]*\n$/);
    assertSameBytes(Deno.readFileSync(target), before);
  }
  assertEquals((await runHere("check", ...pair)).code, 0);
});

Deno.test("serve, drain, recover: a wrong pair is refused with 3", async () => {
  await using temp = await Temp.make();
  const { cache } = await temp.pair();
  const other = await temp.sparse("other.img", 64 * mib);
  const small = await temp.sparse("small.img", 32 * mib);
  for (const backing of [other, small]) {
    for (const verb of ["serve", "drain", "recover"]) {
      const { code, out, err } = await runHere(
        verb,
        "--cache",
        cache,
        "--backing",
        backing,
        ...briefly(verb),
      );
      assertEquals([verb, code, out], [verb, 3, ""]);
      assertMatch(err, /^nbdboost: [A-Z][^\n]*\n$/);
    }
  }
});

Deno.test("serve, drain, check, inspect, recover: what is no cache is refused, what is missing named", async () => {
  await using temp = await Temp.make();
  const { backing } = await temp.pair();
  const nothing = await temp.sparse("nothing.img", 16 * mib);
  for (const verb of ["serve", "drain", "check", "inspect", "recover"]) {
    const more = verb === "inspect" ? [] : ["--backing", backing, ...briefly(verb)];
    const foreign = await runHere(verb, "--cache", nothing, ...more);
    assertEquals([verb, foreign.code, foreign.out], [verb, 3, ""]);
    const missing = await runHere(verb, "--cache", temp.join("missing"), ...more);
    assert(missing.code === 1 || missing.code === 2, `${verb}: ${missing.code}`);
    assertStringIncludes(missing.err, temp.join("missing"));
  }
});

Deno.test("drain: brings the backing file up to date after a clean stop and after a kill", async () => {
  for (const end of ["stop", "kill"] as const) {
    await using temp = await Temp.make();
    const { backing, pair } = await temp.pair();
    await writeThrough(pair, [1, 5, 900], end);
    assertSameBytes(blockOf(backing, 5), new Uint8Array(4096), "not written back yet");
    const drained = await runChild(["drain", ...pair]);
    assertEquals([drained.code, drained.out], [0, "drained: the backing device is complete\n"], drained.err);
    for (const block of [1, 5, 900]) assertSameBytes(blockOf(backing, block), blockContent(block, 1));
    assertEquals((await runHere("check", ...pair)).code, 0);
  }
});

Deno.test("recover: --dry-run changes nothing, --output makes a copy, plain recover writes the backing file", async () => {
  await using temp = await Temp.make();
  const { cache, backing, pair } = await temp.pair();
  await writeThrough(pair, [2, 7], "kill");
  const before = [Deno.readFileSync(cache), Deno.readFileSync(backing)];
  const same = () =>
    [cache, backing].forEach((path, i) => assertSameBytes(Deno.readFileSync(path), before[i]!));
  const dry = await runHere("recover", ...pair, "--dry-run", "--json");
  assertEquals(dry.code, 0, dry.err);
  JSON.parse(dry.out);
  same();
  const copy = temp.join("copy.img");
  const copied = await runHere("recover", ...pair, "--output", copy);
  assertEquals(copied.code, 0, copied.err);
  same();
  for (const block of [2, 7]) assertSameBytes(blockOf(copy, block), blockContent(block, 1));
  assertEquals((await runHere("recover", ...pair)).code, 0);
  assertSameBytes(Deno.readFileSync(backing), Deno.readFileSync(copy));
});

Deno.test("inspect, check: only read, print for people and as JSON", async () => {
  await using temp = await Temp.make();
  const { cache, pair } = await temp.pair();
  await writeThrough(pair, [4], "stop");
  const before = Deno.readFileSync(cache);
  for (const words of [["inspect", "--cache", cache, "--records"], ["check", ...pair]]) {
    const people = await runHere(...words);
    assertEquals([people.code, people.err], [0, ""], words.join(" "));
    assert(people.out.length > 0);
    const json = await runHere(...words, "--json");
    assertEquals(json.code, 0);
    assertEquals(typeof JSON.parse(json.out), "object");
  }
  assertSameBytes(Deno.readFileSync(cache), before);
});

Deno.test("check: one flipped bit in a written block ends it with 4 and is named", async () => {
  await using temp = await Temp.make();
  const { cache, pair } = await temp.pair();
  await writeThrough(pair, [6], "stop");
  const bytes = Deno.readFileSync(cache);
  const content = blockContent(6, 1);
  const at = indexOfBlock(bytes, content);
  bytes[at + 1234]! ^= 1;
  Deno.writeFileSync(cache, bytes);
  const { code, out } = await runHere("check", "--cache", cache, "--json");
  assertEquals(code, 4);
  assert(JSON.parse(out).problems.length > 0, out);
});

function indexOfBlock(bytes: Uint8Array, content: Uint8Array): number {
  for (let at = 0; at + 4096 <= bytes.length; at += 4096) {
    if (content.every((byte, i) => bytes[at + i] === byte)) return at;
  }
  throw new Error("the block is not in the log");
}

Deno.test("demo: passes, says so in its last line, and leaves nothing behind", async () => {
  await using temp = await Temp.make();
  const child = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--quiet", "--allow-all", new URL("../../cli.ts", import.meta.url).pathname, "demo"],
    env: { TMPDIR: temp.path, TEMP: temp.path, TMP: temp.path },
    stdin: "null",
  }).output();
  const [out, err] = [child.stdout, child.stderr].map((bytes) => new TextDecoder().decode(bytes));
  assertEquals(child.code, 0, out! + err!);
  assertMatch(out!.trimEnd().split("\n").at(-1)!, /^PASSED: /);
  assertEquals([...Deno.readDirSync(temp.path)], []);
});

Deno.test("check, recover, hold, drain: a changed backing is refused with an option that they take", async () => {
  await using temp = await Temp.make();
  const { backing, pair } = await temp.pair(1 << 20, "8MiB");
  assertEquals((await runHere("drain", ...pair)).code, 0);
  const verbs = [
    ["check"],
    ["recover", "--dry-run"],
    ["recover", "--output", temp.join("copy.img")],
    ["hold"],
    ["hold", "--release"],
    ["drain"],
    ["recover"],
  ];
  for (const [i, [verb, ...more]] of verbs.entries()) {
    await Deno.utime(backing, 1, 981158400 + i);
    const refused = await runHere(verb!, ...pair, ...more);
    assertEquals(refused.code, 3, refused.err);
    assertStringIncludes(refused.err, "--accept-changed-backing");
    const done = await runHere(verb!, ...pair, ...more, "--accept-changed-backing");
    assertEquals(done.code, 0, done.err);
  }
});

Deno.test("drain: --json prints what was done as one document, offline and online", async () => {
  await using temp = await Temp.make();
  const { cache, pair } = await temp.pair(1 << 20, "8MiB");
  const offline = await runHere("drain", ...pair, "--verify", "--json");
  assertEquals([offline.code, JSON.parse(offline.out)], [0, { comparedBlocks: 0 }], offline.err);
  const server = await ServerProcess.start([...pair, "--listen", `nbd+unix:///?socket=${temp.join("s")}`]);
  const online = await runHere("drain", "--cache", cache, "--json");
  assertEquals([online.code, JSON.parse(online.out)], [0, { comparedBlocks: 0 }], online.err);
  assertEquals(await server.stop(), 0);
});
