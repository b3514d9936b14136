/** Restarts of our server: a client that reconnects finds everything that it had flushed, and goes on. */

import { ServerProcess } from "../../src/cli/self.ts";
import { assert, assertEquals } from "../assert.ts";
import { Temp } from "../cli/support.ts";
import { ForeignServer } from "./servers.ts";
import { requireTool, tryRun } from "./tools.ts";

for (const how of ["killed", "stopped"] as const) {
  Deno.test(`qemu-io: with reconnect-delay it goes on after the server was ${how} and started again`, async () => {
    if (!requireTool("qemu-io")) return;
    await using temp = await Temp.make();
    const { pair } = await temp.pair();
    const socket = temp.join("s");
    const args = [...pair, "--listen", `nbd+unix:///?socket=${socket}`];
    let server = await ServerProcess.start(args);
    const image =
      `driver=raw,file.driver=nbd,file.server.type=unix,file.server.path=${socket},file.reconnect-delay=60`;
    const commands = [
      "write -P 0x11 0 1M",
      "flush",
      "sleep 1500",
      "write -P 0x22 1M 1M",
      "flush",
      "read -P 0x11 0 1M",
      "read -P 0x22 1M 1M",
    ];
    const client = tryRun(
      "qemu-io",
      "--image-opts",
      ...commands.flatMap((command) => ["-c", command]),
      image,
    );
    await new Promise((resolve) => setTimeout(resolve, 700));
    if (how === "killed") await server.kill();
    else await server.stop();
    await new Promise((resolve) => setTimeout(resolve, 1500));
    server = await ServerProcess.start(args);
    const { code, stdout, stderr } = await client;
    assertEquals(code, 0, stdout + stderr);
    assert(!/fail|error|verification/i.test(stdout), stdout + stderr);
    assertEquals(await server.stop(), 0);
  });
}

/** The recipe as it stands in the documentation. */
async function recipe(): Promise<string> {
  const text = await Deno.readTextFile(new URL("../../docs/operating.md", import.meta.url));
  const [, python] = /```python\n(.*?)```/s.exec(text) ?? [];
  assert(python !== undefined, "docs/operating.md has a recipe in Python");
  return python;
}

for (const how of ["killed", "stopped"] as const) {
  Deno.test(`libnbd: with the recipe for retries nothing is lost when the server is ${how} and started again`, async () => {
    if (!requireTool("nbdsh")) return;
    await using temp = await Temp.make();
    const { pair } = await temp.pair();
    const uri = `nbd+unix:///?socket=${temp.join("s")}`;
    const args = [...pair, "--listen", uri];
    let server = await ServerProcess.start(args);
    const program = `
for block in range(60):
    def work(connection):
        connection.pwrite(bytes([block + 1]) * 4096, block * 4096)
        connection.flush()
    patiently(uri, work)
    time.sleep(0.05)
def verify(connection):
    for block in range(60):
        assert connection.pread(4096, block * 4096) == bytes([block + 1]) * 4096, block
patiently(uri, verify)
print("all of it is there")
`;
    const client = tryRun("nbdsh", "-c", `uri = ${JSON.stringify(uri)}`, "-c", await recipe(), "-c", program);
    for (let round = 0; round < 2; round++) {
      await new Promise((resolve) => setTimeout(resolve, 1000));
      if (how === "killed") await server.kill();
      else assertEquals(await server.stop(), 0);
      await new Promise((resolve) => setTimeout(resolve, 300));
      server = await ServerProcess.start(args);
    }
    const { code, stdout, stderr } = await client;
    assertEquals(code, 0, stderr);
    assert(stdout.includes("all of it is there"), stdout);
    assertEquals(await server.stop(), 0);
  });
}

Deno.test("nbdkit: its retry filter carries any client over a restart", async () => {
  if (!requireTool("nbdkit") || !requireTool("nbdsh")) return;
  await using temp = await Temp.make();
  const { pair } = await temp.pair();
  const uri = `nbd+unix:///?socket=${temp.join("s")}`;
  const args = [...pair, "--listen", uri];
  let server = await ServerProcess.start(args);
  await using proxy = await ForeignServer.start("nbdkit", (socket) => [
    ...["-f", "-U", socket, "--filter=retry", "nbd", `uri=${uri}`],
    ...["retries=60", "retry-delay=1", "retry-exponential=no"],
  ]);
  if (proxy === undefined) return;
  const program = `
import time
h.connect_uri(${JSON.stringify(proxy.uri)})
for block in range(40):
    h.pwrite(bytes([block + 1]) * 4096, block * 4096)
    h.flush()
    time.sleep(0.05)
for block in range(40):
    assert h.pread(4096, block * 4096) == bytes([block + 1]) * 4096, block
h.shutdown()
print("all of it is there")
`;
  const client = tryRun("nbdsh", "-c", program);
  await new Promise((resolve) => setTimeout(resolve, 1000));
  assertEquals(await server.stop(), 0);
  server = await ServerProcess.start(args);
  const { code, stdout, stderr } = await client;
  assertEquals(code, 0, stderr);
  assert(stdout.includes("all of it is there"), stdout);
  assertEquals(await server.stop(), 0);
});
