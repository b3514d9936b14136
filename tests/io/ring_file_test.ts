import { DeviceError } from "../../src/errors.ts";
import { openReactor } from "../../src/io/ring/mod.ts";
import { openRingFile, RingFile } from "../../src/io/ring/file.ts";
import { addressOf, alignedBytes, bounceBytesMax } from "../../src/io/ring/memory.ts";
import { ringIo } from "../../src/io/ring/mod.ts";
import { portableIo } from "../../src/io/portable.ts";
import { SeededRandom } from "../../src/random.ts";
import { kib, mib } from "../../src/units.ts";
import { assert, assertEquals, assertRejects } from "../assert.ts";
import { withDirectory } from "../device/temp.ts";
import { skipRingTests as ignore, untilRingCloses } from "./ring.ts";

const test = (name: string, body: (directory: string) => Promise<void>) =>
  Deno.test({ name, ignore, fn: untilRingCloses(() => withDirectory(body)) });

test("RingFile: reads to the end and not beyond, and writes beyond it", async (directory) => {
  const file = await ringIo.openFile(`${directory}/file`, { write: true, create: true });
  assertEquals(await file.write(1000, new Uint8Array(24).fill(1)), 24);
  assertEquals(await file.size(), 1024);
  const bytes = new Uint8Array(100).fill(9);
  assertEquals(await file.read(1000, bytes), 24);
  assertEquals(await file.read(1024, bytes), 0);
  assertEquals(await file.read(5000, bytes), 0);
  assertEquals(await file.read(0, bytes), 100);
  assert(bytes.every((byte) => byte === 0));
  await file.sync();
  assertEquals((await file.stat()).sizeBytes, 1024);
  await file.close();
});

test("RingFile: offsets beyond 4 GiB are exact", async (directory) => {
  const file = await ringIo.openFile(`${directory}/sparse`, { write: true, create: true });
  const offset = 5 * 1024 ** 3 + 4096;
  await file.write(offset, new Uint8Array(512).fill(7));
  assertEquals(await file.size(), offset + 512);
  const bytes = new Uint8Array(512);
  assertEquals(await file.read(offset, bytes), 512);
  assertEquals(bytes[511], 7);
  assertEquals(await file.read(4096, bytes), 512);
  assertEquals(bytes[511], 0);
  await file.close();
});

for (const direct of [false, true]) {
  test(
    `RingFile: ${direct ? "direct" : "buffered"}, any offset, size and memory give the same as a model`,
    async (directory) => {
      const seed = 4242;
      const random = new SeededRandom(seed);
      const size = 2 * mib;
      const model = new Uint8Array(size);
      await Deno.writeFile(`${directory}/file`, model);
      const file = await ringIo.openFile(`${directory}/file`, { write: true, direct });
      const aligned = alignedBytes(256 * kib);
      const anywhere = new Uint8Array(256 * kib + 1).subarray(1);
      for (let step = 0; step < 300; step++) {
        const unit = random.chance(0.5) ? 4096 : 1;
        const offset = random.below(size / unit) * unit;
        const length = Math.min((1 + random.below(Math.floor(128 * kib / unit))) * unit, size - offset);
        const bytes = (random.chance(0.5) ? aligned : anywhere).subarray(0, length);
        if (random.chance(0.5)) {
          bytes.fill(step);
          assertEquals(await file.write(offset, bytes), length, `seed ${seed}, step ${step}`);
          model.set(bytes, offset);
        } else {
          bytes.fill(0xee);
          assertEquals(await file.read(offset, bytes), length, `seed ${seed}, step ${step}`);
          assert(
            bytes.every((byte, i) => byte === model[offset + i]),
            `seed ${seed}, step ${step}: what was read is what was written`,
          );
        }
      }
      await file.sync();
      await file.close();
      assertEquals(await Deno.readFile(`${directory}/file`), model);
    },
  );
}

