/**
 * What the verbs print: facts aligned for people or as JSON on stdout, everything else on stderr.
 *
 * Invariant: stdout carries only what was asked for, so that it can be piped.
 *
 * @module
 */

import { NbdboostError } from "../errors.ts";
import { formatSize } from "../units.ts";
import { Progress } from "./progress.ts";

/** Where the text goes; tests bring their own. */
export interface Terminal {
  /** Writes to stdout. */
  out(text: string): void;
  /** Writes to stderr. */
  err(text: string): void;
  /** Whether a person is watching stderr. */
  readonly interactive: boolean;
  /** Whether a person is watching stdout and likes colours. */
  readonly colours: boolean;
  /** The width of stderr in characters. */
  columns(): number;
}

const encoder = new TextEncoder();

function writeAll(stream: { writeSync(bytes: Uint8Array): number }, text: string): void {
  let bytes = encoder.encode(text);
  while (bytes.length > 0) bytes = bytes.subarray(stream.writeSync(bytes));
}

const columnsWhenUnknown = 80;

/**
 * The process's own stdout and stderr. Written synchronously: what was printed survives an abrupt end. What cannot be told on
 * stderr, as its reader is gone or its disk full, is not told: a server lives on without its log.
 */
export const systemTerminal: Terminal = {
  out(text) {
    try {
      writeAll(Deno.stdout, text);
    } catch (cause) {
      if (cause instanceof Deno.errors.BrokenPipe) throw cause;
      throw new NbdboostError(
        `Cannot write to standard output: ${(cause as Error).message}; give it room, or send it elsewhere`,
        { cause },
      );
    }
  },
  err(text) {
    try {
      writeAll(Deno.stderr, text);
    } catch {
      // There is nowhere to say so.
    }
  },
  get interactive() {
    return Deno.stderr.isTerminal();
  },
  get colours() {
    return !Deno.noColor && Deno.stdout.isTerminal();
  },
  columns() {
    try {
      return Deno.consoleSize().columns;
    } catch {
      return columnsWhenUnknown;
    }
  },
};

/** The words of a camelCase name, its unit dropped when the value's text says it: `cacheBytes` → `cache`. */
export function factName(name: string): string {
  return name.replace(/(?<=.)(Bytes|Seconds|Millis|Micros|Ms)$/, "").replace(
    /[A-Z]/g,
    (upper) => ` ${upper.toLowerCase()}`,
  );
}

/** A value for people; the unit comes from the end of the name. */
export function factText(name: string, value: unknown): string {
  if (value === null || value === undefined) return "none";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "number") {
    if (/(^b|B)ytes$/.test(name)) return value < 1024 ? `${value} B` : `${formatSize(value)} (${value} B)`;
    if (/(^s|S)econds$/.test(name)) return `${value} s`;
    if (/(^|[a-z])(Millis|Ms|ms)$/.test(name)) return `${Math.round(value * 10) / 10} ms`;
    return String(value);
  }
  if (value instanceof Uint8Array) return value.toHex();
  return String(value);
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value) &&
    !(value instanceof Uint8Array);
}

/** The lines of a report: names aligned, nested parts indented under their name, lists of parts as tables. */
export function factLines(report: object, indent = ""): string[] {
  const plain: [string, string][] = [];
  const nested: [string, unknown][] = [];
  for (const [name, value] of Object.entries(report)) {
    if (value === undefined) continue;
    if (isRecord(value) || Array.isArray(value)) nested.push([name, value]);
    else plain.push([factName(name), factText(name, value)]);
  }
  const width = Math.max(0, ...plain.map(([name]) => name.length));
  const lines = plain.map(([name, text]) => `${indent}${name.padEnd(width)}  ${text}`);
  for (const [name, value] of nested) {
    if (isRecord(value)) {
      lines.push(`${indent}${factName(name)}:`, ...factLines(value, indent + "  "));
    } else if (Array.isArray(value)) {
      if (value.length === 0) lines.push(`${indent}${factName(name)}: none`);
      else if (value.every(isRecord)) {
        lines.push(`${indent}${factName(name)}:`, ...tableLines(value, indent + "  "));
      } else lines.push(`${indent}${factName(name)}: ${value.map((one) => factText(name, one)).join(", ")}`);
    }
  }
  return lines;
}

/** Rows under aligned headings, numbers to the right. */
export function tableLines(rows: readonly Record<string, unknown>[], indent = ""): string[] {
  const names = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  const cell = (value: unknown): string =>
    value === undefined
      ? "-"
      : Array.isArray(value) || isRecord(value)
      ? JSON.stringify(value, jsonValue)
      : typeof value === "number"
      ? String(value)
      : factText("", value);
  const columns = names.map((name) => {
    const cells = rows.map((row) => cell(row[name]));
    return {
      name,
      cells,
      right: rows.every((row) => typeof row[name] === "number"),
      width: Math.max(name.length, ...cells.map((one) => one.length)),
    };
  });
  const line = (texts: string[]) =>
    indent +
    columns.map(({ right, width }, i) => right ? texts[i]!.padStart(width) : texts[i]!.padEnd(width)).join(
      "  ",
    ).trimEnd();
  return [line(names), ...rows.map((_, row) => line(columns.map(({ cells }) => cells[row]!)))];
}

function jsonValue(_name: string, value: unknown): unknown {
  if (typeof value === "bigint") return Number(value);
  if (value instanceof Uint8Array) return value.toHex();
  return value;
}

/** One command's way to the outside. */
export class Output {
  readonly terminal: Terminal;
  constructor(terminal: Terminal) {
    this.terminal = terminal;
  }

  /** One line on stdout. */
  line(text: string): void {
    this.terminal.out(text + "\n");
  }

  /** A report on stdout: for people, or as JSON. */
  report(report: object, json: boolean): void {
    if (json) this.terminal.out(JSON.stringify(report, jsonValue, 2) + "\n");
    else for (const line of factLines(report)) this.line(line);
  }

  /** One line on stderr: what is going on. */
  note(text: string): void {
    this.terminal.err(text + "\n");
  }

  /** Shows how far something long has come, on stderr, counted in `unit`. Call `end` when it is over. */
  progress(label: string, unit: string): Progress {
    return new Progress(this.terminal, label, unit);
  }
}
