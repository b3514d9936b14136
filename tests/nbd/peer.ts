/**
 * Drives a {@linkcode Session} without sockets: what a test feeds arrives in pieces of its choice, and what the
 * session sends is collected and taken apart.
 *
 * @module
 */

import type { Volume } from "../../src/cache/volume.ts";
import { type Clock, systemClock } from "../../src/clock.ts";
import { Budget } from "../../src/nbd/budget.ts";
import { completeLimits, type Limits } from "../../src/nbd/limits.ts";
import type { TlsMode } from "../../src/nbd/negotiation.ts";
import { type Export, ExportTable } from "../../src/nbd/exports.ts";
import { Session } from "../../src/nbd/session.ts";
import type { Observer, Statistics } from "../../src/nbd/statistics.ts";
import {
  clientFlags,
  contextData,
  infoData,
  Opt,
  optionBytes,
  type OptionReply,
  pack,
  type Reply,
  type Request,
  requestBytes,
  takeOptionReply,
  takeReply,
} from "./wire.ts";

export interface PeerOptions {
  structured?: boolean;
  allocation?: boolean;
  /** More contexts to select. */
  contexts?: string[];
  /** 64-bit headers instead of structured replies. */
  extended?: boolean;
  readOnly?: boolean;
  observer?: Observer;
  exports?: Export[];
  /** The session uses memory of the volume. */
  borrows?: boolean;
  limits?: Partial<Limits>;
  budget?: Budget;
  tls?: TlsMode;
  /** Time; by default one in which nothing ever becomes due. */
  clock?: Clock;
}

const idleClock: Clock = { ...systemClock, after: () => () => {} };

export class Peer {
  readonly session: Session;
  readonly statistics: Statistics;
  readonly warnings: string[] = [];
  /** What was sent and not yet taken. */
  received: Uint8Array<ArrayBuffer> = new Uint8Array();
  /** The most that the session held for sending. */
  queuedBytesMax = 0;
  readonly #open = new Map<bigint, Reply>();
  readonly #reads = new Map<bigint, { offset: number; length: number }>();
  /** How requests are encoded. */
  extended = false;
  #cookie = 0n;
  #progress: () => void = () => {};

  constructor(volume: Volume, options: PeerOptions = {}) {
    const readOnly = options.readOnly ?? false;
    const limits = completeLimits(options.limits);
    const exports = new ExportTable(
      options.exports ?? [{ name: "", description: "", readOnly, volume }],
      options.observer,
    );
    this.statistics = exports.all[0]!.statistics;
    this.session = new Session({
      limits,
      tls: options.tls,
      budget: options.budget ?? new Budget(limits.totalBytes, limits.stallSeconds * 1000, systemClock),
      exports,
      clock: options.clock ?? idleClock,
      warn: (message) => this.warnings.push(message),
      onOutput: () => this.#progress(),
      borrows: options.borrows,
    });
  }

  /** A peer in the transmission phase. */
  static transmitting(volume: Volume, options: PeerOptions = {}): Peer {
    const peer = new Peer(volume, options);
    peer.feed(clientFlags());
    peer.extended = options.extended ?? false;
    const contexts = [...(options.allocation ? ["base:allocation"] : []), ...(options.contexts ?? [])];
    if (options.extended) peer.feed(optionBytes(Opt.EXTENDED_HEADERS));
    else if (options.structured || contexts.length > 0) peer.feed(optionBytes(Opt.STRUCTURED_REPLY));
    if (contexts.length > 0) peer.feed(optionBytes(Opt.SET_META_CONTEXT, contextData("", ...contexts)));
    peer.feed(optionBytes(Opt.GO, infoData()));
    peer.drain();
    peer.received = new Uint8Array();
    return peer;
  }

  /** Lets bytes arrive, `pieceBytes` at most at a time. Returns how many the session took before it wanted no more. */
  feed(bytes: Uint8Array, pieceBytes = Infinity): number {
    let at = 0;
    while (at < bytes.length && this.session.wantsInput) {
      const space = this.session.inputSpace();
      const count = Math.min(space.length, bytes.length - at, pieceBytes);
      space.set(bytes.subarray(at, at + count));
      this.session.received(count);
      this.queuedBytesMax = Math.max(this.queuedBytesMax, this.session.queuedBytes);
      at += count;
    }
    return at;
  }

  /** Takes what the session wants to send, `limit` bytes at most. */
  drain(limit = Infinity): void {
    const pieces: Uint8Array[] = [this.received];
    for (let bytes = this.session.output(); bytes !== null && limit > 0; bytes = this.session.output()) {
      const count = Math.min(bytes.length, limit);
      pieces.push(bytes.slice(0, count));
      this.session.sent(count);
      limit -= count;
    }
    this.received = pack(...pieces);
  }

  /** Lets bytes arrive and replies leave until all has arrived and no request is under way. */
  async exchange(bytes: Uint8Array, pieceBytes = Infinity): Promise<void> {
    let at = 0;
    for (;;) {
      at += this.feed(bytes.subarray(at), pieceBytes);
      this.drain();
      if (this.session.isEnding && this.session.requestsInFlight === 0) break;
      if (at === bytes.length && this.session.isQuiet) break;
      if (this.session.wantsInput && at < bytes.length) continue;
      await new Promise<void>((resolve) => this.#progress = resolve);
    }
    this.drain();
  }

  take = (count: number): Uint8Array | null => {
    if (this.received.length < count) return null;
    const taken = this.received.slice(0, count);
    this.received = this.received.subarray(count);
    return taken;
  };

  /** All replies that have come. */
  async replies(): Promise<Reply[]> {
    const replies: Reply[] = [];
    for (;;) {
      const reply = await takeReply(this.take, this.#open, this.#reads);
      if (reply === null) return replies;
      if (reply !== undefined) replies.push(reply);
    }
  }

  async optionReplies(): Promise<OptionReply[]> {
    const replies: OptionReply[] = [];
    for (let reply = await takeOptionReply(this.take); reply; reply = await takeOptionReply(this.take)) {
      replies.push(reply);
    }
    return replies;
  }

  /** A request's bytes; a READ is remembered, so that its reply can be read. */
  encode(request: Request): Uint8Array {
    const cookie = request.cookie ?? ++this.#cookie;
    if (request.type === 0) {
      this.#reads.set(cookie, { offset: Number(request.offset ?? 0), length: Number(request.length ?? 0) });
    }
    return requestBytes({ ...request, cookie }, this.extended);
  }

  /** Sends one request and returns its reply; undefined when the session ended the connection instead. */
  async request(request: Request): Promise<Reply | undefined> {
    await this.exchange(this.encode(request));
    return (await this.replies())[0];
  }

  /** Sends an option and returns the types of its replies. */
  async option(code: number, data?: Uint8Array): Promise<number[]> {
    await this.exchange(optionBytes(code, data));
    return (await this.optionReplies()).map(({ type }) => type);
  }
}
