import { makeWear } from "../../src/cache/wear.ts";
import { blockBytes } from "../../src/units.ts";
import { assertEquals } from "../assert.ts";
import { Machine } from "../sim/machine.ts";

Deno.test("makeWear: nothing is said of what is not known", () => {
  const facts = { writtenBytes: 0, writeRequests: 0, clientBytes: 0, ratedBytes: 0, uptimeMs: 1000 };
  const { amplification, ratedBytes, lifeSeconds } = makeWear(facts);
  assertEquals([amplification, ratedBytes, lifeSeconds], [null, null, null]);
  assertEquals(makeWear({ ...facts, ratedBytes: 100 }).lifeSeconds, null);
});

Deno.test("makeWear: the forecast is the rating over the rate", () => {
  const wear = makeWear({
    writtenBytes: 3000,
    writeRequests: 2,
    clientBytes: 2000,
    ratedBytes: 30_000,
    uptimeMs: 5000,
  });
  assertEquals([wear.amplification, wear.lifeSeconds], [1.5, 50]);
});

Deno.test("Cache.status: wear is what the cache device was asked to write", async () => {
  const machine = new Machine({ backingBytes: 64 * blockBytes });
  await machine.format();
  let bytes = 0;
  let requests = 0;
  machine.fault = (disk, { kind, length }) => {
    if (disk.name !== "cache" || kind !== "write") return undefined;
    bytes += length;
    requests++;
    return undefined;
  };
  const cache = await machine.open({ tunables: { writeback: "on", cacheTbw: 2 ** 40 } });
  for (let block = 0; block < 64; block++) {
    await machine.run(cache.write(block * blockBytes, new Uint8Array(blockBytes).fill(block)));
    if (block % 8 === 0) await machine.run(cache.flush());
  }
  await machine.run(cache.drain());
  await machine.pass(100);
  const { wear } = cache.status();
  assertEquals([wear.writtenBytes, wear.writeRequests], [bytes, requests]);
  assertEquals(wear.amplification, bytes / (64 * blockBytes));
  assertEquals(wear.lifeSeconds! > 0, true);
  await machine.run(cache.close());
});
