/**
 * One connection to an NBD server in its transmission phase: requests out, replies in, any number under way.
 *
 * Invariants: a request settles once; its buffers are not touched any more when it has. When the connection is lost, all
 * requests under way reject with {@linkcode LinkLost}, after both loops have ended. A server that breaks the protocol is
 * as good as lost.
 *
 * @module
 */

import type { Clock } from "../../clock.ts";
import { chunk, chunkDone, command, magic, requestHeaderBytes } from "../../nbd/constants.ts";
import type { ByteStream } from "./byte_stream.ts";
import { Coverage } from "./coverage.ts";
import type { ExportFacts } from "./handshake.ts";

const twoTo32 = 0x1_0000_0000;
/** A payload up to this size is copied next to its header, so that both leave in one send. */
const copyBytesMax = 32 * 1024;
/** The protocol's limit for words in an error. */
const messageBytesMax = 4096;
const noBytes = new Uint8Array(0);

/** The connection was lost before the reply came: whether the server did it is unknown. */
export class LinkLost extends Error {
  override name = "LinkLost";
}

/** The server's answer was an error. */
export class ServerError extends Error {
  override name = "ServerError";
  /** The error's number on the wire. */
  readonly errno: number;
  constructor(errno: number, words: string) {
    super(words);
    this.errno = errno;
  }
}

/** A request. */
export interface LinkRequest {
  readonly command: number;
  readonly flags: number;
  readonly offset: number;
  readonly length: number;
  /** The payload of a WRITE. */
  readonly source?: Uint8Array<ArrayBuffer>;
  /** Where the data of a READ go. */
  readonly target?: Uint8Array<ArrayBuffer>;
}

interface Pending {
  readonly request: LinkRequest;
  readonly startedMs: number;
  readonly coverage: Coverage | undefined;
  failure: ServerError | undefined;
  resolve(): void;
  reject(reason: Error): void;
}

/** One connection. */
export class Link {
  /** What was negotiated on it. */
  readonly facts: ExportFacts;
  readonly #stream: ByteStream;
  readonly #clock: Clock;
  readonly #onLost: (link: Link, reason: string) => void;
  readonly #pending = new Map<number, Pending>();
  readonly #queue: LinkRequest[] = [];
  readonly #queueCookies: number[] = [];
  #cookie = 0;
  #lost: string | undefined;
  #sending = false;
  #wakeSender: () => void = () => {};
  #progressMs: number;
  readonly #loops: Promise<unknown>;

  /** Owns `stream`, on which the handshake is done. `onLost` is called once, before any request is rejected. */
  constructor(
    stream: ByteStream,
    facts: ExportFacts,
    clock: Clock,
    onLost: (link: Link, reason: string) => void,
  ) {
    this.#stream = stream;
    this.facts = facts;
    this.#clock = clock;
    this.#onLost = onLost;
    this.#progressMs = clock.monotonicMs();
    stream.onProgress = () => this.#progressMs = clock.monotonicMs();
    this.#loops = Promise.all([this.#send(), this.#receive()]);
  }

  /** True when nothing can be asked of it any more. */
  get isLost(): boolean {
    return this.#lost !== undefined;
  }

  /** Requests under way. */
  get inFlight(): number {
    return this.#pending.size;
  }

  /** True when something that changes the export is under way. */
  get isWriting(): boolean {
    for (const { request } of this.#pending.values()) {
      if (request.command === command.write || request.command === command.writeZeroes) return true;
    }
    return false;
  }

