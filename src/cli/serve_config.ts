/**
 * The configuration file of `serve`: several exports from one process, each a cache with its backing.
 *
 * Invariants: everything in the file is known and has its type; what is wrong is said with the file's name and the key.
 *
 * ```toml
 * listen = ["nbd://127.0.0.1:10809"]
 * io = "portable"
 *
 * [limits]
 * connections = 64
 *
 * [[export]]
 * name = "disk"
 * cache = "/ssd/disk.nbb"
 * backing = "/hdd/disk.img"
 * description = "the mail spool"
 * read-only = false
 * set = { writeback = "on" }
 * control = "127.0.0.1:10810"
 * token-file = "/run/disk.token"
 * ```
 *
 * @module
 */

import { UsageError } from "../errors.ts";
import { type Limits, parseLimit, parseTunable, type Tunables } from "./engine.ts";
import { parseControlAddress } from "./control_address.ts";
import { parseToml } from "./toml_adapter.ts";

/** One export of the file. */
export interface ExportConfig {
  name: string;
  cache: string;
  mirror?: string;
  backing: string;
  description: string;
  readOnly: boolean;
  /** As of this flush point. */
  at?: number;
  acceptDamage: boolean;
  acceptUnreadable: boolean;
  acceptChangedBacking: boolean;
  acceptMissingMirror: boolean;
  resyncMirror: boolean;
  tunables: Partial<Tunables>;
  /** Its control address, or `off`; by default a socket beside the cache. */
  control?: string;
  /** Where the token goes when that is a port. */
  tokenFile?: string;
}

/** What the file says. */
export interface ServeConfig {
  listen: string[];
  io: string | undefined;
  limits: Partial<Limits>;
  exports: ExportConfig[];
}

type Table = Record<string, unknown>;

/** A table of the file, whose keys are taken one by one; what is left over is unknown. */
class Section {
  readonly #file: string;
  readonly #where: string;
  readonly #table: Table;
  readonly #known: string[] = [];

  constructor(file: string, where: string, table: unknown) {
    this.#file = file;
    this.#where = where;
    if (!isTable(table)) throw this.#wrong("", table, "a table");
    this.#table = table;
  }

  text(key: string): string | undefined {
    return this.#take(
      key,
      (value) => typeof value === "string" && value !== "",
      "a text in quotes, not empty",
    );
  }

  /** A text that may be empty. */
  name(key: string): string | undefined {
    return this.#take(key, (value) => typeof value === "string", "a text in quotes");
  }

  needed(key: string): string {
    const value = this.text(key);
    if (value === undefined) throw this.#wrong(key, undefined, "a text in quotes");
    return value;
  }

  count(key: string): number | undefined {
    const isCount = (value: unknown) => Number.isSafeInteger(value) && (value as number) >= 0;
    return this.#take(key, isCount, "a whole number, not negative");
  }

  flag(key: string): boolean {
    return this.#take<boolean>(key, (value) => typeof value === "boolean", "true or false") ?? false;
  }

  texts(key: string): string[] {
    const value = this.#take<string | string[]>(
      key,
      (value) =>
        typeof value === "string" || (isList(value) && value.every((each) => typeof each === "string")),
      "a text in quotes or a list of them",
    );
    return value === undefined ? [] : typeof value === "string" ? [value] : value;
  }

  /** The entries of a table of settings, as the command line spells them: `KEY=VALUE`. */
  settings(key: string): string[] {
    const isScalar = (value: unknown) => typeof value === "string" || typeof value === "number";
    const table = this.#take<Table>(
      key,
      (value) => isTable(value) && Object.values(value).every(isScalar),
      'a table of settings, such as { writeback = "on" }',
    );
    return Object.entries(table ?? {}).map(([name, value]) => `${name}=${value}`);
  }

  tables(key: string): unknown[] {
    return this.#take<unknown[]>(key, isList, `tables, each beginning with [[${key}]]`) ?? [];
  }

  /** Nothing may be left. */
  end(): void {
    const stray = Object.keys(this.#table).find((key) => !this.#known.includes(key));
    if (stray === undefined) return;
    throw new UsageError(
      `Cannot use ${this.#file}: "${stray}"${this.#where} is unknown; expected one of ${
        this.#known.join(", ")
      }`,
    );
  }

  #take<T>(key: string, isRight: (value: unknown) => boolean, expected: string): T | undefined {
    this.#known.push(key);
    const value = this.#table[key];
    if (value === undefined) return undefined;
    if (!isRight(value)) throw this.#wrong(key, value, expected);
    return value as T;
  }

  #wrong(key: string, value: unknown, expected: string): UsageError {
    const what = key === "" ? "it" : `"${key}"`;
    const found = value === undefined ? "is missing" : `is ${JSON.stringify(value)}`;
    return new UsageError(`Cannot use ${this.#file}: ${what}${this.#where} ${found}; expected ${expected}`);
  }
}

