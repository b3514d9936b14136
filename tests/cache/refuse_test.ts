/**
 * What is refused for safety: the error's class and exit code, what its sentence names, and that neither device was
 * changed by a single byte.
 *
 * @module
 */

import {
  type CacheOptions,
  checkCache,
  formatCache,
  inspectCache,
  MemoryDevice,
  openCache,
  RefusedError,
  UsageError,
} from "../../mod.ts";
import { crcWithout } from "../../src/log/codec.ts";
import { superblockField as field, superblockOffsets } from "../../src/log/layout.ts";
import { blockBytes, kib, mib } from "../../src/units.ts";
import { assert, assertEquals, assertRejects, assertStringIncludes } from "../assert.ts";
import { ImageDevice } from "../crash/image_device.ts";
import { withDirectory } from "../device/temp.ts";

const cacheBytes = 8 * mib;
const backingBytes = 4 * mib;
const content = new Uint8Array(3 * blockBytes).fill(7);

/** A pair with something dirty in the log, cleanly closed. */
async function makePair(name: string): Promise<{ cache: ImageDevice; backing: ImageDevice }> {
  const pair = {
    cache: new ImageDevice(`${name}-cache`, cacheBytes),
    backing: new ImageDevice(`${name}-backing`, backingBytes),
  };
  await formatCache(pair);
  const open = await openCache({ ...pair, tunables: { writeback: "off" } });
  await open.write(mib, content);
  await open.close();
  return pair;
}

/** Asserts that `action` is refused with a sentence that holds all of `essentials`, and changes none of `devices`. */
async function assertRefused(
  devices: ImageDevice[],
  essentials: (string | number)[],
  action: () => Promise<unknown>,
): Promise<void> {
  const before = devices.map(({ bytes }) => bytes.slice());
  const error = await assertRejects(action, RefusedError);
  assertEquals(error.exitCode, 3);
  for (const essential of essentials) assertStringIncludes(error.message, `${essential}`);
  assert(!error.message.includes("\n") && !error.message.includes("undefined"), error.message);
  devices.forEach(({ bytes, name }, i) => assertEquals(bytes, before[i], `${name} was changed`));
}

const refusedPair = (
  pair: CacheOptions & { cache: ImageDevice; backing: ImageDevice },
  ...essentials: (string | number)[]
) => assertRefused([pair.cache, pair.backing], essentials, () => openCache(pair));

/** Changes a field of a superblock copy and makes its checksum right again. */
function patch(cache: ImageDevice, copy: number, change: (view: DataView) => void): void {
  const offset = superblockOffsets[copy]!;
  const block = cache.bytes.subarray(offset, offset + blockBytes);
  const view = new DataView(block.buffer, block.byteOffset, block.length);
  change(view);
  view.setUint32(field.crc, crcWithout(block, field.crc), true);
}

async function assertContent(pair: CacheOptions): Promise<void> {
  const open = await openCache(pair);
  const bytes = new Uint8Array(content.length);
  await open.read(mib, bytes);
  await open.close();
  assertEquals(bytes, content);
}

Deno.test("openCache: refuses a backing that is not its own", async () => {
  const [one, other] = [await makePair("one"), await makePair("other")];
  for (const readOnly of [false, true]) {
    const wrong = { cache: one.cache, backing: other.backing, readOnly };
    await refusedPair(
      wrong,
      "Cannot pair one-cache with other-backing",
      "one-backing",
      "--accept-changed-backing",
    );
  }
  await assertRefused(
    [one.cache, other.backing],
    ["one-backing"],
    () => checkCache({ cache: one.cache, backing: other.backing }),
  );
  await assertContent({ cache: one.cache, backing: other.backing, acceptChangedBacking: true });
});

Deno.test("openCache: refuses a wrong backing after a crash, too", async () => {
  const [one, other] = [await makePair("one"), await makePair("other")];
  const open = await openCache(one);
  const crashed = { cache: one.cache.copy(), backing: other.backing };
  await open.close();
  await refusedPair(crashed, "one-backing", "--accept-changed-backing");
});

