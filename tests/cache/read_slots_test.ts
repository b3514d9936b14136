// Why: these reads bypass `reads.ts`; whatever is not plain must go there, and what they return must be verified.
import { type Cache } from "../../src/cache/cache.ts";
import { DeviceError } from "../../src/errors.ts";
import { blockBytes } from "../../src/units.ts";
import { assert, assertEquals, assertRejects } from "../assert.ts";
import { failing, filled, readBlock, slotRange, turn, World, writeBlocks } from "./fault_devices.ts";

/** What a read by a call gives: its bytes, "refused" when it was not begun, "failed" when it could not be had. */
function readSoon(cache: Cache, offset: number, length: number): Promise<Uint8Array | "refused" | "failed"> {
  return new Promise((resolve) => {
    const readEnded = (tag: number, memory: Uint8Array, at: number) => {
      assertEquals(tag, 77);
      resolve(at < 0 ? "failed" : memory.slice(at, at + length));
    };
    if (!cache.readSoon(offset, length, { readEnded }, 77)) resolve("refused");
  });
}

async function valueSoon(cache: Cache, block: number): Promise<number | string | undefined> {
  const bytes = await readSoon(cache, block * blockBytes, blockBytes);
  if (typeof bytes === "string") return bytes;
  assert(bytes.every((byte) => byte === bytes[0]), "one value");
  return bytes[0];
}

/** A cache whose log holds blocks 0 to 9 as 100 + block, of which RAM knows nothing; block 50 of the backing is 7. */
async function reopened(): Promise<{ world: World; cache: Cache }> {
  const world = await World.make();
  world.cache.byEvents = world.backing.byEvents = true;
  world.backing.bytes.fill(7, 50 * blockBytes, 51 * blockBytes);
  const first = await world.open();
  await writeBlocks(first, 0, 10, (block) => 100 + block);
  await world.drive(first.close());
  return { world, cache: await world.open() };
}

Deno.test("Cache.readSoon: reads blocks, and parts of them, from the log and from the backing", async () => {
  const { world, cache } = await reopened();
  assertEquals(await valueSoon(cache, 3), 103);
  assertEquals(await valueSoon(cache, 50), 7);
  assertEquals(await readSoon(cache, 3 * blockBytes + 1, 2), new Uint8Array([103, 103]));
  world.backing.bytes[51 * blockBytes - 1] = 9;
  assertEquals(await readSoon(cache, 51 * blockBytes - 2, 2), new Uint8Array([7, 9]));
  const { blocks, requests } = cache.status();
  assertEquals([blocks.readHit, blocks.readMiss, requests.read], [2, 2, 4]);
  await world.drive(cache.close());
});

Deno.test("Cache.readSoon: reads runs, of the log or of the backing", async () => {
  const { world, cache } = await reopened();
  const run = await readSoon(cache, 2 * blockBytes + 5, 4 * blockBytes - 10);
  assert(typeof run !== "string");
  assertEquals([...new Set(run)], [102, 103, 104, 105]);
  assertEquals(run.length, 4 * blockBytes - 10);
  assertEquals(run.filter((byte) => byte === 102).length, blockBytes - 5);
  world.backing.bytes.fill(8, 51 * blockBytes, 52 * blockBytes);
  assertEquals(await readSoon(cache, 51 * blockBytes - 1, 3), new Uint8Array([7, 8, 8]));
  const long = await readSoon(cache, 50 * blockBytes, 65 * blockBytes);
  assertEquals(long, world.backing.bytes.slice(50 * blockBytes, 115 * blockBytes));
  const many = await Promise.all(
    Array.from({ length: 40 }, () => readSoon(cache, blockBytes, 2 * blockBytes)),
  );
  assertEquals(many.filter((each) => each === "refused").length, 8, "more than there is room for");
  world.cache.flip(slotRange(1 + 4).offset + 100);
  assertEquals(await readSoon(cache, 2 * blockBytes, 4 * blockBytes), "failed");
  await world.drive(cache.close());
});

