/**
 * A mirrored cache from the command line: made, served, one leg lost while clients write, replaced, and stale ones refused.
 * Real processes and, for a leg on another host, nbdkit, which is killed in mid-write.
 *
 * @module
 */

import { blockContent } from "../../src/cli/demo_blocks.ts";
import { DemoClient } from "../../src/cli/demo_client.ts";
import { probeRing } from "../../src/io/ring/mod.ts";
import { assert, assertEquals, assertStringIncludes } from "../assert.ts";
import { ForeignServer } from "../interop/servers.ts";
import { runHere, ServerProcess, Temp } from "./support.ts";

const anyPort = ["--listen", "nbd://127.0.0.1:0"];
const windows = Deno.build.os === "windows";
const backends = ["portable", ...(probeRing().usable ? ["ring"] : [])];
/** For what a loaded machine does in its own time. */
const waitMsMax = 60_000;

interface LegLine {
  path: string;
  state: string;
}

async function legs(cache: string): Promise<LegLine[]> {
  const { code, out, err } = await runHere("mirror", "--cache", cache, "--json");
  assertEquals(code, 0, err);
  return JSON.parse(out).legs;
}

async function states(cache: string): Promise<string[]> {
  return (await legs(cache)).map(({ state }) => state);
}

async function eventually(what: string, isSo: () => Promise<boolean>): Promise<void> {
  for (const deadline = Date.now() + waitMsMax; Date.now() < deadline;) {
    if (await isSo()) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`not in time: ${what}`);
}

async function expectBlocks(uri: string, count: number, version: number): Promise<void> {
  const client = await DemoClient.connect(uri);
  for (let i = 0; i < count; i++) {
    const shown = new Uint8Array(4096);
    await client.read(i * 4096, shown);
    assertEquals(shown, blockContent(i, version), `block ${i}`);
  }
  await client.close();
}

