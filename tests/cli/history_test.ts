/**
 * The past from the command line, over both backends: history, hold, the export NAME@SEQUENCE, serve --at, rewind. What it is
 * for is done here with real clients where they are installed: a backup from the frozen view, an upgrade that is undone.
 *
 * @module
 */

import { blockContent } from "../../src/cli/demo_blocks.ts";
import { DemoClient } from "../../src/cli/demo_client.ts";
import { openDevice } from "../../src/device/open.ts";
import { assert, assertEquals, assertMatch, assertStringIncludes } from "../assert.ts";
import { requireTool, run as runTool, tryRun } from "../interop/tools.ts";
import { skipRingTests } from "../io/ring.ts";
import { type Ended, runHere, ServerProcess, Temp } from "./support.ts";

const windows = Deno.build.os === "windows";
const blockBytes = 4096;
const backingBytes = 8 << 20;

function succeeded({ code, out, err }: Ended): string {
  assertEquals([code, err], [0, ""]);
  return out;
}

function refused({ code, out, err }: Ended): string {
  assertEquals([code, out], [3, ""]);
  assertMatch(err, /^nbdboost: [^\n]+\n$/);
  return err;
}

/** Writes `version` of the first `count` blocks, and flushes. */
async function write(uri: string, count: number, version: number): Promise<void> {
  const client = await openDevice(uri, { write: true });
  for (let i = 0; i < count; i++) {
    await client.write(i * blockBytes, new Uint8Array(blockContent(i, version)));
  }
  await client.sync();
  await client.close();
}

/** The volume with `version` of the first `count` blocks, and nothing else. */
function image(count: number, version: number): Uint8Array {
  const bytes = new Uint8Array(backingBytes);
  for (let i = 0; i < count; i++) bytes.set(blockContent(i, version), i * blockBytes);
  return bytes;
}

function assertSame(actual: Uint8Array, expected: Uint8Array): void {
  assertEquals(actual.length, expected.length);
  assertEquals(expected.findIndex((byte, i) => byte !== actual[i]), -1);
}

async function read(uri: string, count: number): Promise<Uint8Array> {
  const client = await openDevice(uri, { write: false });
  const bytes = new Uint8Array(count * blockBytes);
  await client.read(0, bytes);
  await client.close();
  return bytes;
}

async function points(...way: string[]): Promise<{ sequence: number; servable: boolean; blocks: number }[]> {
  return JSON.parse(succeeded(await runHere("history", "--json", ...way))).points;
}

