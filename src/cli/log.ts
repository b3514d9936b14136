/**
 * What a server tells of itself on stderr: sentences for people, or JSON lines for machines.
 *
 * Levels: `error` = data is lost, or clients get errors; `warning` = data may be at risk, or something does not work as it
 * should; `info` = all is well; `debug` = for finding mistakes.
 *
 * @module
 */

import { type Clock, systemClock } from "../clock.ts";
import type { Message } from "../control/streams.ts";
import type { Terminal } from "./output.ts";

/** The levels, the gravest first. */
export const logLevels = ["error", "warning", "info", "debug"] as const;
/** How a message looks. */
export const logFormats = ["text", "json"] as const;

/** How grave a message is. */
export type LogLevel = typeof logLevels[number];

/** A server's log. */
export class Log {
  readonly #terminal: Terminal;
  readonly #format: string;
  readonly #level: number;
  readonly #clock: Clock;
  /** Also gets each message that is told. */
  onMessage: (message: Message) => void = () => {};

  constructor(terminal: Terminal, format: string, level: string, clock: Clock = systemClock) {
    this.#terminal = terminal;
    this.#format = format;
    this.#level = logLevels.indexOf(level as LogLevel);
    this.#clock = clock;
  }

  /** Tells `message`, unless it is less grave than what is wanted. */
  tell(level: LogLevel, message: string): void {
    if (logLevels.indexOf(level) > this.#level) return;
    const told = { time: new Date(this.#clock.wallMs()).toISOString(), level, message };
    this.onMessage(told);
    // What goes as expected needs no label in front of a person.
    const label = level === "info" ? "" : `${level}: `;
    this.#terminal.err((this.#format === "json" ? JSON.stringify(told) : label + message) + "\n");
  }

  /** A terminal for progress, whose lines become messages where a machine reads. */
  get terminal(): Terminal {
    if (this.#format === "text" && this.#level >= logLevels.indexOf("info")) return this.#terminal;
    return {
      out: (text) => this.#terminal.out(text),
      err: (text) => this.tell("info", text.trimEnd()),
      interactive: false,
      colours: false,
      columns: () => this.#terminal.columns(),
    };
  }
}
