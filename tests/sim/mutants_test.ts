/**
 * The planted faults fit the engine as it is, and the simulator finds those that show at once; `deno task mutants` hunts all.
 *
 * @module
 */

import { assert, assertEquals, assertGreaterOrEqual } from "../assert.ts";
import { applyEdit, type Mutant, mutants, plant, ruleCount, simulate, textOf } from "./mutant.ts";

const runMsMax = 300_000;

Deno.test("mutants: each text that is replaced stands exactly once in its file, and what comes of it parses", async () => {
  const directory = await Deno.makeTempDir();
  try {
    for (const { name, edits } of mutants) {
      const texts = new Map<string, string>();
      for (const edit of edits) {
        const text = texts.get(edit.file) ?? await textOf(edit.file);
        texts.set(edit.file, applyEdit(text, edit));
      }
      assert(edits.length > 0 && edits.every(({ find, replace }) => find !== replace));
      for (const [file, text] of texts) {
        await Deno.writeTextFile(`${directory}/${name}-${file.replaceAll("/", "-")}`, text);
      }
    }
    // Formatting fails on what is no TypeScript, and minds nothing else.
    const { code, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["fmt", "--quiet", "--no-config", directory],
      stdout: "null",
      stderr: "piped",
    }).output();
    assertEquals(code, 0, new TextDecoder().decode(stderr));
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("mutants: names are unique, every rule has one, and there are thirty", () => {
  assertEquals(new Set(mutants.map(({ name }) => name)).size, mutants.length);
  const rules = new Set(mutants.map(({ rule }) => rule));
  assertEquals([...rules].sort((a, b) => a - b), Array.from({ length: ruleCount }, (_, i) => i + 1));
  assertGreaterOrEqual(mutants.length, 30);
});

async function hunt(mutant: Mutant, worlds: number): Promise<boolean> {
  const directory = await plant(mutant);
  try {
    const outcome = await simulate(directory, ["--from", "1", "--worlds", `${worlds}`, "--light"], runMsMax);
    assert(outcome.killed || outcome.worlds === worlds);
    return outcome.killed;
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

Deno.test("mutants: the simulator finds some in few worlds", async () => {
  for (const name of ["header-proves-record", "flush-without-sync", "backing-not-synced"]) {
    assert(await hunt(mutants.find((mutant) => mutant.name === name)!, 20), name);
  }
});

Deno.test("mutants: a copy of the engine without a fault is accused of nothing", async () => {
  assert(!(await hunt({ name: "none", rule: 0, why: "", edits: [] }, 2)));
});

Deno.test("mutants: docs/durability.md names each of them, by its rule", async () => {
  const text = await textOf("docs/durability.md");
  for (const { name, rule } of mutants) {
    assert(new RegExp(`^\\| ${rule} \\| .*\`${name}\` [0-9]`, "m").test(text), name);
  }
  const named = [...text.matchAll(/^\| \d+ \| (`.*) \|$/gm)].flatMap(([, row]) => row!.match(/`/g)!);
  assertEquals(named.length / 2, mutants.length);
});
