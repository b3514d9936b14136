/**
 * Other people's servers, as processes of their own on a unix socket: started, waited for, killed and started again.
 *
 * @module
 */

import { requireTool, type Tool } from "./tools.ts";

/** Time for a server to be reachable. */
const startMsMax = 10_000;

/** A server that can be killed and started again at the same address. */
export class ForeignServer implements AsyncDisposable {
  readonly directory: string;
  readonly #tool: Tool;
  readonly #args: (socket: string) => string[];
  #child: Deno.ChildProcess | undefined;

  private constructor(tool: Tool, directory: string, args: (socket: string) => string[]) {
    this.#tool = tool;
    this.directory = directory;
    this.#args = args;
  }

  /** Starts one; undefined, said loudly, when the program is absent. `directory` is its own, removed afterwards. */
  static async start(
    tool: Tool,
    args: (socket: string, directory: string) => string[],
  ): Promise<ForeignServer | undefined> {
    if (!requireTool(tool)) return undefined;
    const directory = await Deno.makeTempDir({ prefix: "nbdboost-foreign-" });
    const server = new ForeignServer(tool, directory, (socket) => args(socket, directory));
    await server.start();
    return server;
  }

  get #socket(): string {
    return `${this.directory}/socket`;
  }

  get uri(): string {
    return `nbd+unix:///?socket=${this.#socket}`;
  }

  /** Starts it; resolves when it takes connections. */
  async start(): Promise<void> {
    await Deno.remove(this.#socket).catch(() => {});
    this.#child = new Deno.Command(this.#tool, {
      args: this.#args(this.#socket),
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn();
    for (const deadline = Date.now() + startMsMax; Date.now() < deadline;) {
      try {
        const probe = await Deno.connect({ transport: "unix", path: this.#socket });
        probe.close();
        return;
      } catch {
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    }
    await this.kill();
    throw new Error(`${this.#tool} did not start`);
  }

  /** Stops it as a crash would. */
  async kill(): Promise<void> {
    const child = this.#child;
    this.#child = undefined;
    if (child === undefined) return;
    child.kill("SIGKILL");
    await child.status;
  }

  /** Stops it in its tracks, or lets it go on. */
  signal(signal: "SIGSTOP" | "SIGCONT"): void {
    this.#child?.kill(signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
    await Deno.remove(this.directory, { recursive: true });
  }
}

/** The arguments of qemu-nbd for a raw file of `bytes`, which is made when it is missing. */
export function qemuNbd(bytes: number): (socket: string, directory: string) => string[] {
  return (socket, directory) => {
    const file = Deno.openSync(`${directory}/disk`, { write: true, create: true });
    if (file.statSync().size !== bytes) file.truncateSync(bytes);
    file.close();
    return ["-f", "raw", "-t", "-e", "16", "-k", socket, `${directory}/disk`];
  };
}

/** The arguments of nbdkit for a raw file of `bytes`, with filters in front and their parameters behind. */
export function nbdkit(
  bytes: number,
  filters: string[] = [],
  parameters: string[] = [],
): (socket: string, directory: string) => string[] {
  return (socket, directory) => {
    qemuNbd(bytes)(socket, directory);
    const filterArgs = filters.map((name) => `--filter=${name}`);
    return ["-f", "-U", socket, ...filterArgs, "file", `${directory}/disk`, ...parameters];
  };
}
