// Why: a request with two partial edges lost old sectors of its last block when one of its own puts took the RAM buffer
// that held them (found by fio with sizes from 512 B).
import { assertEquals } from "../assert.ts";
import { formatCache, MemoryDevice, openCache } from "../../mod.ts";

Deno.test("Cache.writeNow: partial edges keep their old sectors when the request itself recycles their RAM", async () => {
  // A lap over the volume fills between 15 and 16 of the 16 segments that RAM holds, so that the version which a request
  // merges with lies in the very buffer that its next segment takes.
  const size = 1970 * 4096;
  const [fast, slow] = [new MemoryDevice(64 * 1024 * 1024), new MemoryDevice(size)];
  await formatCache({ cache: fast, backing: slow });
  const cache = await openCache({ cache: fast, backing: slow, tunables: { writeback: "off" } });
  const model = new Uint8Array(size);
  // Each request starts and ends inside a block that the one before, and the one of the lap before, wrote in part.
  const length = 24 * 4096;
  let stamp = 0;
  for (const shift of [512, 2560, 3584, 1024, 2048]) {
    for (let offset = shift; offset + length <= size; offset += length) {
      const bytes = new Uint8Array(length).fill(++stamp);
      if (!cache.writeNow(offset, bytes, 0, length)) await cache.write(offset, bytes);
      model.set(bytes, offset);
      // Log writes end, so that the next segment's buffer is free and the request is done at once.
      await new Promise((resolve) => setTimeout(resolve, 0));
    }
  }
  const seen = new Uint8Array(size);
  await cache.read(0, seen);
  await cache.close();
  let wrong = 0;
  for (let i = 0; i < size; i++) if (seen[i] !== model[i]) wrong++;
  assertEquals(wrong, 0);
});
