/**
 * `deno task baseline [--runs N] [--seed S]`: a model of dm-writeboost and this project's engine through the same bad days, and
 * a table of what came of them. Exit code 1 when the engine shows a wrong sector, or when the model comes well through a day on
 * which the module is known to lose data: then the simulator does not bite.
 *
 * @module
 */

import { SeededRandom } from "../../src/random.ts";
import { backingBytes, runScenario, scenarios } from "./baseline_scenarios.ts";
import { OurSubject, WriteboostSubject } from "./baseline_subjects.ts";

/** What many runs of one scenario came to. */
export interface Row {
  name: string;
  runs: number;
  harmless: boolean;
  modelLoses: boolean;
  baseline: Sum;
  ours: Sum;
}

/** Sums over runs. */
export interface Sum {
  /** Runs with a wrong sector, and wrong sectors in all. */
  wrongRuns: number;
  wrong: number;
  /** Runs with an I/O error, and sectors that gave one in all. */
  failedRuns: number;
  failed: number;
  /** Runs in which it did not start. */
  refusedRuns: number;
}

/** Runs every scenario on both. */
export async function compare(runs: number, seed: number): Promise<Row[]> {
  const rows: Row[] = [];
  for (const scenario of scenarios) {
    const sums = [WriteboostSubject, OurSubject].map(() => ({
      wrongRuns: 0,
      wrong: 0,
      failedRuns: 0,
      failed: 0,
      refusedRuns: 0,
    })) as [Sum, Sum];
    for (let run = 0; run < runs; run++) {
      for (const [i, Subject] of [WriteboostSubject, OurSubject].entries()) {
        const subject = new Subject(new SeededRandom(seed + run), backingBytes);
        const { wrong, failed, refused } = await runScenario(scenario, subject);
        const sum = sums[i]!;
        sum.wrong += wrong;
        sum.wrongRuns += Math.sign(wrong);
        sum.failed += failed;
        sum.failedRuns += Math.sign(failed);
        sum.refusedRuns += Number(refused);
      }
    }
    const [baseline, ours] = sums;
    const { name, harmless, modelLoses } = scenario;
    rows.push({ name, runs, harmless, modelLoses, baseline, ours });
  }
  return rows;
}

/** What is not as it should be: one sentence each. */
export function faultsOf(rows: Row[]): string[] {
  return rows.flatMap(({ name, harmless, modelLoses, baseline, ours }) => [
    ...(ours.wrong > 0 ? [`${name}: nbdboost shows ${ours.wrong} wrong sectors`] : []),
    ...(harmless && ours.failedRuns + ours.refusedRuns > 0 ? [`${name}: nbdboost lost something`] : []),
    ...(modelLoses === (baseline.wrongRuns + baseline.refusedRuns === 0)
      ? [`${name}: the model of dm-writeboost ${modelLoses ? "lost nothing" : "lost something"}`]
      : []),
  ]);
}

function cells({ name, runs, baseline, ours }: Row): string[] {
  const told = ({ failed, refusedRuns }: Sum, refused: string) =>
    [failed > 0 ? `${failed} EIO` : "", refusedRuns > 0 ? `${refused} ${refusedRuns}x` : ""].filter(Boolean)
      .join(", ") || "-";
  return [
    name,
    `${runs}`,
    `${baseline.wrongRuns}`,
    `${baseline.wrong}`,
    told(baseline, "oops"),
    `${ours.wrong}`,
    told(ours, "refused"),
  ];
}

/** The table in Markdown. */
export function tableOf(rows: Row[]): string {
  const head = [
    "bad day",
    "runs",
    "model: runs with wrong data",
    "model: wrong sectors",
    "model: seen",
    "nbdboost: wrong sectors",
    "nbdboost: seen",
  ];
  return [head, head.map(() => "---"), ...rows.map(cells)].map((row) => `| ${row.join(" | ")} |`).join("\n");
}

if (import.meta.main) {
  const option = (name: string, otherwise: number) => {
    const at = Deno.args.indexOf(`--${name}`);
    return at < 0 ? otherwise : Number(Deno.args[at + 1]);
  };
  const rows = await compare(option("runs", 100), option("seed", 1));
  console.log(tableOf(rows));
  const faults = faultsOf(rows);
  for (const fault of faults) console.log(fault);
  const wrong = (who: "baseline" | "ours") => rows.reduce((sum, row) => sum + row[who].wrong, 0);
  console.log(
    `${faults.length === 0 ? "ok" : "FAILED"}: wrong sectors: model of dm-writeboost ${wrong("baseline")}, ` +
      `nbdboost ${wrong("ours")}`,
  );
  Deno.exit(faults.length === 0 ? 0 : 1);
}