test("RingFile: direct writes bypass the page cache where the filesystem lets them", async (directory) => {
  await Deno.writeFile(`${directory}/file`, new Uint8Array(mib));
  const reactor = openReactor({ dedicated: false });
  const file = openRingFile(reactor, `${directory}/file`, { write: true, direct: true });
  if (!file.isDirect) console.warn(`no O_DIRECT on the filesystem of ${directory}`);
  // Longer than a bounce buffer, and not aligned in memory: cut short, which the caller goes on from.
  const bytes = new Uint8Array(bounceBytesMax + 8 * kib + 1).subarray(1);
  const count = await file.write(0, bytes);
  assertEquals(count, file.isDirect ? bounceBytesMax : bytes.length);
  await file.close();
});

test("RingFile: many calls at once, all of them right", async (directory) => {
  const file = await ringIo.openFile(`${directory}/file`, { write: true, create: true });
  const count = 3000;
  await Promise.all(
    Array.from({ length: count }, (_, i) => file.write(i * 512, new Uint8Array(512).fill(i % 251))),
  );
  const reads = await Promise.all(Array.from({ length: count }, async (_, i) => {
    const bytes = new Uint8Array(512);
    return await file.read(i * 512, bytes) === 512 && bytes.every((byte) => byte === i % 251);
  }));
  assert(reads.every((right) => right));
  await file.close();
});

test("RingFile: tells the platform's errors by name", async (directory) => {
  const coded = async (action: () => Promise<unknown>) => {
    const error = await assertRejects(action, Error) as Error & { code?: string };
    return error.code;
  };
  assertEquals(await coded(() => ringIo.openFile(`${directory}/none`, { write: false })), "ENOENT");
  await Deno.writeFile(`${directory}/file`, new Uint8Array(512));
  assertEquals(
    await coded(() => ringIo.openFile(`${directory}/file`, { write: true, create: true })),
    "EEXIST",
  );
  const readOnly = await ringIo.openFile(`${directory}/file`, { write: false });
  assertEquals(await coded(() => readOnly.write(0, new Uint8Array(512))), "EBADF");
  await readOnly.close();
  const full = await ringIo.openFile("/dev/full", { write: true });
  assertEquals(await coded(() => full.write(0, new Uint8Array(512))), "ENOSPC");
  await full.close();
  const folder = await ringIo.openFile(directory, { write: false });
  assertEquals(await coded(() => folder.read(0, new Uint8Array(512))), "EISDIR");
  await folder.close();
});

test("RingFile.close: waits for the calls under way; later ones get ESHUTDOWN", async (directory) => {
  const file = await ringIo.openFile(`${directory}/file`, { write: true, create: true });
  const calls = Array.from({ length: 50 }, (_, i) => file.write(i * 4096, new Uint8Array(4096).fill(i)));
  const closing = file.close();
  await Promise.all(calls);
  await closing;
  await file.close();
  const error = await assertRejects(() => file.read(0, new Uint8Array(1)), DeviceError);
  assertEquals(error.code, "ESHUTDOWN");
});

test("RingFile.tryLock: is flock's, seen by the portable backend", async (directory) => {
  const path = `${directory}/file`;
  const one = await ringIo.openFile(path, { write: true, create: true });
  const two = await portableIo.openFile(path, { write: true });
  assertEquals(await one.tryLock(true), true);
  assertEquals(await two.tryLock(false), false);
  await one.close();
  assertEquals(await two.tryLock(true), true);
  await two.close();
});

test("RingFile: allocates, zeroes, and tells the same facts as the portable backend", async (directory) => {
  const path = `${directory}/file`;
  const file = await ringIo.openFile(path, { write: true, create: true });
  assert(file instanceof RingFile && await file.claim());
  if (await file.allocate(0, mib)) {
    const { allocatedBytes, sizeBytes } = await file.stat();
    assertEquals(sizeBytes, mib);
    assert(allocatedBytes! >= mib);
  }
  await file.write(0, new Uint8Array(mib).fill(5));
  for (const keepAllocated of [true, false]) {
    if (!await file.zeroFast(64 * kib, 128 * kib, keepAllocated)) continue;
    const bytes = new Uint8Array(128 * kib).fill(1);
    await file.read(64 * kib, bytes);
    assert(bytes.every((byte) => byte === 0));
  }
  await file.sync();
  const facts = await file.stat();
  assertEquals(facts, await ringIo.stat(path));
  const portable = await portableIo.openFile(path, { write: false });
  assertEquals(facts, await portable.stat());
  await portable.close();
  await file.close();
  assertEquals(await ringIo.syncName(path), true);
  assertEquals(await ringIo.syncName(`${directory}/none/file`), false);
  await ringIo.remove(path);
  assertEquals(await ringIo.stat(path), undefined);
});