Deno.test("openCache: refuses a backing whose size changed, whatever is accepted", async () => {
  const { cache, backing } = await makePair("resized");
  for (const size of [backingBytes - 512, backingBytes + blockBytes]) {
    const resized = new ImageDevice(backing.name, size);
    for (const acceptChangedBacking of [false, true]) {
      await refusedPair(
        { cache, backing: resized, acceptChangedBacking },
        backingBytes,
        size,
        "restore its size",
      );
    }
  }
});

Deno.test("openCache: refuses a cache device whose size changed", async () => {
  const { cache, backing } = await makePair("resized");
  for (const size of [cacheBytes - 512, cacheBytes + mib]) {
    const resized = new ImageDevice(cache.name, size);
    resized.bytes.set(cache.bytes.subarray(0, size));
    await refusedPair({ cache: resized, backing }, cacheBytes, size, "restore its size");
  }
  const tiny = new ImageDevice(cache.name, cache.bytes.slice(0, 64 * kib));
  await refusedPair({ cache: tiny, backing }, 64 * kib, "too few");
});

Deno.test("openCache: refuses features and versions that it does not know, in either copy", async () => {
  for (const copies of [[0, 1], [0], [1]]) {
    const { cache, backing } = await makePair("features");
    for (const copy of copies) patch(cache, copy, (view) => view.setUint32(field.incompatible, 0x40, true));
    await refusedPair({ cache, backing }, "needs features", "00000040", "newer");
  }
  const { cache, backing } = await makePair("version");
  for (const copy of [0, 1]) patch(cache, copy, (view) => view.setUint32(field.version, 2, true));
  await refusedPair({ cache, backing }, "format version 2", "reads version 1");
});

Deno.test("openCache: opens with features that it may ignore", async () => {
  const pair = await makePair("compatible");
  for (const copy of [0, 1]) patch(pair.cache, copy, (view) => view.setUint32(field.compatible, 0x40, true));
  await assertContent(pair);
});

Deno.test("openCache: refuses a layout that cannot be, though its checksum is right", async () => {
  const { cache, backing } = await makePair("layout");
  for (const copy of [0, 1]) patch(cache, copy, (view) => view.setUint32(field.segmentBlocks, 1000, true));
  await refusedPair({ cache, backing }, "both superblocks", "layout");
});

Deno.test("openCache: one torn superblock is told and does not matter", async () => {
  for (const copy of [0, 1]) {
    const pair = await makePair("torn");
    pair.cache.bytes.fill(0, superblockOffsets[copy]! + 512, superblockOffsets[copy]! + blockBytes);
    const warnings: string[] = [];
    await assertContent({ ...pair, warn: (message) => warnings.push(message) });
    assertEquals(warnings.length, 1);
    assertStringIncludes(warnings[0]!, `superblock ${copy}`);
    // Opening has mended it.
    assertEquals((await checkCache(pair)).problems, []);
  }
});

Deno.test("openCache: refuses when both superblocks are torn", async () => {
  const { cache, backing } = await makePair("torn");
  for (const offset of superblockOffsets) cache.flip(offset + field.tailSlot, 3);
  await refusedPair(
    { cache, backing },
    "both superblocks",
    "superblock 0",
    "superblock 1",
    "nothing was changed",
  );
  await assertRefused([cache], ["both superblocks"], () => checkCache({ cache }));
  await assertRefused([cache], ["both superblocks"], () => inspectCache({ cache }));
});

Deno.test("openCache: refuses what is no cache", async () => {
  const { backing } = await makePair("none");
  const cache = new ImageDevice("empty", cacheBytes);
  await refusedPair({ cache, backing }, "empty", "not an nbdboost cache", "nbdboost format");
});

Deno.test("openCache: refuses a backing whose content changed since a clean close", async () => {
  const { cache, backing } = await makePair("content");
  const changed = backing.copy();
  // Every block, because only some are sampled.
  for (let at = 0; at < backingBytes; at += blockBytes) changed.bytes[at + 99]! ^= 1;
  await refusedPair({ cache, backing: changed }, "content of its block", "--accept-changed-backing");
  await assertContent({ cache, backing: changed, acceptChangedBacking: true });
});

