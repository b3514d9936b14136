/**
 * The results as Markdown, for docs/performance.md.
 *
 * @module
 */

import { formatSize, mib } from "../../src/units.ts";
import { judge, ours } from "./bars.ts";
import { type Job, jobs } from "./jobs.ts";
import { peers } from "./peers.ts";
import { type BenchResult, median, ratio, summarize, type Summary } from "./result.ts";

/** Fewer rounds are good for trying the harness out only. */
const roundsThatCount = 5;

/** The sentence that says how much a result is worth, if it is not worth much. */
export function caveat({ parameters: { rounds, seconds } }: BenchResult): string | undefined {
  if (rounds >= roundsThatCount) return undefined;
  return `${rounds} round${
    rounds === 1 ? "" : "s"
  } of ${seconds} s: a try-out of the harness, no measurement`;
}

function row(cells: readonly string[]): string {
  return `| ${cells.join(" | ")} |`;
}

function table(head: readonly string[], rows: readonly string[][]): string {
  const align = head.map((_, i) => i === 0 ? "---" : "---:");
  return [row(head), row(align), ...rows.map(row)].join("\n");
}

/** Three digits that mean something. */
export function shortNumber(value: number): string {
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

/** The rate of a job in its unit: thousands of IOPS, or MB/s. */
export function rateOf(job: Job, { iops, megabytesPerSecond }: Summary): number {
  return job.unit === "IOPS" ? iops / 1000 : megabytesPerSecond;
}

function rateUnit(job: Job): string {
  return job.unit === "IOPS" ? "k IOPS" : "MB/s";
}

function provenance(result: BenchResult): string {
  const { machine, versions, parameters, date, commit, skipped, failed } = result;
  const named = Object.entries(versions).map(([name, number]) => `${name} ${number}`).join(", ");
  const lines = [
    `- ${date.slice(0, 10)}, commit ${
      commit === null ? "unknown" : `\`${commit.slice(0, 12)}${commit.endsWith("+") ? "+" : ""}\``
    }`,
    `- ${machine.cpu}, ${machine.cores} cores, ${
      formatSize(machine.memoryBytes)
    } of memory, ${machine.kernel}, ${machine.filesystem}`,
    `- ${named}`,
    `- ${parameters.rounds} × ${parameters.seconds} s after ${parameters.warmUpSeconds} s of warm-up, ${
      formatSize(parameters.sizeBytes)
    } served, ${formatSize(parameters.cacheBytes)} of log, ${
      parameters.transport === "unix" ? "unix socket" : "TCP on loopback"
    }`,
  ];
  for (const { peer, why } of skipped) lines.push(`- left out: ${peer}: ${why}`);
  if (failed.length > 0) {
    const names = [...new Set(failed.map(({ job, peer }) => `${job} against ${peer}`))];
    lines.push(`- runs that failed: ${names.join(", ")}`);
  }
  const warning = caveat(result);
  if (warning !== undefined) lines.unshift(`- **${warning}**`);
  return lines.join("\n");
}

function barsTable(result: BenchResult): string {
  const judged = caveat(result) === undefined;
  const rows = judge(result).map(({ what, needed, measured, met }) => [
    what,
    needed,
    measured ?? "–",
    met === undefined
      ? "not measured"
      : !judged
      ? `not judged: fewer than ${roundsThatCount} rounds`
      : met
      ? "met"
      : "**not met**",
  ]);
  return table(["bar", "needed", "measured", "result"], rows);
}

function jobTable(result: BenchResult, job: Job): string | undefined {
  const summaries = peers.flatMap((peer) => {
    const summary = summarize(result, job.name, peer.name);
    return summary ? [{ peer, summary }] : [];
  });
  if (summaries.length === 0) return undefined;
  const flushes = summaries.some(({ summary }) => summary.flushMicros !== null);
  const sharing = summaries.some(({ summary }) => summary.flushesPerSync !== null);
  const head = [
    "server",
    rateUnit(job),
    ...(job.unit === "IOPS" ? ["MB/s"] : []),
    "p50 µs",
    "p99 µs",
    "p99.9 µs",
    ...(flushes ? ["flush p50 µs", "flush p99 µs"] : []),
    ...(sharing ? ["flushes per sync"] : []),
    "CPU µs/op",
    "RSS MiB",
    "nbdboost is",
  ];
  const rows = summaries.map(({ peer, summary }) => {
    const { latencyMicros, flushMicros, flushesPerSync, cpuMicrosPerOp, peakRssBytes } = summary;
    const gain = peer.ours ? undefined : ratio(result, job.name, ours, peer.name);
    const micros = (value: number | undefined) => value === undefined ? "–" : value.toFixed(0);
    const title = peer.name === ours ? `**${peer.title}**` : peer.title;
    return [
      title,
      shortNumber(rateOf(job, summary)),
      ...(job.unit === "IOPS" ? [shortNumber(summary.megabytesPerSecond)] : []),
      micros(latencyMicros.p50),
      micros(latencyMicros.p99),
      micros(latencyMicros.p999),
      ...(flushes ? [micros(flushMicros?.p50), micros(flushMicros?.p99)] : []),
      ...(sharing ? [flushesPerSync === null ? "–" : flushesPerSync.toFixed(1)] : []),
      cpuMicrosPerOp === null ? "–" : shortNumber(cpuMicrosPerOp),
      peakRssBytes === null ? "–" : (peakRssBytes / mib).toFixed(0),
      gain === undefined ? "" : `${gain.toFixed(2)} ×`,
    ];
  });
  const note = job.note === undefined ? "" : `\n${job.note[0]!.toUpperCase()}${job.note.slice(1)}.\n`;
  return `#### ${job.title}\n${note}\n${table(head, rows)}`;
}

/** How the group commit compares with the device alone, in the same rounds. */
function groupCommit(result: BenchResult): string | undefined {
  const lines = peers.filter((peer) => peer.ours).flatMap((peer) => {
    const { name } = peer;
    return ["sync-1", "sync-16"].flatMap((job) => {
      const summary = summarize(result, job, name);
      const gain = ratio(result, job, name, "device", "sync-1");
      if (!summary || gain === undefined) return [];
      const clients = job === "sync-1" ? "1 client" : "16 clients";
      const shared = summary.flushesPerSync === null ? "–" : summary.flushesPerSync.toFixed(1);
      return [[`${peer.title}, ${clients}`, summary.iops.toFixed(0), shared, `${gain.toFixed(2)} ×`]];
    });
  });
  const device = summarize(result, "sync-1", "device");
  if (!device || lines.length === 0) return undefined;
  return table([
    "each client: 4 KiB write, then flush",
    "flushes/s",
    "flushes per sync",
    "of the device alone",
  ], [
    ...lines,
    ["the device alone: 4 KiB O_DIRECT write + fdatasync", device.iops.toFixed(0), "1.0", "1.00 ×"],
  ]);
}

/** Everything between the markers. */
export function renderMarkdown(result: BenchResult): string {
  const { crc32cGigabytesPerSecond, ceilingMegabytesPerSecond } = result.inProcess;
  const parts = [
    provenance(result),
    "### What was promised",
    barsTable(result),
    "### Group commit",
    groupCommit(result) ?? "Not measured in this run.",
    "### All figures",
    ...(crc32cGigabytesPerSecond.length === 0 ? [] : [
      `In-process: crc32c of a 4 KiB block ${
        shortNumber(median(crc32cGigabytesPerSecond))
      } GB/s; random 4 KiB writes into a cache on memory devices ${
        median(ceilingMegabytesPerSecond).toFixed(0)
      } MB/s.`,
    ]),
    ...jobs.flatMap((job) => jobTable(result, job) ?? []),
  ];
  return parts.join("\n\n") + "\n";
}

const beginMarker = "<!-- bench:begin (made by `deno task bench:render`) -->";
const endMarker = "<!-- bench:end -->";

/** `document` with `markdown` between its markers. */
export function replaceBetweenMarkers(document: string, markdown: string): string {
  const begin = document.indexOf(beginMarker);
  const end = document.indexOf(endMarker);
  if (begin < 0 || end < begin) throw new Error(`The document lacks "${beginMarker}" and "${endMarker}".`);
  return `${document.slice(0, begin + beginMarker.length)}\n${markdown}${document.slice(end)}`;
}
