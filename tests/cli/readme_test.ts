/** What the README tells people to type exists. Its TypeScript is run by `deno test --doc`. @module */

import { assert, assertEquals } from "../assert.ts";
import { commands } from "../../src/cli/commands.ts";
import { runHere } from "./support.ts";

const root = new URL("../../", import.meta.url);
const readme = Deno.readTextFileSync(new URL("README.md", root));
const shellBlocks = [...readme.matchAll(/```sh\n([\s\S]*?)```/g)].map((match) =>
  match[1]!.replaceAll("\\\n", " ")
);
const shellLines = shellBlocks.flatMap((block) => block.split("\n")).map((line) =>
  line.replace(/ #.*/, "").trim()
);

Deno.test("README: every command line is one that the parser takes", async () => {
  let lines = 0;
  for (const line of shellLines) {
    const words = /^(?:nbdboost|deno run .* cli\.ts) (.*)$/.exec(line)?.[1]?.split(/\s+/);
    if (!words) continue;
    const { code, err } = await runHere(...words, "--help");
    assertEquals([code, err], [0, ""], line);
    lines++;
  }
  assert(lines >= 4, `${lines} command lines found`);
});

Deno.test("README: every verb is in its table, and every task that it names exists", () => {
  for (const { name } of commands) assert(readme.includes(`| \`${name}\` |`), name);
  const { tasks } = JSON.parse(Deno.readTextFileSync(new URL("deno.json", root)));
  const named = [...readme.matchAll(/deno(?:@[\d.]+)? task ([a-z][\w-]*)/g)].map((match) => match[1]!);
  assert(named.length > 5);
  for (const name of named) assert(name in tasks, `task ${name}`);
});

Deno.test("README: every file that it links to exists", () => {
  for (const [, target] of readme.matchAll(/\]\(([^)#:]+)\)/g)) {
    assert(Deno.statSync(new URL(target!, root)).isFile);
  }
});