/** The marks of others, as their own documents give them. */
const marks: [what: string, offset: number, mark: string | number[]][] = [
  ["a dm-writeboost cache", 0, [0x74, 0x73, 0x42, 0x57]],
  ["a qcow2 image", 0, "QFI\xfb"],
  ["a LUKS volume", 0, "LUKS\xba\xbe"],
  ["an XFS filesystem", 0, "XFSB"],
  ["an ext2/3/4 filesystem", 1024 + 56, [0x53, 0xef]],
  ["a btrfs filesystem", 65536 + 64, "_BHRfS_M"],
  ["a swap area", 4096 - 10, "SWAPSPACE2"],
  ["an LVM physical volume", 512, "LABELONE"],
  ["a member of a RAID array", 4096, [0xfc, 0x4e, 0x2b, 0xa9]],
  ["a member of a RAID array", 0, [0xfc, 0x4e, 0x2b, 0xa9]],
  ["a bcache device", 4096 + 24, [
    ...[0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca],
    ...[0x82, 0x65, 0xf5, 0x7f, 0x48, 0xba, 0x6d, 0x81],
  ]],
  ["an NTFS filesystem", 3, "NTFS    "],
  ["an exFAT filesystem", 3, "EXFAT   "],
  ["an F2FS filesystem", 1024, [0x10, 0x20, 0xf5, 0xf2]],
  ["an ISO 9660 image", 32768 + 1, "CD001"],
  ["a GPT partition table", 512, "EFI PART"],
  ["a partition table or boot sector", 510, [0x55, 0xaa]],
  ["data of unknown kind", 0, [1]],
  ["data of unknown kind", 777_777, [1]],
  ["data of unknown kind", mib - 1, [1]],
];

Deno.test("formatCache: refuses what holds the mark of another format, or any data in its first MiB", async () => {
  for (const [what, offset, mark] of marks) {
    const cache = new ImageDevice("precious", cacheBytes);
    const backing = new ImageDevice("backing", backingBytes);
    cache.bytes.set(typeof mark === "string" ? Array.from(mark, (char) => char.charCodeAt(0)) : mark, offset);
    await assertRefused(
      [cache, backing],
      ["precious", what, "--force"],
      () => formatCache({ cache, backing }),
    );
    await formatCache({ cache, backing, force: true });
    await (await openCache({ cache, backing })).close();
  }
});

Deno.test("formatCache: refuses a cache, and one whose first superblock is gone", async () => {
  const { cache, backing } = await makePair("own");
  await assertRefused(
    [cache, backing],
    ["an nbdboost cache", "--force"],
    () => formatCache({ cache, backing }),
  );
  cache.bytes.fill(0, 0, blockBytes);
  await assertRefused(
    [cache, backing],
    ["an nbdboost cache", "--force"],
    () => formatCache({ cache, backing }),
  );
});

Deno.test("formatCache: never writes to the backing", async () => {
  const backing = new ImageDevice("backing", backingBytes);
  backing.bytes.subarray(0, 65536).forEach((_, i, bytes) => bytes[i] = i * 7 + (i >> 8));
  const before = backing.bytes.slice();
  await formatCache({ cache: new ImageDevice("cache", cacheBytes), backing });
  assertEquals([backing.changes, backing.bytes], [0, before]);
});

Deno.test("formatCache, openCache: refuse one device in both places", async () => {
  const device = new ImageDevice("both", cacheBytes);
  await assertRefused([device], ["both"], () => formatCache({ cache: device, backing: device, force: true }));
  const { cache } = await makePair("twice");
  await assertRefused([cache], ["twice-cache"], () => openCache({ cache, backing: cache }));
});

/** A pair of files, cleanly closed. */
async function makeFiles(directory: string): Promise<{ cache: string; backing: string }> {
  const pair = { cache: `${directory}/cache`, backing: `${directory}/backing` };
  await Deno.writeFile(pair.backing, new Uint8Array(backingBytes));
  await formatCache({ ...pair, cacheSize: cacheBytes });
  const open = await openCache({ ...pair, tunables: { writeback: "off" } });
  await open.write(mib, content);
  await open.close();
  return pair;
}

