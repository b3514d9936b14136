/**
 * How far something long has come: a bar with rate and time left for a person at a terminal, a line now and then
 * for a log file, nothing for what is over in a moment.
 *
 * @module
 */

import { type Clock, systemClock } from "../clock.ts";
import { blockBytes, formatCount, formatSeconds, formatSize } from "../units.ts";
import type { Terminal } from "./output.ts";

/** Redraws are at least this far apart. */
const redrawMs = 100;
/** Lines in a log file are at least this far apart. */
const lineMs = 5_000;
/** The rate is smoothed over about this time. */
const rateWindowMs = 3_000;
const barColumnsMax = 30;

/** What a progress line says. */
export interface ProgressState {
  label: string;
  done: number;
  total: number;
  /** Per second; 0 = not known yet. */
  rate: number;
  /** `bytes` and `blocks`, which are shown as sizes, or what else is counted. */
  unit: string;
}

/** The text of one progress line, at most `columns` wide; with a bar when `bar`. */
export function progressText(state: ProgressState, columns: number, bar: boolean): string {
  const { label, done, total, rate, unit } = state;
  const share = total > 0 ? Math.min(1, done / total) : 0;
  const unitBytes = unit === "bytes" ? 1 : unit === "blocks" ? blockBytes : 0;
  const amount = (value: number) =>
    unitBytes > 0 ? formatSize(Math.round(value * unitBytes)) : formatCount(value);
  const parts = [`${String(Math.floor(share * 100)).padStart(3)}%`, `${amount(done)} of ${amount(total)}`];
  if (unitBytes === 0) parts[1] += ` ${unit}`;
  if (rate > 0) {
    parts.push(`${amount(rate)}/s`);
    if (done < total) parts.push(`${formatSeconds((total - done) / rate)} left`);
  }
  const text = parts.join(", ");
  const room = Math.min(barColumnsMax, columns - label.length - text.length - 6);
  if (!bar || room < 5) return `${label} ${text}`.slice(0, columns);
  const filled = Math.round(share * room);
  return `${label} [${"#".repeat(filled)}${".".repeat(room - filled)}] ${text}`;
}

/** Shows one long operation. `update` is cheap and may be called for each step. */
export class Progress {
  #terminal: Terminal;
  #clock: Clock;
  #state: ProgressState;
  #shownAtMs: number;
  #rateAtMs: number;
  #rateDone = 0;
  #visible = false;

  constructor(terminal: Terminal, label: string, unit: string, clock: Clock = systemClock) {
    this.#terminal = terminal;
    this.#clock = clock;
    this.#state = { label, done: 0, total: 0, rate: 0, unit };
    this.#shownAtMs = this.#rateAtMs = clock.monotonicMs();
  }

  /** An `onProgress` of the library. */
  readonly update = (done: number, total: number): void => {
    this.#state.done = done;
    this.#state.total = total;
    const nowMs = this.#clock.monotonicMs();
    const interactive = this.#terminal.interactive;
    if (nowMs - this.#shownAtMs < (interactive ? redrawMs : lineMs)) return;
    this.#measure(nowMs);
    this.#shownAtMs = nowMs;
    this.#visible = true;
    const columns = this.#terminal.columns();
    if (interactive) this.#terminal.err(`\r\x1b[K${progressText(this.#state, columns - 1, true)}`);
    else this.#terminal.err(progressText(this.#state, Infinity, false) + "\n");
  };

  #measure(nowMs: number): void {
    const elapsedMs = nowMs - this.#rateAtMs;
    if (elapsedMs <= 0) return;
    const latest = Math.max(0, this.#state.done - this.#rateDone) / (elapsedMs / 1000);
    const weight = this.#state.rate === 0 ? 1 : Math.min(1, elapsedMs / rateWindowMs);
    this.#state.rate += (latest - this.#state.rate) * weight;
    this.#rateAtMs = nowMs;
    this.#rateDone = this.#state.done;
  }

  /** Takes the bar away; what comes next starts on a fresh line. */
  readonly end = (): void => {
    if (this.#visible && this.#terminal.interactive) this.#terminal.err("\r\x1b[K");
    this.#visible = false;
  };
}

/** What is counted in the parts of long operations. */
const phaseUnits: Readonly<Record<string, string>> = {
  reading: "segments",
  replaying: "segments",
  verifying: "records",
  draining: "blocks",
  comparing: "blocks",
  copying: "bytes",
};

/** Shows an operation whose parts follow each other, each with a bar of its own. */
export class PhaseProgress {
  readonly #output: { progress(label: string, unit: string): Progress };
  #phase = "";
  #current: Progress | undefined;

  constructor(output: { progress(label: string, unit: string): Progress }) {
    this.#output = output;
  }

  /** An `onProgress` with phases. */
  readonly update = (done: number, total: number, phase: string): void => {
    if (phase !== this.#phase || this.#current === undefined) {
      this.end();
      this.#phase = phase;
      this.#current = this.#output.progress(phase, phaseUnits[phase] ?? "parts");
    }
    this.#current.update(done, total);
  };

  /** Takes the bar away. */
  readonly end = (): void => this.#current?.end();
}
