/**
 * Real block devices, by losetup: what only the kernel's own code can show to work.
 *
 * @module
 */

import type { BlockDevice } from "../../src/device/block_device.ts";
import { preallocate } from "../../src/device/create.ts";
import { openDevice } from "../../src/device/open.ts";
import { DeviceError, RefusedError } from "../../src/errors.ts";
import { openLinuxFile } from "../../src/io/linux.ts";
import { mib } from "../../src/units.ts";
import { assert, assertEquals, assertRejects } from "../assert.ts";
import { assertSame, contractBytes, testContract } from "./contract.ts";
import { plainIo } from "./fake_io.ts";
import { mustRun, run, skipLoopTests, withLoopDevice } from "./temp.ts";

const ignore = skipLoopTests;

for (const args of [[], ["--sector-size", "4096"], ["--direct-io=on"]]) {
  testContract(
    `openDevice of a block device [${args}]`,
    (body) =>
      withLoopDevice(contractBytes, args, async (path) => body(await openDevice(path, { write: true }))),
    { ignore },
  );
}

testContract(
  "openDevice of a block device without Linux's calls",
  (body) =>
    withLoopDevice(
      contractBytes,
      [],
      async (path) => body(await openDevice(path, { write: true, io: plainIo })),
    ),
  { ignore },
);

Deno.test({
  name: "openDevice: a block device has its size, and the file behind it as its identity",
  ignore,
  fn: () =>
    withLoopDevice(3 * mib + 512, [], async (path, directory) => {
      const device = await openDevice(path, { write: false });
      assertEquals(device.sizeBytes, 3 * mib + 512);
      assertEquals(await device.identity(), {
        kind: "block",
        id: `loop:${directory}/image+0`,
        modifiedMs: 0,
      });
      assertEquals(await preallocate(device), true);
      await device.close();
      // Attached again, perhaps under another number, it is still the same.
      const other = await mustRun("losetup", "-f", "--show", "--offset", "512", `${directory}/image`);
      try {
        const shifted = await openDevice(other, { write: false });
        assertEquals((await shifted.identity()).id, `loop:${directory}/image+512`);
        assertEquals(shifted.sizeBytes, 3 * mib);
        await shifted.close();
      } finally {
        await mustRun("losetup", "-d", other);
      }
    }),
});

Deno.test({
  name: "openDevice: a read-only block device is refused for writing and fine for reading",
  ignore,
  fn: () =>
    withLoopDevice(mib, ["--read-only"], async (path) => {
      const error = await assertRejects(() => openDevice(path, { write: true }), DeviceError, "read-only");
      assertEquals(error.code, "EROFS");
      const device = await openDevice(path, { write: false });
      await device.read(0, new Uint8Array(512));
      await device.close();
    }),
});

Deno.test({
  name: "FileDevice: a block device that becomes read-only while open answers EROFS",
  ignore,
  fn: () =>
    withLoopDevice(mib, [], async (path) => {
      const device = await openDevice(path, { write: true });
      await mustRun("blockdev", "--setro", path);
      try {
        const write = () => device.write(0, new Uint8Array(4096));
        assertEquals((await assertRejects(write, DeviceError)).code, "EROFS");
        const zero = () => device.zero(0, 4096, { keepAllocated: true });
        assertEquals((await assertRejects(zero, DeviceError)).code, "EROFS");
      } finally {
        // It would outlive the loop device, for the next one of this number.
        await mustRun("blockdev", "--setrw", path);
      }
      await device.close();
    }),
});

Deno.test({
  name: "openDevice: a block device that is mounted is refused, and ours cannot be mounted",
  ignore,
  fn: () =>
    withLoopDevice(8 * mib, [], async (path, directory) => {
      await mustRun("mkfs.ext4", "-q", path);
      await Deno.mkdir(`${directory}/mount`);
      await mustRun("mount", path, `${directory}/mount`);
      try {
        await assertRejects(
          () => openDevice(path, { write: true }),
          RefusedError,
          "the kernel says that it is in use",
        );
      } finally {
        await mustRun("umount", `${directory}/mount`);
      }
      const device = await openDevice(path, { write: true });
      assert((await run("mount", path, `${directory}/mount`)).code !== 0);
      await device.close();
      await mustRun("mount", path, `${directory}/mount`);
      await mustRun("umount", `${directory}/mount`);
    }),
});

