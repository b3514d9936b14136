import { DeviceError } from "../../src/errors.ts";
import { portableIo } from "../../src/io/portable.ts";
import { handlesMax, openPortableFile } from "../../src/io/portable_file.ts";
import { kib } from "../../src/units.ts";
import { assert, assertEquals, assertRejects } from "../assert.ts";
import { run, withDirectory } from "../device/temp.ts";

const windows = Deno.build.os === "windows";

/** How many descriptors of this process lead to `path`. */
async function descriptorsOf(path: string): Promise<number> {
  let count = 0;
  for await (const { name } of Deno.readDir("/proc/self/fd")) {
    const target = await Deno.readLink(`/proc/self/fd/${name}`).catch(() => "");
    if (target.startsWith(path)) count++;
  }
  return count;
}

Deno.test("PortableFile: reads to the end and not beyond, and writes beyond it", () =>
  withDirectory(async (directory) => {
    const file = await openPortableFile(`${directory}/file`, { write: true, create: true });
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
  }));

Deno.test({
  name: "PortableFile: takes one handle for each call in flight, up to the limit, and gives all of them back",
  ignore: Deno.build.os !== "linux",
  fn: () =>
    withDirectory(async (directory) => {
      const path = `${directory}/file`;
      const file = await openPortableFile(path, { write: true, create: true });
      assertEquals(await descriptorsOf(path), 2);
      await file.write(0, new Uint8Array(512));
      assertEquals(await descriptorsOf(path), 2);
      const calls = Array.from(
        { length: 4 * handlesMax },
        (_, index) => file.write(index * 512, new Uint8Array(512).fill(index)),
      );
      await Promise.all([...calls, file.sync()]);
      const grown = await descriptorsOf(path);
      assert(grown > 2 && grown <= handlesMax + 1, `${grown} descriptors`);
      await file.close();
      assertEquals(await descriptorsOf(path), 0);
      const bytes = await Deno.readFile(path);
      calls.forEach((_, index) => assertEquals(bytes[index * 512], index & 255));
    }),
});

Deno.test({
  name: "PortableFile: never touches a file that took its path",
  ignore: windows,
  fn: () =>
    withDirectory(async (directory) => {
      const path = `${directory}/file`;
      const file = await openPortableFile(path, { write: true, create: true });
      await Deno.rename(path, `${directory}/moved`);
      await Deno.writeTextFile(path, "precious");
      const bytes = new Uint8Array(512).fill(7);
      await Promise.all(Array.from({ length: 40 }, (_, index) => file.write(index * 512, bytes)));
      assertEquals(await file.zeroFast(0, 512, false), false);
      await file.close();
      assertEquals(await Deno.readTextFile(path), "precious");
      const moved = await Deno.readFile(`${directory}/moved`);
      assert(moved.length === 40 * 512 && moved.every((byte) => byte === 7));
    }),
});

Deno.test({
  name: "PortableFile: goes on when its path is gone",
  ignore: windows,
  fn: () =>
    withDirectory(async (directory) => {
      const path = `${directory}/file`;
      const file = await openPortableFile(path, { write: true, create: true });
      await Deno.remove(path);
      const bytes = new Uint8Array(512).fill(7);
      await Promise.all(Array.from({ length: 40 }, (_, index) => file.write(index * 512, bytes)));
      assertEquals(await file.size(), 40 * 512);
      await file.close();
    }),
});

Deno.test("PortableFile: closes after the calls under way, once", () =>
  withDirectory(async (directory) => {
    const path = `${directory}/file`;
    const file = await openPortableFile(path, { write: true, create: true });
    const calls = Array.from({ length: 100 }, (_, index) =>
      file.write(index * kib, new Uint8Array(kib).fill(1)));
    await Promise.all([file.close(), file.close()]);
    await Promise.all(calls);
    assertEquals((await Deno.readFile(path)).length, 100 * kib);
    const error = await assertRejects(
      () =>
        file.read(0, new Uint8Array(1)),
      DeviceError,
      "it is closed",
    );
    assertEquals(error.code, "ESHUTDOWN");
  }));

Deno.test("PortableFile: passes on what the platform says", () =>
  withDirectory(async (directory) => {
    const path = `${directory}/file`;
    await assertRejects(() => openPortableFile(path, { write: true }), Deno.errors.NotFound);
    await (await openPortableFile(path, { write: true, create: true })).close();
    await assertRejects(
      () => openPortableFile(path, { write: true, create: true }),
      Deno.errors.AlreadyExists,
    );
    const reader = await openPortableFile(path, { write: false });
    await assertRejects(() => reader.write(0, new Uint8Array(1)));
    // The handle that failed is usable again.
    assertEquals(await reader.read(0, new Uint8Array(1)), 0);
    await reader.close();
  }));

Deno.test("PortableFile.tryLock: does not wait, and lets go when closed", () =>
  withDirectory(async (directory) => {
    const path = `${directory}/file`;
    const first = await openPortableFile(path, { write: true, create: true });
    assert(await first.tryLock(true));
    const second = await openPortableFile(path, { write: true });
    assertEquals(await second.tryLock(false), false);
    if (Deno.build.os === "linux") assertEquals((await run("flock", "-n", path, "true")).code, 1);
    await first.close();
    assert(await second.tryLock(true));
    await second.close();
  }));

Deno.test({
  name: "portableIo: tells what a path leads to, and reads small files without asking",
  ignore: Deno.build.os !== "linux",
  fn: () =>
    withDirectory(async (directory) => {
      assertEquals((await portableIo.stat(directory))?.kind, "directory");
      assertEquals((await portableIo.stat("/dev/null"))?.kind, "character");
      assertEquals(await portableIo.stat(`${directory}/none`), undefined);
      assertEquals(await portableIo.readText(`${directory}/none`), undefined);
      await Deno.writeTextFile(`${directory}/small`, "text");
      assertEquals(await portableIo.readText(`${directory}/small`), "text");
      assertEquals(await portableIo.syncName(`${directory}/small`), true);
      assertEquals(await portableIo.syncName(`${directory}/none/small`), false);
      await portableIo.remove(`${directory}/small`);
      assertEquals(await portableIo.stat(`${directory}/small`), undefined);
    }),
});
