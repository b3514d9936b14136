/**
 * The transmission phase of one connection: requests in, replies out.
 *
 * {@linkcode Transmission.run} executes every whole request that has arrived. What the volume can do at once is done
 * straight from and into the connection's buffers: from the parsed header to the queued reply there is no promise, no
 * closure, no BigInt and no subarray. Anything else becomes an operation in flight, whose completion queues its reply;
 * so replies of different requests go in any order, as the protocol allows.
 *
 * Invariants: a WRITE has no effect before all of its payload has come, and its payload is always consumed; at most
 * `requestsInFlightMax` operations and about `bytesInFlightMax` bytes of payloads and unsent replies are held, beyond
 * that `blocked` is set and parsing stops until some are gone.
 *
 * @module
 */

import type { Extent, Volume } from "../cache/volume.ts";
import type { Clock } from "../clock.ts";
import { assert, DeviceError } from "../errors.ts";
import {
  bytesInFlightMax,
  command,
  commandFlag,
  dataChunkHeaderBytes,
  extentsPerReplyMax,
  magic,
  payloadAcceptedBytesMax,
  requestHeaderBytes,
  requestsInFlightMax,
  simpleReplyHeaderBytes,
  wireError,
} from "./constants.ts";
import type { InputBuffer } from "./input_buffer.ts";
import type { Agreement } from "./negotiation.ts";
import type { OutputBuffer } from "./output_buffer.ts";
import {
  blockStatusReply,
  doneReply,
  errorReply,
  putDataChunkHeader,
  putSimpleHeader,
  readPieces,
  simpleReply,
} from "./replies.ts";
import { RequestCheck } from "./request_check.ts";
import { type Observer, type RequestKind, requestKinds, type Statistics } from "./statistics.ts";
import { toWireError } from "./wire_errors.ts";

const twoTo32 = 0x1_0000_0000;
/** Warnings about failures that are not the device's, per connection: a client must not be able to fill the log. */
const warningsMax = 8;
const throughCache = {};
const throughFua = { fua: true };

/** What a transmission needs from around it. */
export interface TransmissionContext {
  /** Where requests are counted. */
  readonly statistics: Statistics;
  /** Who is told how long requests took. */
  readonly observer: Observer | null;
  /** Time for the observer. */
  readonly clock: Clock;
  /** Takes a sentence for the operator. */
  readonly warn: (message: string) => void;
  /** Called after an operation in flight has ended. */
  readonly onCompletion: () => void;
  /** Called when a mistake of ours shows while an operation ends; the connection cannot go on. */
  readonly onFailure: (thrown: unknown) => void;
}

/** A WRITE whose payload is still coming, or is being thrown away because of `error`. */
interface PendingWrite {
  flags: number;
  cookieHigh: number;
  cookieLow: number;
  offset: number;
  length: number;
  error: number;
}

/** One connection's transmission phase. */
export class Transmission {
  /** Why the connection is to end; "" when the client asked for it. */
  ending: string | null = null;
  /** True when the next request has to wait for others to finish, or for replies to be sent. */
  blocked = false;
  /** Operations under way. */
  inFlight = 0;

  readonly #volume: Volume;
  readonly #structured: boolean;
  readonly #check: RequestCheck;
  readonly #out: OutputBuffer;
  readonly #context: TransmissionContext;
  readonly #statistics: Statistics;
  /** Bytes of payloads and of replies in the making; those of queued replies are counted by the output. */
  #heldBytes = 0;
  #pending: PendingWrite | null = null;
  #dropped = false;
  #warnings = 0;
  /** Requests answered at once since the batch began, for the observer. */
  #readsNow = 0;
  #writesNow = 0;

  constructor(agreement: Agreement, out: OutputBuffer, context: TransmissionContext) {
    this.#volume = agreement.served.volume;
    this.#structured = agreement.structured;
    this.#check = new RequestCheck(agreement);
    this.#out = out;
    this.#context = context;
    this.#statistics = context.statistics;
  }

