/**
 * The NBD server: listeners, connections, and their end.
 *
 * @module
 */

import type { Volume } from "../cache/volume.ts";
import { type Clock, sleep, systemClock } from "../clock.ts";
import { InUseError, RefusedError, UsageError } from "../errors.ts";
import {
  type Io,
  type IoConnection,
  type IoListener,
  type SocketAddress,
  tellsByEvents,
  type TlsIdentity,
} from "../io/io.ts";
import { portableIo } from "../io/portable.ts";
import { Connection } from "./connection.ts";
import { Budget } from "./budget.ts";
import { closingMsMax } from "./constants.ts";
import { EventDriver } from "./event_connection.ts";
import { type Export, ExportTable, type Offered } from "./exports.ts";
import { completeLimits, type Limits } from "./limits.ts";
import type { TlsMode } from "./negotiation.ts";
import { newStatistics, type Observer, type Statistics } from "./statistics.ts";
import { formatNbdUri, type NbdUri, parseNbdUri } from "./uri.ts";

/** For how long, and how often, an address in use is tried again. */
const listenMsMax = 5000;
const listenAgainMs = 50;
/** Pause after a failed accept (too many open files, say) before the next try. */
const acceptRetryMs = 100;
/** ... and it is told again after this long. */
const acceptWarnMs = 60_000;

/** How to serve. */
export interface ServeOptions {
  /** Where to listen: NBD URIs such as `nbd://127.0.0.1:10809` or `nbd+unix:///?socket=/run/nbd.sock`. */
  listen: string | readonly string[];
  /** Descriptors of sockets on which another process listens and which it passed to this one; `listen` may be empty then. */
  sockets?: readonly number[] | undefined;
  /** Serves standard input and output as one connection, which nothing else may use then; `listen` may be empty. */
  standardStreams?: boolean | undefined;
  /** The export's name; by default the one that the URIs name, else "". Only when one volume is served. */
  exportName?: string | undefined;
  /** A line for people about the export. Only when one volume is served. */
  description?: string | undefined;
  /** Refuses writes. Only when one volume is served. */
  readOnly?: boolean | undefined;
  /** Moves the bytes; the portable backend by default. */
  io?: Io | undefined;
  /** Time for deadlines; the machine's clock by default. */
  clock?: Clock | undefined;
  /** Takes sentences for the operator; by default `console.warn`. */
  warn?: ((message: string) => void) | undefined;
  /** Is told how long requests took. */
  observer?: Observer | undefined;
  /**
   * Offers TLS: `on` to clients that ask for it, `require` before anything else. Only on a backend that can (the portable
   * one); without it there is no encryption.
   */
  tls?: { mode: "on" | "require"; identity: TlsIdentity } | undefined;
  /** What clients may cost; each has a usual value. */
  limits?: Partial<Limits> | undefined;
}

/** One of the exports that are served. */
export interface ServedExport {
  /** What clients ask for. */
  readonly name: string;
  /** Connections of clients that have chosen it. */
  readonly clients: number;
  /** What was counted of it since the start. */
  readonly statistics: Readonly<Statistics>;
  /** Offers it no more, and ends its connections as {@linkcode Server.close} does; the other exports are served on. */
  withdraw(): Promise<void>;
}

/** A running server. */
export interface Server extends AsyncDisposable {
  /** Where it listens, with the ports that were bound, in the order of `listen`; clients take them as they are. */
  readonly uris: readonly string[];
  /** Open connections. */
  readonly clients: number;
  /** What was counted since the start, of all exports. */
  readonly statistics: Readonly<Statistics>;
  /** What is served, in the order in which it was given. */
  readonly exports: readonly ServedExport[];
  /** Resolves when no connection is open: at once, or when the last client has left. */
  idle(): Promise<void>;
  /**
   * Stops listening, lets requests under way finish, answers new ones with ESHUTDOWN, and disconnects; clients that
   * are too slow for that are dropped after ten seconds. The volume stays open.
   */
  close(): Promise<void>;
}

/**
 * Serves a volume, or several under their names, to NBD clients: qemu, libvirt, the Linux kernel's nbd client, libnbd.
 *
 * Without `tls` there is no encryption and no password: whoever reaches the address reads and writes the volume. Listen on a
 * unix socket or on 127.0.0.1 then, unless the network is yours alone.
 *
 * The volumes stay yours: close the server first and each volume after it.
 *
 * @throws {UsageError} when a URI, an export's name or a limit cannot be meant, or TLS is asked for
 * @throws {NbdboostError} when an address cannot be listened on; nothing is left listening then
 * @example
 * ```ts
 * import assert from "node:assert/strict";
 * import { formatCache, MemoryDevice, openCache, serve } from "../../mod.ts";
 * const [fast, slow] = [new MemoryDevice(16 * 1024 * 1024), new MemoryDevice(64 * 1024 * 1024)];
 * await formatCache({ cache: fast, backing: slow });
 * const cache = await openCache({ cache: fast, backing: slow });
 *
 * const server = await serve(cache, { listen: "nbd://127.0.0.1:0" }); // port 0: any free one
 * assert(server.uris[0]!.startsWith("nbd://127.0.0.1:")); // for example: nbdinfo nbd://127.0.0.1:40613
 * await server.close();
 * await cache.close();
 * ```
 */
