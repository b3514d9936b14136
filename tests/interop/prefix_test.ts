/**
 * `writeback_order=prefix` through the real server: the cache is thrown away between two steps, and what is left on the
 * backing device is what the volume was at the stated point: to an oracle that wrote it, and to a filesystem's own check.
 */

import { ServerProcess } from "../../src/cli/self.ts";
import type { CacheStatus } from "../../src/cache/status.ts";
import { mib } from "../../src/units.ts";
import { assert, assertEquals, assertGreaterOrEqual } from "../assert.ts";
import { runChild, Temp } from "../cli/support.ts";
import { mustRun, skipLoopTests } from "../device/temp.ts";
import { Client } from "../nbd/client.ts";
import { hasFuse, mountServed } from "./mounted.ts";
import { requireTool } from "./tools.ts";

type Point = NonNullable<CacheStatus["writeback"]["point"]>;

const options = ["--set", "writeback_order=prefix", "--set", "writeback=on", "--set", "writeback_step=64K"];
const blockBytes = 4096;
const oracleBlocks = 200;

async function until(done: () => Promise<boolean> | boolean): Promise<void> {
  while (!(await done())) await new Promise((resolve) => setTimeout(resolve, 50));
}

async function pointOf(control: string): Promise<Point> {
  const { out } = await runChild(["status", "--json", "--control", control]);
  return JSON.parse(out).writeback.point;
}

/** Resolves when a few points more have passed by. */
async function someSteps(control: string): Promise<void> {
  for (let i = 0; i < 3; i++) {
    const { sequence } = await pointOf(control);
    await until(async () => ((await pointOf(control)).sequence ?? 0) > (sequence ?? 0));
  }
}

/** Stops write-back, at the end of the step under way, and tells where the backing is then. */
async function stopBetweenSteps(control: string): Promise<Point> {
  const set = await runChild(["set", "writeback=off", "--control", control]);
  assertEquals(set.code, 0, set.err);
  await until(async () => (await pointOf(control)).toSequence === null);
  return await pointOf(control);
}

/** Loses the cache device, as when it dies. */
async function loseCache(server: ServerProcess, temp: Temp): Promise<void> {
  await server.kill();
  await Deno.remove(temp.join("cache.nbb"));
}

function numbered(value: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(new Uint32Array(blockBytes / 4).fill(value).buffer);
}

Deno.test("prefix: where a cache is lost between two steps, the backing holds all writes up to one, and none after it", async () => {
  await using temp = await Temp.make();
  const { pair, backing } = await temp.pair(oracleBlocks * blockBytes, "16MiB");
  const uri = `nbd+unix:///?socket=${temp.join("s")}`;
  const server = await ServerProcess.start([...pair, ...options, "--listen", uri]);
  const control = `${temp.join("cache.nbb")}.sock`;
  const client = await Client.connect(uri);
  // Each writes a block that holds its number; 7 and the count of blocks have no divisor in common.
  const placeOf = (write: number) => (write * 7) % oracleBlocks * blockBytes;
  let written = 0;
  let stopping = false;
  const writing = (async () => {
    while (!stopping) {
      await client.write(placeOf(++written), numbered(written));
      if (written % 9 === 0) await client.flush();
    }
  })();
  await someSteps(control);
  const point = await stopBetweenSteps(control);
  const then = written;
  await until(() => written > then + oracleBlocks);
  stopping = true;
  await writing;
  await loseCache(server, temp);
  await client.close();
  const bytes = await Deno.readFile(backing);
  const words = new Uint32Array(bytes.buffer);
  const last = words.reduce((a, b) => Math.max(a, b));
  assert(last > 0 && last <= then, `${last} of ${written} writes are on the backing`);
  for (let place = 0; place < oracleBlocks; place++) {
    let expected = last;
    while (expected > 0 && placeOf(expected) !== place * blockBytes) expected--;
    const block = words.subarray(place * blockBytes / 4, (place + 1) * blockBytes / 4);
    assert(block.every((word) => word === expected), `block ${place} holds ${block[0]}, not ${expected}`);
  }
  assertEquals(point.lackingBlocks, 0);
});

Deno.test({
  name:
    "prefix: an ext4 whose cache is lost between two steps is clean to e2fsck, and has what was synced by then",
  ignore: skipLoopTests,
  fn: async () => {
    if (!requireTool("nbdfuse") || !requireTool("mkfs.ext4") || !await hasFuse()) return;
    await using temp = await Temp.make();
    const { pair, backing } = await temp.pair(64 * mib, "32MiB");
    const uri = `nbd+unix:///?socket=${temp.join("s")}`;
    const server = await ServerProcess.start([...pair, ...options, "--listen", uri]);
    const mounted = await mountServed(uri, temp, 1);
    const synced: number[] = [];
    let point: Point;
    try {
      await mustRun("mkfs.ext4", "-q", mounted.loop);
      await mustRun("mount", mounted.loop, mounted.fs);
      let stopping = false;
      const working = (async () => {
        for (let file = 0; !stopping; file++) {
          using open = await Deno.open(`${mounted.fs}/${file}`, { create: true, write: true });
          await open.write(numbered(file));
          await open.sync();
          synced.push(Date.now());
          // The same blocks of data and journal again and again.
          if (file >= 20) await Deno.remove(`${mounted.fs}/${file - 20}`);
        }
      })();
      const control = `${temp.join("cache.nbb")}.sock`;
      await until(() => synced.length > 30);
      await someSteps(control);
      point = await stopBetweenSteps(control);
      const then = synced.length;
      await until(() => synced.length > then + 3);
      stopping = true;
      await working;
      await loseCache(server, temp);
    } finally {
      await mounted.leave();
    }
    // Replays the journal, as a mount does.
    const { code } = await new Deno.Command("e2fsck", { args: ["-p", backing], stdout: "null" }).output();
    assert(code === 0 || code === 1, `e2fsck ended with ${code}`);
    assertEquals((await new Deno.Command("e2fsck", { args: ["-fn", backing] }).output()).code, 0);
    const alone = temp.join("alone");
    await Deno.mkdir(alone);
    await mustRun("mount", "-o", "loop,ro", backing, alone);
    try {
      const found = new Set<number>();
      for await (const { name } of Deno.readDir(alone)) if (/^\d+$/.test(name)) found.add(Number(name));
      const wallMs = Date.parse(point.at!);
      const last = synced.findLastIndex((ms) => ms < wallMs);
      assertGreaterOrEqual(last, 0);
      // Up to twenty before it were not removed yet, and the next may have been under way.
      for (let file = Math.max(0, last - 15); file <= last; file++) {
        assert(found.has(file), `file ${file} was synced before the point`);
        assertEquals(await Deno.readFile(`${alone}/${file}`), numbered(file));
      }
      for (const file of found) assert(file <= last + 1, `file ${file} was made after the point`);
    } finally {
      await mustRun("umount", alone);
    }
  },
});
