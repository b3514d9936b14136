/**
 * Stands between a client and a server on unix sockets, and breaks what goes through: cuts connections, holds bytes back,
 * refuses new connections.
 *
 * @module
 */

export class Breaker implements AsyncDisposable {
  /** Where clients connect. */
  readonly path: string;
  readonly #target: string;
  #listener: Deno.Listener | undefined;
  readonly #pairs = new Set<[Deno.Conn, Deno.Conn]>();
  readonly #relays = new Set<Promise<void>>();
  #accepting: Promise<void> = Promise.resolve();
  #held: Promise<void> | undefined;
  #release: () => void = () => {};
  /** Connections that were relayed so far. */
  accepted = 0;

  constructor(path: string, target: string) {
    this.path = path;
    this.#target = target;
    this.listen();
  }

  get uri(): string {
    return `nbd+unix:///?socket=${this.path}`;
  }

  /** Takes connections. */
  listen(): void {
    const listener = this.#listener = Deno.listen({ transport: "unix", path: this.path });
    this.#accepting = (async () => {
      for await (const client of listener) {
        this.accepted++;
        const server = await Deno.connect({ transport: "unix", path: this.#target });
        const pair: [Deno.Conn, Deno.Conn] = [client, server];
        this.#pairs.add(pair);
        const relay = Promise.all([this.#relay(client, server), this.#relay(server, client)]).then(() => {
          this.#pairs.delete(pair);
        });
        this.#relays.add(relay);
        relay.finally(() => this.#relays.delete(relay));
      }
    })().catch(() => {});
  }

  /** Refuses connections from now on. */
  async refuse(): Promise<void> {
    this.#listener?.close();
    this.#listener = undefined;
    await this.#accepting;
    await Deno.remove(this.path).catch(() => {});
  }

  /** Cuts all connections. */
  cut(): void {
    for (const pair of this.#pairs) for (const each of pair) close(each);
  }

  /** Moves nothing until `go`. */
  hold(): void {
    this.#held = new Promise((resolve) => this.#release = resolve);
  }

  /** Moves bytes again. */
  go(): void {
    this.#held = undefined;
    this.#release();
  }

  async #relay(from: Deno.Conn, to: Deno.Conn): Promise<void> {
    const buffer = new Uint8Array(64 * 1024);
    try {
      for (let count = await from.read(buffer); count !== null; count = await from.read(buffer)) {
        if (this.#held) await this.#held;
        for (let at = 0; at < count;) at += await to.write(buffer.subarray(at, count));
      }
    } catch {
      // Cut.
    }
    close(from);
    close(to);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.go();
    await this.refuse();
    this.cut();
    await Promise.all(this.#relays);
  }
}

function close(connection: Deno.Conn): void {
  try {
    connection.close();
  } catch {
    // It was closed before.
  }
}
