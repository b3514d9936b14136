/**
 * The ring backend: sockets and files on one io_uring.
 *
 * {@linkcode ringIo} works anywhere, beside Deno's event loop; {@linkcode reactorIo} is the same over a reactor that
 * has a thread of its own, which is the fast way.
 *
 * @module
 */

import type { Io } from "../io.ts";
import { pathFacts } from "../portable_file.ts";
import { openFlag } from "./abi.ts";
import { openRingFile } from "./file.ts";
import { connectRing } from "./connector.ts";
import { cString, Libc } from "./libc.ts";
import { listenRing, takePassed } from "./listener.ts";
import { Reactor } from "./reactor.ts";

export { probeRing, type RingProbe } from "./probe.ts";
export { Reactor } from "./reactor.ts";

/** Opens a reactor. Throws when the ring cannot be used here; ask `probeRing` first. */
export function openReactor(options: { dedicated: boolean }): Reactor {
  const libc = Libc.open();
  if (typeof libc === "string") throw new Error(`Cannot use io_uring: ${libc}`);
  try {
    return new Reactor(libc, options);
  } catch (error) {
    libc.close();
    throw error;
  }
}

let shared: Reactor | undefined;

/** The reactor of this thread's event loop, for as long as something uses it. */
function sharedReactor(): Reactor {
  if (shared === undefined || shared.isClosed) {
    const opened = openReactor({ dedicated: false });
    opened.onIdle = () => shared = shared === opened ? undefined : shared;
    shared = opened;
  }
  return shared;
}

/** The ring backend over a reactor that is chosen anew for each thing that is opened. */
function ioOver(reactor: () => Reactor): Io {
  // Each holds the reactor for the time of the call; what it opens holds it for longer.
  const use = <Result>(action: (reactor: Reactor) => Result): Result => {
    const chosen = reactor();
    chosen.acquire();
    try {
      return action(chosen);
    } finally {
      chosen.release();
    }
  };
  return {
    name: "ring",
    // Nothing here goes through Deno's event loop, which the dedicated loop does not wait in.
    // deno-lint-ignore require-await -- async, so that what it throws is a rejection
    openFile: async (path, options) => use((reactor) => openRingFile(reactor, path, options)),
    // deno-lint-ignore require-await -- as above
    listen: async (address) => use((reactor) => listenRing(reactor, address)),
    // deno-lint-ignore require-await -- as above
    listenPassed: async (descriptor) => use((reactor) => takePassed(reactor, descriptor)),
    connect: (address) => use((reactor) => connectRing(reactor, address)),
    // deno-lint-ignore require-await -- as above
    async stat(path) {
      try {
        return pathFacts(Deno.statSync(path));
      } catch (error) {
        if (error instanceof Deno.errors.NotFound) return undefined;
        throw error;
      }
    },
    // deno-lint-ignore require-await -- as above
    realPath: async (path) => Deno.realPathSync(path),
    readText(path) {
      if (Deno.permissions.querySync({ name: "read", path }).state !== "granted") {
        return Promise.resolve(undefined);
      }
      try {
        return Promise.resolve(Deno.readTextFileSync(path));
      } catch {
        return Promise.resolve(undefined);
      }
    },
    // deno-lint-ignore require-await -- as above
    remove: async (path) => Deno.removeSync(path),
    syncName: (path) => Promise.resolve(use((reactor) => syncDirectory(reactor, path))),
  };
}

function syncDirectory({ libc }: Reactor, path: string): boolean {
  const directory = path.replace(/[^/]*$/, "") || ".";
  const descriptor = libc.call.open(cString(directory), openFlag.readOnly | openFlag.closeOnExec, 0);
  if (descriptor < 0) return false;
  const done = libc.call.fsync(descriptor) === 0;
  libc.call.close(descriptor);
  return done;
}

/** The ring backend over one reactor. */
export function reactorIo(reactor: Reactor): Io {
  return ioOver(() => reactor);
}

/** The ring backend beside Deno's event loop. Its ring is there while something that it opened is. */
export const ringIo: Io = ioOver(sharedReactor);
