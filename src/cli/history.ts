/**
 * `history`: the flush points that a cache still holds, of a running server or offline.
 *
 * @module
 */

import { exitCode } from "../errors.ts";
import { portableIo } from "../io/portable.ts";
import { formatSize } from "../units.ts";
import { besideCache } from "./control_address.ts";
import { ControlClient } from "./control_client.ts";
import { type HistoryReport, listHistory } from "./engine.ts";
import { type Output, tableLines } from "./output.ts";
import { type Command, jsonOption, type Options, serverOptions } from "./table.ts";

/** The verb. */
export const history: Command = {
  name: "history",
  summary: "list the moments to which the volume can be seen or put back",
  description:
    "Lists the flush points that the log holds: what a client had made durable with a flush, so a consistent image of the " +
    "volume. For each: its sequence, which is its name, when it was, what changed since the one before it, and whether it " +
    "can still be had. It can until something newer is written back to the backing device: by default that is a matter of " +
    "moments, with hold for as long as the log has room. serve --at SEQUENCE shows one, rewind --to SEQUENCE goes back to it; " +
    "a running server shows it beside the present under the export name NAME@SEQUENCE. With --cache: asks the server that " +
    "serves it, or else reads it.",
  destroys: "nothing; it only reads.",
  options: [
    ...serverOptions,
    {
      name: "limit",
      kind: "number",
      mayBeZero: true,
      value: "N",
      standard: "100",
      summary: "list the newest N flush points; 0 for all",
    },
    jsonOption,
  ],
  examples: [
    { line: "nbdboost history", says: "of the only server that runs" },
    { line: "nbdboost history --cache /ssd/cache.nbb --limit 0 --json", says: "all that this cache holds" },
  ],
  exits: { 1: "failed: no server answers", 3: "refused: this is no cache, or in use" },
  async run(options, output) {
    const limit = options.number("limit") ?? 100;
    const report = await ask(options, limit);
    if (options.flag("json")) output.report(report, true);
    else show(report, output);
    return report.damaged ? exitCode.damage : exitCode.done;
  },
};

async function ask(options: Options, limit: number): Promise<HistoryReport> {
  const cache = options.text("cache");
  if (cache !== undefined && options.text("control") === undefined && !await isServed(cache)) {
    return await listHistory({ cache, limit });
  }
  const client = await ControlClient.find(options);
  return await client.long(`/history?limit=${limit}`, () => {}, { method: "GET" }) as HistoryReport;
}

/** Whether there is the socket of a server beside it, even one that was killed. */
async function isServed(cache: string): Promise<boolean> {
  const beside = besideCache(cache, false);
  if (beside === undefined || !await portableIo.stat(`${beside}.sock`)) return false;
  try {
    (await Deno.connect({ transport: "unix", path: `${beside}.sock` })).close();
    return true;
  } catch {
    return false;
  }
}

function show(report: HistoryReport, output: Output): void {
  const { held, oldestSequence, points, leftOut } = report;
  output.line(
    held
      ? `held: nothing is written back, and every flush point from sequence ${oldestSequence} on stays until the log is full`
      : `not held: flush points from sequence ${oldestSequence} on can be had until something newer is written back`,
  );
  if (points.length === 0) return output.line("the log holds no flush point");
  if (leftOut > 0) output.note(`${leftOut} older flush points are left out; see --limit`);
  const rows = points.map(({ sequence, flushedAt, servable, blocks, bytes, trims, trimmedBytes }) => ({
    sequence,
    time: flushedAt,
    servable: servable ? "yes" : "no",
    blocks,
    written: formatSize(bytes),
    trims,
    trimmed: formatSize(trimmedBytes),
  }));
  for (const line of tableLines(rows)) output.line(line);
}