export async function serve(volumes: Volume | readonly Export[], options: ServeOptions): Promise<Server> {
  const uris = (typeof options.listen === "string" ? [options.listen] : options.listen).map(listenUri);
  const { sockets = [], standardStreams = false, tls } = options;
  if (uris.length === 0 && sockets.length === 0 && !standardStreams) {
    throw new UsageError("there is no address to listen on, expected at least one NBD URI");
  }
  const exports = exportTable(volumes, options, uris);
  const limits = completeLimits(options.limits);
  const io = options.io ?? portableIo;
  const streams = standardStreams ? streamsOf(io, tls !== undefined) : undefined;
  const listeners: IoListener[] = [];
  try {
    for (const { address } of uris) {
      const listen = () => tls === undefined ? io.listen(address) : listenTls(io, address, tls.identity);
      listeners.push(await patiently(listen, options.clock ?? systemClock));
    }
    if (tls !== undefined && sockets.length > 0 && io.listenTls === undefined) throw noTls(io);
    for (const descriptor of sockets) listeners.push(await io.listenPassed(descriptor, tls?.identity));
  } catch (error) {
    for (const listener of listeners) listener.close();
    throw error;
  }
  return new NbdServer(listeners, streams, exports, limits, options);
}

/**
 * Tries again for a while when the address is in use: of a server that was killed, the kernel may hold the sockets for some
 * seconds more, until it has taken its io_uring apart.
 */
async function patiently<T>(listen: () => Promise<T>, clock: Clock): Promise<T> {
  const endMs = clock.monotonicMs() + listenMsMax;
  for (;;) {
    try {
      return await listen();
    } catch (error) {
      if (!(error instanceof InUseError) || clock.monotonicMs() >= endMs) throw error;
    }
    await sleep(clock, listenAgainMs);
  }
}

function streamsOf(io: Io, tls: boolean): IoConnection {
  if (tls) throw new UsageError("Cannot offer TLS on standard input and output: serve a socket");
  if (io.standardStreams !== undefined) return io.standardStreams();
  throw new RefusedError(
    `Cannot serve standard input and output: the ${io.name} backend cannot; use the portable one (--io portable)`,
  );
}

function noTls(io: Io): RefusedError {
  return new RefusedError(
    `Cannot offer TLS: the ${io.name} backend cannot; use the portable one (--io portable)`,
  );
}

function listenTls(io: Io, address: SocketAddress, identity: TlsIdentity): Promise<IoListener> {
  if (io.listenTls !== undefined) return io.listenTls(address, identity);
  throw noTls(io);
}

function listenUri(text: string): NbdUri {
  const uri = parseNbdUri(text);
  if (uri.tls || Object.keys(uri.parameters).some((name) => name.startsWith("tls-"))) {
    throw new UsageError(
      `"${text}" asks for TLS in an address to listen on; listen on nbd:// or nbd+unix:// and say by the option tls ` +
        "(--tls require) that clients must use it",
    );
  }
  return uri;
}

function exportTable(
  volumes: Volume | readonly Export[],
  options: ServeOptions,
  uris: readonly NbdUri[],
): ExportTable {
  const named = uris.map(({ exportName }) => exportName).filter((name) => name !== "");
  let exports: readonly Export[];
  if (isList(volumes)) {
    exports = volumes;
  } else {
    const { exportName = named[0] ?? "", description = "", readOnly = false } = options;
    exports = [{ name: exportName, description, readOnly, volume: volumes }];
  }
  const stray = named.find((name) => !exports.some((each) => each.name === name));
  if (stray !== undefined) {
    const names = exports.map(({ name }) => `"${name}"`).join(", ");
    throw new UsageError(
      `a URI to listen on names the export "${stray}", but ${names} is served: use one name`,
    );
  }
  return new ExportTable(exports, options.observer);
}

function isList(volumes: Volume | readonly Export[]): volumes is readonly Export[] {
  return Array.isArray(volumes);
}

class NbdServer implements Server {
  readonly uris: readonly string[];
  readonly exports: readonly ServedExport[];
  readonly #listeners: readonly IoListener[];
  readonly #exports: ExportTable;
  readonly #clock: Clock;
  readonly #warn: (message: string) => void;
  readonly #limits: Limits;
  readonly #budget: Budget;
  readonly #tls: TlsMode;
  readonly #connections = new Map<Connection | EventDriver, Promise<void>>();
  readonly #accepting: Promise<void>[];
  readonly #pauses = new Set<() => void>();
  #refusing = false;
  /** Connections that were dropped to make room, and are not quite gone. */
  readonly #leaving = new Set<Connection | EventDriver>();
  #closing: Promise<void> | null = null;

