/**
 * This program once more, as a child process: the same executable, or the same `cli.ts` by the same Deno.
 *
 * @module
 */

import { systemClock } from "../clock.ts";
import { NbdboostError } from "../errors.ts";

const readyMsMax = 60_000;

/** The program and the leading words that start this command line again. */
export function selfCommand(): { program: string; words: string[] } {
  const program = Deno.execPath();
  if (Deno.build.standalone) return { program, words: [] };
  return { program, words: ["run", "--quiet", "--allow-all", import.meta.resolve("../../cli.ts")] };
}

async function eachLine(stream: ReadableStream<Uint8Array>, use: (line: string) => void): Promise<void> {
  let rest = "";
  for await (const text of stream.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split("\n");
    rest = lines.pop()!;
    for (const line of lines) use(line);
  }
  if (rest !== "") use(rest);
}

/** A server in a child process. */
export class ServerProcess {
  readonly #child: Deno.ChildProcess;
  readonly #output: Promise<unknown>;
  /** Where it listens. */
  readonly uris: string[] = [];
  /** What it said on stderr. */
  readonly notes: string[] = [];
  #ready!: () => void;
  readonly #isReady: Promise<void> = new Promise((resolve) => this.#ready = resolve);

  private constructor(args: readonly string[]) {
    const { program, words } = selfCommand();
    this.#child = new Deno.Command(program, {
      args: [...words, "serve", ...args],
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.#output = Promise.all([
      eachLine(this.#child.stdout, (line) => {
        if (line.startsWith("listening on ")) this.uris.push(line.slice("listening on ".length));
        if (line === "ready") this.#ready();
      }),
      eachLine(this.#child.stderr, (line) => this.notes.push(line)),
    ]);
  }

  /** Starts `serve` with `args`. */
  static spawn(args: readonly string[]): ServerProcess {
    return new ServerProcess(args);
  }

  /** Starts `serve` with `args` and waits until it is ready. */
  static async start(args: readonly string[]): Promise<ServerProcess> {
    const server = new ServerProcess(args);
    await server.ready();
    return server;
  }

  /** Waits until it is ready; when it does not get there, rejects with what it said. */
  async ready(): Promise<void> {
    let cancel = () => {};
    const outcome = await Promise.race([
      this.#isReady.then(() => "ready" as const),
      this.#child.status.then(({ code }) => `ended with exit code ${code}`),
      new Promise<string>((resolve) =>
        cancel = systemClock.after(readyMsMax, () => resolve("did not get ready in time"))
      ),
    ]);
    cancel();
    if (outcome !== "ready") {
      await this.kill();
      throw new NbdboostError(`The server ${outcome}: ${this.notes.join("; ") || "it gave no reason"}.`);
    }
  }

  /** Its process id. */
  get pid(): number {
    return this.#child.pid;
  }

  async #signal(signal: Deno.Signal): Promise<number> {
    try {
      this.#child.kill(signal);
    } catch {
      // It has ended already.
    }
    return await this.ended();
  }

  /** Waits until it ends by itself; resolves to its exit code. */
  async ended(): Promise<number> {
    const { code } = await this.#child.status;
    await this.#output;
    return code;
  }

  /** SIGKILL: what a crash of the process looks like. Resolves when it is gone. */
  kill(): Promise<number> {
    return this.#signal("SIGKILL");
  }

  /** SIGTERM; resolves to its exit code. */
  stop(): Promise<number> {
    return this.#signal("SIGTERM");
  }
}