  /** When the connection last moved a byte; and when the request that has waited longest was begun. */
  get times(): { progressMs: number; oldestMs: number } | undefined {
    const [oldest] = this.#pending.values();
    if (oldest === undefined) return undefined;
    return { progressMs: Math.max(this.#progressMs, oldest.startedMs), oldestMs: oldest.startedMs };
  }

  /** Sends a request; resolves when the server did it. Rejects with {@linkcode LinkLost} or {@linkcode ServerError}. */
  request(request: LinkRequest): Promise<void> {
    if (this.#lost !== undefined) return Promise.reject(new LinkLost(this.#lost));
    return new Promise((resolve, reject) => {
      const cookie = this.#nextCookie();
      const chunks = request.command === command.read && this.facts.structured;
      const coverage = chunks ? new Coverage(request.length) : undefined;
      const startedMs = this.#clock.monotonicMs();
      this.#pending.set(cookie, { request, startedMs, coverage, failure: undefined, resolve, reject });
      this.#queue.push(request);
      this.#queueCookies.push(cookie);
      this.#wakeSender();
    });
  }

  /** Says goodbye; there must be nothing under way. */
  async disconnect(): Promise<void> {
    if (this.#lost !== undefined) return await this.ended();
    const goodbye = { command: command.disconnect, flags: 0, offset: 0, length: 0 };
    // The loops hold the stream; a goodbye that cannot be sent at once is not worth a wait.
    if (!this.#sending) await this.#stream.send(encodeRequest(goodbye, 0, noBytes)).catch(() => {});
    this.drop("it was closed");
    await this.ended();
  }

  /** Gives the connection up. */
  drop(reason: string): void {
    if (this.#lost !== undefined) return;
    this.#lost = reason;
    this.#onLost(this, reason);
    this.#stream.close();
    this.#wakeSender();
    this.#loops.then(() => {
      for (const { reject } of this.#pending.values()) reject(new LinkLost(reason));
      this.#pending.clear();
    });
  }

  /** Resolves when no buffer of a lost connection's requests is in use any more. */
  async ended(): Promise<void> {
    await this.#loops;
  }

  #nextCookie(): number {
    do this.#cookie = (this.#cookie + 1) % twoTo32; while (this.#pending.has(this.#cookie));
    return this.#cookie;
  }

  async #send(): Promise<void> {
    try {
      for (;;) {
        const request = this.#queue.shift();
        if (this.#lost !== undefined) return;
        if (request === undefined) {
          await new Promise<void>((resolve) => this.#wakeSender = resolve);
          continue;
        }
        this.#sending = true;
        const payload = request.source ?? noBytes;
        const together = payload.length <= copyBytesMax;
        await this.#stream.send(
          encodeRequest(request, this.#queueCookies.shift()!, together ? payload : noBytes),
        );
        if (!together) await this.#stream.send(payload);
        this.#sending = false;
      }
    } catch (error) {
      this.#fail(error);
    }
  }

  async #receive(): Promise<void> {
    try {
      while (this.#lost === undefined) await this.#takeReply();
    } catch (error) {
      this.#fail(error);
    }
  }

  #fail(error: unknown): void {
    this.drop(error instanceof Error ? error.message : String(error));
  }

  async #takeReply(): Promise<void> {
    const head = await this.#stream.peek(16);
    const kind = head.getUint32(0);
    const cookie = head.getUint32(12);
    const pending = head.getUint32(8) === 0 ? this.#pending.get(cookie) : undefined;
    if (pending === undefined) throw new Error("the server answered what was not asked");
    if (kind === magic.simpleReply) return await this.#takeSimple(head.getUint32(4), cookie, pending);
    if (kind !== magic.structuredReply || !this.facts.structured) {
      throw new Error(`the server answered with the magic 0x${kind.toString(16)}`);
    }
    const [flags, type] = [head.getUint16(4), head.getUint16(6)];
    await this.#takeChunk(type, (await this.#stream.peek(4)).getUint32(0), pending);
    if ((flags & chunkDone) === 0) return;
    const { failure, coverage } = pending;
    if (failure === undefined && coverage?.isWhole === false) {
      throw new Error("the server called a READ done that was not whole");
    }
    this.#settle(cookie, pending, failure);
  }

  async #takeSimple(error: number, cookie: number, pending: Pending): Promise<void> {
    if (pending.coverage !== undefined) throw new Error("the server answered a READ without chunks");
    if (error !== 0) return this.#settle(cookie, pending, new ServerError(error, ""));
    const { target } = pending.request;
    if (target !== undefined) await this.#stream.take(target);
    this.#settle(cookie, pending, undefined);
  }

  async #takeChunk(type: number, payloadBytes: number, pending: Pending): Promise<void> {
    const stream = this.#stream;
    if (type === chunk.none && payloadBytes === 0) return;
    const { coverage, request: { target, offset } } = pending;
    if (type === chunk.offsetData && coverage !== undefined && target !== undefined && payloadBytes > 8) {
      const at = offsetOf(await stream.peek(8)) - offset;
      if (!coverage.add(at, at + payloadBytes - 8)) {
        throw new Error("the server sent data that was not asked for");
      }
      return await stream.take(target.subarray(at, at + payloadBytes - 8));
    }
    if (type === chunk.offsetHole && coverage !== undefined && target !== undefined && payloadBytes === 12) {
      const view = await stream.peek(12);
      const at = offsetOf(view) - offset;
      const bytes = view.getUint32(8);
      if (!coverage.add(at, at + bytes)) throw new Error("the server sent a hole that was not asked for");
      target.fill(0, at, at + bytes);
      return;
    }
    const isError = type === chunk.error || type === chunk.errorOffset;
    if (!isError || payloadBytes < 6 || payloadBytes > 6 + messageBytesMax + 8) {
      throw new Error(`the server sent a chunk of type ${type} with ${payloadBytes} bytes`);
    }
    const view = await stream.peek(payloadBytes);
    const errno = view.getUint32(0);
    const words = new Uint8Array(
      view.buffer,
      view.byteOffset + 6,
      Math.min(view.getUint16(4), payloadBytes - 6),
    );
    pending.failure ??= new ServerError(errno === 0 ? 5 : errno, new TextDecoder().decode(words));
  }

  #settle(cookie: number, pending: Pending, failure: ServerError | undefined): void {
    this.#pending.delete(cookie);
    if (failure === undefined) pending.resolve();
    else pending.reject(failure);
  }
}

function offsetOf(view: DataView): number {
  return view.getUint32(0) * twoTo32 + view.getUint32(4);
}

function encodeRequest(request: LinkRequest, cookie: number, payload: Uint8Array): Uint8Array<ArrayBuffer> {
  const message = new Uint8Array(requestHeaderBytes + payload.length);
  const view = new DataView(message.buffer);
  view.setUint32(0, magic.request);
  view.setUint16(4, request.flags);
  view.setUint16(6, request.command);
  view.setUint32(12, cookie);
  view.setUint32(16, Math.floor(request.offset / twoTo32));
  view.setUint32(20, request.offset % twoTo32);
  view.setUint32(24, request.length);
  message.set(payload, requestHeaderBytes);
  return message;
}
