/**
 * `man`: manual pages in roff, made from the command table, so that they cannot differ from `--help`.
 *
 * @module
 */

import { exitCode, NbdboostError, UsageError } from "../errors.ts";
import { version } from "../version.ts";
import { commands } from "./commands.ts";
import type { Output } from "./output.ts";
import { type Command, commonExits, commonOptions, optionLabel, type OptionSpec } from "./table.ts";

/** The verb. */
export const man: Command = {
  name: "man",
  summary: "print a manual page",
  description:
    "Prints the manual page of a command, or of nbdboost as a whole, in roff: for man, mandoc or groff -man. With " +
    "--output it writes all of them into a directory instead, as nbdboost.1, nbdboost-serve.1 and so on.",
  destroys: "nothing when it prints; with --output, files of these names in the directory.",
  operands: {
    name: "COMMAND",
    value: "COMMAND",
    kind: "text",
    repeatable: true,
    summary: "the command; none: the page that names them all",
  },
  options: [
    {
      name: "output",
      kind: "text",
      value: "PATH",
      summary: "write all pages into this directory, which exists",
    },
  ],
  examples: [
    { line: "nbdboost man serve | man -l -", says: "read it at once" },
    { line: "nbdboost man --output /usr/local/share/man/man1", says: "for everybody on this machine" },
  ],
  async run(options, output) {
    const [name, ...others] = options.list("COMMAND");
    const directory = options.text("output");
    if (others.length > 0 || (name !== undefined && directory !== undefined)) {
      const given = [name, ...others, ...(directory === undefined ? [] : [`--output ${directory}`])];
      throw new UsageError(
        `Several things were asked for (${given.join(", ")}): expected one command, or --output`,
      );
    }
    if (directory === undefined) output.terminal.out(manPage(name, commands));
    else await writePages(directory, output);
    return exitCode.done;
  },
};

async function writePages(directory: string, output: Output): Promise<void> {
  for (const name of [undefined, ...commands.map((command) => command.name)]) {
    const path = `${directory}/${pageName(name)}.1`;
    try {
      await Deno.writeTextFile(path, manPage(name, commands));
    } catch (cause) {
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw new NbdboostError(`Cannot write ${path}: ${reason}; --output expects a directory that exists`, {
        cause,
      });
    }
  }
  output.line(`${commands.length + 1} pages in ${directory}`);
}

/** The name of a command's page, or of the one that names them all, without its section. */
function pageName(command: string | undefined): string {
  return command === undefined ? "nbdboost" : `nbdboost-${command}`;
}

/** The page of the command `name`, or the one of all of them. */
export function manPage(name: string | undefined, table: readonly Command[]): string {
  if (name === undefined) return overviewPage(table);
  const command = table.find((one) => one.name === name);
  if (command === undefined) {
    throw new UsageError(
      `Command "${name}" is not known: expected one of ${table.map((one) => one.name).join(", ")}`,
    );
  }
  return commandPage(command, table);
}

