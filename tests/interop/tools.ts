/**
 * Other people's programs: finding them, running them while this process serves them, and what they print.
 *
 * @module
 */

/** Where a tool comes from, for the message when it is absent. */
const packages = {
  nbdinfo: "libnbd-bin",
  nbdcopy: "libnbd-bin",
  nbdsh: "python3-libnbd",
  "qemu-img": "qemu-utils",
  "qemu-io": "qemu-utils",
  "qemu-nbd": "qemu-utils",
  nbdkit: "nbdkit",
  openssl: "openssl",
  fio: "fio",
  nbdfuse: "libnbd-bin",
  "mkfs.ext4": "e2fsprogs",
  chromium: "chromium",
} as const;

/** A program that the tests drive. */
export type Tool = keyof typeof packages;

/**
 * True when `name` is installed. When it is not, says so loudly; with `CI=true` in the environment it throws, because
 * there every tool has to be present.
 */
export function requireTool(name: Tool): boolean {
  const paths = [...(Deno.env.get("PATH") ?? "").split(":"), "/usr/sbin"];
  const found = paths.some((path) => {
    try {
      return Deno.statSync(`${path}/${name}`).isFile;
    } catch {
      return false;
    }
  });
  if (found) return true;
  const message = `${name} is not installed (apt-get install ${packages[name]})`;
  if (Deno.env.get("CI") === "true") throw new Error(`${message}, but CI=true asks for it`);
  console.warn(`SKIPPED: ${message}`);
  return false;
}

/** What a program left behind. */
export interface Outcome {
  code: number;
  stdout: string;
  stderr: string;
}

/** Runs a program to its end, while this process goes on serving it. */
export async function tryRun(tool: Tool, ...args: string[]): Promise<Outcome> {
  // nbdsh takes the first python3 that it finds, and only the distribution's has its module.
  const env = tool === "nbdsh" ? { PATH: `/usr/bin:${Deno.env.get("PATH")}` } : {};
  const command = new Deno.Command(tool, { args, env, stdin: "null", stdout: "piped", stderr: "piped" });
  const { code, stdout, stderr } = await command.output();
  const decoder = new TextDecoder();
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

/** Runs a program, expects that it succeeds, and returns what it printed. */
export async function run(tool: Tool, ...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await tryRun(tool, ...args);
  if (code !== 0) {
    throw new Error(`${tool} ${args.join(" ")}\nended with ${code}\n${stdout}\n${stderr}`);
  }
  return stdout;
}