Deno.test("addressOf: of parts of one buffer differ by their distance, also for very short arrays", {
  ignore,
}, () => {
  const short = new Uint8Array(8);
  const address = addressOf(short);
  assertEquals(addressOf(short.subarray(3)) - address, 3);
  assertEquals(addressOf(short), address);
  assertEquals(addressOf(new Uint8Array(0)), 0);
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 2 });
  assertEquals(addressOf(new Uint8Array(memory.buffer as ArrayBuffer)) % 4096, 0);
  for (const length of [1, 512, 5000]) {
    const aligned = alignedBytes(length);
    assertEquals([addressOf(aligned) % 4096, aligned.length], [0, length]);
  }
});

/** Starts a transfer; resolves to its end, or to "refused". */
function transfer(
  file: RingFile,
  way: "startRead" | "startWrite",
  ...span: [offset: number, memory: Uint8Array<ArrayBuffer>, at: number, length: number]
): Promise<number | "refused"> {
  return new Promise((resolve) => {
    const transferred = (result: number, tag: number) => {
      assertEquals(tag, 5);
      resolve(result);
      return true;
    };
    if (!file[way](...span, { transferred }, 5)) resolve("refused");
  });
}

for (const direct of [false, true]) {
  test(`RingFile.startRead, startWrite: move bytes without promises (direct ${direct})`, async (directory) => {
    await Deno.writeFile(`${directory}/file`, new Uint8Array(64 * kib));
    const file = await ringIo.openFile(`${directory}/file`, { write: true, direct }) as RingFile;
    const memory = alignedBytes(64 * kib);
    for (let i = 0; i < memory.length; i++) memory[i] = i * 13 >>> 3;
    assertEquals(await transfer(file, "startWrite", 8192, memory, 4096, 12288), 12288);
    // Aligned, but for its memory: `write` has a buffer for that.
    const refused = file.isDirect ? "refused" : 4096;
    assertEquals(await transfer(file, "startWrite", 0, memory, 1, 4096), refused);
    assertEquals(await transfer(file, "startWrite", 40_001, memory, 3, 1000), 1000);
    const into = new Uint8Array(20_000);
    assertEquals(await transfer(file, "startRead", 8192, into, 7, 12288), 12288);
    assertEquals(into.subarray(7, 7 + 12288), memory.subarray(4096, 4096 + 12288));
    assertEquals(await transfer(file, "startRead", 40_001, into, 0, 1000), 1000);
    assertEquals(into.subarray(0, 1000), memory.subarray(3, 1003));
    // Fewer at the end of the file, none behind it.
    assertEquals(await transfer(file, "startRead", 64 * kib - 10, into, 0, 100), 10);
    assertEquals(await transfer(file, "startRead", 64 * kib, into, 0, 100), 0);
    assertEquals(await transfer(file, "startRead", 0, into, 0, 0), "refused");
    const many = Array.from(
      { length: 3000 },
      (_, i) => transfer(file, "startRead", 8192 + i, into, i, 1),
    );
    let closed = false;
    const closing = file.close().then(() => closed = true);
    assertEquals(await transfer(file, "startRead", 0, into, 0, 1), "refused");
    assertEquals(new Set(await Promise.all(many)), new Set([1]));
    assertEquals(into.subarray(0, 3000), memory.subarray(4096, 7096));
    await closing;
    assert(closed);
  });
}

test("RingFile.startWrite: tells an errno, of which transferError makes the error", async (directory) => {
  await Deno.writeFile(`${directory}/file`, new Uint8Array(4096));
  const file = await ringIo.openFile(`${directory}/file`, { write: false }) as RingFile;
  assertEquals(await transfer(file, "startWrite", 0, alignedBytes(4096), 0, 4096), -9);
  const error = file.transferError("write", -9);
  assertEquals((error as { code?: unknown }).code, "EBADF");
  await file.close();
});
