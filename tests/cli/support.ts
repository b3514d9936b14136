/**
 * Runs the command line for tests: inside this process with its output caught, or as a process of its own.
 *
 * @module
 */

import { run } from "../../src/cli/run.ts";
import type { Terminal } from "../../src/cli/output.ts";
import { ServerProcess } from "../../src/cli/self.ts";

/** What a command printed and how it ended. */
export interface Ended {
  code: number;
  out: string;
  err: string;
}

/** A terminal that remembers. */
export class CaughtTerminal implements Terminal {
  outText = "";
  errText = "";
  readonly colours: boolean = false;
  constructor(readonly interactive = false, readonly width = 80) {}
  out(text: string): void {
    this.outText += text;
  }
  err(text: string): void {
    this.errText += text;
  }
  columns(): number {
    return this.width;
  }
}

/** Runs the command line in this process. */
export async function runHere(...args: string[]): Promise<Ended> {
  const terminal = new CaughtTerminal();
  const code = await run(args, terminal);
  return { code, out: terminal.outText, err: terminal.errText };
}

export const cliPath = new URL("../../cli.ts", import.meta.url).pathname;

/** Runs the command line as a process, with `permissions` instead of all when they are given. */
export async function runChild(
  args: readonly string[],
  permissions: readonly string[] = ["--allow-all"],
): Promise<Ended> {
  const child = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--quiet", "--no-prompt", ...permissions, cliPath, ...args],
    stdin: "null",
  }).output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code: child.code, out: text(child.stdout), err: text(child.stderr) };
}

/** A temporary directory that goes away with its scope. */
export class Temp implements AsyncDisposable {
  private constructor(readonly path: string) {}

  static async make(): Promise<Temp> {
    return new Temp(await Deno.makeTempDir({ prefix: "nbdboost-cli-" }));
  }

  /** A path inside. */
  join(name: string): string {
    return `${this.path}/${name}`;
  }

  /** A sparse file. */
  async sparse(name: string, bytes: number): Promise<string> {
    const path = this.join(name);
    await Deno.writeFile(path, new Uint8Array(0));
    await Deno.truncate(path, bytes);
    return path;
  }

  /** A backing file with a formatted cache. */
  async pair(
    backingBytes = 64 << 20,
    cacheSize = "16MiB",
  ): Promise<{ cache: string; backing: string; pair: string[] }> {
    const backing = await this.sparse("disk.img", backingBytes);
    const cache = this.join("cache.nbb");
    const pair = ["--cache", cache, "--backing", backing];
    const made = await runHere("format", ...pair, "--cache-size", cacheSize);
    if (made.code !== 0) throw new Error(`cannot format: ${made.err}`);
    return { cache, backing, pair };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.path, { recursive: true });
  }
}

export { ServerProcess };
