/** Completion scripts: bash is asked for completions, the others are read by their shells where they are installed. @module */

import { commands } from "../../src/cli/commands.ts";
import { completionScript } from "../../src/cli/completions.ts";
import { assert, assertEquals, assertStringIncludes } from "../assert.ts";
import { runHere } from "./support.ts";

/** Runs a shell's script; undefined, loudly, when there is no such shell. */
async function shell(name: string, args: string[]): Promise<string | undefined> {
  try {
    const { code, stdout, stderr } = await new Deno.Command(name, { args, stdin: "null" }).output();
    assertEquals([code, new TextDecoder().decode(stderr)], [0, ""]);
    return new TextDecoder().decode(stdout);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    console.warn(`SKIPPED: ${name} is not installed`);
    return undefined;
  }
}

async function complete(...words: string[]): Promise<string[] | undefined> {
  const script = completionScript("bash", commands) +
    `compopt() { :; }; COMP_WORDS=(${words.map((word) => `'${word}'`).join(" ")}); ` +
    `COMP_CWORD=${words.length - 1}; _nbdboost; printf '%s\\n' "\${COMPREPLY[@]}"`;
  return (await shell("bash", ["-c", script]))?.split("\n").filter((word) => word !== "").sort();
}

Deno.test("completionScript: bash completes commands, options, and values", async () => {
  if (await complete("nbdboost", "st") === undefined) return;
  assertEquals(await complete("nbdboost", "st"), ["status"]);
  assertEquals(await complete("nbdboost", "de"), ["demo", "detach"]);
  assertEquals(await complete("nbdboost", "detach", "--ver"), ["--verbose", "--verify"]);
  assertEquals(await complete("nbdboost", "serve", "--io", ""), ["auto", "portable", "ring"]);
  assertEquals(await complete("nbdboost", "serve", "--log-format", "j"), ["json"]);
  assertEquals(await complete("nbdboost", "completions", "f"), ["fish"]);
  assertEquals(await complete("nbdboost", "serve", "--cache", "deno.j"), ["deno.json"]);
  assertEquals(await complete("nbdboost", "serve", "--export", "d"), []);
});

Deno.test("completionScript: every shell's names every command and option, and the shell can read it", async () => {
  for (const name of ["bash", "zsh", "fish"] as const) {
    const { code, out, err } = await runHere("completions", name);
    assertEquals([code, err], [0, ""]);
    for (const command of commands) {
      assertStringIncludes(out, command.name);
      for (const option of command.options) {
        assert(out.includes(name === "fish" ? `-l ${option.name}` : `--${option.name}`));
      }
    }
    await shell(name, ["-n", "-c", out]);
  }
  assertEquals((await runHere("completions", "tcsh")).code, 2);
  assertEquals((await runHere("completions")).code, 2);
  assertEquals((await runHere("completions", "bash", "zsh")).code, 2);
});
