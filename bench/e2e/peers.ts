/**
 * Whom the same load is given to: a table. A new row is a new peer.
 *
 * Every server is a process of its own, started for one run and stopped by its own handle.
 *
 * @module
 */

import { serve } from "../../src/cli/serve.ts";
import { ServerProcess } from "../../src/cli/self.ts";
import { formatCache } from "../../mod.ts";
import { askStatus } from "./status.ts";
import { daemonByPidFile, freePort, type Server, spawnServer } from "./server.ts";

/** What a peer is started on. */
export interface Ground {
  /** For sockets, configuration and whatever the peer leaves; fresh for each run. */
  readonly directory: string;
  /** A file of `sizeBytes` that was written before. */
  readonly disk: string;
  /** A file that was written before, for our log. */
  readonly cache: string;
  readonly sizeBytes: number;
  readonly transport: "unix" | "tcp";
}

/** A server, or a way to use the device without one. */
export interface Peer {
  /** What `--peers` takes and what the results carry. */
  readonly name: string;
  /** For people. */
  readonly title: string;
  /** The program that has to be installed; null: this one. */
  readonly program: string | null;
  /** It is ours: what it is all about, or of the same house. */
  readonly ours?: "first" | "also";
  /** It goes around the page cache with what it serves. */
  readonly direct?: true;
  /** What it keeps is on a disk, so that a flush means something. */
  readonly onDisk: boolean;
  /** Starts it; undefined: there is no server, fio uses a file. */
  readonly start?: (ground: Ground) => Promise<Server>;
}

/** Our server as a child process, with real files. */
function ourselves(io: "ring" | "portable"): (ground: Ground) => Promise<Server> {
  return async ({ directory, disk, cache, transport }) => {
    await formatCache({ cache, backing: disk, force: true });
    const listen = transport === "unix" ? `nbd+unix:///?socket=${directory}/nbd` : "nbd://127.0.0.1:0";
    const control = `${directory}/control`;
    // Older versions have no control socket; what it would tell is then left out of the results.
    const controlled = serve.options.some(({ name }) => name === "control");
    const server = await ServerProcess.start([
      ...["--cache", cache, "--backing", disk, "--listen", listen, "--io", io],
      ...(controlled ? ["--control", control] : []),
    ]);
    return {
      pid: server.pid,
      uri: server.uris[0]!,
      stop: async () => {
        const code = await server.stop();
        if (code !== 0) throw new Error(`it ended with exit code ${code}: ${server.notes.join("; ")}`);
      },
      kill: async () => {
        await server.kill();
      },
      ...(controlled ? { status: () => askStatus(control) } : {}),
    };
  };
}

/** nbdkit in the foreground with `words`. */
function nbdkit(words: (ground: Ground) => string[]): (ground: Ground) => Promise<Server> {
  return async (ground) => {
    const { directory, transport } = ground;
    const port = transport === "tcp" ? freePort() : 0;
    const where = transport === "tcp" ? ["-i", "127.0.0.1", "-p", `${port}`] : ["-U", `${directory}/nbd`];
    // The cache filter keeps its file in TMPDIR.
    return await spawnServer("nbdkit", ["-f", ...where, ...words(ground)], {
      address: transport === "tcp" ? { port } : { path: `${directory}/nbd` },
      exportName: "",
      environment: { TMPDIR: directory },
    });
  };
}

function qemuNbd(...words: string[]): (ground: Ground) => Promise<Server> {
  return async ({ directory, disk, transport }) => {
    const port = transport === "tcp" ? freePort() : 0;
    const where = transport === "tcp" ? ["-b", "127.0.0.1", "-p", `${port}`] : ["-k", `${directory}/nbd`];
    return await spawnServer(
      "qemu-nbd",
      ["--format=raw", "--persistent", "--shared=64", ...words, ...where, disk],
      {
        address: transport === "tcp" ? { port } : { path: `${directory}/nbd` },
        exportName: "",
      },
    );
  };
}

async function nbdServer({ directory, disk, transport }: Ground): Promise<Server> {
  const port = transport === "tcp" ? freePort() : 0;
  const configuration = `${directory}/nbd-server.conf`;
  const where = transport === "tcp"
    ? `listenaddr = 127.0.0.1\nport = ${port}`
    : `unixsock = ${directory}/nbd`;
  await Deno.writeTextFile(
    configuration,
    `[generic]\n${where}\n[disk]\nexportname = ${disk}\nflush = true\nfua = true\n`,
  );
  // In the foreground (-d) it serves a single connection and ends; so it has to be a daemon.
  return await daemonByPidFile("nbd-server", ["-C", configuration, "-p", `${directory}/pid`], {
    pidFile: `${directory}/pid`,
    address: transport === "tcp" ? { port } : { path: `${directory}/nbd` },
    exportName: "disk",
  });
}

/** All peers, ours first. */
export const peers: readonly Peer[] = [
  {
    name: "nbdboost-ring",
    title: "nbdboost, io_uring",
    program: null,
    ours: "first",
    onDisk: true,
    start: ourselves("ring"),
  },
  {
    name: "nbdboost-portable",
    title: "nbdboost, portable",
    program: null,
    ours: "also",
    onDisk: true,
    start: ourselves("portable"),
  },
  {
    name: "nbdkit-null",
    title: "nbdkit null",
    program: "nbdkit",
    onDisk: false,
    start: nbdkit(({ sizeBytes }) => ["null", `size=${sizeBytes}`]),
  },
  {
    name: "nbdkit-memory",
    title: "nbdkit memory",
    program: "nbdkit",
    onDisk: false,
    start: nbdkit(({ sizeBytes }) => ["memory", `size=${sizeBytes}`]),
  },
  {
    name: "nbdkit-file",
    title: "nbdkit file",
    program: "nbdkit",
    onDisk: true,
    start: nbdkit(({ disk }) => ["file", disk]),
  },
  {
    name: "nbdkit-cache",
    title: "nbdkit --filter=cache",
    program: "nbdkit",
    onDisk: true,
    start: nbdkit(({ disk }) => ["--filter=cache", "file", disk, "cache=writeback"]),
  },
  {
    name: "qemu-nbd-writeback",
    title: "qemu-nbd, writeback",
    program: "qemu-nbd",
    onDisk: true,
    start: qemuNbd("--cache=writeback"),
  },
  {
    name: "qemu-nbd-uring",
    title: "qemu-nbd, none + io_uring",
    program: "qemu-nbd",
    direct: true,
    onDisk: true,
    start: qemuNbd("--cache=none", "--aio=io_uring"),
  },
  {
    name: "nbd-server",
    title: "nbd-server",
    program: "nbd-server",
    onDisk: true,
    start: nbdServer,
  },
  { name: "device", title: "the device alone", program: null, onDisk: true },
];