for (const io of ["portable", "ring"]) {
  Deno.test({
    name:
      `history, hold, serve --at, rewind (${io}): an upgrade is looked at from before, backed up and undone`,
    ignore: windows || (io === "ring" && skipRingTests),
    async fn() {
      await using temp = await Temp.make();
      const { cache, pair } = await temp.pair(backingBytes);
      const socket = `${temp.path}/nbd.sock`;
      const words = [...pair, "--io", io, "--listen", `nbd+unix:///?socket=${socket}`];
      const uri = (name: string) => `nbd+unix:///${name}?socket=${socket}`;
      const way = ["--control", `${cache}.sock`];
      const server = await ServerProcess.start([...words, "--set", "writeback=on"]);
      await write(uri(""), 100, 1);
      // Before the upgrade.
      assertMatch(succeeded(await runHere("hold", ...way)), /^held from sequence \d+ on; .* of log left/);
      const before = (await points(...way)).at(-1)!;
      assert(before.servable && before.blocks === 100);
      assertStringIncludes(refused(await runHere("drain", ...way)), "hold --release");
      assertStringIncludes(refused(await runHere("detach", "--verify", ...way)), "hold --release");
      assertStringIncludes(succeeded(await runHere("status", ...way)), "history     held from sequence");
      // The upgrade, which goes wrong.
      await write(uri(""), 50, 2);
      const after = (await points(...way)).at(-1)!;
      assertEquals([after.blocks, after.servable], [50, true]);
      // The moment before it, beside the present.
      const old = uri(`@${before.sequence}`);
      assertSame(await read(old, 100), image(100, 1).subarray(0, 100 * blockBytes));
      assertSame(await read(uri(""), 50), image(50, 2).subarray(0, 50 * blockBytes));
      if (requireTool("nbdcopy") && requireTool("nbdinfo")) {
        await runTool("nbdcopy", old, temp.join("backup.img"));
        assertSame(await Deno.readFile(temp.join("backup.img")), image(100, 1));
        // What an incremental backup has to copy.
        const map = `--map=x-nbdboost:since=${before.sequence}`;
        const changed = JSON.parse(await runTool("nbdinfo", "--json", map, uri(`@${after.sequence}`)));
        assertEquals(changed.map(({ length, type }: { length: number; type: number }) => [length, type]), [
          [50 * blockBytes, 1],
          [backingBytes - 50 * blockBytes, 0],
        ]);
        const unknown = await tryRun("nbdinfo", uri("@9999"));
        assert(unknown.code !== 0);
      }
      if (requireTool("qemu-img")) {
        const target = temp.join("qemu.img");
        await runTool("qemu-img", "convert", "-f", "raw", "-O", "raw", old, target);
        assertSame(await Deno.readFile(target), image(100, 1));
        const { stderr } = await tryRun("qemu-img", "info", uri("@9999"));
        assertStringIncludes(stderr, "There is no flush point 9999");
      }
      await server.stop();
      // Offline, and only with --yes.
      const ways = await points("--cache", cache);
      assertEquals(ways.filter(({ servable }) => servable).map(({ sequence }) => sequence), [
        before.sequence,
        after.sequence,
      ]);
      const to = String(before.sequence);
      const past = await ServerProcess.start([...words, "--at", to, "--read-only"]);
      assertSame(await read(uri(""), 100), image(100, 1).subarray(0, 100 * blockBytes));
      await past.stop();
      assertStringIncludes(refused(await runHere("rewind", ...pair, "--to", to)), "add --yes");
      assertStringIncludes(refused(await runHere("rewind", ...pair, "--to", "9999", "--yes")), "9999");
      assertMatch(
        succeeded(await runHere("rewind", ...pair, "--to", to, "--yes")),
        /^rewound to flush point \d+: 1 flush points, \d+ records with 50 blocks are undone\n$/,
      );
      const drained = await runHere("drain", ...pair);
      assertEquals(drained.code, 3);
      assertStringIncludes(drained.err, "hold --release");
      assertStringIncludes((await runHere("hold", ...pair)).out, "held from sequence");
      // Undone; and history is held on, until it is released.
      const again = await ServerProcess.start([...words, "--set", "writeback=on"]);
      assertSame(await read(uri(""), 100), image(100, 1).subarray(0, 100 * blockBytes));
      assertEquals((await points(...way)).map(({ sequence }) => sequence), [before.sequence]);
      assertEquals(succeeded(await runHere("hold", "--release", ...way)), "released: write-back goes on\n");
      await write(uri(""), 10, 3);
      succeeded(await runHere("drain", ...way));
      const gone = await points(...way);
      assert(gone.every(({ sequence, servable }) => !servable || sequence > before.sequence));
      await again.kill();
      // After a crash without a hold nothing tells what has reached the backing device.
      assert((await points("--cache", cache)).every(({ servable }) => !servable));
      const late = await runHere("serve", ...words, "--at", to, "--read-only", "--run", "exit 0");
      assertEquals(late.code, 3);
    },
  });
}

Deno.test("serve --at: is refused without --read-only, and beside --config", async () => {
  await using temp = await Temp.make();
  const { pair } = await temp.pair(backingBytes);
  const without = await runHere("serve", ...pair, "--at", "1");
  assertEquals(without.code, 2);
  assertStringIncludes(without.err, "--read-only");
  const beside = await runHere("serve", "--config", temp.join("x.toml"), "--at", "1");
  assertEquals(beside.code, 2);
});

Deno.test("history: says so when the log holds none", async () => {
  await using temp = await Temp.make();
  const { cache } = await temp.pair(backingBytes);
  const { code, out } = await runHere("history", "--cache", cache);
  assertEquals(code, 0);
  assertStringIncludes(out, "the log holds no flush point");
});

Deno.test("hold: says so when the log has no flush point to go back to, and names the one that it has", async () => {
  await using temp = await Temp.make();
  const { cache, pair } = await temp.pair(1 << 20, "8MiB");
  const offline = await runHere("hold", ...pair, "--json");
  assertEquals([offline.code, JSON.parse(offline.out).flushPoint], [0, null], offline.err);
  assertStringIncludes(offline.err, "this moment is no flush point");
  const server = await ServerProcess.start([...pair, "--listen", "nbd://127.0.0.1:0"]);
  const empty = await runHere("hold", "--cache", cache);
  assertEquals(empty.code, 0);
  assertStringIncludes(empty.err, "this moment is no flush point");
  const client = await DemoClient.connect(server.uris[0]!);
  await client.write(0, new Uint8Array(4096).fill(1));
  await client.flush();
  await client.close();
  const held = await runHere("hold", "--cache", cache, "--json");
  assertEquals([held.code, held.err], [0, ""]);
  const { points } = JSON.parse((await runHere("history", "--cache", cache, "--json")).out);
  assertEquals(
    [JSON.parse(held.out).flushPoint],
    points.map(({ sequence }: { sequence: number }) => sequence),
  );
  assertEquals(await server.stop(), 0);
});
