/**
 * Other people's servers as child processes: started, waited for, and stopped by their own handles.
 *
 * @module
 */

import { NbdboostError } from "../../src/errors.ts";
import type { CacheStatus } from "../../src/cache/status.ts";
import { isAlive } from "./process_tree.ts";

/** A server that is ready. */
export interface Server {
  /** The process to measure, with its children. */
  readonly pid: number;
  readonly uri: string;
  /** Ends it in order. Rejects when it did not end well. */
  stop(): Promise<void>;
  /** Ends it at once. */
  kill(): Promise<void>;
  /** What it counts, if it can be asked. */
  status?(): Promise<CacheStatus>;
}

/** Where a server is going to listen. */
type Address = { path: string } | { port: number };

interface Waiting {
  readonly address: Address;
  readonly exportName: string;
}

const readyMsMax = 10_000;
const stopMsMax = 20_000;
const pollMs = 10;

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** A TCP port of 127.0.0.1 that was free a moment ago. */
export function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return (listener.addr as Deno.NetAddr).port;
}

function uriOf(address: Address, exportName: string): string {
  return "path" in address
    ? `nbd+unix:///${exportName}?socket=${address.path}`
    : `nbd://127.0.0.1:${address.port}/${exportName}`;
}

async function accepts(address: Address): Promise<boolean> {
  try {
    const connection = "path" in address
      ? await Deno.connect({ transport: "unix", path: address.path })
      : await Deno.connect({ hostname: "127.0.0.1", port: address.port });
    connection.close();
    return true;
  } catch {
    return false;
  }
}

/** Waits until `address` takes connections; rejects when that takes too long or `ended` says that it will never. */
async function untilReady(address: Address, ended: () => string | undefined): Promise<void> {
  const end = performance.now() + readyMsMax;
  while (!await accepts(address)) {
    const why = ended();
    if (why !== undefined) throw new NbdboostError(why);
    if (performance.now() > end) throw new NbdboostError("It did not listen in time.");
    await sleep(pollMs);
  }
}

/** Resolves to whether `condition` came true in time. */
async function inTime(condition: () => boolean): Promise<boolean> {
  const end = performance.now() + stopMsMax;
  while (!condition()) {
    if (performance.now() > end) return false;
    await sleep(pollMs);
  }
  return true;
}

/** Starts a server that stays in the foreground. */
export async function spawnServer(
  program: string,
  args: readonly string[],
  options: Waiting & { environment?: Record<string, string> },
): Promise<Server> {
  const child = new Deno.Command(program, {
    args: [...args],
    stdin: "null",
    stdout: "null",
    stderr: "piped",
    ...(options.environment === undefined ? {} : { env: options.environment }),
  }).spawn();
  let ended: Deno.CommandStatus | undefined;
  let said = "";
  const over = Promise.all([
    child.status.then((status) => ended = status),
    (async () => {
      for await (const text of child.stderr.pipeThrough(new TextDecoderStream())) {
        if (said.length < 1000) said += text;
      }
    })(),
  ]);
  const signal = (name: Deno.Signal) => {
    try {
      child.kill(name);
    } catch {
      // It has ended already.
    }
  };
  const kill = async () => {
    signal("SIGKILL");
    await over;
  };
  try {
    await untilReady(
      options.address,
      () => ended && `${program} ended with exit code ${ended.code}: ${said.trim()}`,
    );
  } catch (error) {
    await kill();
    throw error;
  }
  return {
    pid: child.pid,
    uri: uriOf(options.address, options.exportName),
    kill,
    async stop() {
      signal("SIGTERM");
      if (await inTime(() => ended !== undefined)) return void await over;
      await kill();
      throw new NbdboostError(
        `${program} did not end within ${stopMsMax / 1000} s of SIGTERM; it was killed.`,
      );
    },
  };
}

/** Starts a server that turns into a daemon and leaves its process id in a file. */
export async function daemonByPidFile(
  program: string,
  args: readonly string[],
  options: Waiting & { pidFile: string },
): Promise<Server> {
  const { code, stderr } = await new Deno.Command(program, {
    args: [...args],
    stdin: "null",
    stdout: "null",
    stderr: "piped",
  }).output();
  const said = new TextDecoder().decode(stderr).trim();
  if (code !== 0) throw new NbdboostError(`${program} ended with exit code ${code}: ${said}`);
  const readPid = () => {
    try {
      return Number(Deno.readTextFileSync(options.pidFile));
    } catch {
      return 0;
    }
  };
  if (!await inTime(() => readPid() > 0)) throw new NbdboostError(`${program} left no process id.`);
  const pid = readPid();
  const signal = (name: Deno.Signal) => {
    try {
      if (isAlive(pid)) Deno.kill(pid, name);
    } catch {
      // It has ended between the two.
    }
  };
  const kill = async () => {
    signal("SIGKILL");
    await inTime(() => !isAlive(pid));
  };
  try {
    await untilReady(options.address, () => isAlive(pid) ? undefined : `${program} ended at once: ${said}`);
  } catch (error) {
    await kill();
    throw error;
  }
  return {
    pid,
    uri: uriOf(options.address, options.exportName),
    kill,
    async stop() {
      signal("SIGTERM");
      if (await inTime(() => !isAlive(pid))) return;
      await kill();
      throw new NbdboostError(
        `${program} did not end within ${stopMsMax / 1000} s of SIGTERM; it was killed.`,
      );
    },
  };
}