  /** From now on every new request is answered ESHUTDOWN. */
  shutdown(): void {
    this.#check.shuttingDown = true;
  }

  /** The connection is gone: operations under way finish, but nothing is queued any more. */
  drop(): void {
    this.#dropped = true;
  }

  /** Executes every whole request in `input`, until one is incomplete, has to wait, or ends the connection. */
  run(input: InputBuffer): void {
    this.blocked = false;
    const { observer, clock } = this.#context;
    if (observer === null) {
      while (this.#next(input));
      return;
    }
    const started = clock.monotonicMs();
    while (this.#next(input));
    if (this.#readsNow + this.#writesNow === 0) return;
    const elapsed = clock.monotonicMs() - started;
    if (this.#readsNow > 0) observer.answered("read", elapsed, this.#readsNow);
    if (this.#writesNow > 0) observer.answered("write", elapsed, this.#writesNow);
    this.#readsNow = this.#writesNow = 0;
  }

  // The hot path starts here.

  /** Handles one request. False when nothing more can be done for now. */
  #next(input: InputBuffer): boolean {
    if (this.#pending !== null) return this.#resumeWrite(input);
    const view = input.view;
    const at = input.start;
    const here = input.end - at;
    if (here < requestHeaderBytes) return false;
    if (view.getUint32(at) !== magic.request) return this.#end("bad request magic");
    const flags = view.getUint16(at + 4);
    const type = view.getUint16(at + 6);
    const cookieHigh = view.getInt32(at + 8);
    const cookieLow = view.getInt32(at + 12);
    // Beyond 2^53 this is rounded, but stays beyond the size of any volume, which is all that matters then.
    const offset = view.getUint32(at + 16) * twoTo32 + view.getUint32(at + 20);
    const length = view.getUint32(at + 24);

    if (type === command.write) {
      if (length > payloadAcceptedBytesMax) return this.#end(`a WRITE of ${length} bytes`);
      if (!this.#admits(length)) return false;
      const error = this.#check.error(type, flags, offset, length);
      if (error !== 0 || here - requestHeaderBytes < length) {
        const whole = requestHeaderBytes + length;
        if (error === 0 && whole <= input.bytes.length) return false;
        this.#pending = { flags, cookieHigh, cookieLow, offset, length, error };
        this.#beginPayload(input);
        return true;
      }
      this.#write(cookieHigh, cookieLow, flags, offset, input.bytes, at + requestHeaderBytes, length);
      input.consume(requestHeaderBytes + length);
      return true;
    }
    if (type === command.disconnect) return this.#end("");
    if (!this.#admits(type === command.read && length <= payloadAcceptedBytesMax ? length : 0)) return false;
    input.consume(requestHeaderBytes);
    const error = this.#check.error(type, flags, offset, length);
    if (error !== 0) this.#refuse(type, cookieHigh, cookieLow, error);
    else if (type === command.read) this.#read(cookieHigh, cookieLow, offset, length);
    else this.#dispatch(type, cookieHigh, cookieLow, flags, offset, length);
    return true;
  }

  #admits(bytes: number): boolean {
    const held = this.#heldBytes + this.#out.queuedBytes;
    const admitted = this.inFlight < requestsInFlightMax && (held === 0 || held + bytes <= bytesInFlightMax);
    this.blocked = !admitted;
    return admitted;
  }

  #read(cookieHigh: number, cookieLow: number, offset: number, length: number): void {
    const out = this.#out;
    const headerBytes = this.#structured ? dataChunkHeaderBytes : simpleReplyHeaderBytes;
    const replyBytes = headerBytes + length;
    if (length === 0 || replyBytes > out.reserveBytesMax) {
      return this.#readLarge(cookieHigh, cookieLow, offset, length);
    }
    const at = out.reserve(replyBytes);
    let done = false;
    try {
      done = this.#volume.readNow(offset, out.bytes, at + headerBytes, length);
    } catch (thrown) {
      return this.#refuse(command.read, cookieHigh, cookieLow, this.#errorOf(thrown));
    }
    if (!done) return this.#readLater(cookieHigh, cookieLow, offset, length, false);
    if (this.#structured) putDataChunkHeader(out.view, at, 1, cookieHigh, cookieLow, offset, length);
    else putSimpleHeader(out.view, at, cookieHigh, cookieLow, wireError.none);
    out.commit(replyBytes);
    this.#statistics.read++;
    this.#statistics.bytesRead += length;
    this.#readsNow++;
  }

  #write(
    cookieHigh: number,
    cookieLow: number,
    flags: number,
    offset: number,
    source: Uint8Array<ArrayBuffer>,
    at: number,
    length: number,
  ): void {
    let done = length === 0;
    if (!done && (flags & commandFlag.fua) === 0) {
      try {
        done = this.#volume.writeNow(offset, source, at, length);
      } catch (thrown) {
        return this.#refuse(command.write, cookieHigh, cookieLow, this.#errorOf(thrown));
      }
    }
    if (!done) return this.#writeLater(cookieHigh, cookieLow, flags, offset, source, at, length);
    this.#statistics.write++;
    this.#statistics.bytesWritten += length;
    this.#writesNow++;
    simpleReply(this.#out, cookieHigh, cookieLow, wireError.none);
  }

  // The hot path ends here.

  #end(reason: string): false {
    this.ending = reason;
    return false;
  }

  /** Starts to collect the pending WRITE's payload in memory of its own, or to throw it away. */
  #beginPayload(input: InputBuffer): void {
    const { length, error } = this.#pending!;
    input.consume(requestHeaderBytes);
    if (error !== 0) return input.discard(length);
    this.#heldBytes += length;
    input.collect(length);
  }

  #resumeWrite(input: InputBuffer): boolean {
    if (input.isBusy) return false;
    const { flags, cookieHigh, cookieLow, offset, length, error } = this.#pending!;
    this.#pending = null;
    if (error !== 0) {
      this.#refuse(command.write, cookieHigh, cookieLow, error);
      return true;
    }
    const payload = input.takePayload();
    this.#heldBytes -= length;
    this.#write(cookieHigh, cookieLow, flags, offset, payload, 0, length);
    return true;
  }

  /** Nothing to read, or more than the output's fill buffer takes. */
  #readLarge(cookieHigh: number, cookieLow: number, offset: number, length: number): void {
    if (length === 0) {
      this.#statistics.read++;
      if (this.#structured) doneReply(this.#out, cookieHigh, cookieLow);
      else simpleReply(this.#out, cookieHigh, cookieLow, wireError.none);
      return;
    }
    this.#readLater(cookieHigh, cookieLow, offset, length, true);
  }

  #readLater(
    cookieHigh: number,
    cookieLow: number,
    offset: number,
    length: number,
    maybeNow: boolean,
  ): void {
    const pieces = readPieces(this.#structured, cookieHigh, cookieLow, offset, length);
    const work = async () => {
      for (const { reply, data, offset } of pieces) {
        const at = reply.length - data.length;
        if (maybeNow && this.#volume.readNow(offset, reply, at, data.length)) continue;
        await this.#volume.read(offset, data);
      }
    };
    this.#start("read", cookieHigh, cookieLow, length, work, () => {
      this.#statistics.bytesRead += length;
      for (const { reply } of pieces) this.#out.push(reply);
    });
  }

  #writeLater(
    cookieHigh: number,
    cookieLow: number,
    flags: number,
    offset: number,
    source: Uint8Array<ArrayBuffer>,
    at: number,
    length: number,
  ): void {
    // The input buffer goes on to be used, hence the volume gets a copy; a payload of its own is handed over.
    const payload = at === 0 && length === source.length ? source : source.slice(at, at + length);
    const options = (flags & commandFlag.fua) === 0 ? throughCache : throughFua;
    const work = () => this.#volume.write(offset, payload, options);
    this.#start("write", cookieHigh, cookieLow, length, work, () => {
      this.#statistics.bytesWritten += length;
      simpleReply(this.#out, cookieHigh, cookieLow, wireError.none);
    });
  }

  #dispatch(
    type: number,
    cookieHigh: number,
    cookieLow: number,
    flags: number,
    offset: number,
    length: number,
  ): void {
    const volume = this.#volume;
    const fua = (flags & commandFlag.fua) !== 0;
    const done = () => simpleReply(this.#out, cookieHigh, cookieLow, wireError.none);
    const begin = (kind: RequestKind, work: () => Promise<void>) =>
      this.#start(kind, cookieHigh, cookieLow, 0, work, done);
    const nothing = () => Promise.resolve();
    switch (type) {
      case command.flush:
        return begin("flush", () => volume.flush());
      case command.trim:
        return begin("trim", length === 0 ? nothing : () => volume.trim(offset, length, { fua }));
      case command.cache:
        return begin("cache", length === 0 ? nothing : () => volume.prefetch(offset, length));
      case command.writeZeroes: {
        const keepAllocated = (flags & commandFlag.noHole) !== 0;
        const zero = () => volume.zero(offset, length, { fua, keepAllocated });
        return begin("zero", length === 0 ? nothing : zero);
      }
      case command.blockStatus: {
        const limit = (flags & commandFlag.requestOne) !== 0 ? 1 : extentsPerReplyMax;
        let extents: Extent[] = [];
        const work = async () => {
          extents = await volume.extents(offset, length, limit);
          assert(extents.length > 0 && extents.length <= limit, "a volume returned no or too many extents");
        };
        return this.#start("status", cookieHigh, cookieLow, 0, work, () => {
          blockStatusReply(this.#out, cookieHigh, cookieLow, extents, length);
        });
      }
    }
  }

