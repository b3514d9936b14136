/**
 * `status`: what a running server is up to.
 *
 * @module
 */

import { sleep, systemClock } from "../clock.ts";
import type { ServerStatus } from "../control/status.ts";
import { exitCode } from "../errors.ts";
import { ControlClient } from "./control_client.ts";
import type { Output } from "./output.ts";
import { StopSignal } from "./process.ts";
import { type Earlier, statusLines } from "./status_screen.ts";
import { type Command, jsonOption, type Options, serverOptions } from "./table.ts";

/** How often `--watch` looks. */
const watchMs = 1000;
/** To the terminal's first line; the rest of a line away; and all that is below. */
const [home, clearLine, clearBelow] = ["\x1b[H", "\x1b[K", "\x1b[J"];

/** The verb. */
export const status: Command = {
  name: "status",
  summary: "show what a running server is up to",
  description:
    "Prints one screen: the state and what it means for the data, how full the log is, what waits to be written back and " +
    "how long that will take, and how many requests came and how long they took. With --watch again every second, " +
    "with rates, until Ctrl-C.",
  destroys: "nothing; it only asks.",
  options: [
    ...serverOptions,
    { name: "watch", kind: "flag", summary: "show it again every second" },
    jsonOption,
  ],
  examples: [
    { line: "nbdboost status", says: "of the only server that runs" },
    { line: "nbdboost status --cache /ssd/cache.nbb --watch", says: "of that cache's server, live" },
    { line: "nbdboost status --control /ssd/cache.nbb.sock --json", says: "the facts, for a script" },
  ],
  exits: { 1: "failed: no server answers" },
  async run(options, output) {
    const client = await ControlClient.find(options);
    if (options.flag("watch")) return await watch(client, options, output);
    const status = await client.ask("GET", "/status") as ServerStatus;
    if (options.flag("json")) output.report(status, true);
    else show(status, output);
    return exitCode.done;
  },
};

function show(status: ServerStatus, output: Output): void {
  const { colours } = output.terminal;
  for (const line of statusLines(status, { colours, columns: output.terminal.columns() })) output.line(line);
}

async function watch(client: ControlClient, options: Options, output: Output): Promise<number> {
  using stop = new StopSignal(() => Deno.exit(exitCode.failed));
  let earlier: Earlier | undefined;
  let atMs = systemClock.monotonicMs();
  if (output.terminal.colours && !options.flag("json")) output.terminal.out(home + clearBelow);
  while (!stop.seen) {
    const status = await client.ask("GET", "/status") as ServerStatus;
    const nowMs = systemClock.monotonicMs();
    if (earlier) earlier.seconds = Math.max(0.001, (nowMs - atMs) / 1000);
    // One document a line, as machines like streams.
    if (options.flag("json")) output.line(JSON.stringify(status));
    else {
      const { colours } = output.terminal;
      const lines = statusLines(status, { colours, columns: output.terminal.columns(), earlier });
      // Over the one before, in one piece, so that nothing flickers.
      if (colours) {
        output.terminal.out(home + lines.map((line) => `${line}${clearLine}\n`).join("") + clearBelow);
      } else for (const line of [...lines, ""]) output.line(line);
    }
    earlier = { status, seconds: 1 };
    atMs = nowMs;
    await Promise.race([sleep(systemClock, watchMs), stop.received]);
  }
  return exitCode.done;
}
