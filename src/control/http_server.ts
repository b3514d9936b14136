/**
 * Serves the control address to connections. Not Deno's own server: that one lets a client take for ever to send its
 * headers, and as many clients as like to come.
 *
 * Invariants: a connection carries one request; it holds at most `headBytesMax + bodyBytesMax` bytes, has `requestMsMax` to
 * send its request and `writeMsMax` to take each piece of the response; there are at most `connectionsMax`, and one that
 * has not sent its request yet makes room for a new one.
 *
 * @module
 */

import type { Clock } from "../clock.ts";
import type { IoConnection, IoListener } from "../io/io.ts";
import { bodyBytesMax, headBytesMax, headEnd, HttpError, parseHead, responseHead } from "./http_codec.ts";

/** Connections at once. */
const connectionsMax = 32;
/** Time for a request to arrive. */
const requestMsMax = 10_000;
/** Time for a client to take a piece of the response. */
const writeMsMax = 10_000;
/** What a refused client may still send, and for how long, so that it gets to read why. */
const lingerBytesMax = 1024 * 1024;
const lingerMsMax = 200;
/** Time for responses under way at `close`. */
const closingMsMax = 2000;
/** Pause after a failed accept. */
const acceptRetryMs = 100;

/** Answers a request; never rejects. */
export type Handle = (request: Request) => Promise<Response>;

/** One client. */
class Client {
  readonly #socket: IoConnection;
  readonly #clock: Clock;
  /** Its request has not arrived yet. */
  waiting = true;

  constructor(socket: IoConnection, clock: Clock) {
    this.#socket = socket;
    this.#clock = clock;
  }

  close(): void {
    this.#socket.close();
  }

  /** Never rejects. */
  async serve(handle: Handle): Promise<void> {
    try {
      await this.#respond(await this.#answer(handle));
    } catch {
      // The client went away or was too slow; there is nobody to tell.
    } finally {
      this.close();
    }
  }

  async #answer(handle: Handle): Promise<Response> {
    const cancel = this.#clock.after(requestMsMax, () => this.close());
    let request: Request;
    try {
      request = await this.#receive();
    } catch (error) {
      if (!(error instanceof HttpError)) throw error;
      await this.#respond(
        Response.json({ error: { name: "UsageError", message: error.message, exitCode: 2 } }, {
          status: error.status,
        }),
      );
      await this.#linger();
      throw error;
    } finally {
      cancel();
    }
    this.waiting = false;
    return await handle(request);
  }

  async #receive(): Promise<Request> {
    const buffer = new Uint8Array(headBytesMax + bodyBytesMax);
    let length = 0;
    const more = async () => {
      const count = await this.#socket.read(buffer.subarray(length));
      if (count === null) throw new Error("the client left");
      length += count;
    };
    let end = -1;
    while ((end = headEnd(buffer.subarray(0, Math.min(length, headBytesMax)))) < 0) {
      if (length >= headBytesMax) {
        throw new HttpError(431, `The headers have more than ${headBytesMax} bytes: expected fewer`);
      }
      await more();
    }
    const { method, target, headers, bodyBytes } = parseHead(buffer.subarray(0, end));
    while (length < end + bodyBytes) await more();
    const url = `http://${headers.get("host")}${target}`;
    if (!URL.canParse(url)) throw new HttpError(400, "The header Host or the path is malformed");
    const body = bodyBytes === 0 || method === "GET" || method === "HEAD"
      ? null
      : buffer.slice(end, end + bodyBytes);
    try {
      return new Request(url, { method, headers, body });
    } catch {
      throw new HttpError(400, `The method ${method} or a header is not taken here`);
    }
  }

  async #respond(response: Response): Promise<void> {
    const { body } = response;
    try {
      await this.#write(responseHead(response));
      if (body !== null) { for await (const piece of body) await this.#write(new Uint8Array(piece)); }
    } catch (error) {
      await body?.cancel().catch(() => {});
      throw error;
    }
  }

  async #write(bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    const cancel = this.#clock.after(writeMsMax, () => this.close());
    try {
      for (let at = 0; at < bytes.length;) at += await this.#socket.write(bytes.subarray(at));
    } finally {
      cancel();
    }
  }

  /** Closing a socket with unread bytes would take the answer from the client. */
  async #linger(): Promise<void> {
    const cancel = this.#clock.after(lingerMsMax, () => this.close());
    try {
      const sink = new Uint8Array(headBytesMax);
      for (let total = 0; total < lingerBytesMax;) {
        const count = await this.#socket.read(sink);
        if (count === null) return;
        total += count;
      }
    } finally {
      cancel();
    }
  }
}

/** A control address that is being served. */
export class HttpServer {
  readonly #listener: IoListener;
  readonly #handle: Handle;
  readonly #clock: Clock;
  readonly #warn: (message: string) => void;
  readonly #clients = new Map<Client, Promise<void>>();
  readonly #accepting: Promise<void>;
  #closed = false;
  #wake: () => void = () => {};

  constructor(listener: IoListener, handle: Handle, clock: Clock, warn: (message: string) => void) {
    this.#listener = listener;
    this.#handle = handle;
    this.#clock = clock;
    this.#warn = warn;
    this.#accepting = this.#accept();
  }

  async #accept(): Promise<void> {
    let warned = false;
    while (!this.#closed) {
      try {
        const socket = await this.#listener.accept();
        if (socket === null) return;
        this.#welcome(socket);
      } catch (error) {
        if (this.#closed) return;
        if (!warned) {
          const reason = error instanceof Error ? error.message : String(error);
          this.#warn(
            `Cannot accept a connection to the control address: ${reason}; NBD clients are not concerned, trying again`,
          );
        }
        warned = true;
        await new Promise<void>((resolve) => {
          const cancel = this.#clock.after(acceptRetryMs, resolve);
          this.#wake = () => {
            cancel();
            resolve();
          };
        });
      }
    }
  }

  #welcome(socket: IoConnection): void {
    if (this.#clients.size >= connectionsMax) {
      const oldest = [...this.#clients.keys()].find((client) => client.waiting);
      if (oldest === undefined) return socket.close();
      oldest.close();
      this.#clients.delete(oldest);
    }
    const client = new Client(socket, this.#clock);
    this.#clients.set(client, client.serve(this.#handle).finally(() => this.#clients.delete(client)));
  }

  /** Stops listening, lets responses under way end for a moment, and disconnects. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#listener.close();
    this.#wake();
    await this.#accepting;
    for (const client of this.#clients.keys()) if (client.waiting) client.close();
    const all = Promise.all(this.#clients.values());
    let cancel = () => {};
    const deadline = new Promise<void>((resolve) => cancel = this.#clock.after(closingMsMax, resolve));
    await Promise.race([all, deadline]);
    cancel();
    for (const client of this.#clients.keys()) client.close();
  }
}