for (const io of backends) {
  Deno.test({
    name: `mirror: a leg is given up and another takes its place while clients write, on ${io}`,
    ignore: windows,
    async fn() {
      await using temp = await Temp.make();
      const backing = await temp.sparse("disk.img", 64 << 20);
      const [a, b, c] = [temp.join("a.nbb"), temp.join("b.nbb"), temp.join("c.nbb")];
      const named = ["--cache", a, "--mirror", b, "--backing", backing];
      const made = await runHere("format", ...named, "--cache-size", "16MiB");
      assertEquals(made.code, 0, made.err);
      const settings = ["--io", io, ...anyPort, "--set", "writeback=off"];
      {
        const server = await ServerProcess.start([...named, ...settings]);
        const client = await DemoClient.connect(server.uris[0]!);
        for (let i = 0; i < 50; i++) await client.write(i * 4096, blockContent(i, 1));
        await client.flush();
        assertEquals(await states(a), ["in service", "in service"]);
        // What is refused leaves no file behind.
        assertEquals((await runHere("mirror", "--cache", a, "--replace", c)).code, 3);
        assertEquals(await Deno.stat(c).catch(({ name }) => name), "NotFound");
        assertEquals((await runHere("mirror", "--cache", a, "--drop", b)).code, 0);
        for (let i = 0; i < 50; i++) await client.write(i * 4096, blockContent(i, 2));
        await client.flush();
        const replaced = runHere("mirror", "--cache", a, "--replace", c);
        for (let i = 0; i < 50; i++) await client.write(i * 4096, blockContent(i, 3));
        await client.flush();
        const { code, out, err } = await replaced;
        assertEquals(code, 0, err);
        assertStringIncludes(out, `${c}: in service`);
        await client.close();
        assertEquals(await server.stop(), 0);
      }
      // The old leg is known for what it is, in every company.
      for (const [cache, mirror] of [[a, b], [b, c]] as const) {
        const refused = await runHere(
          "serve",
          "--cache",
          cache,
          "--mirror",
          mirror,
          "--backing",
          backing,
          ...anyPort,
        );
        assertEquals(refused.code, 3);
        assertStringIncludes(refused.err, "another partner last");
      }
      assertEquals((await runHere("check", "--cache", a, "--mirror", c, "--backing", backing)).code, 0);
      const alone = await runHere("serve", "--cache", c, "--backing", backing, ...anyPort);
      assertEquals(alone.code, 3);
      assertStringIncludes(alone.err, "--accept-missing-mirror");
      await Deno.remove(a);
      // The SSD that the cache was made on is gone.
      const server = await ServerProcess.start([
        "--cache",
        a,
        "--mirror",
        c,
        "--backing",
        backing,
        ...settings,
        "--accept-missing-mirror",
      ]);
      await expectBlocks(server.uris[0]!, 50, 3);
      assertEquals((await states(a)).sort(), ["in service", "missing"]);
      assertEquals(await server.stop(), 0);
      const recovered = await runHere("recover", "--cache", c, "--backing", backing);
      assertEquals(recovered.code, 0, recovered.err);
      const disk = await Deno.readFile(backing);
      for (let i = 0; i < 50; i++) {
        assertEquals(disk.subarray(i * 4096, (i + 1) * 4096), blockContent(i, 3));
      }
    },
  });

  Deno.test({
    name: `mirror: a leg on another host is killed in mid-write, dropped, and brought back, on ${io}`,
    ignore: windows,
    async fn() {
      await using temp = await Temp.make();
      await using remote = await ForeignServer.start("nbdkit", (socket, directory) => {
        Deno.writeFileSync(`${directory}/leg`, new Uint8Array(0));
        Deno.truncateSync(`${directory}/leg`, 16 << 20);
        return ["-f", "-U", socket, "file", `${directory}/leg`];
      });
      if (!remote) return;
      const backing = await temp.sparse("disk.img", 64 << 20);
      const a = temp.join("a.nbb");
      const named = ["--cache", a, "--mirror", remote.uri, "--backing", backing];
      const made = await runHere("format", ...named, "--cache-size", "16MiB");
      assertEquals(made.code, 0, made.err);
      const settings = ["--io", io, ...anyPort, "--set", "writeback=off"];
      const server = await ServerProcess.start([...named, ...settings]);
      const client = await DemoClient.connect(server.uris[0]!);
      for (let i = 0; i < 50; i++) await client.write(i * 4096, blockContent(i, 1));
      await client.flush();
      assertEquals(await states(a), ["in service", "in service"]);
      // Writes and flushes are under way all the time, and none of them fails.
      let version = 1;
      let killed: Promise<void> | undefined;
      for (let i = 0; i < 400; i++) {
        if (i % 50 === 0) version++;
        await client.write((i % 50) * 4096, blockContent(i % 50, version));
        if (i % 10 === 9) await client.flush();
        if (i === 100) killed = remote.kill();
      }
      await killed;
      await client.flush();
      await eventually("the leg is dropped", async () => (await states(a)).includes("missing"));
      await remote.start();
      const back = await runHere("mirror", "--cache", a, "--resync");
      assertEquals(back.code, 0, back.err);
      assertEquals(await states(a), ["in service", "in service"]);
      for (let i = 0; i < 50; i++) await client.write(i * 4096, blockContent(i, 100));
      await client.flush();
      await client.close();
      await server.kill();
      // The remote leg alone has all of it.
      const remaining = ["--cache", remote.uri, "--backing", backing];
      const recovered = await runHere("recover", ...remaining, "--accept-missing-mirror");
      assertEquals(recovered.code, 0, recovered.err);
      const disk = await Deno.readFile(backing);
      for (let i = 0; i < 50; i++) {
        assertEquals(disk.subarray(i * 4096, (i + 1) * 4096), blockContent(i, 100), `block ${i}`);
      }
      const split = await runHere("check", ...named);
      assert(split.code === 4, split.out + split.err);
      assertStringIncludes(split.out, "is stale");
    },
  });
}
