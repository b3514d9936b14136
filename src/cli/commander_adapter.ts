/**
 * From the command table to the argument parser and back: the only file that knows commander.
 *
 * The parser splits words into options; what the values mean is checked by the table. Its errors come out as
 * {@linkcode UsageError} sentences. It neither exits nor looks at the environment, so `serve` needs no permission
 * for its sake.
 *
 * @module
 */

import { Command as Parser, CommanderError, Option } from "npm:commander@15.1.0";
import { UsageError } from "../errors.ts";
import { version } from "../version.ts";
import {
  type Command,
  commonOptions,
  helpNotes,
  optionLabel,
  type OptionSpec,
  type OptionValue,
  parseOption,
} from "./table.ts";
import type { Terminal } from "./output.ts";

/** What the words came to: a verb with its options, or a text that was printed already. */
export type Parsed =
  | { kind: "command"; command: Command; values: ReadonlyMap<string, OptionValue> }
  | { kind: "printed" };

const helpColumnsMax = 110;

function makeOption(spec: OptionSpec): Option {
  const placeholder = spec.value === undefined ? "" : ` <${spec.value}${spec.repeatable ? ">..." : ">"}`;
  const notes = [
    spec.choices ? `one of ${spec.choices.join(", ")}` : "",
    spec.required ? "required" : "",
    spec.standard ? `default ${spec.standard}` : "",
    spec.repeatable ? "may be repeated" : "",
  ].filter((note) => note !== "");
  const option = new Option(
    // "..." would make the parser take all following words; repetition is collected below instead.
    `--${spec.name}${placeholder.replace("...", "")}`,
    notes.length > 0 ? `${spec.summary} (${notes.join("; ")})` : spec.summary,
  );
  option.attributeName = () => spec.name;
  if (spec.kind === "flag") return option;
  return option.argParser((text: string, earlier: OptionValue | undefined): OptionValue => {
    const value = parseOption(spec, text);
    if (spec.repeatable) return [...(earlier as readonly string[] | undefined ?? []), String(value)];
    if (earlier !== undefined) {
      throw new UsageError(
        `Option --${spec.name} is given twice, "${earlier}" and "${value}": expected it once; leave one out.`,
      );
    }
    return value;
  });
}

function makeParser(
  commands: readonly Command[],
  terminal: Terminal,
  chosen: (command: Command, values: ReadonlyMap<string, OptionValue>) => void,
): Parser {
  const settle = (parser: Parser) =>
    parser
      .exitOverride()
      .allowExcessArguments(false)
      .helpOption("-h, --help", "show this help")
      .showSuggestionAfterError(true)
      .configureOutput({
        writeOut: (text) => terminal.out(text),
        writeErr: () => {},
        getOutHelpWidth: () => Math.min(helpColumnsMax, terminal.columns()),
        getErrHelpWidth: () => Math.min(helpColumnsMax, terminal.columns()),
        getOutHasColors: () => false,
        getErrHasColors: () => false,
      });
  const root = settle(new Parser("nbdboost"))
    .configureHelp({ subcommandTerm: (command) => command.name() })
    .description("A crash-safe, log-structured write-back block cache, served over NBD.")
    .usage("COMMAND [OPTIONS]")
    .version(version, "-V, --version", "show the version")
    .option("--verbose", "also print what caused an error")
    .helpCommand("help [COMMAND]", "show the help of a command");
  for (const command of commands) {
    const parser = settle(root.command(command.name))
      .summary(command.summary)
      .description(
        `${command.summary[0]!.toUpperCase()}${command.summary.slice(1)}.\n\n${command.description}`,
      )
      .usage(usageOf(command));
    for (const spec of [...command.options, ...commonOptions]) parser.addOption(makeOption(spec));
    parser.addHelpText("after", helpNotes(command));
    const { operands } = command;
    if (operands === undefined) {
      parser.action((values: Record<string, OptionValue>) =>
        chosen(command, new Map(Object.entries(values)))
      );
      continue;
    }
    // Whether any is needed is for the table to say, in its own words.
    parser.argument(`[${operands.name}...]`, operands.summary);
    parser.action((words: string[], values: Record<string, OptionValue>) => {
      const parsed = words.map((word) => String(parseOption(operands, word)));
      const all = new Map(Object.entries(values));
      if (parsed.length > 0) all.set(operands.name, parsed);
      chosen(command, all);
    });
  }
  root.addHelpText(
    "after",
    `\nExample:\n  ${commands.find(({ name }) => name === "format")?.examples[0].line ?? "nbdboost help"}\n` +
      "\nExit codes: 0 done, 1 failed, 2 wrong usage, 3 refused for safety, 4 damage found.\n" +
      "Only `format` formats; each command's help says what it may destroy.\n",
  );
  return root;
}

function usageOf(command: Command): string {
  return [...(command.operands ? [command.operands] : []), ...command.options].map((spec) => {
    const text = optionLabel(spec) + (spec.repeatable ? "..." : "");
    return spec.required ? text : `[${text}]`;
  }).join(" ");
}

/** The quoted word of a parser's message. */
function quoted(message: string): string {
  return /'([^']*)'/.exec(message)?.[1] ?? message;
}

/** A sentence that says what was wrong, what was given, what was expected and where to look. */
function usageSentence(error: CommanderError, commands: readonly Command[], args: readonly string[]): string {
  const word = quoted(error.message);
  const command = commands.find(({ name }) => name === args.find((arg) => !arg.startsWith("-")));
  const where = command ? `see nbdboost ${command.name} --help` : "see nbdboost --help";
  const hint = /\(Did you mean (.*)\?\)/.exec(error.message)?.[1];
  const meant = hint === undefined ? "" : `; did you mean ${hint}?`;
  const names = commands.map(({ name }) => name).join(", ");
  switch (error.code) {
    case "commander.unknownCommand":
      return `Command "${word}" is not known: expected one of ${names}${meant || "."}`;
    case "commander.unknownOption": {
      const expected = command
        ? [...command.options, ...commonOptions].map(({ name }) => `--${name}`).join(", ")
        : "--help, --version or a command";
      return `Option ${word} is not known${
        command ? ` to ${command.name}` : ""
      }: expected one of ${expected}${meant || `; ${where}.`}`;
    }
    case "commander.optionMissingArgument": {
      const spec = command?.options.find(({ name }) => word.startsWith(`--${name} `) || word === `--${name}`);
      return `Option --${spec?.name ?? word} has no value: expected ${spec?.value ?? "one"} after it (${
        spec?.summary ?? where
      }).`;
    }
    case "commander.excessArguments": {
      const extra = /got \d+: (.*)\.$/.exec(error.message)?.[1] ?? "";
      return `Command ${command?.name ?? "nbdboost"} was given "${extra}": expected options only; ${where}.`;
    }
    case "commander.help":
      return `No command was given: expected one of ${names}; ${where}.`;
    default:
      return `${error.message.replace(/^error: /, "")}; ${where}.`;
  }
}

/** Reads the words of a command line. Throws a {@linkcode UsageError} for what the table does not allow. */
export function parseArguments(
  args: readonly string[],
  commands: readonly Command[],
  terminal: Terminal,
): Parsed {
  let parsed: Parsed = { kind: "printed" };
  const parser = makeParser(commands, terminal, (command, values) => {
    parsed = { kind: "command", command, values };
  });
  try {
    parser.parse([...args], { from: "user" });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode === 0) return { kind: "printed" };
    throw new UsageError(usageSentence(error, commands, args), { cause: error });
  }
  return parsed;
}
