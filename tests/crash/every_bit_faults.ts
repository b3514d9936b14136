/**
 * Faults that `deno task every-bit --faults all` plants into throw-away copies of the engine, each a check that somebody could
 * have left out. It must find every one, with its shortcuts; the engine itself has no switch for any of it.
 *
 * @module
 */

import { applyEdit, type Edit, type Mutant, mutants } from "../sim/mutant.ts";

/** A check that is left out. */
export type Fault = Pick<Mutant, "name" | "edits">;

/** One bit in so many is tried: enough for all of these, and a prime, so that all bits of a byte come up. */
const stride = 211;

/** Faults of the simulator's that flipped bits must show as well. */
const shared = [
  "write-back-verifies-nothing",
  "log-read-not-verified",
  "header-proves-record",
  "rebuilt-records-not-applied",
];

const one = (name: string, file: string, find: string, replace: string): Fault => ({
  name,
  edits: [{ file, find, replace }] satisfies Edit[],
});

/** See the head of this file. */
export const faults: readonly Fault[] = [
  ...mutants.filter(({ name }) => shared.includes(name)),
  one(
    "header-not-verified",
    "src/log/codec.ts",
    "if (crcWithout(bytes.subarray(0, halfBytes), recordField.crc) !== crc) return undefined;",
    "",
  ),
  one(
    "entry-copy-not-verified",
    "src/log/codec.ts",
    "if (crcWithout(half, at(previousField.crc)) !== view.getUint32(at(previousField.crc), true)) {",
    "if (half.length === 0) {",
  ),
  one("superblock-not-verified", "src/log/superblock.ts", "if (stored !== computed || view", "if (view"),
  one(
    "checkpoint-header-not-verified",
    "src/log/checkpoint.ts",
    "if (crcWithout(header, field.crc) !== view.getUint32(field.crc, true)) {",
    "if (header.length === 0) {",
  ),
  one(
    "checkpoint-bitmap-not-verified",
    "src/log/checkpoint.ts",
    "if (crc32c(bits.bytes) !== view.getUint32(field.bitmapCrc, true)) {",
    "if (header.length === 0) {",
  ),
  one(
    "leg-mark-not-verified",
    "src/log/leg_mark.ts",
    "if (view.getUint32(field.crc, true) !== crcWithout(bytes, field.crc)) return undefined;",
    "",
  ),
  one(
    "rotten-header-hides-the-other-leg",
    "src/log/recovery.ts",
    "for (let i = 0; i < halfBytes; i++) if (bytes[i]",
    "for (let i = 0; i < blockBytes; i++) if (bytes[i]",
  ),
  one("dropped-record-not-told", "src/log/recovery.ts", "this.#walk.dropped += pending.length - i;", ""),
  one(
    "check-verifies-no-data",
    "src/cache/check.ts",
    "(i + 1) * blockBytes)) === kernels.crcs[slot];",
    "(i + 1) * blockBytes)) >= 0;",
  ),
];

const root = new URL("../../", import.meta.url);

async function copy(folder: string, directory: string): Promise<void> {
  await Deno.mkdir(`${directory}/${folder}`, { recursive: true });
  for await (const { name, isDirectory } of Deno.readDir(new URL(folder, root))) {
    const path = `${folder}/${name}`;
    if (isDirectory) await copy(path, directory);
    else await Deno.copyFile(new URL(path, root), `${directory}/${path}`);
  }
}

/** Runs `deno task every-bit` on a copy of the engine with the fault planted; gives what it found, undefined for nothing. */
export async function huntFault({ edits }: Fault, args: string[] = []): Promise<string | undefined> {
  const directory = await Deno.makeTempDir({ prefix: "nbdboost-fault-" });
  try {
    for (const folder of ["src", "tests/sim", "tests/crash"]) await copy(folder, directory);
    for (const file of ["deno.json", "deno.lock", "mod.ts", "tests/assert.ts", "tests/deno_std.d.ts"]) {
      await Deno.copyFile(new URL(file, root), `${directory}/${file}`);
    }
    for (const edit of edits) {
      const path = `${directory}/${edit.file}`;
      await Deno.writeTextFile(path, applyEdit(await Deno.readTextFile(path), edit));
    }
    const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: [
        ...["run", "--allow-all", "--no-check", "tests/crash/every_bit_main.ts"],
        ...["--stride", `${stride}`, "--workers", "1", ...args],
      ],
      cwd: directory,
      stdout: "piped",
      stderr: "piped",
    }).output();
    if (code === 0) return undefined;
    const lines = new TextDecoder().decode(stdout).split("\n");
    const found = lines.find((line) => line.startsWith("image "));
    if (found === undefined) throw new Error(`it did not run: ${new TextDecoder().decode(stderr)}${lines}`);
    return found;
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

/** Hunts one fault, or `all`; false when one was not found. */
export async function huntFaults(name: string): Promise<boolean> {
  const wanted = faults.filter((fault) => name === "all" || fault.name === name);
  if (wanted.length === 0) {
    console.log(`There is no fault ${name}; there are ${faults.map(({ name }) => name).join(", ")}`);
    return false;
  }
  let missed = 0;
  for (const fault of wanted) {
    const found = await huntFault(fault);
    if (found === undefined) missed++;
    console.log(`${fault.name}: ${found ?? "NOT FOUND"}`);
  }
  console.log(
    `${missed === 0 ? "ok" : "FAILED"}: ${wanted.length - missed} of ${wanted.length} planted faults found`,
  );
  return missed === 0;
}
