/**
 * A served disk as a filesystem of the kernel: by nbdfuse, and a loop device.
 *
 * @module
 */

import { assert } from "../assert.ts";
import type { Temp } from "../cli/support.ts";
import { mustRun } from "../device/temp.ts";

/** Whether `/dev/fuse` is there; a machine without it is said aloud. */
export async function hasFuse(): Promise<boolean> {
  const found = await Deno.stat("/dev/fuse").then(() => true, () => false);
  if (!found) console.warn("SKIPPED: there is no /dev/fuse");
  return found;
}

/** A filesystem, mounted by way of nbdfuse; `leave` undoes it, also when the server is gone. */
export async function mountServed(uri: string, temp: Temp, round: number) {
  const [point, fs] = [temp.join(`fuse${round}`), temp.join(`fs${round}`)];
  await Deno.mkdir(point);
  await Deno.mkdir(fs);
  const fuse = new Deno.Command("nbdfuse", {
    args: [`${point}/disk`, uri],
    stdin: "null",
    stdout: "null",
    stderr: "null",
  }).spawn();
  for (let tries = 0; !await Deno.stat(`${point}/disk`).then(() => true, () => false); tries++) {
    assert(tries < 600, "nbdfuse shows the disk");
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  const loop = (await mustRun("losetup", "--find", "--show", `${point}/disk`)).trim();
  return {
    fs,
    loop,
    async leave() {
      await new Deno.Command("umount", { args: ["--lazy", fs], stderr: "null" }).output();
      await mustRun("losetup", "--detach", loop);
      await mustRun("umount", "--lazy", point);
      await fuse.status;
    },
  };
}
