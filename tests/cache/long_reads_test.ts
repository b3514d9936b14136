// Why: these reads bypass `reads.ts` and mix RAM, log and backing; what they return must be right, verified, or refused.
import { type Cache } from "../../src/cache/cache.ts";
import { blockBytes } from "../../src/units.ts";
import { assert, assertEquals } from "../assert.ts";
import { failing, filled, slotRange, World, writeBlocks } from "./fault_devices.ts";

/** What a read into lent memory gives: its bytes, "refused" when it was not begun, "failed" when it could not be had. */
function readInto(
  cache: Cache,
  offset: number,
  length: number,
  at = 3,
): Promise<Uint8Array | "refused" | "failed"> {
  return new Promise((resolve) => {
    const lent = cache.lendBuffer()!;
    const end = (result: Uint8Array | "refused" | "failed") => {
      cache.returnBuffer(lent);
      resolve(result);
    };
    const readEnded = (tag: number, memory: Uint8Array, from: number) => {
      assertEquals(tag, 78);
      assert(memory === lent && (from === at || from === -1));
      end(from < 0 ? "failed" : lent.slice(at, at + length));
    };
    if (!cache.readInto(offset, lent, at, length, { readEnded }, 78)) end("refused");
  });
}

/** One value a block; whatever else it was. */
async function values(cache: Cache, first: number, count: number): Promise<number[] | string> {
  const bytes = await readInto(cache, first * blockBytes, count * blockBytes);
  if (typeof bytes === "string") return bytes;
  assertEquals(bytes.length, count * blockBytes);
  return Array.from({ length: count }, (_, i) => {
    const block = bytes.subarray(i * blockBytes, (i + 1) * blockBytes);
    assert(block.every((byte) => byte === block[0]), "one value");
    return block[0]!;
  });
}

/** A cache whose log holds blocks 0 to 9 as 100 + block, of which RAM knows nothing; the backing has 7 from block 8 on. */
async function reopened(): Promise<{ world: World; cache: Cache }> {
  const world = await World.make();
  world.cache.byEvents = world.backing.byEvents = true;
  world.backing.bytes.fill(7, 8 * blockBytes, 90 * blockBytes);
  const first = await world.open();
  await writeBlocks(first, 0, 10, (block) => 100 + block);
  await world.drive(first.close());
  return { world, cache: await world.open() };
}

Deno.test("Cache.readInto: brings together what RAM, log and backing hold, one transfer for each run", async () => {
  const { world, cache } = await reopened();
  assertEquals(await values(cache, 20, 30), Array(30).fill(7));
  await writeBlocks(cache, 3, 2, () => 1);
  await writeBlocks(cache, 12, 1, () => 2);
  let reads = 0;
  world.cache.onRead = world.backing.onRead = () => void reads++;
  assertEquals(await values(cache, 0, 16), [
    ...[100, 101, 102, 1, 1, 105, 106, 107, 108, 109],
    ...[7, 7, 2, 7, 7, 7],
  ]);
  assertEquals(reads, 4, "two runs of the log, two of the backing");
  const { requests, blocks } = cache.status();
  assertEquals([requests.read, blocks.readMiss], [2, 30 + 5]);
  await world.drive(cache.close());
});

Deno.test("Cache.readInto: takes whole sectors of the backing, and of the log whole blocks", async () => {
  const { world, cache } = await reopened();
  world.backing.bytes.fill(9, 20 * blockBytes + 512, 20 * blockBytes + 1024);
  const bytes = await readInto(cache, 20 * blockBytes + 512, 2 * blockBytes);
  assertEquals(bytes, world.backing.bytes.slice(20 * blockBytes + 512, 22 * blockBytes + 512));
  assertEquals(
    await readInto(cache, 9 * blockBytes + 512, 2 * blockBytes),
    "refused",
    "part of a block of the log",
  );
  assertEquals(await readInto(cache, 20 * blockBytes + 1, 512), "refused");
  assertEquals(await readInto(cache, 20 * blockBytes, 513), "refused");
  await world.drive(cache.close());
});

Deno.test("Cache.readInto: leaves to read what is only in RAM, zero, partial, outside or in foreign memory", async () => {
  const { world, cache } = await reopened();
  await cache.write(20 * blockBytes, filled(1));
  assertEquals(await values(cache, 20, 1), "refused");
  await cache.trim(30 * blockBytes, blockBytes);
  assertEquals(await values(cache, 30, 1), "refused");
  assertEquals(await values(cache, 28, 3), "refused", "the run before the hole was not begun");
  await cache.write(40 * blockBytes + 512, filled(1, 512));
  assertEquals(await values(cache, 40, 1), "refused");
  // What was begun before has to end first.
  assertEquals(await values(cache, 8, 33), "failed");
  assertEquals(await readInto(cache, -512, 1024), "refused");
  assertEquals(await readInto(cache, NaN, 512), "refused");
  assertEquals(await readInto(cache, cache.sizeBytes - 512, 1024), "refused");
  assertEquals(await readInto(cache, 0, 0), "refused");
  const foreign = new Uint8Array(blockBytes);
  assert(!cache.readInto(0, foreign, 0, blockBytes, { readEnded: () => {} }, 78));
  await world.drive(cache.close());
});

Deno.test("Cache.readInto: what does not match its checksum, or cannot be read, is not returned", async () => {
  const { world, cache } = await reopened();
  world.cache.onRead = failing(slotRange(1 + 5));
  assertEquals(await values(cache, 3, 20), "failed");
  world.cache.heal();
  assertEquals(await values(cache, 3, 4), [103, 104, 105, 106]);
  // Slot 0 is the first record's header.
  world.cache.flip(slotRange(1 + 4).offset + 4095);
  assertEquals(await values(cache, 3, 20), "failed");
  assertEquals(await values(cache, 5, 4), [105, 106, 107, 108]);
  await world.drive(cache.close());
});

Deno.test("Cache.readInto: more at once than there is room for are refused, and its segment waits for it", async () => {
  const { world, cache } = await reopened();
  let letGo = () => {};
  const held = new Promise<void>((resolve) => letGo = resolve);
  world.cache.onRead = (offset) => offset === slotRange(1 + 3).offset ? held : undefined;
  const reading = values(cache, 3, 2);
  let done = 0;
  // Several times what the log holds: its tail has to pass the segment, and its head to come there.
  const writing = (async () => {
    for (; done < 1000; done++) await cache.write((100 + done % 300) * blockBytes, filled(1));
  })();
  for (let i = 0; i < 40; i++) await world.pass(50);
  assert(done < 1000, "the writer waits for the reader");
  letGo();
  assertEquals(await reading, [103, 104]);
  await world.drive(writing);
  world.cache.heal();
  const lent = cache.lendBuffer()!;
  let ended = 0;
  let begun = 0;
  const readEnded = () => void ended++;
  while (cache.readInto(20 * blockBytes, lent, 0, blockBytes, { readEnded }, 0)) begun++;
  assertEquals(begun, 256);
  await world.drive(cache.close());
  assertEquals(ended, 256);
});
