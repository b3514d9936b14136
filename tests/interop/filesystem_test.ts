/**
 * A real filesystem of the kernel on a served disk, by nbdfuse and a loop device: what it synced survives a server that is
 * killed, by the filesystem's own check, and after a detach the backing image alone holds it.
 */

import { ServerProcess } from "../../src/cli/self.ts";
import { mib } from "../../src/units.ts";
import { assert, assertEquals } from "../assert.ts";
import { runChild, Temp } from "../cli/support.ts";
import { mustRun, skipLoopTests } from "../device/temp.ts";
import { hasFuse, mountServed } from "./mounted.ts";
import { requireTool } from "./tools.ts";

const files = 60;
const fileBytes = 96 * 1024;

function content(file: number): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length: fileBytes }, (_, i) => (i * 31 + file * 17 + (i >>> 9)) & 255);
}

async function checkFiles(fs: string): Promise<void> {
  for (let file = 0; file < files; file++) {
    assertEquals(await Deno.readFile(`${fs}/tree/${file % 7}/${file}`), content(file), `file ${file}`);
  }
}

Deno.test({
  name: "nbdfuse and ext4: what was synced survives a killed server, and a detach leaves a whole image",
  ignore: skipLoopTests,
  fn: async () => {
    if (!requireTool("nbdfuse") || !requireTool("mkfs.ext4") || !await hasFuse()) return;
    await using temp = await Temp.make();
    const { pair, backing } = await temp.pair(96 * mib, "32MiB");
    const uri = `nbd+unix:///?socket=${temp.join("s")}`;
    let server = await ServerProcess.start([...pair, "--listen", uri]);
    const first = await mountServed(uri, temp, 1);
    try {
      await mustRun("mkfs.ext4", "-q", first.loop);
      await mustRun("mount", first.loop, first.fs);
      for (let file = 0; file < files; file++) {
        await Deno.mkdir(`${first.fs}/tree/${file % 7}`, { recursive: true });
        await Deno.writeFile(`${first.fs}/tree/${file % 7}/${file}`, content(file));
      }
      await mustRun("sync", "--file-system", first.fs);
      // Not synced: may be there or not.
      await Deno.writeFile(`${first.fs}/later`, content(1));
      await server.kill();
    } finally {
      await first.leave();
    }
    server = await ServerProcess.start([...pair, "--listen", uri]);
    const second = await mountServed(uri, temp, 2);
    try {
      // Replays the journal, as a mount does; 1 means that it corrected something, which a crash explains.
      const { code } = await new Deno.Command("e2fsck", { args: ["-p", second.loop], stdout: "null" })
        .output();
      assert(code === 0 || code === 1, `e2fsck ended with ${code}`);
      assertEquals((await new Deno.Command("e2fsck", { args: ["-fn", second.loop] }).output()).code, 0);
      await mustRun("mount", second.loop, second.fs);
      await checkFiles(second.fs);
      await mustRun("umount", second.fs);
    } finally {
      await second.leave();
    }
    const detached = await runChild(["detach", "--control", `${temp.join("cache.nbb")}.sock`, "--verify"]);
    assertEquals(detached.code, 0, detached.err);
    assertEquals(await server.ended(), 0);
    assertEquals((await new Deno.Command("e2fsck", { args: ["-fn", backing] }).output()).code, 0);
    const alone = temp.join("alone");
    await Deno.mkdir(alone);
    await mustRun("mount", "-o", "loop,ro", backing, alone);
    try {
      await checkFiles(alone);
    } finally {
      await mustRun("umount", alone);
    }
  },
});
