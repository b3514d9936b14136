import { formatCache } from "../../mod.ts";
import { RefusedError, UsageError } from "../../src/errors.ts";
import { RingHost } from "../../src/host/ring_host.ts";
import { plainError, revivedError } from "../../src/host/messages.ts";
import { mib } from "../../src/units.ts";
import { assert, assertEquals, assertRejects } from "../assert.ts";
import { withDirectory } from "../device/temp.ts";
import { ringDescriptors, skipRingTests as ignore } from "../io/ring.ts";
import { Client } from "../nbd/client.ts";

async function formatted(directory: string): Promise<{ cache: string; backing: string }> {
  const pair = { cache: `${directory}/cache.nbb`, backing: `${directory}/disk.img` };
  await Deno.writeFile(pair.backing, new Uint8Array(16 * mib));
  await formatCache({ ...pair, cacheSize: 16 * mib });
  return pair;
}

/** Memory of this process that holds code made at run time. */
function executableBytes(): number {
  const lines = Deno.readTextFileSync("/proc/self/maps").split("\n");
  return lines.reduce((total, line) => {
    const match = /^([0-9a-f]+)-([0-9a-f]+) r.xp \S+ \S+ 0 *$/.exec(line);
    return match === null ? total : total + parseInt(match[2]!, 16) - parseInt(match[1]!, 16);
  }, 0);
}

const test = (name: string, body: (directory: string) => Promise<void>) =>
  Deno.test({ name, ignore, fn: () => withDirectory(body) });

test("RingHost: serves from a thread of its own, and what was written is there the next time", async (directory) => {
  const pair = await formatted(directory);
  const listen = [`nbd+unix:///?socket=${directory}/s`, "nbd://127.0.0.1:0"];
  for (const round of [0, 1, 2]) {
    const host = await RingHost.start({ exports: [{ ...pair, tunables: { writeback: "off" } }], listen });
    assertEquals(host.exports[0]!.recovery.clean, true);
    assertEquals(host.exports[0]!.sizeBytes, 16 * mib);
    const clients = await Promise.all(host.uris.map((uri) => Client.connect(uri, { structured: true })));
    for (const client of clients) {
      if (round > 0) assertEquals((await client.read(4096, 512))[0], round);
    }
    assertEquals(await clients[0]!.write(4096, new Uint8Array(4096).fill(round + 1)), 0);
    assertEquals(await clients[1]!.flush(), 0);
    assertEquals((await clients[1]!.read(4096, 4096))[4095], round + 1);
    const status = await host.exports[0]!.status();
    assertEquals(status.clients, 2);
    assertEquals(status.cache.state, "serving");
    const { segments, backing } = await host.exports[0]!.map();
    assert(segments.dirty[segments.head]! > 0 && backing.dirty[backing.perCell === 1 ? 1 : 0]! > 0);
    for (const client of clients) await client.disconnect();
    await host.close();
    await host.close();
    await assertRejects(() => Deno.lstat(`${directory}/s`), Deno.errors.NotFound);
  }
  const host = await RingHost.start({ exports: [pair], listen });
  const progress: number[] = [];
  await host.exports[0]!.drain((done) => progress.push(done));
  await host.close();
  assertEquals((await Deno.readFile(pair.backing))[4096], 3);
});

test("RingHost: this thread goes on while the other one waits, and its messages wake it up", async (directory) => {
  const host = await RingHost.start({
    exports: [await formatted(directory)],
    listen: `nbd+unix:///?socket=${directory}/s`,
  });
  // One by one each of them finds the other thread waiting in the ring.
  for (let i = 0; i < 20; i++) {
    await new Promise((resolve) => setTimeout(resolve, 1));
    assertEquals((await host.exports[0]!.status()).clients, 0);
  }
  const many = await Promise.all(Array.from({ length: 100 }, () => host.exports[0]!.status()));
  assertEquals(many.length, 100);
  // A library that was loaded anew for each of them left some 45 pages behind each time.
  const before = executableBytes();
  for (let i = 0; i < 200; i++) await host.exports[0]!.status();
  const grown = executableBytes() - before;
  assert(grown < 8 * mib, `${grown} bytes of memory for code`);
  await host.close();
});

test("RingHost: refusals come over as the errors that they were, and leave nothing open", async (directory) => {
  const pair = await formatted(directory);
  const listen = `nbd+unix:///?socket=${directory}/s`;
  const before = ringDescriptors();
  await assertRejects(
    () => RingHost.start({ exports: [{ ...pair, cache: `${directory}/none` }], listen }),
    UsageError,
    "no such file",
  );
  await assertRejects(() => RingHost.start({ exports: [pair], listen: "nbd://[::1" }), UsageError);
  const host = await RingHost.start({ exports: [pair], listen });
  await assertRejects(() => RingHost.start({ exports: [pair], listen }), RefusedError, "in use");
  await host.close();
  assertEquals(ringDescriptors(), before);
  // Nothing holds the locks any more.
  const again = await RingHost.start({ exports: [pair], listen });
  await again.close();
});

Deno.test("plainError: an error's class, code and words survive", () => {
  const error = revivedError(structuredClone(plainError(new RefusedError("Cannot open it: it is in use"))));
  assert(error instanceof RefusedError);
  assertEquals(error.message, "Cannot open it: it is in use");
  assertEquals(plainError("text"), { name: "Error", message: "text" });
});
