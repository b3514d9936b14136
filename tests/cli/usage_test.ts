/** What is typed wrongly ends with 2 and one sentence; what asks for help gets it. @module */

import { assert, assertEquals, assertMatch, assertStringIncludes } from "../assert.ts";
import { commands } from "../../src/cli/commands.ts";
import { version } from "../../src/version.ts";
import { runHere } from "./support.ts";

Deno.test("run: --version prints the version, --help lists every verb", async () => {
  assertEquals(await runHere("--version"), { code: 0, out: version + "\n", err: "" });
  const help = await runHere("--help");
  assertEquals([help.code, help.err], [0, ""]);
  for (const { name, summary } of commands) assertMatch(help.out, new RegExp(`  ${name} .*${summary}`));
});

for (const command of commands) {
  Deno.test(`run: ${command.name} --help shows its options, an example, what it may destroy, its exit codes`, async () => {
    const help = await runHere(command.name, "--help");
    assertEquals([help.code, help.err], [0, ""]);
    for (const { name } of command.options) assertStringIncludes(help.out, `--${name}`);
    for (const { line } of command.examples) assertStringIncludes(help.out, line);
    for (const text of ["May destroy: ", "Examples:", "Exit codes:", "--verbose"]) {
      assertStringIncludes(help.out, text);
    }
    assertEquals(await runHere("help", command.name), help);
  });
}

Deno.test("commands: every example is a line that the parser takes", async () => {
  for (const { name, examples } of commands) {
    for (const { line } of examples) {
      // A client that starts its server has the line of that in brackets.
      const own = /^\S+ \[ (nbdboost .*) \]$/.exec(line)?.[1] ?? line;
      const words = [...own.matchAll(/'([^']*)'|(\S+)/g)].map((match) => match[1] ?? match[2]!);
      assertEquals(words.slice(0, 2), ["nbdboost", name]);
      // With --help at the end nothing is done, but all words before it are read.
      const { code, err } = await runHere(...words.slice(1), "--help");
      assertEquals([code, err], [0, ""], line);
    }
  }
});

/** Words, and what their sentence must name: the option, the value, what was expected. */
const mistakes: readonly (readonly [words: string[], says: string[]])[] = [
  [[], ["No command", "format, serve, status"]],
  [["frmat"], ['"frmat"', "expected one of format, serve", "did you mean format?"]],
  [["--nonsense"], ["--nonsense", "not known"]],
  [["format"], ["lacks --cache PATH and --backing TARGET", "--help"]],
  [["format", "--cache", "c"], ["lacks --backing TARGET"]],
  [["format", "--cache"], ["--cache has no value", "PATH"]],
  [["format", "--cache", "", "--backing", "b"], ["--cache", '""', "PATH"]],
  [["format", "--cache", "c", "--backing", "b", "--cache-size", "12x"], ["--cache-size", '"12x"', "64M"]],
  [["format", "--cache", "c", "--backing", "b", "--cache-size", "0"], ["--cache-size", '"0"', "size"]],
  [["format", "--cache", "c", "--cache", "d", "--backing", "b"], ["--cache is given twice", '"c"', '"d"']],
  [["serve", "--cach", "c"], ["--cach is not known to serve", "did you mean --cache?"]],
  [["serve", "--cache", "c", "--backing", "b", "--io", "turbo"], [
    "--io",
    '"turbo"',
    "auto, ring, portable",
  ]],
  [["serve", "--cache", "c", "--backing", "b", "--set", "writeback"], ["--set", '"writeback"', "KEY=VALUE"]],
  [["serve", "--cache", "c", "--backing", "b", "--set", "speed=9"], ['"speed"', "writeback_batch"]],
  [["serve", "--cache", "c", "--backing", "b", "--set", "writeback=of"], [
    "writeback",
    '"of"',
    "auto, on or off",
  ]],
  [["inspect", "c"], ["inspect", '"c"', "options only"]],
  [["set"], ["set lacks KEY=VALUE"]],
  [["set", "writeback"], ['Cannot read "writeback"', "writeback=on"]],
  [["set", "speed=9"], ['"speed"', "writeback_batch"]],
  [["status", "--control", "nbd://127.0.0.1"], ['"nbd://127.0.0.1"', "the path of a socket"]],
  [["status", "--control", "10.0.0.1:9000"], ["10.0.0.1", "127.0.0.1"]],
  [["drain", "--backing", "b"], ["--cache", "the path of the cache device"]],
  [["drain", "--backing", "b", "--cache", "c", "--control", "s"], ["--control and --backing"]],
  [["drain", "--verify"], ["--verify needs --backing"]],
  [["serve", "--cache", "c", "--backing", "b", "--log-level", "loud"], [
    "--log-level",
    '"loud"',
    "error, warning",
  ]],
];

for (const [words, says] of mistakes) {
  Deno.test(`run: nbdboost ${words.join(" ")}: exit code 2 and a sentence`, async () => {
    const { code, out, err } = await runHere(...words);
    assertEquals([code, out], [2, ""]);
    assertMatch(err, /^nbdboost: [A-Z][^\n]*[.?]\n$/);
    for (const text of says) assertStringIncludes(err, text);
  });
}

Deno.test("run: --verbose, before or after the verb, also prints what caused an error", async () => {
  for (const words of [["--verbose", "inspect", "c"], ["inspect", "c", "--verbose"]]) {
    const { code, err } = await runHere(...words);
    assertEquals(code, 2);
    assert(err.includes("UsageError: ") && err.includes("caused by: CommanderError"), err);
  }
});
