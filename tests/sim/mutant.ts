/**
 * A planted fault, and how to plant it: the texts of a mutant replace texts of a copy of the engine, in a directory that is
 * thrown away. The engine itself knows nothing of it, and has no switch.
 *
 * Invariant: each text that is replaced stands exactly once in its file, so that a mutant cannot silently become another.
 *
 * @module
 */

import { mutantsOfTheCache } from "./mutants_of_the_cache.ts";
import { mutantsOfTheLog } from "./mutants_of_the_log.ts";
import { mutantsOfTheMirror } from "./mutants_of_the_mirror.ts";
import { mutantsOfTheOrder } from "./mutants_of_the_order.ts";
import { mutantsOfThePast } from "./mutants_of_the_past.ts";

/** One text for another, once. */
export interface Edit {
  file: string;
  find: string;
  replace: string;
}

/** A fault that somebody could have made. */
export interface Mutant {
  name: string;
  /** The rule of docs/durability.md that it breaks. */
  rule: number;
  /** Which crash, or which failure of a device, it opens the door to. */
  why: string;
  /** Where it shows; in all worlds, unless it needs devices that fail and rot. */
  world?: "good" | "faulty" | "mirrored" | "prefix" | "history";
  /** More than one where a second defence would hold. */
  edits: Edit[];
}

/** The fifteen rules, and those of the mirror, of the order of write-back, and of history, as one each. */
export const ruleCount = 18;

/** All mutants, by rule. */
export const mutants: readonly Mutant[] = [
  ...mutantsOfTheLog,
  ...mutantsOfTheCache,
  ...mutantsOfTheMirror,
  ...mutantsOfTheOrder,
  ...mutantsOfThePast,
].sort((a, b) => a.rule - b.rule);

const root = new URL("../../", import.meta.url);
/** What some of the simulator's worlds need of the other tests. */
const assertions = ["tests/assert.ts", "tests/deno_std.d.ts"];

/** Applies an edit to the text of its file. Throws when the text to be replaced is not there, or there twice. */
export function applyEdit(text: string, { file, find, replace }: Edit): string {
  const at = text.indexOf(find);
  const count = text.split(find).length - 1;
  if (count !== 1) throw new Error(`${file} holds ${count} times, and must hold once: ${find}`);
  return text.slice(0, at) + replace + text.slice(at + find.length);
}

/** The text of a file of this project. */
export async function textOf(file: string): Promise<string> {
  return await Deno.readTextFile(new URL(file, root));
}

/** Makes a directory with a copy of the engine and its simulator, with the mutant's faults planted. */
export async function plant(mutant: Mutant): Promise<string> {
  const directory = await Deno.makeTempDir({ prefix: "nbdboost-mutant-" });
  for (const folder of ["src", "tests/sim"]) await copy(folder, directory);
  for (const file of ["deno.json", ...assertions]) {
    await Deno.copyFile(new URL(file, root), `${directory}/${file}`);
  }
  for (const edit of mutant.edits) {
    const path = `${directory}/${edit.file}`;
    await Deno.writeTextFile(path, applyEdit(await Deno.readTextFile(path), edit));
  }
  return directory;
}

async function copy(folder: string, directory: string): Promise<void> {
  await Deno.mkdir(`${directory}/${folder}`, { recursive: true });
  for await (const { name, isDirectory } of Deno.readDir(new URL(folder, root))) {
    const path = `${folder}/${name}`;
    if (isDirectory) await copy(path, directory);
    else await Deno.copyFile(new URL(path, root), `${directory}/${path}`);
  }
}

/** The programs that hunt: the simulator, and the exhaustive small worlds. */
export type Hunter = "main.ts" | "exhaustive_main.ts";

function hunterIn(
  directory: string,
  hunter: Hunter,
  args: string[],
  output: "inherit" | "piped" | "null",
): Deno.Command {
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "--allow-all", "--no-check", `tests/sim/${hunter}`, ...args],
    cwd: directory,
    stdout: output,
    stderr: output,
  });
}

/** Runs a program on a planted fault, for people to see. Returns its exit code. */
export async function show(
  name: string,
  args: string[],
  hunter: Hunter = "main.ts",
  output: "inherit" | "null" = "inherit",
): Promise<number> {
  const mutant = mutants.find((mutant) => mutant.name === name);
  if (!mutant) {
    console.log(`There is no mutant ${name}; there are ${mutants.map(({ name }) => name).join(", ")}`);
    return 2;
  }
  if (output === "inherit") console.log(`planted: ${mutant.name} (rule ${mutant.rule}): ${mutant.why}`);
  const directory = await plant(mutant);
  try {
    return (await hunterIn(directory, hunter, args, output).spawn().status).code;
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

/** How a run of the simulator on a planted fault ended. */
export interface Outcome {
  killed: boolean;
  /** Worlds and crashes until then. */
  worlds: number;
  crashes: number;
  /** What was found wrong. */
  violation: string;
  /** Arguments with which the simulator finds it again. */
  again: string[];
}

/** Runs the simulator that {@linkcode plant} copied. A run that takes too long is ended, and counts as found: it hangs. */
export async function simulate(directory: string, args: string[], limitMs: number): Promise<Outcome> {
  const child = hunterIn(directory, "main.ts", args, "piped").spawn();
  let hung = false;
  const timer = setTimeout(() => {
    hung = true;
    child.kill("SIGKILL");
  }, limitMs);
  const { code, stdout, stderr } = await child.output();
  clearTimeout(timer);
  const text = new TextDecoder().decode(stdout);
  const summary = text.match(/: (\d+) worlds, (\d+) crashes/);
  const [worlds, crashes] = [Number(summary?.[1] ?? NaN), Number(summary?.[2] ?? NaN)];
  const line = text.split("\n").find((line) => line.startsWith("seed ")) ??
    new TextDecoder().decode(stderr).trim().split("\n")[0]!;
  // A planted text that does not even run proves nothing.
  if (/ReferenceError|SyntaxError|is not a function/.test(line)) {
    throw new Error(`the mutant is broken: ${line}`);
  }
  const again = text.match(/^again: deno task sim (.*)$/m)?.[1]?.split(" ") ?? [];
  if (!hung && !summary) throw new Error(`the simulator ended without a result, exit code ${code}: ${line}`);
  return { killed: code !== 0 || hung, worlds, crashes, violation: hung ? "hangs" : line, again };
}
