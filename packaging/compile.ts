/**
 * `deno task compile [--all | --target TARGET]`: makes one executable of the command line, dist/nbdboost, or one for each
 * system that Deno compiles for, dist/nbdboost-TARGET, and their checksums, dist/SHA256SUMS.
 *
 * The lock file is left out on purpose: with it, `deno compile` embeds the build's packages, 100 MB of them. Other targets
 * than this machine's need Deno's site, from which their runtime comes.
 *
 * @module
 */

const targets = [
  "x86_64-unknown-linux-gnu",
  "aarch64-unknown-linux-gnu",
  "x86_64-apple-darwin",
  "aarch64-apple-darwin",
  "x86_64-pc-windows-msvc",
] as const;

/** Makes one executable; returns its path. */
async function compile(target: string | undefined): Promise<string> {
  const path = target === undefined
    ? "dist/nbdboost"
    : `dist/nbdboost-${target}${target.includes("windows") ? ".exe" : ""}`;
  const args = ["compile", "--no-lock", "--allow-all", "--output", path];
  if (target !== undefined) args.push("--target", target);
  const { code } = await new Deno.Command(Deno.execPath(), { args: [...args, "cli.ts"] }).spawn().status;
  if (code !== 0) {
    throw new Error(`deno compile for ${target ?? "this machine"} ended with exit code ${code}`);
  }
  return path;
}

async function sumLine(path: string): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", await Deno.readFile(path)));
  return `${digest.toHex()}  ${path.replace("dist/", "")}\n`;
}

const [option, value, ...others] = Deno.args;
const isUsage = option === undefined || (option === "--all" && value === undefined) ||
  (option === "--target" && targets.some((target) => target === value));
if (!isUsage || others.length > 0) {
  console.error(`usage: deno task compile [--all | --target TARGET], TARGET one of ${targets.join(", ")}`);
  Deno.exit(2);
}
const wanted = option === "--all" ? targets : [value];
const paths: string[] = [];
for (const target of wanted) paths.push(await compile(target));
await Deno.writeTextFile("dist/SHA256SUMS", (await Promise.all(paths.map(sumLine))).join(""));