async function assertFilesRefused(
  paths: string[],
  essentials: string[],
  action: () => Promise<unknown>,
): Promise<void> {
  const devices = await Promise.all(
    paths.map(async (path) => new ImageDevice(path, await Deno.readFile(path))),
  );
  await assertRefused([], essentials, action);
  for (const { name, bytes } of devices) {
    assertEquals(await Deno.readFile(name), bytes, `${name} was changed`);
  }
}

Deno.test("openCache: refuses a file whose modification time changed since a clean close", async () => {
  await withDirectory(async (directory) => {
    const pair = await makeFiles(directory);
    await Deno.utime(pair.backing, new Date(), new Date(Date.UTC(2001, 1, 3)));
    await assertFilesRefused(
      [pair.cache, pair.backing],
      ["modification time", "2001-02-03", "--accept-changed-backing"],
      () => openCache(pair),
    );
    await assertContent({ ...pair, acceptChangedBacking: true });
    // From then on it is as it must be.
    await assertContent(pair);
  });
});

Deno.test("openCache: refuses a copy of the backing in its place", async () => {
  await withDirectory(async (directory) => {
    const pair = await makeFiles(directory);
    await Deno.copyFile(pair.backing, `${directory}/copy`);
    await Deno.rename(`${directory}/copy`, pair.backing);
    await assertFilesRefused(
      [pair.cache, pair.backing],
      [pair.backing, "--accept-changed-backing"],
      () => openCache(pair),
    );
  });
});

Deno.test("formatCache, openCache: refuse one file under two names", async () => {
  await withDirectory(async (directory) => {
    const pair = await makeFiles(directory);
    await Deno.symlink(pair.backing, `${directory}/symbolic`);
    await Deno.link(pair.backing, `${directory}/hard`);
    for (const name of ["backing", "symbolic", "hard"]) {
      const cache = `${directory}/${name}`;
      await assertFilesRefused(
        [pair.backing],
        [cache],
        () => formatCache({ cache, backing: pair.backing, force: true }),
      );
    }
    await assertFilesRefused(
      [pair.cache],
      [pair.cache],
      () => openCache({ cache: pair.cache, backing: pair.cache }),
    );
  });
});

Deno.test("openCache: a second opener is refused, a second reader is not", async () => {
  await withDirectory(async (directory) => {
    const pair = await makeFiles(directory);
    // Nothing is written back meanwhile, so that the files stay as they are.
    const open = await openCache({ ...pair, tunables: { writeback: "off" } });
    const essentials = ["in use", pair.cache];
    await assertFilesRefused([pair.cache, pair.backing], essentials, () => openCache(pair));
    await assertFilesRefused(
      [pair.cache, pair.backing],
      essentials,
      () => openCache({ ...pair, readOnly: true }),
    );
    await assertFilesRefused([pair.cache, pair.backing], essentials, () => checkCache(pair));
    await assertFilesRefused([pair.cache, pair.backing], essentials, () => inspectCache(pair));
    await assertFilesRefused(
      [pair.cache, pair.backing],
      ["in use", directory],
      () => formatCache({ ...pair, force: true }),
    );
    // Another cache in front of the same backing.
    const other = `${directory}/other`;
    await assertFilesRefused(
      [pair.backing],
      ["in use", pair.backing],
      () => formatCache({ cache: other, backing: pair.backing, cacheSize: cacheBytes }),
    );
    await open.close();
    const reader = await openCache({ ...pair, readOnly: true });
    await assertContent({ ...pair, readOnly: true });
    assertEquals((await checkCache(pair)).problems, []);
    await assertFilesRefused([pair.cache, pair.backing], essentials, () => openCache(pair));
    await reader.close();
  });
});

Deno.test("formatCache: a path that no file can have is refused with its own sentence, and not with the platform's", async () => {
  const directory = await Deno.makeTempDir();
  const backing = new MemoryDevice(1 << 20);
  await Deno.writeTextFile(`${directory}/file`, "");
  for (
    const [name, expected] of [
      ["a\0b", "expected the path of a regular file"],
      ["x".repeat(300), "; check the path"],
      ["file/cache", "; check the path"],
    ] as const
  ) {
    await assertRejects(
      () => formatCache({ cache: `${directory}/${name}`, cacheSize: 8 << 20, backing }),
      UsageError,
      expected,
    );
  }
  await Deno.remove(directory, { recursive: true });
});
