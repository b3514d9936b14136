import { blockIdentity, fileIdentity, isBlockReadOnly } from "../../src/device/identity.ts";
import type { Io, PathFacts } from "../../src/io/io.ts";
import { portableIo } from "../../src/io/portable.ts";
import { backingIdBytesMax } from "../../src/log/layout.ts";
import { assert, assertEquals } from "../assert.ts";

const facts: PathFacts = {
  kind: "block",
  sizeBytes: 0,
  allocatedBytes: 0,
  filesystem: 6,
  inode: 94,
  deviceNumber: "8:1",
  modifiedMs: 0,
};

/** An `Io` whose sysfs holds `texts`, and where the directory of device 8:1 is really `directory`. */
function withSysfs(texts: Record<string, string>, directory = "/sys/dev/block/8:1"): Io {
  return {
    ...portableIo,
    readText: (path) => Promise.resolve(texts[path]),
    realPath: (path) => Promise.resolve(path === "/sys/dev/block/8:1" ? directory : path),
  };
}

const identityWith = (io: Io) => blockIdentity(io, "/dev/sda1", facts, 4096);

Deno.test("blockIdentity: prefers the world-wide name, then the serial", async () => {
  const at = "/sys/dev/block/8:1";
  const both = withSysfs({ [`${at}/device/wwid`]: "naa.5000c500\n", [`${at}/serial`]: "S1" });
  assertEquals(await identityWith(both), "wwid:naa.5000c500");
  assertEquals(await identityWith(withSysfs({ [`${at}/serial`]: " S1 \n" })), "serial:S1");
  assertEquals(await identityWith(withSysfs({ [`${at}/dm/uuid`]: "LVM-abc\n" })), "dm:LVM-abc");
  // An empty serial, as virtual disks have it, tells nothing.
  assertEquals(await identityWith(withSysfs({ [`${at}/serial`]: "\n" })), "path:/dev/sda1 8:1 4096");
});

Deno.test("blockIdentity: a partition is its disk and its number", async () => {
  const io = withSysfs(
    { "/sys/dev/block/8:1/partition": "1\n", "/sys/devices/x/block/sda/device/wwid": "naa.1\n" },
    "/sys/devices/x/block/sda/sda1",
  );
  assertEquals(await identityWith(io), "wwid:naa.1 partition 1");
});

Deno.test("blockIdentity: is the path, number and size where nothing else is told", async () => {
  assertEquals(await identityWith(withSysfs({})), "path:/dev/sda1 8:1 4096");
});

Deno.test("fileIdentity: fits into a superblock however long the path is", async () => {
  const short = await fileIdentity("/a/b", { ...facts, inode: 7 });
  assertEquals(short, "/a/b#7");
  const long = await fileIdentity(`/${"ä".repeat(600)}`, facts);
  const other = await fileIdentity(`/${"ä".repeat(601)}`, facts);
  assert(new TextEncoder().encode(long).length <= backingIdBytesMax && long !== other);
});

Deno.test("isBlockReadOnly: believes sysfs, and takes an unknown device for writable", async () => {
  assertEquals(await isBlockReadOnly(withSysfs({ "/sys/dev/block/8:1/ro": "1\n" }), facts), true);
  assertEquals(await isBlockReadOnly(withSysfs({ "/sys/dev/block/8:1/ro": "0\n" }), facts), false);
  assertEquals(await isBlockReadOnly(withSysfs({}), facts), false);
});