function isTable(value: unknown): value is Table {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Date);
}

function isList(value: unknown): value is unknown[] {
  return Array.isArray(value);
}

/** Reads the text of a configuration file. `file` is its name in messages. */
export function parseServeConfig(file: string, text: string): ServeConfig {
  const top = new Section(file, "", parseToml(file, text));
  const listen = top.texts("listen");
  const io = top.text("io");
  const limits = inFile(file, () => Object.assign({}, ...top.settings("limits").map(parseLimit)));
  const tables = top.tables("export");
  top.end();
  if (tables.length === 0) {
    throw new UsageError(`Cannot use ${file}: it has no export; expected at least one [[export]]`);
  }
  const exports = tables.map((table, index) => exportOf(file, index, table));
  if (exports.length > 1) checkDistinct(file, exports);
  return { listen, io, limits, exports };
}

function exportOf(file: string, index: number, table: unknown): ExportConfig {
  const section = new Section(file, ` in export ${index + 1}`, table);
  const [mirror, control, tokenFile] = ["mirror", "control", "token-file"].map((key) => section.text(key));
  if (control !== undefined && control !== "off") inFile(file, () => parseControlAddress(control));
  const at = section.count("at");
  const readOnly = section.flag("read-only");
  if (at !== undefined && !readOnly) {
    throw new UsageError(
      `Cannot use ${file}: "at" in export ${
        index + 1
      } is ${at} without read-only = true; expected both, as the past cannot ` +
        "be written to (see nbdboost rewind)",
    );
  }
  const config: ExportConfig = {
    name: section.name("name") ?? "",
    cache: section.needed("cache"),
    ...(mirror === undefined ? {} : { mirror }),
    ...(control === undefined ? {} : { control }),
    ...(tokenFile === undefined ? {} : { tokenFile }),
    backing: section.needed("backing"),
    description: section.text("description") ?? "nbdboost",
    readOnly,
    ...(at === undefined ? {} : { at }),
    acceptDamage: section.flag("accept-damage"),
    acceptUnreadable: section.flag("accept-unreadable"),
    acceptChangedBacking: section.flag("accept-changed-backing"),
    acceptMissingMirror: section.flag("accept-missing-mirror"),
    resyncMirror: section.flag("resync-mirror"),
    tunables: inFile(file, () => Object.assign({}, ...section.settings("set").map(parseTunable))),
  };
  section.end();
  return config;
}

function checkDistinct(file: string, exports: readonly ExportConfig[]): void {
  for (const key of ["name", "cache", "backing", "control"] as const) {
    // A port of 0 is any free one, and what is off is nobody's.
    const values = exports.map((each) => each[key]).filter((value) =>
      value !== undefined && (key !== "control" || !/^off$|:0\/?$/.test(value))
    );
    const twice = values.find((value, index) => values.indexOf(value) !== index);
    if (twice === undefined) continue;
    throw new UsageError(
      `Cannot use ${file}: two exports have the ${key} "${twice}"; expected each to have its own`,
    );
  }
}

function inFile<T>(file: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (error instanceof UsageError) {
      throw new UsageError(`Cannot use ${file}: ${error.message}`, { cause: error });
    }
    throw error;
  }
}
