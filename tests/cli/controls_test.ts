/** The control addresses of a server, without a process: what ends the serving, and what does not. @module */

import type { DrainReport } from "../../src/cache/drain.ts";
import { Controls } from "../../src/cli/controls.ts";
import type { EngineHost } from "../../src/cli/engine_host.ts";
import { Log } from "../../src/cli/log.ts";
import type { ServePlan } from "../../src/cli/serve_plan.ts";
import { exitCode, RefusedError } from "../../src/errors.ts";
import { assertEquals, assertStringIncludes } from "../assert.ts";
import { Temp } from "./support.ts";

/** Asks a server on a unix socket to detach; resolves to all that it answers. */
async function askToDetach(path: string): Promise<string> {
  using connection = await Deno.connect({ transport: "unix", path });
  const head = "POST /detach HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
  await connection.write(new TextEncoder().encode(head));
  let text = "";
  const buffer = new Uint8Array(4096);
  for (let count; (count = await connection.read(buffer)) !== null;) {
    text += new TextDecoder().decode(buffer.subarray(0, count));
  }
  return text;
}

// Why: clients go before the last of a detach is read back. Who asked again then was refused, and that refusal, with nobody served,
// was taken for a detach that had failed: the server ended, and closed the cache under the one that was under way.
Deno.test({
  name: "Controls: who asks for a detach that is under way is refused, and ends nothing",
  ignore: Deno.build.os === "windows",
  async fn() {
    await using temp = await Temp.make();
    const control = temp.join("control.sock");
    const terminal = { out() {}, err() {}, interactive: false, colours: false, columns: () => 80 };
    const plan = { exports: [{ name: "", cache: temp.join("cache"), control }] } as unknown as ServePlan;
    const controls = new Controls(plan, new Log(terminal, "text", "error"));
    await controls.listen(() => {});
    const under = Promise.withResolvers<void>();
    const read = Promise.withResolvers<DrainReport>();
    let asked = 0;
    const served = {
      status: () => Promise.resolve({ serving: false }),
      detach() {
        if (++asked > 1) throw new RefusedError("Cannot detach it: it is being detached or stopped already");
        under.resolve();
        return read.promise;
      },
    };
    let code: number | undefined;
    const ended = controls.start({ exports: [served] } as unknown as EngineHost).then((value) =>
      code = value
    );
    try {
      const first = askToDetach(control);
      await under.promise;
      assertStringIncludes(await askToDetach(control), "detached or stopped already");
      assertEquals(code, undefined);
      read.resolve({ comparedBlocks: 1 } as DrainReport);
      assertStringIncludes(await first, '"comparedBlocks":1');
      assertEquals(await ended, exitCode.done);
    } finally {
      await controls.close();
    }
  },
});
