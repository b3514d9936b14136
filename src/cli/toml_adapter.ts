/**
 * From the text of a configuration file to plain data: the only file that knows the TOML parser.
 *
 * @module
 */

import { parse, TomlError } from "npm:smol-toml@1.9.1";
import { UsageError } from "../errors.ts";

/** Parses TOML; throws {@linkcode UsageError} with the place of what is wrong. `name` is the file's. */
export function parseToml(name: string, text: string): Record<string, unknown> {
  try {
    return parse(text);
  } catch (cause) {
    if (!(cause instanceof TomlError)) throw cause;
    const reason = cause.message.split("\n")[0]!.replace(/^Invalid TOML document: /, "");
    throw new UsageError(
      `Cannot read ${name}: line ${cause.line}, column ${cause.column}: ${reason}; expected TOML (see https://toml.io)`,
      { cause },
    );
  }
}
