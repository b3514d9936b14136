/**
 * A small NBD client for tests, over a real socket: raw negotiation, then requests of which any number may be under
 * way. Nothing is checked that a test may want to break.
 *
 * @module
 */

import { parseNbdUri } from "../../src/nbd/uri.ts";
import {
  clientFlags,
  contextData,
  infoData,
  Opt,
  optionBytes,
  type OptionReply,
  pack,
  Rep,
  type Reply,
  type Request,
  requestBytes,
  takeOptionReply,
  takeReply,
} from "./wire.ts";

export interface ConnectOptions {
  exportName?: string;
  structured?: boolean;
  /** Select base:allocation; implies structured unless extended. */
  allocation?: boolean;
  /** Select these contexts; implies structured unless extended. */
  contexts?: string[];
  /** 64-bit headers instead of structured replies. */
  extended?: boolean;
}

/** A connection on which nothing was negotiated yet. */
export class RawClient {
  readonly conn: Deno.Conn;
  #rest = new Uint8Array();
  #sending: Promise<void> = Promise.resolve();

  constructor(conn: Deno.Conn) {
    this.conn = conn;
  }

  static async connect(uri: string): Promise<RawClient> {
    const { address } = parseNbdUri(uri);
    const conn = address.transport === "unix"
      ? await Deno.connect({ transport: "unix", path: address.path })
      : await Deno.connect({ hostname: address.hostname, port: address.port });
    return new RawClient(conn);
  }

  /** Sends all of `bytes`, after what was sent before. */
  send(bytes: Uint8Array): Promise<void> {
    const sent = this.#sending.then(async () => {
      for (let at = 0; at < bytes.length;) at += await this.conn.write(bytes.subarray(at));
    });
    this.#sending = sent.catch(() => {});
    return sent;
  }

  /** Exactly `count` bytes, or null when the server closed. */
  take = async (count: number): Promise<Uint8Array | null> => {
    const whole = new Uint8Array(count);
    let filled = Math.min(count, this.#rest.length);
    whole.set(this.#rest.subarray(0, filled));
    this.#rest = this.#rest.slice(filled);
    while (filled < count) {
      const got = await this.conn.read(whole.subarray(filled)).catch(() => null);
      if (got === null) {
        this.#rest = whole.slice(0, filled);
        return null;
      }
      filled += got;
    }
    return whole;
  };

  /** Everything until the server closes. */
  async rest(): Promise<Uint8Array> {
    const pieces: Uint8Array[] = [];
    for (let piece = await this.take(1); piece !== null; piece = await this.take(1)) pieces.push(piece);
    return pack(...pieces);
  }

  /** Reads the greeting and sends the client's flags. */
  async greet(flags = 3): Promise<Uint8Array> {
    const greeting = await this.take(18);
    if (greeting === null) {
      this.close();
      throw new Error("no greeting came");
    }
    await this.send(clientFlags(flags));
    return greeting;
  }

  /** Sends an option and returns all its replies; the last is an ACK or an error. Empty when the server closed. */
  async option(code: number, data?: Uint8Array): Promise<OptionReply[]> {
    await this.send(optionBytes(code, data));
    const replies: OptionReply[] = [];
    for (;;) {
      const reply = await takeOptionReply(this.take);
      if (reply === null) return replies;
      replies.push(reply);
      if (reply.type === Rep.ACK || reply.type >= 0x80000000) return replies;
    }
  }

  close(): void {
    this.conn.close();
  }
}

/** A connection in the transmission phase. */
export class Client {
  readonly raw: RawClient;
  readonly sizeBytes: number;
  readonly flags: number;
  readonly #extended: boolean;
  #cookie = 0n;
  readonly #open = new Map<bigint, Reply>();
  readonly #reads = new Map<bigint, { offset: number; length: number }>();
  readonly #waiting = new Map<bigint, { resolve: (reply: Reply) => void; reject: (reason: Error) => void }>();
  #reading = false;

  private constructor(raw: RawClient, sizeBytes: number, flags: number, extended: boolean) {
    this.#extended = extended;
    this.raw = raw;
    this.sizeBytes = sizeBytes;
    this.flags = flags;
  }

  static async connect(uri: string, options: ConnectOptions = {}): Promise<Client> {
    const raw = await RawClient.connect(uri);
    await raw.greet();
    const name = options.exportName ?? parseNbdUri(uri).exportName;
    const contexts = [...(options.allocation ? ["base:allocation"] : []), ...(options.contexts ?? [])];
    if (options.extended) await raw.option(Opt.EXTENDED_HEADERS);
    else if (options.structured || contexts.length > 0) await raw.option(Opt.STRUCTURED_REPLY);
    if (contexts.length > 0) await raw.option(Opt.SET_META_CONTEXT, contextData(name, ...contexts));
    const replies = await raw.option(Opt.GO, infoData(name));
    const found = replies.find(({ type, data }) => type === Rep.INFO && data[0] === 0 && data[1] === 0);
    if (!found || replies.at(-1)!.type !== Rep.ACK) {
      raw.close();
      throw new Error(`GO failed: ${JSON.stringify(replies.map(({ type }) => type))}`);
    }
    const view = new DataView(found.data.buffer, found.data.byteOffset);
    return new Client(raw, Number(view.getBigUint64(2)), view.getUint16(10), options.extended ?? false);
  }

  /** Sends a request and resolves with its reply; rejects when the server closes first. */
  async request(request: Request): Promise<Reply> {
    const cookie = request.cookie ?? ++this.#cookie;
    if (request.type === 0) {
      this.#reads.set(cookie, { offset: Number(request.offset ?? 0), length: Number(request.length ?? 0) });
    }
    const { promise, resolve, reject } = Promise.withResolvers<Reply>();
    this.#waiting.set(cookie, { resolve, reject });
    promise.catch(() => {});
    await this.raw.send(requestBytes({ ...request, cookie }, this.#extended));
    this.#read();
    return promise;
  }

  async #read(): Promise<void> {
    if (this.#reading) return;
    this.#reading = true;
    let failure = new Error("the server closed the connection");
    while (this.#waiting.size > 0) {
      const reply = await takeReply(this.raw.take, this.#open, this.#reads).catch((error) => {
        failure = error;
        return null;
      });
      if (reply === null) {
        for (const { reject } of this.#waiting.values()) reject(failure);
        this.#waiting.clear();
      } else if (reply !== undefined) {
        this.#waiting.get(reply.cookie)?.resolve(reply);
        this.#waiting.delete(reply.cookie);
      }
    }
    this.#reading = false;
  }

  async read(offset: number, length: number, flags = 0): Promise<Uint8Array> {
    const reply = await this.request({ type: 0, offset, length, flags });
    if (reply.error !== 0) throw new Error(`READ failed: ${reply.error}`);
    return reply.data;
  }

  async write(offset: number, payload: Uint8Array, flags = 0): Promise<number> {
    return (await this.request({ type: 1, offset, payload, flags })).error;
  }

  async flush(): Promise<number> {
    return (await this.request({ type: 3 })).error;
  }

  /** Sends DISC, waits for the server to close, and closes. */
  async disconnect(): Promise<void> {
    await this.raw.send(requestBytes({ type: 2 }, this.#extended)).catch(() => {});
    await this.raw.rest();
    this.close();
  }

  close(): void {
    this.raw.close();
  }
}