  constructor(
    listeners: readonly IoListener[],
    streams: IoConnection | undefined,
    exports: ExportTable,
    limits: Limits,
    options: ServeOptions,
  ) {
    this.#listeners = listeners;
    this.#exports = exports;
    this.#clock = options.clock ?? systemClock;
    this.#warn = options.warn ?? ((message) => console.warn(message));
    this.#limits = limits;
    this.#tls = options.tls?.mode ?? "off";
    this.#budget = new Budget(limits.totalBytes, limits.stallSeconds * 1000, this.#clock);
    const offered = exports.all;
    this.exports = offered.map((each) => this.#served(each));
    this.uris = listeners.map(({ address }) =>
      formatNbdUri(address, offered[0]!.name, { tls: options.tls?.mode === "require" })
    );
    this.#accepting = listeners.map((listener) => this.#accept(listener));
    if (streams !== undefined) this.#welcome(streams);
  }

  get clients(): number {
    return this.#connections.size;
  }

  get statistics(): Statistics {
    const total = newStatistics();
    for (const { statistics } of this.exports) {
      for (const key of Object.keys(total) as (keyof Statistics)[]) total[key] += statistics[key];
    }
    return total;
  }

  #served(offered: Offered): ServedExport {
    const connections = () => [...this.#connections.keys()].filter(({ served }) => served === offered);
    return {
      name: offered.name,
      statistics: offered.statistics,
      get clients() {
        return connections().length;
      },
      withdraw: async () => {
        this.#exports.withdraw(offered);
        await this.#disconnect(connections());
      },
    };
  }

  async idle(): Promise<void> {
    while (this.#connections.size > 0) await Promise.race(this.#connections.values());
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #accept(listener: IoListener): Promise<void> {
    // Told now and then only: a lack of descriptors lasts, and logs fill disks.
    let warnedMs = -Infinity;
    while (this.#closing === null) {
      try {
        const socket = await listener.accept();
        if (socket === null) return;
        this.#welcome(socket);
      } catch (error) {
        if (this.#closing !== null) return;
        const nowMs = this.#clock.monotonicMs();
        if (nowMs - warnedMs >= acceptWarnMs) {
          warnedMs = nowMs;
          const reason = error instanceof Error ? error.message : String(error);
          this.#warn(
            `Cannot accept a connection: ${reason}; clients that are connected are served, and it is tried again`,
          );
        }
        await this.#pause(acceptRetryMs);
      }
    }
  }

  #welcome(socket: IoConnection): void {
    const full = this.#connections.size - this.#leaving.size >= this.#limits.connections;
    if (full && !this.#refusing) {
      this.#warn(
        `refusing clients: ${this.#limits.connections} connections are open, and no more are allowed; those that have chosen ` +
          `an export go on`,
      );
    }
    this.#refusing = full;
    if (this.#closing !== null || (full && !this.#makeRoom())) return socket.close();
    const options = {
      exports: this.#exports,
      clock: this.#clock,
      warn: this.#warn,
      limits: this.#limits,
      budget: this.#budget,
      tls: this.#tls,
    };
    const connection = tellsByEvents(socket)
      ? new EventDriver(socket, options)
      : new Connection(socket, options);
    const served = connection.run().finally(() => {
      this.#connections.delete(connection);
      this.#leaving.delete(connection);
    });
    this.#connections.set(connection, served);
  }

  /**
   * Drops the connection that has been without an export for longest, so that whoever only connects cannot keep others out; false
   * when all have one.
   */
  #makeRoom(): boolean {
    for (const connection of this.#connections.keys()) {
      if (!connection.isHandshaking) continue;
      this.#leaving.add(connection);
      connection.drop();
      return true;
    }
    return false;
  }

  async #close(): Promise<void> {
    for (const listener of this.#listeners) listener.close();
    for (const wake of this.#pauses) wake();
    await Promise.all(this.#accepting);
    await this.#disconnect([...this.#connections.keys()]);
    this.#budget.close();
  }

  async #disconnect(connections: readonly (Connection | EventDriver)[]): Promise<void> {
    for (const connection of connections) connection.shutdown();
    const all = Promise.all(connections.map((connection) => this.#connections.get(connection)));
    // Whoever is still there at the deadline is dropped; what still waits for the volume then is the volume's.
    let cancel = () => {};
    const deadline = new Promise<void>((resolve) => {
      cancel = this.#clock.after(closingMsMax, () => {
        for (const connection of connections) connection.drop();
        resolve();
      });
    });
    await Promise.race([all, deadline]);
    cancel();
  }

  #pause(delayMs: number): Promise<void> {
    return new Promise((resolve) => {
      const wake = () => {
        this.#pauses.delete(wake);
        cancel();
        resolve();
      };
      const cancel = this.#clock.after(delayMs, wake);
      this.#pauses.add(wake);
    });
  }
}
