import { createFile, preallocate } from "../../src/device/create.ts";
import { MemoryDevice } from "../../src/device/memory.ts";
import { openDevice } from "../../src/device/open.ts";
import { DeviceError, RefusedError, UsageError } from "../../src/errors.ts";
import { portableIo } from "../../src/io/portable.ts";
import { mib } from "../../src/units.ts";
import { assert, assertEquals, assertRejects } from "../assert.ts";
import { assertSame } from "./contract.ts";
import { plainIo, platformError, withFiles } from "./fake_io.ts";
import { skipLoopTests, withDirectory, withSmallFilesystem } from "./temp.ts";

for (
  const [name, io] of Object.entries({ createFile: portableIo, "createFile without Linux's calls": plainIo })
) {
  Deno.test(`${name}: makes a file of zeroes with all of its storage, and tells how far it is`, () =>
    withDirectory(async (directory) => {
      const path = `${directory}/cache`;
      const told: number[] = [];
      await createFile(path, 5 * mib + 512, { io, onProgress: (done) => told.push(done) });
      const facts = await Deno.stat(path);
      assertEquals(facts.size, 5 * mib + 512);
      if (facts.blocks !== null) assert(facts.blocks * 512 >= facts.size);
      if (facts.mode !== null) assertEquals(facts.mode & 0o777, 0o600);
      assertSame(await Deno.readFile(path), new Uint8Array(5 * mib + 512), path);
      assertEquals(told.at(-1), 5 * mib + 512);
      assertEquals(told, told.toSorted((a, b) => a - b));
    }));

  Deno.test({
    name: `${name}: says so when there is no room, and removes what it made`,
    ignore: skipLoopTests,
    fn: () =>
      withSmallFilesystem(mib, async (directory) => {
        const error = await assertRejects(
          () => createFile(`${directory}/cache`, 8 * mib, { io }),
          DeviceError,
          "its filesystem has no room for it",
        );
        assertEquals(error.code, "ENOSPC");
        assertEquals([...Deno.readDirSync(directory)], []);
      }),
  });
}

Deno.test("createFile: never touches what exists", () =>
  withDirectory(async (directory) => {
    const path = `${directory}/mine`;
    await Deno.writeTextFile(path, "precious");
    await assertRejects(() => createFile(path, mib), RefusedError, `${path}: it exists already`);
    await assertRejects(() => createFile(directory, mib), RefusedError, "it exists already");
    assertEquals(await Deno.readTextFile(path), "precious");
  }));

Deno.test("createFile: refuses bad sizes and missing directories", () =>
  withDirectory(async (directory) => {
    for (const size of [0, -512, 513, NaN, 1.5]) {
      await assertRejects(
        () => createFile(`${directory}/x`, size),
        UsageError,
        "expected a multiple of 512 above 0",
      );
    }
    await assertRejects(() => createFile(`${directory}/no/x`, mib), UsageError, "there is no such directory");
    assertEquals([...Deno.readDirSync(directory)], []);
  }));

Deno.test("createFile: removes what it made when a sync fails", () =>
  withDirectory(async (directory) => {
    const io = withFiles(() => ({ sync: () => Promise.reject(platformError("EIO")) }));
    const error = await assertRejects(() => createFile(`${directory}/x`, mib, { io }), DeviceError, "EIO");
    assertEquals(error.code, "EIO");
    assertEquals([...Deno.readDirSync(directory)], []);
  }));

Deno.test({
  name: "preallocate: gives a sparse file all of its storage without changing its content",
  ignore: Deno.build.os !== "linux",
  fn: () =>
    withDirectory(async (directory) => {
      const path = `${directory}/sparse`;
      await Deno.writeFile(path, new Uint8Array(mib).fill(9));
      await Deno.truncate(path, 16 * mib);
      const device = await openDevice(path, { write: true });
      assert(await preallocate(device));
      assert(await preallocate(device), "a second time");
      await device.close();
      assert((await Deno.stat(path)).blocks! * 512 >= 16 * mib);
      assertSame(await Deno.readFile(path), new Uint8Array(16 * mib).fill(9, 0, mib), path);
    }),
});

Deno.test("preallocate: tells when the platform cannot, and leaves other kinds alone", () =>
  withDirectory(async (directory) => {
    assert(await preallocate(new MemoryDevice(mib)));
    const path = `${directory}/sparse`;
    await Deno.writeFile(path, new Uint8Array(0));
    await Deno.truncate(path, mib);
    const device = await openDevice(path, { write: true, io: plainIo });
    assertEquals(await preallocate(device), false);
    await device.close();
  }));

Deno.test({
  name: "preallocate: says so when there is no room",
  ignore: skipLoopTests,
  fn: () =>
    withSmallFilesystem(mib, async (directory) => {
      const path = `${directory}/sparse`;
      await Deno.writeFile(path, new Uint8Array(0));
      await Deno.truncate(path, 8 * mib);
      const device = await openDevice(path, { write: true });
      assertEquals((await assertRejects(() => preallocate(device), DeviceError)).code, "ENOSPC");
      await assertRejects(() => device.write(0, new Uint8Array(2 * mib)), DeviceError, "No space left");
      await device.close();
    }),
});
