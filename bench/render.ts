/**
 * Turns the committed results into what people look at: the tables in docs/performance.md and the charts of the README.
 *
 * ```text
 * deno run -A bench/render.ts           writes them
 * deno run -A bench/render.ts --check   fails when they differ from what the results give
 * ```
 *
 * @module
 */

import { drawChart } from "./e2e/chart.ts";
import { chartOf } from "./e2e/charts.ts";
import type { BenchResult } from "./e2e/result.ts";
import { renderMarkdown, replaceBetweenMarkers } from "./e2e/tables.ts";

const root = new URL("../", import.meta.url);

/** The committed results. */
export const resultPath = "bench/results/e2e.json";
const documentPath = "docs/performance.md";

/** The files that `result` gives, by path from the root of the repository. */
export function renderAll(result: BenchResult, document: string): Map<string, string> {
  const chart = chartOf(result);
  return new Map([
    [documentPath, replaceBetweenMarkers(document, renderMarkdown(result))],
    ["bench/results/chart-light.svg", drawChart(chart, "light")],
    ["bench/results/chart-dark.svg", drawChart(chart, "dark")],
  ]);
}

/** The paths of those files that are not what the committed results give. */
export function findDrift(): string[] {
  const read = (path: string) => {
    try {
      return Deno.readTextFileSync(new URL(path, root));
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return "";
      throw error;
    }
  };
  const rendered = renderAll(JSON.parse(read(resultPath)), read(documentPath));
  return [...rendered].filter(([path, content]) => read(path) !== content).map(([path]) => path);
}

function main(): number {
  const drift = findDrift();
  if (Deno.args.includes("--check")) {
    for (const path of drift) {
      console.error(`${path} differs from what ${resultPath} gives: deno task bench:render`);
    }
    return drift.length > 0 ? 1 : 0;
  }
  const result = JSON.parse(Deno.readTextFileSync(new URL(resultPath, root)));
  const document = Deno.readTextFileSync(new URL(documentPath, root));
  for (const [path, content] of renderAll(result, document)) {
    Deno.writeTextFileSync(new URL(path, root), content);
    console.log(`${path}${drift.includes(path) ? "" : " (as it was)"}`);
  }
  return 0;
}

if (import.meta.main) Deno.exit(main());