Deno.test({
  name: "openDevice: a block device has one writer, under whatever name",
  ignore,
  fn: () =>
    withLoopDevice(mib, [], async (path, directory) => {
      const device = await openDevice(path, { write: true });
      await assertRejects(() => openDevice(path, { write: true }), RefusedError, "in use");
      await assertRejects(
        () => openDevice(path, { write: false }),
        RefusedError,
        "in use by another process",
      );
      await Deno.symlink(path, `${directory}/link`);
      await assertRejects(() => openDevice(`${directory}/link`, { write: true }), RefusedError, "in use");
      assertEquals((await run("flock", "--nonblock", path, "true")).code, 1);
      await device.close();
      // The lock of a program that holds it for a moment, as udev does, is waited for.
      const holder = new Deno.Command("flock", {
        args: ["--shared", path, "sh", "-c", "echo held; sleep 0.5"],
        stdout: "piped",
      }).spawn();
      const output = holder.stdout.getReader();
      await output.read();
      await (await openDevice(path, { write: true })).close();
      await output.cancel();
      await holder.status;
    }),
});

Deno.test({
  name: "FileDevice.zero: what a client wrote before and after is untouched on a block device",
  ignore,
  fn: () =>
    withLoopDevice(contractBytes, ["--sector-size", "4096"], async (path) => {
      const device: BlockDevice = await openDevice(path, { write: true });
      for (const keepAllocated of [true, false]) {
        await device.write(0, new Uint8Array(contractBytes).fill(7));
        // Finer than the device's own sectors, so that the kernel's calls refuse it.
        await device.zero(512, 1024, { keepAllocated });
        await device.zero(mib, mib, { keepAllocated });
        await device.sync();
        const expected = new Uint8Array(contractBytes).fill(7).fill(0, 512, 1536).fill(0, mib, 2 * mib);
        const all = new Uint8Array(contractBytes);
        await device.read(0, all);
        assertSame(all, expected, `keepAllocated ${keepAllocated}`);
      }
      await device.close();
    }),
});

Deno.test({
  name: "LinuxFile: tells a block device's sizes, and zeroes",
  ignore,
  fn: () =>
    withLoopDevice(2 * mib, ["--sector-size", "4096"], async (path, directory) => {
      await Deno.writeFile(path, new Uint8Array(2 * mib).fill(1), { create: false });
      const file = openLinuxFile(path, { write: true, claim: true });
      assert(file && file !== "busy");
      assertEquals(openLinuxFile(path, { write: true, claim: true }), "busy");
      assertEquals(file.deviceBytes(), 2 * mib);
      assertEquals(file.deviceSectorBytes(), 4096);
      assertEquals(await file.zeroOut(512, 4096), false);
      assertEquals(await file.zeroOut(0, mib), true);
      assertEquals(await file.punchHole(mib, mib / 2), true);
      file.close();
      await mustRun("blockdev", "--flushbufs", path);
      const bytes = await Deno.readFile(path);
      assert(bytes.subarray(0, mib + mib / 2).every((byte) => byte === 0));
      assert((await Deno.stat(`${directory}/image`)).blocks! * 512 < 2 * mib);
    }),
});

Deno.test({
  name: "openDevice: a block device tells for how long the kernel has seen it busy, a file does not",
  ignore,
  fn: () =>
    withLoopDevice(8 * mib, ["--direct-io=on"], async (path, directory) => {
      const device = await openDevice(path, { write: true });
      const before = await device.busyMs!();
      assert(before !== undefined && before >= 0);
      const bytes = new Uint8Array(mib);
      // The kernel counts in ticks of some milliseconds.
      let after = before;
      for (let tries = 0; tries < 1000 && after === before; tries++) {
        await device.write(tries % 8 * mib, bytes);
        await device.sync();
        after = (await device.busyMs!())!;
      }
      assert(after > before, `${before} ms before, ${after} ms after`);
      await device.close();
      await Deno.writeFile(`${directory}/plain`, bytes);
      const file = await openDevice(`${directory}/plain`, { write: false });
      assertEquals(file.busyMs, undefined);
      await file.close();
    }),
});
