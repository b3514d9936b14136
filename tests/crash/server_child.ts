/**
 * `cli.ts serve` as a process that a test may kill at any moment, its start included.
 *
 * @module
 */

import { cliPath } from "../cli/support.ts";

/** The I/O backend of the servers: NBDBOOST_IO=ring runs the kill test over io_uring. */
const io = Deno.env.get("NBDBOOST_IO") ?? "auto";

/** A server in a process of its own. */
export class ServerChild {
  readonly #child: Deno.ChildProcess;
  readonly #output: Promise<unknown>;
  /** What it said on stderr. */
  readonly notes: string[] = [];
  /** Resolves to true when it is ready, to false when it ended before that. */
  readonly ready: Promise<boolean>;

  constructor(args: readonly string[]) {
    this.#child = new Deno.Command(Deno.execPath(), {
      args: ["run", "--quiet", "--allow-all", cliPath, "serve", "--io", io, ...args],
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    let settle: (ready: boolean) => void;
    this.ready = new Promise((resolve) => settle = resolve);
    this.#output = Promise.all([
      eachLine(this.#child.stdout, (line) => {
        if (line === "ready") settle(true);
      }).then(() => settle(false)),
      eachLine(this.#child.stderr, (line) => this.notes.push(line)),
    ]);
  }

  /** Starts a server and waits until it is ready. */
  static async start(args: readonly string[]): Promise<ServerChild> {
    const server = new ServerChild(args);
    if (await server.ready) return server;
    const code = await server.ended();
    throw new Error(`the server ended with ${code} before it was ready: ${server.notes.join("; ")}`);
  }

  /** Sends a signal, unless it has ended already. */
  signal(signal: "SIGKILL" | "SIGTERM"): void {
    try {
      this.#child.kill(signal);
    } catch {
      // It has ended.
    }
  }

  /** Resolves to the exit code when the process is gone. */
  async ended(): Promise<number> {
    const { code } = await this.#child.status;
    await this.#output;
    return code;
  }

  /** SIGKILL, and waits until it is gone. */
  async kill(): Promise<void> {
    this.signal("SIGKILL");
    await this.ended();
  }
}

async function eachLine(stream: ReadableStream<Uint8Array>, use: (line: string) => void): Promise<void> {
  let rest = "";
  const decoder = new TextDecoder();
  for await (const bytes of stream) {
    const lines = (rest + decoder.decode(bytes, { stream: true })).split("\n");
    rest = lines.pop()!;
    for (const line of lines) use(line);
  }
  if (rest !== "") use(rest);
}
