/**
 * The command table: what a verb is called, takes, prints, may destroy and ends with, as plain data. The parser's
 * adapter, the help texts and the tests all read it; no verb knows the parser.
 *
 * Invariants: an option's values reach a verb checked and parsed; what is not in the table cannot be given.
 *
 * @module
 */

import { assert, UsageError } from "../errors.ts";
import { formatSize, parseSize } from "../units.ts";
import type { Output } from "./output.ts";

/** How the value of an option is read. */
export type OptionKind = "flag" | "text" | "size" | "number" | "choice" | "setting";

/** An option of a verb. */
export interface OptionSpec {
  /** Its name without the dashes. */
  readonly name: string;
  readonly kind: OptionKind;
  /** What the help calls its value, e.g. `PATH`; absent for a flag. */
  readonly value?: string;
  /** One line of help. */
  readonly summary: string;
  /** The verb cannot run without it. */
  readonly required?: boolean;
  /** May be given several times. */
  readonly repeatable?: boolean;
  /** A `number` may be 0, too. */
  readonly mayBeZero?: boolean;
  /** The values that a `choice` takes. */
  readonly choices?: readonly string[];
  /** What holds when it is not given, as the help says it. */
  readonly standard?: string;
}

/** A line that works when it is pasted, and what it does. */
export interface Example {
  readonly line: string;
  readonly says: string;
}

/** A verb of the command line. */
export interface Command {
  readonly name: string;
  /** One line, as in the list of verbs. */
  readonly summary: string;
  /** A few sentences. */
  readonly description: string;
  /** What it may destroy, said plainly. */
  readonly destroys: string;
  readonly options: readonly OptionSpec[];
  /** The words that it takes without an option's name, one or more. */
  readonly operands?: OptionSpec;
  readonly examples: readonly [Example, ...Example[]];
  /** What its exit codes mean, beyond the common ones. */
  readonly exits?: Readonly<Partial<Record<0 | 1 | 2 | 3 | 4, string>>>;
  /** Does it. Resolves to the exit code; typed errors are turned into theirs by the caller. */
  run(options: Options, output: Output): Promise<number>;
}

/** The exit codes that every verb shares. */
export const commonExits: Readonly<Record<0 | 1 | 2 | 3 | 4, string>> = {
  0: "done",
  1: "failed (a device, a connection)",
  2: "wrong usage",
  3: "refused for safety (wrong pair, foreign data, in use, would lose data)",
  4: "damage found",
};

/** Options that every verb takes. */
export const commonOptions: readonly OptionSpec[] = [
  { name: "verbose", kind: "flag", summary: "also print what caused an error" },
];

/** `--json`, for the verbs that print facts. */
export const jsonOption: OptionSpec = {
  name: "json",
  kind: "flag",
  summary: "print the facts as one JSON document",
};

/** `--cache`, the same wherever it is needed. */
export const cacheOption: OptionSpec = {
  name: "cache",
  kind: "text",
  value: "PATH",
  required: true,
  summary: "the cache device: a regular file or a block device",
};

/** `--backing`, the same wherever it is needed. */
export const backingOption: OptionSpec = {
  name: "backing",
  kind: "text",
  value: "TARGET",
  required: true,
  summary: "the backing device: a regular file, a block device or an NBD URI",
};

/** `--mirror`, the same wherever it is needed. */
export const mirrorOption: OptionSpec = {
  name: "mirror",
  kind: "text",
  value: "TARGET",
  summary: "the other leg of a mirrored cache device: a regular file, a block device or an NBD URI",
};

/** `--accept-missing-mirror`, the same wherever a cache is opened. */
export const acceptMissingMirrorOption: OptionSpec = {
  name: "accept-missing-mirror",
  kind: "flag",
  summary:
    "go on with one leg of a mirror alone; if the other went on without it, what was flushed there is lost",
};

/** `--accept-changed-backing`, the same wherever a cache is opened. */
export const acceptChangedBackingOption: OptionSpec = {
  name: "accept-changed-backing",
  kind: "flag",
  summary: "go on although the backing device changed since the cache was closed, or is another one",
};

/** `--control`, the same for all verbs that talk to a running server. */
export const controlOption: OptionSpec = {
  name: "control",
  kind: "text",
  value: "ADDRESS",
  summary: "the control address of the server: the path of its socket, or 127.0.0.1:PORT",
  standard: "beside --cache, or else that of the only server that runs",
};

/** The other ways to a running server. */
export const serverOptions: readonly OptionSpec[] = [
  controlOption,
  { ...cacheOption, required: false, summary: "find the server by its cache device" },
  {
    name: "token-file",
    kind: "text",
    value: "PATH",
    summary: "where the server wrote the token, for a control address with a port",
  },
];

/** A parsed value. */
export type OptionValue = boolean | number | string | readonly string[];

