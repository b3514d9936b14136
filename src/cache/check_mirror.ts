/**
 * `check` of a mirrored cache device: each leg by itself, as if the other were gone, and then what the two say of each other.
 *
 * Invariant: what one leg has lost and the other, which counts as well, has not, is damage and no loss.
 *
 * @module
 */

import type { BlockDevice } from "../device/block_device.ts";
import { RefusedError } from "../errors.ts";
import { legMarkOffsets } from "../log/layout.ts";
import { type LegMark, readLegMark, readLegMarkCopies } from "../log/leg_mark.ts";
import { sectorBytes } from "../units.ts";
import type { CheckOptions, CheckReport, Problem } from "./check.ts";
import { judge, type Judgement } from "./legs.ts";
import { openTarget } from "./pair.ts";

/** Notes what a leg says of itself, and whether both copies of its mark do. A crash leaves no half of a sector. */
export async function noteLeg(device: BlockDevice, notes: string[], problems: Problem[]): Promise<void> {
  const { name } = device;
  const mark = await readLegMark(device);
  const copies = await readLegMarkCopies(device);
  for (const [copy, found] of copies.entries()) {
    if (found !== undefined || mark === undefined) continue;
    problems.push({
      ...markProblem("damage", `copy ${copy} of the leg's mark is damaged; the other copy is good`),
      offset: legMarkOffsets[copy]!,
    });
  }
  if (mark?.claim === "together") {
    notes.push(`${name} is a leg of a mirror, and both legs count as far as it knows`);
  } else if (mark?.claim === "alone") {
    notes.push(`${name} is a leg of a mirror, and the other is known to be stale`);
  } else {
    problems.push(markProblem(
      "loss",
      mark === undefined
        ? `${name} is a leg of a mirror, and its marks are damaged`
        : `${name} is a leg of a mirror whose copy was never completed`,
    ));
  }
}

function markProblem(severity: Problem["severity"], what: string): Problem {
  return { severity, what, offset: legMarkOffsets[0], length: sectorBytes };
}

/** Checks both legs, each with `checkOne`. */
export async function checkMirror(
  options: CheckOptions,
  mirror: string | BlockDevice,
  checkOne: (options: CheckOptions) => Promise<CheckReport>,
): Promise<CheckReport> {
  const { mirror: _, ...others } = options;
  const targets = [options.cache, mirror] as const;
  const reports: CheckReport[] = [];
  const marks: (LegMark | undefined)[] = [];
  for (const target of targets) {
    reports.push(await checkOne({ ...others, cache: target }));
    marks.push(await markOf(target));
  }
  const [a, b] = reports as [CheckReport, CheckReport];
  const names = targets.map((target) => typeof target === "string" ? target : target.name);
  if (a.uuid !== b.uuid) {
    throw new RefusedError(
      `Cannot check ${names[0]} and ${
        names[1]
      } as a mirror: they belong to different caches (${a.uuid} and ${b.uuid})`,
    );
  }
  const judgement: Judgement = marks[0] && marks[1] ? judge(marks[0], marks[1]) : { kind: "incomplete" };
  // What counts is told in full; the other leg is told of besides.
  const first = judgement.kind === "stale" && judgement.stale === 0 ? b : a;
  const problems = reports.flatMap((report, leg) =>
    report.problems.map((problem) => ({
      ...(judgement.kind === "pair" ? softened(problem, reports[1 - leg]!) : problem),
      leg: names[leg]!,
    }))
  );
  const said = sentenceOf(judgement, names);
  if (said) problems.push({ ...markProblem(said.severity, said.what), leg: names[said.leg]! });
  return { ...first, notes: [...new Set(reports.flatMap(({ notes }) => notes))], problems };
}

async function markOf(target: string | BlockDevice): Promise<LegMark | undefined> {
  const device = await openTarget(target, false);
  try {
    return await readLegMark(device);
  } finally {
    if (typeof target === "string") await device.close();
  }
}

/** A loss that the other leg makes good. */
function softened(problem: Problem, other: CheckReport): Problem {
  const isThere = problem.severity === "loss" &&
    other.problems.every(({ offset, length }) =>
      offset >= problem.offset + problem.length || offset + length <= problem.offset
    );
  return isThere
    ? { ...problem, severity: "damage", what: `${problem.what}; the other leg has it` }
    : problem;
}

function sentenceOf(
  judgement: Judgement,
  names: readonly string[],
): { severity: Problem["severity"]; what: string; leg: 0 | 1 } | undefined {
  switch (judgement.kind) {
    case "pair":
      return undefined;
    case "stale":
      return {
        severity: "damage",
        what: `${
          names[judgement.stale]
        } is stale: ${judgement.why}; serve with --resync-mirror brings it up to date`,
        leg: judgement.stale,
      };
    case "split":
      return {
        severity: "loss",
        what: "each leg was written without the other, and neither has all",
        leg: 0,
      };
    case "strangers":
      return {
        severity: "loss",
        what: "the two legs do not belong together: each had another partner last",
        leg: 1,
      };
    case "incomplete":
      return { severity: "loss", what: "at least one leg has no mark that counts", leg: 1 };
  }
}
