/**
 * Temporary directories, loop devices and other processes for the tests of devices.
 *
 * @module
 */

import { assert } from "../assert.ts";

/** Runs `body` with a fresh directory, which is removed afterwards. */
export async function withDirectory(body: (directory: string) => Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir({ prefix: "nbdboost-test-" });
  try {
    await body(directory);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

/** Runs a program to its end. */
export async function run(program: string, ...args: string[]): Promise<{ code: number; text: string }> {
  const { code, stdout, stderr } = await new Deno.Command(program, { args, stdin: "null" }).output();
  const decoder = new TextDecoder();
  return { code, text: (decoder.decode(stdout) + decoder.decode(stderr)).trim() };
}

/** Runs a program that must succeed. */
export async function mustRun(program: string, ...args: string[]): Promise<string> {
  const { code, text } = await run(program, ...args);
  assert(code === 0, `${program} ${args.join(" ")} ended with ${code}: ${text}`);
  return text;
}

/** Why there are no loop devices here, or undefined when there are. */
async function loopDevicesMissing(): Promise<string | undefined> {
  if (Deno.build.os !== "linux") return "loop devices are Linux's";
  if (Deno.uid() !== 0) return "loop devices need root";
  const found = await run("losetup", "-f").catch((error) => ({ code: -1, text: String(error) }));
  return found.code === 0 ? undefined : `losetup does not work here: ${found.text}`;
}

const missing = await loopDevicesMissing();
/** True when tests that need loop devices (and mounts) must be skipped; in CI they run, and fail. */
export const skipLoopTests: boolean = missing !== undefined && Deno.env.get("CI") !== "true";
if (skipLoopTests) console.warn(`SKIPPED: tests on real block devices: ${missing}`);

/** Runs `body` with a loop device over a new file of `sizeBytes`; `args` go to losetup. */
export async function withLoopDevice(
  sizeBytes: number,
  args: string[],
  body: (path: string, directory: string) => Promise<void>,
): Promise<void> {
  await withDirectory(async (directory) => {
    const image = `${directory}/image`;
    await Deno.writeFile(image, new Uint8Array(0));
    await Deno.truncate(image, sizeBytes);
    const path = await mustRun("losetup", "-f", "--show", ...args, image);
    try {
      await body(path, directory);
    } finally {
      await mustRun("losetup", "-d", path);
    }
  });
}

/** Runs `body` with a mounted tmpfs of `sizeBytes`. Needs root. */
export async function withSmallFilesystem(
  sizeBytes: number,
  body: (directory: string) => Promise<void>,
): Promise<void> {
  await withDirectory(async (directory) => {
    await mustRun("mount", "-t", "tmpfs", "-o", `size=${sizeBytes}`, "none", directory);
    try {
      await body(directory);
    } finally {
      // Lazily: a test that failed may have left something open.
      await mustRun("umount", "--lazy", directory);
    }
  });
}
