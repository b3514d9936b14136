/** The parts of the command line that need no engine: progress, reports, tunables. @module */

import { assert, assertEquals } from "../assert.ts";
import type { Clock } from "../../src/clock.ts";
import { factLines, Output } from "../../src/cli/output.ts";
import { PhaseProgress, Progress, progressText } from "../../src/cli/progress.ts";
import { formatSeconds, mib } from "../../src/units.ts";
import { CaughtTerminal } from "./support.ts";

class ManualClock implements Clock {
  nowMs = 0;
  monotonicMs = () => this.nowMs;
  wallMs = () => this.nowMs;
  after = () => () => {};
}

Deno.test("progressText: a bar with amounts, rate and time left, never wider than the terminal", () => {
  const state = {
    label: "draining",
    done: 25 * mib,
    total: 100 * mib,
    rate: 5 * mib,
    unit: "bytes",
  } as const;
  assertEquals(
    progressText(state, 100, true),
    "draining [########......................]  25%, 25 MiB of 100 MiB, 5 MiB/s, 15 s left",
  );
  for (const columns of [10, 40, 60, 70]) assert(progressText(state, columns, true).length <= columns);
  assertEquals(
    progressText({ ...state, total: 0, done: 0, rate: 0 }, 80, false),
    "draining   0%, 0 B of 0 B",
  );
});

Deno.test("progressText: blocks are shown as what they weigh, other things are counted", () => {
  const state = { label: "draining", done: 256, total: 1_048_576, rate: 2560, unit: "blocks" };
  assertEquals(progressText(state, 80, false), "draining   0%, 1 MiB of 4 GiB, 10 MiB/s, 6 min 50 s left");
  assertEquals(
    progressText({ ...state, label: "verifying", unit: "records" }, 90, false),
    "verifying   0%, 256 of 1,048,576 records, 2,560/s, 6 min 50 s left",
  );
});

Deno.test("PhaseProgress: each part gets a bar of its own, with its unit", () => {
  const shown: string[] = [];
  const clock = new ManualClock();
  const terminal = new CaughtTerminal(true);
  const progress = new PhaseProgress({
    progress(label, unit) {
      shown.push(`${label} ${unit}`);
      return new Progress(terminal, label, unit, clock);
    },
  });
  for (const phase of ["reading", "verifying", "draining"]) {
    for (let i = 1; i <= 4; i++) {
      clock.nowMs += 1000;
      progress.update(i, 4, phase);
    }
  }
  progress.end();
  assertEquals(shown, ["reading segments", "verifying records", "draining blocks"]);
  assert(terminal.errText.includes("verifying [##") && terminal.errText.endsWith("\r\x1b[K"));
});

Deno.test("formatSeconds: seconds, minutes, hours", () => {
  assertEquals([0, 59.4, 61, 3600, 7860].map(formatSeconds), [
    "0 s",
    "59 s",
    "1 min 01 s",
    "1 h 00 min",
    "2 h 11 min",
  ]);
});

Deno.test("Progress: a terminal gets a bar that goes away, a log file a line now and then", () => {
  const clock = new ManualClock();
  const person = new CaughtTerminal(true);
  const log = new CaughtTerminal(false);
  const shown = [person, log].map((terminal) => new Progress(terminal, "checking", "bytes", clock));
  for (let second = 0; second <= 20; second++) {
    clock.nowMs = second * 1000;
    for (const one of shown) one.update(second * mib, 20 * mib);
  }
  for (const one of shown) one.end();
  assertEquals(person.errText.split("\r").length - 1, 21);
  assert(person.errText.endsWith("\r\x1b[K"));
  assertEquals(log.errText.split("\n").length - 1, 4);
  assert(log.errText.startsWith("checking  25%, 5 MiB of 20 MiB, 1 MiB/s, 15 s left\n"), log.errText);
});

Deno.test("Progress: what is over in a moment prints nothing", () => {
  const terminal = new CaughtTerminal(true);
  const progress = new Progress(terminal, "formatting", "bytes", new ManualClock());
  for (let i = 0; i <= 100; i++) progress.update(i, 100);
  progress.end();
  assertEquals(terminal.errText, "");
});

Deno.test("factLines: names aligned, units from the names, parts indented, lists as tables", () => {
  const report = {
    uuid: "abc",
    cacheBytes: 64 * mib,
    clean: true,
    backing: { kind: "file", sizeBytes: 512 },
    problems: [{ severity: "damage", offset: 4096 }, { severity: "note", offset: 0 }],
    none: [],
  };
  assertEquals(factLines(report), [
    "uuid   abc",
    "cache  64 MiB (67108864 B)",
    "clean  yes",
    "backing:",
    "  kind  file",
    "  size  512 B",
    "problems:",
    "  severity  offset",
    "  damage      4096",
    "  note           0",
    "none: none",
  ]);
});

Deno.test("Output.report: --json is one document with numbers as numbers", () => {
  const terminal = new CaughtTerminal();
  new Output(terminal).report({ sequence: 5n, uuid: new Uint8Array([1, 255]), list: [1] }, true);
  assertEquals(JSON.parse(terminal.outText), { sequence: 5, uuid: "01ff", list: [1] });
});
