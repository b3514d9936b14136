/**
 * Where figures come from: the machine, the versions of everything that took part, and the commit.
 *
 * @module
 */

import { version } from "../../src/version.ts";
import type { BenchResult } from "./result.ts";

/** What `program` prints, undefined when it cannot be run or fails. */
async function printed(program: string, ...args: string[]): Promise<string | undefined> {
  try {
    const { code, stdout, stderr } = await new Deno.Command(program, { args, stdin: "null" }).output();
    if (code !== 0) return undefined;
    return new TextDecoder().decode(stdout).trim() || new TextDecoder().decode(stderr).trim();
  } catch {
    return undefined;
  }
}

/** The lines that name a version, by program; absent programs are absent. */
export async function findVersions(): Promise<Record<string, string>> {
  const found: Record<string, string> = { nbdboost: version, deno: Deno.version.deno };
  const asked: [string, string][] = [
    ["fio", "--version"],
    ["nbdkit", "--version"],
    ["qemu-nbd", "--version"],
    ["nbd-server", "-V"],
  ];
  for (const [program, option] of asked) {
    const line = await printed(program, option);
    // "qemu-nbd 7.2.22 (Debian ...)", "This is nbd-server version 3.24", "fio-3.33"
    const number = /\d+(\.\d+)+/.exec(line ?? "")?.[0];
    if (number !== undefined) found[program] = number;
  }
  return found;
}

/** The commit of the sources that run, with `+` when they differ from it. */
export async function findCommit(): Promise<string | null> {
  if (Deno.build.standalone || !import.meta.url.startsWith("file:")) return null;
  const root = new URL("../..", import.meta.url).pathname;
  const commit = await printed("git", "-C", root, "rev-parse", "HEAD");
  if (commit === undefined) return null;
  // What renders the results is not what was measured.
  const changed = await printed(
    "git",
    "-C",
    root,
    "status",
    "--porcelain",
    "--",
    "src",
    "wasm",
    "bench/e2e",
  );
  return changed ? `${commit}+` : commit;
}

function cpuModel(): string {
  try {
    return /^model name\s*:\s*(.*)$/m.exec(Deno.readTextFileSync("/proc/cpuinfo"))?.[1] ?? Deno.build.arch;
  } catch {
    return Deno.build.arch;
  }
}

/** The type of the filesystem that `path` is on. */
async function filesystemOf(path: string): Promise<string> {
  return (await printed("df", "--output=fstype", path))?.split("\n").at(-1) ?? "unknown";
}

/** The machine, with the filesystem of `directory`. */
export async function describeMachine(directory: string): Promise<BenchResult["machine"]> {
  return {
    cpu: cpuModel(),
    cores: navigator.hardwareConcurrency,
    memoryBytes: Deno.systemMemoryInfo().total,
    kernel: `${Deno.build.os} ${Deno.osRelease()}`,
    filesystem: await filesystemOf(directory),
  };
}

/** Whether `program` is in one of the directories of PATH. */
export function isInstalled(program: string): boolean {
  return (Deno.env.get("PATH") ?? "").split(":").some((directory) => {
    try {
      return Deno.statSync(`${directory}/${program}`).isFile;
    } catch {
      return false;
    }
  });
}