Deno.test("Cache.readSoon: leaves to read what is in RAM, zero, merged, across blocks or outside", async () => {
  const { world, cache } = await reopened();
  await cache.write(20 * blockBytes, filled(1));
  assertEquals(await valueSoon(cache, 20), "refused");
  await cache.trim(4 * blockBytes, blockBytes);
  assertEquals(await valueSoon(cache, 4), "refused");
  // The log has them one behind the other, but for block 4; the last one is in both.
  assertEquals(await readSoon(cache, 3 * blockBytes, 2 * blockBytes), "refused");
  assertEquals(await readSoon(cache, 9 * blockBytes, 2 * blockBytes), "refused");
  assertEquals(await readSoon(cache, 60 * blockBytes, 66 * blockBytes), "refused", "too long");
  assertEquals(await readSoon(cache, cache.sizeBytes - 1, 2), "refused");
  assertEquals(await readSoon(cache, -1, 1), "refused");
  assertEquals(await readSoon(cache, NaN, 1), "refused");
  assertEquals(await readSoon(cache, 0, 0), "refused");
  await cache.write(30 * blockBytes + 512, filled(1, 512));
  await world.drive(cache.close());
  assertEquals(await valueSoon(cache, 3), "refused");
  const third = await world.open();
  assertEquals(await valueSoon(third, 30), "refused", "the backing has the other sectors");
  assertEquals(await readSoon(third, 30 * blockBytes + 600, 3), new Uint8Array([1, 1, 1]));
  await world.drive(third.close());
});

Deno.test("Cache.readSoon: what does not match its checksum is not returned, and read says why", async () => {
  const { world, cache } = await reopened();
  // Slot 0 is the first record's header.
  world.cache.flip(slotRange(1 + 3).offset + 100);
  assertEquals(await valueSoon(cache, 3), "failed");
  assertEquals(await readBlock(cache, 3), "EIO");
  assertEquals(
    await valueSoon(cache, 2),
    "refused",
    "with lost blocks about, every read takes the careful way",
  );
  assertEquals(await readBlock(cache, 2), 102);
  await world.drive(cache.close());
});

Deno.test("Cache.readSoon: a device that fails is asked again by read, which rejects", async () => {
  const { world, cache } = await reopened();
  world.cache.onRead = failing(slotRange(1 + 3));
  assertEquals(await valueSoon(cache, 3), "failed");
  await assertRejects(() => cache.read(3 * blockBytes, filled(0)), DeviceError);
  world.cache.heal();
  assertEquals(await valueSoon(cache, 3), 103);
  await world.drive(cache.close());
});

Deno.test("Cache.readSoon: its segment is not overwritten before it has ended", async () => {
  const { world, cache } = await reopened();
  let letGo = () => {};
  world.cache.onRead = (offset) => {
    if (offset !== slotRange(1 + 3).offset) return;
    return new Promise((resolve) => letGo = resolve);
  };
  const reading = valueSoon(cache, 3);
  let done = 0;
  // Several times what the log holds: its tail has to pass the segment, and its head to come there.
  const writing = (async () => {
    for (; done < 1000; done++) await cache.write((100 + done % 300) * blockBytes, filled(1));
  })();
  for (let i = 0; i < 40; i++) await world.pass(50);
  assert(done < 1000, "the writer waits for the reader");
  letGo();
  assertEquals(await reading, 103);
  await world.drive(writing);
  assertEquals(done, 1000);
  world.cache.heal();
  await world.drive(cache.close());
});

Deno.test("Cache.close: waits for reads that end in a call", async () => {
  const { world, cache } = await reopened();
  let letGo = () => {};
  world.backing.onRead = () => new Promise((resolve) => letGo = resolve);
  const reading = valueSoon(cache, 50);
  world.backing.onRead = () => {};
  let closed = false;
  const closing = cache.close().then(() => closed = true);
  for (let i = 0; i < 10; i++) await world.pass(50);
  assert(!closed);
  letGo();
  assertEquals(await reading, 7);
  await world.drive(closing);
});

Deno.test("LogWriter: a log write without a promise that fails ends the log", async () => {
  const { world, cache } = await reopened();
  world.cache.onWrite = failing(slotRange(0, 256));
  await cache.write(0, filled(5));
  await assertRejects(() => cache.flush(), DeviceError, "errno 5");
  await assertRejects(() => cache.write(0, filled(6)), DeviceError);
  assertEquals(await readBlock(cache, 0), 5);
  await assertRejects(() => world.drive(cache.close()), DeviceError);
});

Deno.test("Cache.lendBuffer: what lies in a lent buffer is written and read like anything else", async () => {
  const { world, cache } = await reopened();
  const [a, b] = [cache.lendBuffer()!, cache.lendBuffer()!];
  assert(a.buffer === b.buffer && a.byteOffset !== b.byteOffset);
  a.fill(42);
  assert(cache.writeNow(60 * blockBytes, a, 10, 8192));
  assert(cache.readNow(60 * blockBytes + 6, b, 1, 5999));
  assertEquals(b.subarray(1, 6000), filled(42, 5999));
  cache.returnBuffer(a);
  assert(cache.lendBuffer() === a);
  await turn();
  let count = 2;
  while (cache.lendBuffer() !== null) count++;
  assertEquals(count, 192);
  await world.drive(cache.close());
});
