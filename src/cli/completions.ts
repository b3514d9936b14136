/**
 * `completions`: scripts by which shells complete this command line, made from the command table.
 *
 * @module
 */

import { exitCode, UsageError } from "../errors.ts";
import { commands } from "./commands.ts";
import { type Command, commonOptions, type OptionSpec } from "./table.ts";

const shells = ["bash", "zsh", "fish"] as const;

/** The verb. */
export const completions: Command = {
  name: "completions",
  summary: "print a shell's completion script",
  description: "Prints a script that lets a shell complete commands, options and their values.",
  destroys: "nothing; it only prints.",
  operands: {
    name: "SHELL",
    value: "SHELL",
    kind: "choice",
    choices: shells,
    required: true,
    repeatable: true,
    summary: "bash, zsh or fish",
  },
  options: [],
  examples: [
    {
      line: "nbdboost completions bash",
      says: "put it into ~/.local/share/bash-completion/completions/nbdboost",
    },
    { line: "nbdboost completions fish", says: "put it into ~/.config/fish/completions/nbdboost.fish" },
  ],
  run(options, output) {
    const [shell, ...others] = options.list("SHELL");
    if (others.length > 0) {
      throw new UsageError(`Several shells were given (${shell}, ${others}): expected one`);
    }
    output.terminal.out(completionScript(shell as typeof shells[number], commands));
    return Promise.resolve(exitCode.done);
  },
};

/** What may stand for an option's value: fixed words, or files. */
function valueWords(spec: OptionSpec): readonly string[] | "files" | "nothing" {
  if (spec.choices !== undefined) return spec.choices;
  return /^(PATH|FILE|TARGET|ADDRESS)$/.test(spec.value ?? "") ? "files" : "nothing";
}

function optionsOf(command: Command): readonly OptionSpec[] {
  return [...command.options, ...commonOptions, { name: "help", kind: "flag", summary: "show this help" }];
}

/** The script for `shell`. */
export function completionScript(shell: typeof shells[number], table: readonly Command[]): string {
  switch (shell) {
    case "bash":
      return bashScript(table);
    case "zsh":
      return zshScript(table);
    case "fish":
      return fishScript(table);
  }
}

/** In single quotes, for any of the shells. */
function quoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

function bashScript(table: readonly Command[]): string {
  const names = [...table.map(({ name }) => name), "help", "--help", "--version"];
  const cases = table.map((command) => {
    const own = optionsOf(command);
    const values = own.filter(({ kind }) => kind !== "flag").map((spec) => {
      const words = valueWords(spec);
      const reply = words === "files"
        ? 'compopt -o filenames; COMPREPLY=($(compgen -f -- "$cur"))'
        : words === "nothing"
        ? "COMPREPLY=()"
        : `COMPREPLY=($(compgen -W ${quoted(words.join(" "))} -- "$cur"))`;
      return `        --${spec.name}) ${reply}; return ;;`;
    });
    const words = [...own.map(({ name }) => `--${name}`), ...(command.operands?.choices ?? [])];
    return [
      `    ${command.name})`,
      ...(values.length === 0 ? [] : ['      case "$prev" in', ...values, "      esac"]),
      `      COMPREPLY=($(compgen -W ${quoted(words.join(" "))} -- "$cur")) ;;`,
    ].join("\n");
  });
  return `# bash completion for nbdboost
_nbdboost() {
  local cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD-1]}
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ] || { [ "$COMP_CWORD" -eq 2 ] && [ "$prev" = help ]; }; then
    COMPREPLY=($(compgen -W ${quoted(names.join(" "))} -- "$cur"))
    return
  fi
  case "\${COMP_WORDS[1]}" in
${cases.join("\n")}
  esac
}
complete -F _nbdboost nbdboost
`;
}

function zshScript(table: readonly Command[]): string {
  // A colon and a bracket end a part of a specification.
  const told = (text: string) => text.replace(/[[\]:\\]/g, "\\$&");
  const cases = table.map((command) => {
    const specs = optionsOf(command).map((spec) => {
      const words = valueWords(spec);
      const action = words === "files" ? "_files" : words === "nothing" ? " " : `(${words.join(" ")})`;
      const value = spec.kind === "flag" ? "" : `:${spec.value}:${action}`;
      return quoted(`${spec.repeatable ? "*" : ""}--${spec.name}[${told(spec.summary)}]${value}`);
    });
    const { operands } = command;
    if (operands) specs.push(quoted(`*:${told(operands.name)}:(${(operands.choices ?? []).join(" ")})`));
    return `    ${command.name}) _arguments ${specs.join(" \\\n      ")} ;;`;
  });
  const names = table.map(({ name, summary }) => `    ${quoted(`${name}:${told(summary)}`)}`);
  return `#compdef nbdboost
_nbdboost() {
  local -a verbs=(
${names.join("\n")}
  )
  if (( CURRENT == 2 )); then
    _describe command verbs
    return
  fi
  local verb=$words[2]
  shift words
  (( CURRENT-- ))
  case $verb in
${cases.join("\n")}
  esac
}
compdef _nbdboost nbdboost
`;
}

function fishScript(table: readonly Command[]): string {
  const lines = ["# fish completion for nbdboost", "complete -c nbdboost -f"];
  for (const command of table) {
    lines.push(
      `complete -c nbdboost -n __fish_use_subcommand -a ${command.name} -d ${quoted(command.summary)}`,
    );
    const here = `complete -c nbdboost -n ${quoted(`__fish_seen_subcommand_from ${command.name}`)}`;
    for (const spec of optionsOf(command)) {
      const words = valueWords(spec);
      const value = spec.kind === "flag"
        ? ""
        : words === "files"
        ? " -r -F"
        : words === "nothing"
        ? " -x"
        : ` -x -a ${quoted(words.join(" "))}`;
      lines.push(`${here} -l ${spec.name}${value} -d ${quoted(spec.summary)}`);
    }
    if (command.operands?.choices) lines.push(`${here} -a ${quoted(command.operands.choices.join(" "))}`);
  }
  return lines.join("\n") + "\n";
}
