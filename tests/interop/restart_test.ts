/** Restarts of our server: a client that reconnects finds everything that it had flushed, and goes on. */

import { ServerProcess } from "../../src/cli/self.ts";
import { assert, assertEquals } from "../assert.ts";
import { Temp } from "../cli/support.ts";
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
