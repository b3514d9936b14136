/** Manual pages: complete by the command table, and readable by the formatter where it is installed. @module */

import { commands } from "../../src/cli/commands.ts";
import { manPage } from "../../src/cli/man.ts";
import { commonOptions } from "../../src/cli/table.ts";
import { assert, assertEquals, assertStringIncludes } from "../assert.ts";
import { runHere, Temp } from "./support.ts";

/** What groff makes of a page, and its complaints; undefined, loudly, where it is missing. */
async function groff(page: string): Promise<{ text: string; warnings: string } | undefined> {
  try {
    const child = new Deno.Command("groff", {
      args: ["-man", "-ww", "-Tutf8", "-P-cbou"],
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    const writer = child.stdin.getWriter();
    await writer.write(new TextEncoder().encode(page));
    await writer.close();
    const { stdout, stderr } = await child.output();
    const decode = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
    return { text: decode(stdout), warnings: decode(stderr) };
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound) || Deno.env.get("CI") === "true") throw error;
    console.warn("SKIPPED: groff is not installed");
    return undefined;
  }
}

Deno.test("manPage: every command has a page that names all of its options and examples, without a warning", async () => {
  for (const command of commands) {
    const shown = await groff(manPage(command.name, commands));
    if (shown === undefined) return;
    assertEquals(shown.warnings, "", command.name);
    const words = shown.text.replace(/\s+/g, " ");
    for (const { name } of [...command.options, ...commonOptions]) assertStringIncludes(words, `--${name}`);
    for (const { line } of command.examples) assertStringIncludes(words, line.replace(/\s+/g, " "));
    assertStringIncludes(words, "May destroy: ");
  }
});

Deno.test("man: prints the overview or a command's page, and writes all of them into a directory", async () => {
  const overview = await runHere("man");
  assertEquals([overview.code, overview.err], [0, ""]);
  for (const { name } of commands) assertStringIncludes(overview.out, `nbdboost\\-${name}`);
  assertEquals((await groff(overview.out))?.warnings ?? "", "");
  const page = await runHere("man", "serve");
  assertEquals(page.out, manPage("serve", commands));
  await using temp = await Temp.make();
  const written = await runHere("man", "--output", temp.join(""));
  assertEquals([written.code, written.err], [0, ""]);
  const names = [...Deno.readDirSync(temp.join(""))].map(({ name }) => name).sort();
  assertEquals(names, ["nbdboost.1", ...commands.map(({ name }) => `nbdboost-${name}.1`)].sort());
  assertEquals(await Deno.readTextFile(temp.join("nbdboost-serve.1")), page.out);
  const nowhere = await runHere("man", "--output", temp.join("nowhere"));
  assertEquals(nowhere.code, 1);
  assertStringIncludes(nowhere.err, "expects a directory that exists");
  const wrong = await runHere("man", "sevre");
  assertEquals(wrong.code, 2);
  assertStringIncludes(wrong.err, '"sevre" is not known');
  assert((await runHere("man", "set", "serve")).code === 2);
});