/** Text that roff takes as it is: no escape, no request at the start of a line, dashes that can be copied. */
function plain(text: string): string {
  return text.replaceAll("\\", "\\e").replaceAll("-", "\\-").replace(/^(?=[.'])/gm, "\\&");
}

function bold(text: string): string {
  return `\\fB${plain(text)}\\fR`;
}

function head(title: string, summary: string): string[] {
  const source = plain(`nbdboost ${version}`);
  return [
    `.TH ${title.toUpperCase()} 1 "" "${source}" "nbdboost"`,
    ".SH NAME",
    `${plain(title)} \\- ${plain(summary)}`,
  ];
}

function optionTerm(spec: OptionSpec): string {
  const value = spec.value === undefined ? "" : ` \\fI${plain(spec.value)}\\fR`;
  return `${bold(`--${spec.name}`)}${value}`;
}

function optionText(spec: OptionSpec): string {
  const notes = [
    spec.choices ? `one of ${spec.choices.join(", ")}` : "",
    spec.required ? "required" : "",
    spec.standard ? `default ${spec.standard}` : "",
    spec.repeatable ? "may be repeated" : "",
  ].filter((note) => note !== "");
  return plain(`${sentence(spec.summary)}${notes.length > 0 ? ` (${sentence(notes.join("; "))})` : ""}`);
}

/** With a capital, where it begins with a word and not with something to be typed, and a full stop. */
function sentence(text: string): string {
  const first = /^[a-z]+(?=[ ,;:]|$)/.test(text) ? text[0]!.toUpperCase() : text[0]!;
  return `${first}${text.slice(1)}${/[.?!]$/.test(text) ? "" : "."}`;
}

function commandPage(command: Command, table: readonly Command[]): string {
  const synopsis = [...(command.operands ? [command.operands] : []), ...command.options].map((spec) => {
    const text = plain(optionLabel(spec)) + (spec.repeatable ? " ..." : "");
    return spec.required ? text : `[${text}]`;
  });
  const lines = [
    ...head(pageName(command.name), command.summary),
    ".SH SYNOPSIS",
    ".nh",
    ".ad l",
    `${bold(`nbdboost ${command.name}`)} ${synopsis.join(" ")}`,
    ".ad",
    ".hy",
    ".SH DESCRIPTION",
    plain(command.description),
    ".PP",
    `${bold("May destroy:")} ${plain(command.destroys)}`,
    ".SH OPTIONS",
  ];
  if (command.operands) {
    lines.push(".TP", `\\fI${plain(command.operands.name)}\\fR`, optionText(command.operands));
  }
  for (const spec of [...command.options, ...commonOptions]) {
    lines.push(".TP", optionTerm(spec), optionText(spec));
  }
  if (command.options.some(({ kind }) => kind === "size")) {
    lines.push(".PP", plain("SIZE is in bytes, or with K M G T / KiB MiB GiB TiB, all powers of 1024."));
  }
  lines.push(".SH EXIT STATUS", ...exitLines(command.exits));
  lines.push(".SH EXAMPLES");
  for (const { line, says } of command.examples) {
    lines.push(".PP", sentence(plain(says)), ".PP", ".RS 4", ".nf", plain(line), ".fi", ".RE");
  }
  lines.push(".SH SEE ALSO", seeAlso(table.filter((one) => one !== command)));
  return lines.join("\n") + "\n";
}

function exitLines(exits: Command["exits"] = {}): string[] {
  return ([0, 1, 2, 3, 4] as const).flatMap((code) => [
    ".TP",
    bold(String(code)),
    plain(sentence(exits[code] ?? commonExits[code])),
  ]);
}

function seeAlso(table: readonly Command[]): string {
  return [
    `${bold(pageName(undefined))}(1)`,
    ...table.map(({ name }) => `${bold(pageName(name))}(1)`),
  ].join(",\n");
}

function overviewPage(table: readonly Command[]): string {
  const lines = [
    ...head(pageName(undefined), "a crash-safe, log-structured write-back block cache, served over NBD"),
    ".SH SYNOPSIS",
    `${bold("nbdboost")} \\fICOMMAND\\fR [\\fIOPTIONS\\fR]`,
    ".SH DESCRIPTION",
    plain(
      "Makes a slow disk fast for writes by a small fast one. Every write goes to a log on the cache device, many in one " +
        "large sequential write; it reaches the backing device later, sorted and merged. Clients come over NBD.",
    ),
    ".PP",
    plain(
      "The cache device is a part of the disk: what was not written back yet is on it alone. Run drain or detach before the " +
        "backing device is used without the cache.",
    ),
    ".SH COMMANDS",
  ];
  for (const { name, summary } of table) lines.push(".TP", bold(name), plain(sentence(summary)));
  lines.push(
    ".SH EXIT STATUS",
    ...exitLines(),
    ".SH EXAMPLES",
    ".nf",
    ...(["format", "serve", "drain"] as const).map((name) =>
      plain(table.find((one) => one.name === name)?.examples[0].line ?? name)
    ),
    ".fi",
    ".SH SEE ALSO",
    table.map(({ name }) => `${bold(pageName(name))}(1)`).join(",\n"),
  );
  return lines.join("\n") + "\n";
}
