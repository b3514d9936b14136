import { LinuxFile, openLinuxFile } from "../../src/io/linux.ts";
import { mib } from "../../src/units.ts";
import { assert, assertEquals } from "../assert.ts";
import { run, withDirectory } from "../device/temp.ts";

const ignore = Deno.build.os !== "linux";

function open(path: string): LinuxFile {
  const file = openLinuxFile(path, { write: true, claim: false });
  assert(file instanceof LinuxFile);
  return file;
}

Deno.test({
  name: "openLinuxFile: is not available for what cannot be opened",
  ignore,
  fn: () => assertEquals(openLinuxFile("/nonexistent/file", { write: true, claim: false }), undefined),
});

Deno.test({
  name: "LinuxFile: punches holes, zeroes ranges and allocates on a regular file",
  ignore,
  fn: () =>
    withDirectory(async (directory) => {
      const path = `${directory}/file`;
      const allocated = () => Deno.statSync(path).blocks! * 512;
      await Deno.writeFile(path, new Uint8Array(4 * mib).fill(1));
      const file = open(path);
      assertEquals(await file.punchHole(mib, mib), true);
      assertEquals(await file.zeroRange(2 * mib + 512, mib), true);
      assert(allocated() < 4 * mib);
      assertEquals(await file.allocate(0, 5 * mib), 0);
      assert(allocated() >= 5 * mib);
      const bytes = await Deno.readFile(path);
      assertEquals(bytes.length, 5 * mib);
      const zero = (at: number) =>
        at >= mib && at < 2 * mib || at >= 2 * mib + 512 && at < 3 * mib + 512 || at >= 4 * mib;
      assert(bytes.every((byte, at) => byte === (zero(at) ? 0 : 1)));
      file.close();
    }),
});

Deno.test({
  name: "LinuxFile: block device calls are not available on a regular file, and say so again and again",
  ignore,
  fn: () =>
    withDirectory(async (directory) => {
      const path = `${directory}/file`;
      await Deno.writeFile(path, new Uint8Array(4096).fill(1));
      const file = open(path);
      assertEquals(file.deviceBytes(), undefined);
      assertEquals(file.deviceSectorBytes(), undefined);
      for (let i = 0; i < 3; i++) {
        assertEquals(await file.zeroOut(0, 4096), false);
      }
      file.close();
      assert((await Deno.readFile(path)).every((byte) => byte === 1));
    }),
});

Deno.test({
  name: "LinuxFile.allocate: returns the errno when there is no room",
  ignore,
  fn: () =>
    withDirectory(async (directory) => {
      const path = `${directory}/file`;
      await Deno.writeFile(path, new Uint8Array(1));
      const file = open(path);
      // 2^53 bytes: too large a file, or more than there is.
      assert([27, 28].includes(await file.allocate(0, 2 ** 53)));
      file.close();
    }),
});

Deno.test({
  name: "LinuxFile.tryLock: is flock without waiting",
  ignore,
  fn: () =>
    withDirectory(async (directory) => {
      const path = `${directory}/file`;
      await Deno.writeFile(path, new Uint8Array(1));
      const first = open(path);
      const second = open(path);
      assertEquals(first.tryLock(false), true);
      assertEquals(second.tryLock(true), false);
      assertEquals(second.tryLock(false), true);
      first.close();
      assertEquals(second.tryLock(true), true);
      assertEquals((await run("flock", "-n", path, "true")).code, 1);
      second.close();
    }),
});