/** `--cache-size <SIZE>`, as sentences and helps name it. */
export function optionLabel(spec: OptionSpec): string {
  if (spec.name === spec.value) return spec.value;
  return spec.value === undefined ? `--${spec.name}` : `--${spec.name} ${spec.value}`;
}

/** Reads one value of `spec`; throws a {@linkcode UsageError} that names the option, the value and what fits. */
export function parseOption(spec: OptionSpec, text: string): string | number {
  const wrong = (expected: string) =>
    new UsageError(
      spec.name === spec.value
        ? `Cannot read "${text}": expected ${expected}.`
        : `Option --${spec.name} has the value "${text}": expected ${expected}.`,
    );
  switch (spec.kind) {
    case "size": {
      const bytes = parseSize(text);
      if (bytes === undefined || bytes === 0) {
        throw wrong("a size such as 1073741824, 64M or 10GiB (powers of 1024)");
      }
      return bytes;
    }
    case "number": {
      const value = Number(text);
      const { mayBeZero = false } = spec;
      if (!/^\d+(\.\d+)?$/.test(text) || (value === 0 && !mayBeZero)) {
        throw wrong(mayBeZero ? "a number, 0 or more" : "a number above 0");
      }
      return value;
    }
    case "choice": {
      const choices = spec.choices ?? [];
      if (!choices.includes(text)) {
        throw wrong(`one of ${choices.join(", ")}`);
      }
      return text;
    }
    case "setting":
      if (!/^[a-z][a-z_]*=./.test(text)) throw wrong("KEY=VALUE, such as writeback=on");
      return text;
    default:
      if (text === "" && spec.name !== "export") throw wrong(`${spec.value ?? "a value"}, not nothing`);
      return text;
  }
}

/** The options that were given to a verb, by name; asking for one that the table lacks is our mistake. */
export class Options {
  #specs: readonly OptionSpec[];
  #values: ReadonlyMap<string, OptionValue>;

  /** Checks that all required options of `command` are among `values`. */
  constructor(command: Command, values: ReadonlyMap<string, OptionValue>) {
    this.#specs = [...command.options, ...(command.operands ? [command.operands] : []), ...commonOptions];
    this.#values = values;
    for (const name of values.keys()) this.#spec(name);
    const missing = this.#specs.filter((spec) => spec.required && !values.has(spec.name));
    if (missing.length > 0) {
      throw new UsageError(
        `Command ${command.name} lacks ${missing.map(optionLabel).join(" and ")}: ` +
          `expected, for example, ${command.examples[0].line} (see nbdboost ${command.name} --help).`,
      );
    }
  }

  #spec(name: string): OptionSpec {
    const spec = this.#specs.find((one) => one.name === name);
    assert(spec !== undefined, `option ${name} is not in the table`);
    return spec;
  }

  /** The value of a text or choice option, if it was given. */
  text(name: string): string | undefined {
    this.#spec(name);
    const value = this.#values.get(name);
    assert(value === undefined || typeof value === "string", `option ${name} is not a text`);
    return value;
  }

  /** The value of a text option that is required, or that the caller knows to be given. */
  needed(name: string): string {
    const value = this.text(name);
    assert(value !== undefined, `option ${name} is not required by the table`);
    return value;
  }

  /** Whether an option was given. */
  has(name: string): boolean {
    this.#spec(name);
    return this.#values.has(name);
  }

  /** The bytes of a size option, if it was given. */
  size(name: string): number | undefined {
    this.#spec(name);
    const value = this.#values.get(name);
    assert(value === undefined || typeof value === "number", `option ${name} is not a size`);
    return value;
  }

  /** The value of a number option, if it was given. */
  number(name: string): number | undefined {
    assert(this.#spec(name).kind === "number", `option ${name} is not a number`);
    return this.#values.get(name) as number | undefined;
  }

  /** Whether a flag was given. */
  flag(name: string): boolean {
    assert(this.#spec(name).kind === "flag", `option ${name} is not a flag`);
    return this.#values.get(name) === true;
  }

  /** All values of a repeatable option, in the order given. */
  list(name: string): readonly string[] {
    assert(this.#spec(name).repeatable === true, `option ${name} is not repeatable`);
    const value = this.#values.get(name);
    return value === undefined ? [] : value as readonly string[];
  }
}

/** The text under the options in a verb's `--help`. */
export function helpNotes(command: Command): string {
  const lines = ["", `May destroy: ${command.destroys}`, "", "Examples:"];
  for (const { line, says } of command.examples) lines.push(`  ${line}`, `      ${says}`);
  lines.push("", "Exit codes:");
  for (const code of [0, 1, 2, 3, 4] as const) {
    lines.push(`  ${code}  ${command.exits?.[code] ?? commonExits[code]}`);
  }
  if (command.options.some((spec) => spec.kind === "size")) {
    lines.push(
      "",
      `SIZE is in bytes, or with K M G T / KiB MiB GiB TiB (1M = ${formatSize(1 << 20)} = 1048576).`,
    );
  }
  return lines.join("\n") + "\n";
}
