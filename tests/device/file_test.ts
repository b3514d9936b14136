import { FileDevice } from "../../src/device/file.ts";
import { createFile } from "../../src/device/create.ts";
import { openDevice } from "../../src/device/open.ts";
import { DeviceError } from "../../src/errors.ts";
import type { Io } from "../../src/io/io.ts";
import { portableIo } from "../../src/io/portable.ts";
import { kib, mib } from "../../src/units.ts";
import { assert, assertEquals, assertRejects } from "../assert.ts";
import { contractBytes, testContract, type WithDevice } from "./contract.ts";
import { plainIo, platformError, withFiles } from "./fake_io.ts";
import { withDirectory } from "./temp.ts";

function onFile(io: Io): WithDevice {
  return (body) =>
    withDirectory(async (directory) => {
      await createFile(`${directory}/disk`, contractBytes, { io });
      await body(await openDevice(`${directory}/disk`, { write: true, io }));
    });
}

/** At least one byte, at most all, and not of sectors. */
const short = (length: number) => length < 100 ? length : length - Math.floor(length / 3) - 1;

testContract("FileDevice", onFile(portableIo));
testContract("FileDevice without Linux's calls", onFile(plainIo));
testContract(
  "FileDevice with short counts",
  onFile(withFiles((file) => ({
    zeroFast: () => Promise.resolve(false),
    read: (offset, into) => file.read(offset, into.subarray(0, short(into.length))),
    write: (offset, bytes) => file.write(offset, bytes.subarray(0, short(bytes.length))),
  }))),
);

Deno.test("FileDevice: turns what the platform says into a DeviceError that names the call", async () => {
  const expected = {
    EIO: "EIO",
    ENOSPC: "ENOSPC",
    EDQUOT: "ENOSPC",
    EROFS: "EROFS",
    EPERM: "EROFS",
    ENODEV: "ENODEV",
    ETIMEDOUT: "ETIMEDOUT",
    EINVAL: "EIO",
    "": "EIO",
  };
  for (const [errno, code] of Object.entries(expected)) {
    const fail = () => Promise.reject(platformError(errno));
    const io = withFiles(() => ({ read: fail, write: fail, sync: fail, zeroFast: fail }));
    await onFile(portableIo)(async (good) => {
      await good.close();
      const device = await openDevice(good.name, { write: true, io });
      const calls = [
        [() => device.read(512, new Uint8Array(1024)), `read 1024 bytes at offset 512 of ${device.name}`],
        [() => device.write(0, new Uint8Array(512)), `write 512 bytes at offset 0 of ${device.name}`],
        [() => device.sync(), `sync ${device.name}`],
        [
          () => device.zero(0, 4096, { keepAllocated: true }),
          `zero 4096 bytes at offset 0 of ${device.name}`,
        ],
      ] as const;
      for (const [call, words] of calls) {
        const error = await assertRejects(call, DeviceError, words);
        assertEquals(error.code, code);
        assert(error.cause instanceof Error);
      }
      await device.close();
    });
  }
});

Deno.test("FileDevice.zero: rejects once nothing is under way when a piece fails", async () => {
  let underWay = 0;
  let writes = 0;
  const io = withFiles((file) => ({
    zeroFast: () => Promise.resolve(false),
    async write(offset, bytes) {
      underWay++;
      try {
        if (++writes === 2) throw platformError("EIO");
        return await file.write(offset, bytes);
      } finally {
        underWay--;
      }
    },
  }));
  await onFile(portableIo)(async (good) => {
    await good.close();
    const device = await openDevice(good.name, { write: true, io });
    await assertRejects(() => device.zero(0, contractBytes, { keepAllocated: false }), DeviceError, "EIO");
    assertEquals(underWay, 0);
    await device.close();
  });
});

Deno.test("FileDevice.read: says so when the file has become shorter", async () => {
  await onFile(portableIo)(async (device) => {
    await Deno.truncate(device.name, mib);
    await assertRejects(() => device.read(mib - 512, new Uint8Array(1024)), DeviceError, `it ends at ${mib}`);
    await device.close();
  });
});

Deno.test("FileDevice: opened read-only refuses all that changes it", async () => {
  await onFile(portableIo)(async (good) => {
    await good.close();
    const device = await openDevice(good.name, { write: false });
    assert(device instanceof FileDevice);
    assert(device.readOnly);
    for (
      const call of [
        () => device.write(0, new Uint8Array(512)),
        () => device.zero(0, 512, { keepAllocated: false }),
        () => device.preallocate(),
      ]
    ) {
      assertEquals((await assertRejects(call, DeviceError, "read-only")).code, "EROFS");
    }
    await device.read(0, new Uint8Array(4 * kib));
    await device.sync();
    await device.close();
  });
});

Deno.test({
  name: "FileDevice.zero: gives storage back unless it is to be kept",
  ignore: Deno.build.os !== "linux",
  fn: () =>
    onFile(portableIo)(async (device) => {
      const allocated = async () => (await Deno.stat(device.name)).blocks! * 512;
      await device.write(0, new Uint8Array(contractBytes).fill(1));
      await device.sync();
      await device.zero(0, contractBytes, { keepAllocated: true });
      assert(await allocated() >= contractBytes);
      await device.zero(0, contractBytes, { keepAllocated: false });
      assert(await allocated() < mib);
      await device.close();
    }),
});
