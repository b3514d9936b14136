/**
 * One command from words to exit code: parse, do, and turn whatever went wrong into one sentence on stderr.
 *
 * @module
 */

import { AssertionError, exitCode, NbdboostError } from "../errors.ts";
import { commands } from "./commands.ts";
import { parseArguments } from "./commander_adapter.ts";
import { Output, systemTerminal, type Terminal } from "./output.ts";
import { Options } from "./table.ts";

/** The sentence that a person gets to read for `error`. */
export function errorSentence(error: unknown): string {
  const text = errorText(error);
  return /[.?!]$/.test(text) ? text : `${text}.`;
}

function errorText(error: unknown): string {
  if (error instanceof NbdboostError) return error.message;
  if (error instanceof AssertionError) {
    return `nbdboost found a mistake of its own (${error.message}): nothing more was done; please report it with the output of --verbose`;
  }
  if (error instanceof Deno.errors.NotCapable) return `Deno's permissions forbid it: ${error.message}`;
  return error instanceof Error ? error.message || error.name : String(error);
}

/** The stack of `error` and of everything that caused it. */
export function errorChain(error: unknown): string {
  const parts: string[] = [];
  for (
    let at: unknown = error;
    at !== undefined && parts.length < 10;
    at = at instanceof Error ? at.cause : undefined
  ) {
    parts.push(at instanceof Error ? at.stack ?? String(at) : String(at));
  }
  return parts.join("\ncaused by: ");
}

/** Runs the command that `args` spell, and resolves to the exit code of the contract. */
export async function run(args: readonly string[], terminal: Terminal = systemTerminal): Promise<number> {
  try {
    const parsed = parseArguments(args, commands, terminal);
    if (parsed.kind === "printed") return exitCode.done;
    const options = new Options(parsed.command, parsed.values);
    return await parsed.command.run(options, new Output(terminal));
  } catch (error) {
    if (error instanceof Deno.errors.BrokenPipe) return exitCode.failed;
    terminal.err(`nbdboost: ${errorSentence(error)}\n`);
    if (args.includes("--verbose")) terminal.err(errorChain(error) + "\n");
    return error instanceof NbdboostError ? error.exitCode : exitCode.failed;
  }
}
