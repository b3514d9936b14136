/**
 * Which of the results are worth a picture.
 *
 * @module
 */

import { ours } from "./bars.ts";
import type { Bar, Chart, Panel } from "./chart.ts";
import { jobs } from "./jobs.ts";
import { peers } from "./peers.ts";
import { type BenchResult, ratio, summarize, type Summary } from "./result.ts";
import { caveat, rateOf, shortNumber } from "./tables.ts";

interface Measure {
  readonly title: string;
  readonly subtitle: string;
  readonly job: string;
  readonly value: "rate" | "cpu";
}

/** What reads the whole story: throughput, its price, syncs, reads. */
const measures: readonly Measure[] = [
  {
    title: "Random 4 KiB writes, QD64",
    subtitle: "per second; ×: how much faster nbdboost is",
    job: "randwrite-qd64",
    value: "rate",
  },
  {
    title: "Server CPU per random 4 KiB write, QD64",
    subtitle: "µs, less is better; ×: how much more than nbdboost",
    job: "randwrite-qd64",
    value: "cpu",
  },
  {
    title: "Random 4 KiB writes, fsync every 32",
    subtitle: "per second, QD16; ×: how much faster nbdboost is",
    job: "randwrite-fsync32",
    value: "rate",
  },
  {
    title: "Random 4 KiB reads that hit, QD64",
    subtitle: "per second; ×: how much faster nbdboost is",
    job: "randread-hit-qd64",
    value: "rate",
  },
];

function makePanel(result: BenchResult, { title, subtitle, job: name, value: kind }: Measure): Panel {
  const job = jobs.find((one) => one.name === name)!;
  const value = (summary: Summary) => kind === "cpu" ? summary.cpuMicrosPerOp : rateOf(job, summary);
  const own = summarize(result, name, ours);
  const bars = peers.flatMap((peer): Bar[] => {
    const summary = peer.start === undefined ? undefined : summarize(result, name, peer.name);
    const length = summary && value(summary);
    if (length === undefined || length === null) return [];
    const label = peer.title.replace("--filter=cache", "cache filter").replace("none + io_uring", "io_uring");
    if (peer.ours) return [{ label, value: length, ours: peer.ours }];
    const gain = kind === "rate"
      ? ratio(result, name, ours, peer.name)
      : own?.cpuMicrosPerOp
      ? length / own.cpuMicrosPerOp
      : undefined;
    return [{ label, value: length, ...(gain === undefined ? {} : { gain: `${gain.toFixed(1)}×` }) }];
  });
  return {
    title,
    subtitle,
    bars,
    lessIsBetter: kind === "cpu",
    format: kind === "cpu" ? (us) => us.toFixed(1) : (rate) => `${shortNumber(rate)} k`,
  };
}

/** The picture of the README. */
export function chartOf(result: BenchResult): Chart {
  const { machine, parameters, date } = result;
  const warning = caveat(result);
  return {
    title: "nbdboost and other NBD servers: the same fio jobs in one run",
    footnotes: [
      `Unix socket, real files and real syncs (nbdkit null and memory keep nothing). Medians of ${parameters.rounds} interleaved rounds of ${parameters.seconds} s.`,
      `${machine.cpu}, ${machine.cores} cores, ${machine.kernel}, ${machine.filesystem}, ${
        date.slice(0, 10)
      }. Repeat it: deno task bench:e2e`,
      ...(warning === undefined ? [] : [`Beware: ${warning}.`]),
    ],
    panels: measures.map((measure) => makePanel(result, measure)),
  };
}
