/**
 * The status for people: one screen, aligned, with units, and a sentence that says what the state means for the data.
 *
 * @module
 */

import type { HistoryStatus } from "../cache/history_hold.ts";
import type { ServerStatus } from "../control/status.ts";
import { blockBytes, formatCount, formatSeconds, formatSize } from "../units.ts";

/** Two readings of the counters, for rates. */
export interface Earlier {
  status: ServerStatus;
  /** How long ago. */
  seconds: number;
}

const barColumns = 20;
const nameColumns = 12;
const secondsPerYear = 365 * 86_400;
const requestKinds = ["read", "write", "flush", "trim", "zero"] as const;

type Paint = (colour: "green" | "yellow" | "red" | "bold" | "dim", text: string) => string;

const codes = { green: 32, yellow: 33, red: 31, bold: 1, dim: 2 } as const;
const painted: Paint = (colour, text) => `\x1b[${codes[colour]}m${text}\x1b[0m`;
const plain: Paint = (_colour, text) => text;

/** Microseconds for people. */
export function formatMicros(micros: number): string {
  if (micros < 1000) return `${Math.round(micros)} µs`;
  if (micros < 1e6) return `${Number((micros / 1000).toPrecision(3))} ms`;
  return `${Number((micros / 1e6).toPrecision(3))} s`;
}

function blocks(count: number): string {
  return `${formatCount(count)} ${count === 1 ? "block" : "blocks"}`;
}

function paintState(state: ServerStatus["state"], paint: Paint): string {
  const colour = state === "serving" || state === "draining"
    ? "green"
    : state === "poisoned" || state === "degraded"
    ? "red"
    : "yellow";
  return paint(colour, state);
}

function bar(share: number): string {
  const filled = Math.min(barColumns, Math.max(share > 0 ? 1 : 0, Math.round(share * barColumns)));
  return `[${"#".repeat(filled)}${".".repeat(barColumns - filled)}]`;
}

function percent(share: number): string {
  return `${Math.round(share * 100)}%`;
}

/** The screen, line by line, wrapped at `columns`; with rates when there is an earlier reading. */
export function statusLines(
  status: ServerStatus,
  options: { colours: boolean; columns: number; earlier?: Earlier | undefined },
): string[] {
  const paint = options.colours ? painted : plain;
  const { cache, backing, writeback, clients } = status;
  const head = [
    paint("bold", `nbdboost ${status.version}`),
    paintState(status.state, paint),
    `up ${formatSeconds(status.uptimeSeconds)}`,
    `${clients} ${clients === 1 ? "client" : "clients"}`,
  ];
  return [
    head.join("  "),
    ...wrapped(status.meaning, options.columns),
    "",
    ...aligned(
      [
        ["backing", `${backing.target}, ${formatSize(backing.sizeBytes)}`],
        ["cache", `${cache.path}, ${formatSize(cache.sizeBytes)}, and ${formatSize(cache.ramBytes)} of RAM`],
        ...(status.mirror?.legs ?? []).map(({ path, state }) => ["leg", `${path}, ${state}`] as const),
        ["log", logText(status)],
        ["dirty", dirtyText(status)],
        ["write-back", writebackText(status)],
        ...(writeback.point ? [["alone", pointText(writeback.point)] as const] : []),
        ...(status.history.held ? [["history", heldText(status.history)] as const] : []),
        ["reads", hitText(status)],
        ["wear", wearText(status)],
        ["i/o", `${status.io}, ${status.ioReason}`],
        ["settings", settingsText(status)],
      ],
      options.columns,
      paint,
    ),
    ...(writeback.lastError === null
      ? []
      : aligned([["last error", writeback.lastError]], options.columns, paint, (text) => paint("red", text))),
    "",
    ...requestLines(status, options.earlier, paint),
  ];
}

/** Names in a column, and their texts beside it, wrapped there. */
function aligned(
  rows: readonly (readonly [string, string])[],
  columns: number,
  paint: Paint,
  paintText: (text: string) => string = (text) => text,
): string[] {
  return rows.flatMap(([name, text]) =>
    wrapped(text, columns - nameColumns).map((line, i) =>
      paint("dim", (i === 0 ? name : "").padEnd(nameColumns)) + paintText(line)
    )
  );
}

function wrapped(text: string, columns: number): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    if (line !== "" && line.length + 1 + word.length > Math.max(20, columns)) {
      lines.push(line);
      line = "";
    }
    line += (line === "" ? "" : " ") + word;
  }
  return [...lines, line];
}

function logText({ cache, log, bytes }: ServerStatus): string {
  const used = cache.segments === 0 ? 0 : 1 - cache.freeSegments / cache.segments;
  const free = formatSize(cache.freeSegments * cache.segmentBytes);
  const syncs = log.flushesPerSync === 0 ? "" : `, ${Number(log.flushesPerSync.toFixed(1))} flushes a sync`;
  return `${bar(used)} ${percent(used)} in use, ${free} free; wrote ${formatSize(bytes.log)} in ${
    formatCount(log.records)
  } records${syncs}`;
}

