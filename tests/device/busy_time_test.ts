// Why: who else uses a disk is told by the kernel alone, and of a partition only its disk knows.
import { busyTimeOf } from "../../src/device/busy_time.ts";
import type { Io } from "../../src/io/io.ts";
import { assert, assertEquals } from "../assert.ts";

const stat = (ticks: string) => `  12 0 96 3 7 1 64 9 0 ${ticks} 12 0 0 0 0 1 0\n`;

function ioOf(files: Record<string, string>, links: Record<string, string> = {}): Io {
  return {
    readText: (path: string) => Promise.resolve(files[path]),
    realPath: (path: string) => Promise.resolve(links[path] ?? path),
  } as unknown as Io;
}

Deno.test("busyTimeOf: the tenth number of stat, read anew each time", async () => {
  const files = { "/sys/dev/block/8:0/stat": stat("4711") };
  const busyMs = await busyTimeOf(ioOf(files), "8:0");
  assert(busyMs !== undefined);
  assertEquals(await busyMs(), 4711);
  files["/sys/dev/block/8:0/stat"] = stat("4800");
  assertEquals(await busyMs(), 4800);
});

Deno.test("busyTimeOf: a partition tells its disk's", async () => {
  const files = {
    "/sys/dev/block/8:1/partition": "1\n",
    "/sys/dev/block/8:1/stat": stat("5"),
    "/sys/devices/sda/stat": stat("900"),
  };
  const busyMs = await busyTimeOf(ioOf(files, { "/sys/dev/block/8:1": "/sys/devices/sda/sda1" }), "8:1");
  assertEquals(await busyMs?.(), 900);
});

Deno.test("busyTimeOf: nothing where nobody counts, or something else is said", async () => {
  assertEquals(await busyTimeOf(ioOf({}), "8:0"), undefined);
  for (const text of ["", "1 2 3", stat("-1"), stat("x")]) {
    assertEquals(await busyTimeOf(ioOf({ "/sys/dev/block/8:0/stat": text }), "8:0"), undefined, text);
  }
});
