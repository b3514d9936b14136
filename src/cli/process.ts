/**
 * What a long-running verb needs of the operating system: signals, a file with its process id, and a command that
 * it runs beside itself.
 *
 * @module
 */

import { type Clock, systemClock } from "../clock.ts";
import { NbdboostError } from "../errors.ts";
import { refuseToReplace } from "./side_file.ts";

/**
 * Signals this close together are one: a terminal's Ctrl-C reaches both the process and whatever started it, which
 * may pass it on.
 */
const sameSignalMs = 100;

const stopSignals: readonly Deno.Signal[] = Deno.build.os === "windows"
  ? ["SIGINT", "SIGBREAK"]
  : ["SIGINT", "SIGTERM"];

/** Waits for the first SIGINT or SIGTERM; a second one ends the process at once with exit code 1. */
export class StopSignal {
  #clock: Clock;
  #firstMs: number | undefined;
  #stop!: (signal: Deno.Signal) => void;
  readonly #handlers: [Deno.Signal, () => void][];
  /** Resolves to the first signal. */
  readonly received: Promise<Deno.Signal>;

  /** Listens from now on; `abandon` is called when a second signal comes. */
  constructor(abandon: () => void, clock: Clock = systemClock) {
    this.#clock = clock;
    this.received = new Promise((resolve) => this.#stop = resolve);
    this.#handlers = stopSignals.map((signal) => [signal, () => this.#take(signal, abandon)]);
    for (const [signal, handler] of this.#handlers) Deno.addSignalListener(signal, handler);
  }

  #take(signal: Deno.Signal, abandon: () => void): void {
    const nowMs = this.#clock.monotonicMs();
    if (this.#firstMs === undefined) {
      this.#firstMs = nowMs;
      this.#stop(signal);
    } else if (nowMs - this.#firstMs >= sameSignalMs) abandon();
  }

  /** Whether the first signal has come. */
  get seen(): boolean {
    return this.#firstMs !== undefined;
  }

  /** Stops listening. */
  [Symbol.dispose](): void {
    for (const [signal, handler] of this.#handlers) Deno.removeSignalListener(signal, handler);
  }
}

/** Writes this process's id to `path`; the returned function takes the file away again. */
export function writePidFile(path: string): () => void {
  refuseToReplace(path, { option: "--pid-file", kind: "the process id", pattern: /^\d{1,10}\s*$/ });
  const text = `${Deno.pid}\n`;
  try {
    Deno.writeTextFileSync(path, text);
  } catch (cause) {
    throw new NbdboostError(
      `Cannot write the process id to --pid-file ${path}: ${
        (cause as Error).message
      }; name a file in a directory that ` +
        `exists and may be written to`,
      { cause },
    );
  }
  return () => {
    try {
      // A server that was started meanwhile may have written its own.
      if (Deno.readTextFileSync(path) === text) Deno.removeSync(path);
    } catch {
      // Somebody else took it away; the aim is reached.
    }
  };
}

/** A shell command that runs beside the server. */
export interface RunningCommand {
  /** Resolves to its exit code, 128 + n when signal n ended it, as shells count. */
  readonly ended: Promise<number>;
  /** Asks it to end. */
  stop(): void;
}

/** Starts `command` in a shell with `uri` and `NBD_URI` set. */
export function startCommand(command: string, uri: string): RunningCommand {
  const [shell, flag] = Deno.build.os === "windows" ? ["cmd", "/c"] as const : ["sh", "-c"] as const;
  let child: Deno.ChildProcess;
  try {
    child = new Deno.Command(shell, {
      args: [flag, command],
      env: { uri, NBD_URI: uri },
      stdin: "inherit",
      stdout: "inherit",
      stderr: "inherit",
    }).spawn();
  } catch (cause) {
    throw new NbdboostError(`Cannot start --run "${command}" with ${shell}: ${(cause as Error).message}.`, {
      cause,
    });
  }
  return {
    ended: child.status.then(({ code }) => code),
    stop() {
      try {
        child.kill("SIGTERM");
      } catch {
        // It has ended already.
      }
    },
  };
}