function dirtyText({ cache, writeback }: ServerStatus): string {
  if (cache.dirtyBlocks + cache.zeroBlocks === 0) return "nothing";
  const parts = [`${blocks(cache.dirtyBlocks)} (${formatSize(cache.dirtyBlocks * blockBytes)})`];
  if (cache.zeroBlocks > 0) parts.push(`${blocks(cache.zeroBlocks)} of zeroes`);
  if (writeback.etaSeconds !== null) {
    parts.push(`written back in ${formatSeconds(writeback.etaSeconds)} at this rate`);
  }
  return parts.join(", ");
}

function writebackText({ writeback, bytes, cache, backing }: ServerStatus): string {
  const work = backing.away !== null
    ? "cannot, until the backing device answers"
    : cache.dirtyBlocks + cache.zeroBlocks === 0
    ? "has nothing to do"
    : writeback.active || writeback.bytesPerSecond > 0
    ? `at work, ${formatSize(writeback.bytesPerSecond)}/s to the backing device`
    : "waits";
  const merged = writeback.requests === 0
    ? ""
    : `, ${Number(writeback.blocksPerRequest.toFixed(1))} blocks a request`;
  return `${writeback.mode}: ${work}; ${formatSize(bytes.writeback)} so far${merged}`;
}

/** What the backing device would be without the cache. */
export function pointText(point: NonNullable<ServerStatus["writeback"]["point"]>): string {
  const { sequence, at, toSequence, toAt, behindSeconds, lackingBlocks } = point;
  const lacking = lackingBlocks === 0
    ? ""
    : `; ${blocks(lackingBlocks)} of it are older, as the log cannot be read`;
  const to = toSequence === null ? "" : `on its way to ${toSequence} of ${toAt}`;
  if (sequence === null) {
    return `the backing device is ${
      to === "" ? "at no known point yet" : to
    }, and no consistent image until then`;
  }
  const behind = behindSeconds === 0 ? "which is all" : `${formatSeconds(behindSeconds ?? 0)} behind`;
  if (to === "") return `the backing device is at ${sequence} of ${at}, ${behind}${lacking}`;
  return `the backing device is between ${sequence} of ${at} and ${toSequence} of ${toAt}${lacking}`;
}

function wearText({ wear }: ServerStatus): string {
  const { writtenBytes, writeRequests, amplification, ratedBytes, lifeSeconds } = wear;
  const parts = [`${formatSize(writtenBytes)} to the cache device in ${formatCount(writeRequests)} requests`];
  if (amplification !== null) {
    parts.push(`${Number(amplification.toFixed(2))} bytes for each that clients wrote`);
  }
  if (ratedBytes !== null && lifeSeconds !== null) {
    const years = lifeSeconds / secondsPerYear;
    const life = years >= 1 ? `${formatCount(years)} years` : `${formatCount(years * 365)} days`;
    parts.push(`${formatSize(ratedBytes)} would last ${life} at this rate`);
  }
  return parts.join(", ");
}

function hitText({ blocks: { readHit, readMiss } }: ServerStatus): string {
  const total = readHit + readMiss;
  if (total === 0) return "none yet";
  return `${percent(readHit / total)} of ${formatCount(total)} blocks came from RAM or log`;
}

function settingsText({ tunables }: ServerStatus): string {
  return Object.entries(tunables).map(([key, value]) =>
    `${key.replace(/[A-Z]/g, (upper) => `_${upper.toLowerCase()}`)}=${value}`
  ).join(" ");
}

function requestLines(status: ServerStatus, earlier: Earlier | undefined, paint: Paint): string[] {
  const rows = requestKinds.map((kind) => {
    const { p50, p99, max } = status.latencyMicros[kind];
    const count = status.requests[kind];
    const cells = [kind, formatCount(count)];
    if (earlier) cells.push(formatCount((count - earlier.status.requests[kind]) / earlier.seconds));
    const latency = (micros: number) => count === 0 ? "-" : formatMicros(micros);
    return [...cells, latency(p50), latency(p99), latency(max)];
  });
  const names = ["requests", "count", ...(earlier ? ["per second"] : []), "half in", "99% in", "slowest"];
  const widths = names.map((name, i) => Math.max(name.length, ...rows.map((row) => row[i]!.length)));
  const line = (cells: readonly string[]) =>
    cells.map((cell, i) => i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)).join("  ");
  const { bytes, requests } = status;
  const rate = (key: "read" | "written") =>
    earlier
      ? ` (${formatSize(Math.round((bytes[key] - earlier.status.bytes[key]) / earlier.seconds))}/s)`
      : "";
  const errors = requests.error === 0 ? "no errors" : paint("red", `${formatCount(requests.error)} errors`);
  return [
    paint("dim", line(names)),
    ...rows.map(line),
    `clients read ${formatSize(bytes.read)}${rate("read")} and wrote ${formatSize(bytes.written)}${
      rate("written")
    }; ${errors}`,
  ];
}

/** What is held, and for how long. */
export function heldText(status: HistoryStatus): string {
  const { oldestSequence, freeBytes, fullInSeconds } = status;
  const lasts = fullInSeconds === null
    ? ""
    : `, full in about ${formatSeconds(fullInSeconds)} at the present rate`;
  return `held from sequence ${oldestSequence} on; ${formatSize(freeBytes)} of log left${lasts}`;
}
