import { formatCache, openCache } from "../../mod.ts";
import { createFile } from "../../src/device/create.ts";
import { openDevice } from "../../src/device/open.ts";
import { DeviceError, NbdboostError, RefusedError, UsageError } from "../../src/errors.ts";
import type { Io } from "../../src/io/io.ts";
import { portableIo } from "../../src/io/portable.ts";
import { mib } from "../../src/units.ts";
import { assert, assertEquals, assertMatch, assertNotEquals, assertRejects } from "../assert.ts";
import { platformError, withFiles } from "./fake_io.ts";
import { mustRun, run, withDirectory } from "./temp.ts";

// deno-lint-ignore no-explicit-any -- what assertRejects takes
type ErrorClass = new (...args: any[]) => NbdboostError;

async function assertRefused(
  target: string,
  errorClass: ErrorClass,
  words: string,
  io?: Io,
): Promise<NbdboostError> {
  let last: NbdboostError | undefined;
  for (const write of [false, true]) {
    last = await assertRejects(
      () => openDevice(target, { write, ...(io ? { io } : {}) }),
      errorClass,
      words,
    );
    assert(last.message.includes(target), last.message);
    assertMatch(last.message, /; .*\b(give|check|extend|change|run|use|stop)\b/, "says what to do");
  }
  return last!;
}

Deno.test("openDevice: says what is wrong with a path that leads to no device", () =>
  withDirectory(async (directory) => {
    await assertRefused(`${directory}/missing`, UsageError, "there is no such file");
    await assertRefused(`${directory}`, UsageError, "it is a directory");
    await assertRefused("", UsageError, "expected the path");
    await assertRefused("a\0b", UsageError, "expected the path");
    await Deno.writeTextFile(`${directory}/plain`, "text");
    await assertRefused(`${directory}/plain/below`, UsageError, "");
    if (Deno.build.os === "windows") return;
    await Deno.symlink(`${directory}/nowhere`, `${directory}/dangling`);
    await assertRefused(`${directory}/dangling`, UsageError, "there is no such file");
    await Deno.symlink(`${directory}/loop`, `${directory}/loop`);
    await assertRefused(`${directory}/loop`, UsageError, "check the path");
    await mustRun("mkfifo", `${directory}/fifo`);
    await assertRefused(`${directory}/fifo`, UsageError, "it is a named pipe");
    await assertRefused("/dev/null", UsageError, "it is a character device");
    const listener = await portableIo.listen({ transport: "unix", path: `${directory}/socket` });
    await assertRefused(`${directory}/socket`, UsageError, "it is a socket");
    listener.close();
  }));

Deno.test("openDevice: an NBD URI that cannot be meant is refused before anything is asked", async () => {
  for (const uri of ["nbd:host", "nbd+vsock://2/"]) {
    await assertRejects(() => openDevice(uri, { write: true }), UsageError, "is not an NBD URI");
  }
});

Deno.test("openDevice: refuses sizes that no device has", () =>
  withDirectory(async (directory) => {
    const path = `${directory}/disk`;
    await Deno.writeFile(path, new Uint8Array(0));
    await assertRefused(path, UsageError, "its size is 0 bytes");
    await Deno.writeFile(path, new Uint8Array(1000));
    const error = await assertRefused(
      path,
      UsageError,
      "its size is 1000 bytes, which is not a multiple of 512",
    );
    assert(error.message.endsWith(`truncate -s 1024 ${path}`));
    await Deno.truncate(path, 1024);
    await (await openDevice(path, { write: true })).close();
  }));

Deno.test("openDevice: says who does not permit it", () =>
  withDirectory(async (directory) => {
    const path = `${directory}/disk`;
    await createFile(path, mib);
    const failing = (code: string, name = "Error"): Io => ({
      ...portableIo,
      openFile: () => Promise.reject(Object.assign(platformError(code), { name })),
    });
    await assertRefused(path, RefusedError, "permission denied", failing("EACCES"));
    await assertRefused(path, RefusedError, "permission denied", failing("EPERM"));
    await assertRejects(
      () => openDevice(path, { write: true, io: failing("", "NotCapable") }),
      RefusedError,
      "Deno does not permit it",
    );
    const readOnly = await assertRefused(path, DeviceError, "is read-only", failing("EROFS"));
    assertEquals((readOnly as DeviceError).code, "EROFS");
    if (Deno.build.os === "windows" || Deno.uid() === 0) return;
    await Deno.chmod(path, 0o400);
    await assertRejects(() => openDevice(path, { write: true }), RefusedError, "permission denied");
    await (await openDevice(path, { write: false })).close();
  }));

Deno.test({
  name: "openDevice: a user who may not is told so",
  ignore: Deno.build.os !== "linux" || Deno.uid() !== 0,
  fn: () =>
    withDirectory(async (directory) => {
      const path = `${directory}/disk`;
      await createFile(path, mib);
      await Deno.chmod(directory, 0o755);
      // The file is for its owner only. A copy of Deno, because the original may lie in somebody's home.
      const copy = `${directory}/deno`;
      await Deno.copyFile(Deno.execPath(), copy);
      await Deno.chmod(copy, 0o755);
      const bundle = `${directory}/open.ts`;
      await mustRun("cp", "-r", new URL("../../src", import.meta.url).pathname, `${directory}/src`);
      await mustRun("chmod", "-R", "a+rX", `${directory}/src`);
      await Deno.writeTextFile(
        bundle,
        `import { openDevice } from "./src/device/open.ts";
         await openDevice(${
          JSON.stringify(path)
        }, { write: false }).catch((error) => console.log(error.message));`,
      );
      await Deno.chmod(bundle, 0o644);
      const text = await mustRun(
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "env",
        `DENO_DIR=${directory}/none`,
        "HOME=/nonexistent",
        copy,
        "run",
        "--no-config",
        "--no-lock",
        "-A",
        bundle,
      );
      assert(text.includes(`Cannot open ${path}: permission denied`), text);
    }),
});

