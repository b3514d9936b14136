/** qemu's client: what virtual machines use. */

import { type Outcome, run, tryRun } from "./tools.ts";
import { testTool } from "./serving.ts";
import { assert, assertEquals, assertObjectMatch, assertStringIncludes } from "../assert.ts";

const mib = 1 << 20;

testTool("qemu-img", "info tells the size", { sizeBytes: 64 * mib }, async ({ uri }) => {
  const facts = JSON.parse(await run("qemu-img", "info", "-f", "raw", "--output=json", uri));
  assertObjectMatch(facts, { "virtual-size": 64 * mib, format: "raw" });
});

testTool("qemu-img", "convert in, compare, map and convert out", { sizeBytes: 48 * mib }, async (served) => {
  const { uri, directory } = served;
  const [source, target] = [`${directory}/source`, `${directory}/target`];
  const bytes = new Uint8Array(48 * mib);
  for (let at = 5 * mib; at < 20 * mib; at += 8) bytes[at] = 1 + (at >> 12) % 255;
  await Deno.writeFile(source, bytes);
  await run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", source, uri);
  assertStringIncludes(await run("qemu-img", "compare", "-f", "raw", "-F", "raw", source, uri), "identical");
  const map = JSON.parse(await run("qemu-img", "map", "-f", "raw", "--output=json", uri)) as {
    start: number;
    length: number;
    data: boolean;
  }[];
  assertEquals(map.reduce((sum, { length }) => sum + length, 0), 48 * mib);
  assert(map.some(({ start, length, data }) => data && start <= 6 * mib && start + length > 6 * mib));
  await run("qemu-img", "convert", "-f", "raw", "-O", "raw", uri, target);
  assertStringIncludes(
    await run("qemu-img", "compare", "-f", "raw", "-F", "raw", source, target),
    "identical",
  );
  await served.volume.write(7 * mib, new Uint8Array([1, 2, 3]));
  const differing = await tryRun("qemu-img", "compare", "-f", "raw", "-F", "raw", source, uri);
  assertEquals(differing.code, 1);
});

testTool("qemu-img", "bench writes, with flushes, and reads", { sizeBytes: 64 * mib }, async ({ uri }) => {
  const bench = ["bench", "-f", "raw", "-c", "2000", "-d", "64"];
  await run("qemu-img", ...bench, "-w", "-s", "4096", "-S", "12288", uri);
  await run("qemu-img", ...bench, "-w", "-s", "65536", "--flush-interval=100", uri);
  await run("qemu-img", ...bench, "-s", "4096", uri);
});

/** Runs qemu-io commands one after another in one process. */
function qemuIo(uri: string, ...commands: string[]): Promise<Outcome> {
  return tryRun("qemu-io", "-f", "raw", ...commands.flatMap((command) => ["-c", command]), uri);
}

async function expectGood(uri: string, ...commands: string[]): Promise<void> {
  const { code, stdout, stderr } = await qemuIo(uri, ...commands);
  const all = stdout + stderr;
  assert(code === 0 && !/fail|error|verification/i.test(all), `${commands.join("; ")}\n${all}`);
}

for (const transport of ["unix", "tcp"] as const) {
  const options = { sizeBytes: 16 * mib, transport };
  testTool(
    "qemu-io",
    `patterns at odd offsets and lengths read back over ${transport}`,
    options,
    async ({ uri }) => {
      await expectGood(
        uri,
        "write -P 0x11 0 64k",
        "write -P 0x22 1 1",
        "write -P 0x33 4095 2",
        "write -P 0x44 511 4098",
        "write -P 0x55 1000003 70001",
        "write -P 0x66 5M 9M",
        "flush",
        "read -P 0x11 0 1",
        "read -P 0x22 1 1",
        "read -P 0x11 2 509",
        "read -P 0x44 511 4098",
        "read -P 0x11 4609 60927",
        "read -P 0 65536 934467",
        "read -P 0x55 1000003 70001",
        "read -P 0 1070004 100",
        "read -P 0x66 5M 9M",
        "read -P 0 14M 2M",
      );
    },
  );
}

testTool("qemu-io", "discard, write zeroes and FUA", { sizeBytes: 16 * mib }, async ({ uri }) => {
  await expectGood(
    uri,
    "write -P 0x77 0 4M",
    "write -f -P 0x88 12345 6789",
    "read -P 0x88 12345 6789",
    "write -z 100 50000",
    "read -P 0 100 50000",
    "read -P 0x77 0 100",
    "read -P 0x77 50100 1000",
    "write -z -u 1M 1M",
    "read -P 0 1M 1M",
    "write -z -f 2097153 3",
    "read -P 0 2097153 3",
    "read -P 0x77 2097152 1",
    "discard 3M 512k",
    "read -P 0 3M 512k",
    "read -P 0x77 3670016 512k",
    "flush",
    "aio_write -P 0x99 8M 1M",
    "aio_write -P 0xaa 9M 1M",
    "aio_write -z 10M 1M",
    "aio_flush",
    "read -P 0x99 8M 1M",
    "read -P 0xaa 9M 1M",
    "read -P 0 10M 1M",
  );
});

testTool(
  "qemu-io",
  "a read-only export refuses to be written",
  { sizeBytes: mib, readOnly: true },
  async ({ uri }) => {
    const refused = await qemuIo(uri, "write 0 512");
    assert(refused.code !== 0);
    const { code } = await tryRun("qemu-io", "-r", "-f", "raw", "-c", "read -P 0 0 1M", uri);
    assertEquals(code, 0);
  },
);
