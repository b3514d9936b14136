/**
 * `deno task mutants [--only NAME,...] [--rule N] [--seeds K] [--worlds N] [--minutes M]
 * [--table]`: plants one fault after the other into a copy of the engine and lets the simulator look for it, from K starting
 * seeds, in up to N worlds (and M minutes) each. What it finds must not be found in the engine without the fault.
 *
 * Prints, for each fault, how often it was found and in how many worlds and crashes, the median over the starting seeds. The
 * last line is a summary; exit code 1 when a fault was never found. `--table`: the rows of docs/durability.md, too.
 *
 * @module
 */

import { type Mutant, mutants, type Outcome, plant, simulate } from "./mutant.ts";

/** Between two starting seeds. */
const seedStep = 100_000;
/** A run that goes on for so long after its time hangs: a world takes much less. */
const hangMs = 180_000;

const only = text("only");
const rule = number("rule", 0);
const seeds = number("seeds", 5);
const worlds = number("worlds", 1000);
const minutes = number("minutes", 10);
const chosen = mutants.filter((mutant) =>
  (only === undefined || only.split(",").includes(mutant.name)) && (rule === 0 || mutant.rule === rule)
);
if (chosen.length === 0) {
  console.log(`there is no such mutant; there are: ${mutants.map(({ name }) => name).join(", ")}`);
  Deno.exit(2);
}

const control = await plant({ name: "control", rule: 0, why: "", edits: [] });
const survivors: string[] = [];
const medians: number[] = [];
const rows = new Map<number, string[]>();
for (const mutant of chosen) {
  const outcomes = await hunt(mutant);
  const found = outcomes.filter(({ killed }) => killed);
  if (found.length === 0) survivors.push(mutant.name);
  const middle = median(outcomes.map(({ killed, worlds }) => killed ? worlds : Infinity));
  if (found.length > 0) medians.push(middle);
  const cells = rows.get(mutant.rule) ?? [];
  rows.set(mutant.rule, [...cells, `\`${mutant.name}\` ${middle}`]);
  console.log(
    `rule ${String(mutant.rule).padStart(2)}  ${mutant.name.padEnd(36)} ` +
      `${found.length === 0 ? "SURVIVED" : "killed"} ${found.length}/${outcomes.length}, ` +
      `median ${middle} worlds, ${
        median(outcomes.map(({ killed, crashes }) => killed ? crashes : Infinity))
      } ` +
      `crashes: ${found[0]?.violation.slice(0, 140) ?? mutant.why}`,
  );
}
if (Deno.args.includes("--table")) {
  for (const [rule, cells] of rows) console.log(`| ${rule} | ${cells.join(", ")} |`);
}
await Deno.remove(control, { recursive: true });
console.log(
  `${survivors.length === 0 ? "ok" : "FAILED"}: ${chosen.length} mutants, ${survivors.length} survived` +
    `${survivors.length > 0 ? ` (${survivors.join(", ")})` : ""}, median ${median(medians)} worlds`,
);
Deno.exit(survivors.length === 0 ? 0 : 1);

async function hunt(mutant: Mutant): Promise<Outcome[]> {
  const directory = await plant(mutant);
  try {
    const outcomes: Outcome[] = [];
    for (let i = 0; i < seeds; i++) {
      const args = ["--from", String(1 + i * seedStep), "--worlds", String(worlds), "--crashes", "Infinity"];
      args.push("--minutes", String(minutes));
      for (const word of mutant.world?.split(" ") ?? []) args.push(`--${word}`);
      const outcome = await simulate(directory, args, minutes * 60_000 + hangMs);
      outcomes.push(outcome);
      if (outcome.again.length > 0) await acquit(outcome);
    }
    return outcomes;
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

/** What is found in the engine without a fault is the engine's own, and proves nothing about this one. */
async function acquit({ again, violation }: Outcome): Promise<void> {
  const outcome = await simulate(control, again, hangMs);
  if (outcome.killed) {
    throw new Error(`the engine itself fails here, "deno task sim ${again.join(" ")}": ${violation}`);
  }
}

function median(numbers: number[]): number {
  const sorted = numbers.toSorted((a, b) => a - b);
  return sorted[(sorted.length - 1) >>> 1] ?? NaN;
}

function text(name: string): string | undefined {
  const at = Deno.args.indexOf(`--${name}`);
  return at < 0 ? undefined : Deno.args[at + 1];
}

function number(name: string, otherwise: number): number {
  return Number(text(name) ?? otherwise);
}