Deno.test("openDevice: with nothing but a target it can be both devices of a cache", () =>
  withDirectory(async (directory) => {
    const [fast, slow] = [`${directory}/fast`, `${directory}/slow`];
    await createFile(fast, 8 * mib);
    await createFile(slow, mib);
    await formatCache({ cache: fast, backing: slow });
    const cache = await openCache({ cache: await openDevice(fast), backing: await openDevice(slow) });
    await cache.write(5, new Uint8Array([1]), { fua: true });
    await cache.close();
  }));

Deno.test("openDevice: one writer or many readers, in one process", () =>
  withDirectory(async (directory) => {
    const path = `${directory}/disk`;
    await createFile(path, mib);
    const writer = await openDevice(path, { write: true });
    await assertRefused(path, RefusedError, "in use by another process");
    await writer.close();
    const readers = [await openDevice(path, { write: false }), await openDevice(path, { write: false })];
    await assertRejects(() => openDevice(path, { write: true }), RefusedError, "in use by another process");
    for (const reader of readers) await reader.close();
    await (await openDevice(path, { write: true })).close();
  }));

Deno.test({
  name: "openDevice: the lock is flock's, so that other programs see it and it sees them",
  ignore: Deno.build.os !== "linux",
  fn: () =>
    withDirectory(async (directory) => {
      const path = `${directory}/disk`;
      await createFile(path, mib);
      const writer = await openDevice(path, { write: true });
      assertEquals((await run("flock", "--nonblock", "--shared", path, "true")).code, 1);
      await writer.close();
      const reader = await openDevice(path, { write: false });
      assertEquals((await run("flock", "--nonblock", "--shared", path, "true")).code, 0);
      assertEquals((await run("flock", "--nonblock", path, "true")).code, 1);
      await reader.close();
      // Holds the lock until its standard input ends.
      const holder = new Deno.Command("flock", {
        args: [path, "sh", "-c", "echo held; cat"],
        stdin: "piped",
        stdout: "piped",
      }).spawn();
      const output = holder.stdout.getReader();
      await output.read();
      await assertRefused(path, RefusedError, "in use by another process");
      await holder.stdin.close();
      await output.cancel();
      await holder.status;
      await (await openDevice(path, { write: true })).close();
    }),
});

Deno.test("openDevice: a refused opener leaves nothing open", () =>
  withDirectory(async (directory) => {
    const path = `${directory}/disk`;
    await createFile(path, mib);
    const io = withFiles(() => ({ size: () => Promise.reject(platformError("EIO")) }));
    await assertRejects(() => openDevice(path, { write: true, io }), DeviceError, "EIO");
    await (await openDevice(path, { write: true })).close();
  }));

Deno.test("openDevice: a file is known by its real path and inode", () =>
  withDirectory(async (directory) => {
    const path = `${directory}/disk`;
    await createFile(path, mib);
    const identityOf = async (target: string) => {
      const device = await openDevice(target, { write: false });
      const identity = await device.identity();
      await device.close();
      return identity;
    };
    const identity = await identityOf(path);
    assertEquals(identity.kind, "file");
    assertEquals(identity.modifiedMs, (await Deno.stat(path)).mtime!.getTime());
    assertEquals(identity.id, `${await Deno.realPath(path)}#${(await Deno.stat(path)).ino ?? 0}`);
    if (Deno.build.os === "windows") return;
    await Deno.symlink("disk", `${directory}/link`);
    assertEquals(await identityOf(`${directory}/link`), identity);
    await Deno.copyFile(path, `${directory}/copy`);
    await Deno.rename(`${directory}/copy`, path);
    assertNotEquals((await identityOf(path)).id, identity.id);
  }));

Deno.test("openDevice: an identity that is too long for a superblock is told by its hash", () =>
  withDirectory(async (directory) => {
    let path = directory;
    while (path.length < 1100) {
      path += `/${"x".repeat(200)}`;
      await Deno.mkdir(path);
    }
    await createFile(`${path}/disk`, mib);
    const device = await openDevice(`${path}/disk`, { write: false });
    assertMatch((await device.identity()).id, /^sha256:[0-9a-f]{64}$/);
    await device.close();
  }));

Deno.test("openDevice: works with no permission but the path's, and asks for none", () =>
  withDirectory(async (directory) => {
    await createFile(`${directory}/disk`, 4 * mib);
    const script = new URL("./limited_permissions.ts", import.meta.url).pathname;
    const text = await mustRun(
      Deno.execPath(),
      "run",
      "--no-prompt",
      "--quiet",
      `--allow-read=${directory}`,
      `--allow-write=${directory}`,
      script,
      directory,
    );
    assertEquals(text, "all done without FFI");
  }));

Deno.test("openDevice: a relative path stays right when the working directory changes", () =>
  withDirectory(async (directory) => {
    await createFile(`${directory}/disk`, mib);
    const before = Deno.cwd();
    Deno.chdir(directory);
    try {
      const device = await openDevice("disk", { write: true });
      Deno.chdir(before);
      // More calls than there are handles yet, so that some are opened now.
      const bytes = new Uint8Array(512).fill(1);
      await Promise.all(Array.from({ length: 16 }, (_, index) => device.write(index * 512, bytes)));
      await device.close();
    } finally {
      Deno.chdir(before);
    }
    assertEquals(
      (await Deno.readFile(`${directory}/disk`)).subarray(0, 8192).every((byte) => byte === 1),
      true,
    );
  }));
