/**
 * What the benchmarks on throttled loop devices share: the group whose I/O the kernel throttles, and running programs in it.
 *
 * @module
 */

/** The limits of the root group hold for everybody, the kernel's own threads too. */
export const group = "/sys/fs/cgroup/blkio";

/** Starts a command in the group whose I/O is throttled. */
export function inGroup(command: string, args: string[]): Deno.ChildProcess {
  const script = `echo $$ > ${group}/cgroup.procs && exec "$0" "$@"`;
  const all = ["-c", script, command, ...args];
  return new Deno.Command("sh", { args: all, stdout: "piped", stderr: "piped" }).spawn();
}

/** Runs a command that must succeed; returns what it printed. */
export async function output(command: string, args: string[]): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(command, { args }).output();
  if (!success) throw new Error(`${command} ${args.join(" ")} failed: ${new TextDecoder().decode(stderr)}`);
  return new TextDecoder().decode(stdout);
}

/** Why throttling by the file `limit` cannot be had here, or undefined when it can. */
export async function whatIsMissing(limit: string): Promise<string | undefined> {
  if (Deno.build.os !== "linux" || Deno.uid() !== 0) return "loop devices and throttles need Linux and root";
  try {
    await Deno.stat(`${group}/${limit}`);
  } catch {
    return `there is no blkio controller of cgroup v1 at ${group}`;
  }
  for (const command of ["fio", "losetup"]) {
    try {
      await output(command, ["--version"]);
    } catch {
      return `${command} is not installed`;
    }
  }
  return undefined;
}
