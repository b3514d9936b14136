/**
 * The portable backend: Deno's own files and sockets, on every platform that Deno runs on and with no permission
 * beyond the paths and addresses it is given. Where it may (Linux, FFI permitted) it adds the calls of `linux.ts`.
 *
 * @module
 */

import type { Io } from "./io.ts";
import { listenPassedPortable, standardStreams } from "./passed.ts";
import { openPortableFile, pathFacts } from "./portable_file.ts";
import { connectPortable, listenPortable } from "./portable_socket.ts";
import { connectTlsPortable, listenTlsPortable } from "./portable_tls.ts";

/** The portable backend. */
export const portableIo: Io = {
  name: "portable",
  openFile: openPortableFile,
  listen: listenPortable,
  listenTls: listenTlsPortable,
  listenPassed: listenPassedPortable,
  standardStreams,
  connect: connectPortable,
  connectTls: connectTlsPortable,
  async stat(path) {
    try {
      return pathFacts(await Deno.stat(path));
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return undefined;
      throw error;
    }
  },
  realPath: (path) => Deno.realPath(path),
  async readText(path) {
    // A query first: a call that is not permitted would ask the person at the terminal.
    if (Deno.permissions.querySync({ name: "read", path }).state !== "granted") return undefined;
    try {
      return await Deno.readTextFile(path);
    } catch {
      return undefined;
    }
  },
  remove: (path) => Deno.remove(path),
  async syncName(path) {
    const directory = path.replace(/[^/\\]*$/, "") || ".";
    if (Deno.permissions.querySync({ name: "read", path: directory }).state !== "granted") return false;
    try {
      const handle = await Deno.open(directory, { read: true });
      try {
        await handle.sync();
      } finally {
        handle.close();
      }
      return true;
    } catch {
      return false;
    }
  },
};