  /** Starts an operation. Its reply is `reply`, or an error when `work` fails. */
  #start(
    kind: RequestKind,
    cookieHigh: number,
    cookieLow: number,
    heldBytes: number,
    work: () => Promise<void>,
    reply: () => void,
  ): void {
    this.inFlight++;
    this.#heldBytes += heldBytes;
    const { observer, clock } = this.#context;
    const started = observer === null ? 0 : clock.monotonicMs();
    const finish = (error: number) => {
      this.inFlight--;
      this.#heldBytes -= heldBytes;
      this.#statistics[kind]++;
      if (error !== 0) this.#statistics.error++;
      if (!this.#dropped) {
        if (error === 0) reply();
        else errorReply(this.#out, this.#structured, cookieHigh, cookieLow, error);
      }
      observer?.answered(kind, clock.monotonicMs() - started, 1);
      this.#context.onCompletion();
    };
    // An async function also catches what a volume throws before it returns its promise.
    (async () => await work())()
      .then(() => finish(0), (thrown) => finish(this.#errorOf(thrown)))
      .catch(this.#context.onFailure);
  }

  /** Answers a request with an error at once. */
  #refuse(type: number, cookieHigh: number, cookieLow: number, error: number): void {
    const kind = requestKinds[type];
    if (kind !== undefined) this.#statistics[kind]++;
    this.#statistics.error++;
    errorReply(this.#out, this.#structured, cookieHigh, cookieLow, error);
  }

  #errorOf(thrown: unknown): number {
    if (!(thrown instanceof DeviceError) && this.#warnings++ < warningsMax) {
      const text = thrown instanceof Error ? thrown.stack ?? thrown.message : String(thrown);
      this.#context.warn(`a request was answered EIO because of an unexpected failure: ${text}`);
    }
    return toWireError(thrown);
  }
}
