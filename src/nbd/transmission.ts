/**
 * The transmission phase of one connection: requests in, replies out.
 *
 * {@linkcode Transmission.run} executes every whole request that has arrived. What the volume can do at once is done
 * straight from and into the connection's buffers: from the parsed header to the queued reply there is no promise, no
 * closure, no BigInt and no subarray. Anything else becomes an operation in flight, whose completion queues its reply;
 * so replies of different requests go in any order, as the protocol allows.
 *
 * Invariants: a WRITE has no effect before all of its payload has come, and its payload is always consumed; at most
 * `Limits.requests` operations and about `Limits.connectionBytes` of payloads and unsent replies are held, and no more than
 * the server's {@linkcode Budget} has room for; beyond that `blocked` is set and parsing stops until some are gone.
 *
 * @module
 */

import type { Volume } from "../cache/volume.ts";
import { microsOf } from "../clock.ts";
import {
  chunkDone,
  command,
  commandFlag,
  extendedRequestHeaderBytes,
  holeReadBytesMin,
  magic,
  payloadAcceptedBytesMax,
  requestHeaderBytes,
  wireError,
} from "./constants.ts";
import type { MetaContext } from "./contexts.ts";
import type { Share } from "./budget.ts";
import type { InputBuffer } from "./input_buffer.ts";
import { LongReads } from "./long_reads.ts";
import { LookAhead } from "./look_ahead.ts";
import { LongWrites, type PutOutcome } from "./long_writes.ts";
import type { Agreement } from "./negotiation.ts";
import { Operations, type TransmissionContext } from "./operations.ts";
import type { OutputBuffer } from "./output_buffer.ts";
import { ReadOperations } from "./read_operations.ts";
import {
  dataHeaderBytesOf,
  doneReply,
  errorReply,
  holeReply,
  putDataHeader,
  type ReplyForm,
  replyForm,
  successReply,
} from "./replies.ts";
import { RequestCheck } from "./request_check.ts";
import { StatusRequests } from "./status_requests.ts";
import { type ReadOtherwise, SoonReads } from "./soon_reads.ts";
import { type RequestKind, requestKinds, type Statistics } from "./statistics.ts";
import { WriteOperations } from "./write_operations.ts";
import { WriteWait } from "./write_wait.ts";

const twoTo32 = 0x1_0000_0000;

/** A request whose payload is still coming, or is being thrown away because of `error`. */
interface Pending {
  type: number;
  flags: number;
  cookieHigh: number;
  cookieLow: number;
  offset: number;
  length: number;
  error: number;
  /** All of its payload has come. */
  isWhole: boolean;
}

/** One connection's transmission phase. */
export class Transmission {
  /** Why the connection is to end; "" when the client asked for it. */
  ending: string | null = null;
  /** True when the next request has to wait for others to finish, or for replies to be sent. */
  blocked = false;

  readonly #volume: Volume;
  readonly #form: ReplyForm;
  readonly #contexts: readonly MetaContext[];
  readonly #status: StatusRequests;
  readonly #requestMagic: number;
  readonly #requestHeaderBytes: number;
  readonly #dataHeaderBytes: number;
  readonly #check: RequestCheck;
  readonly #lookAhead: LookAhead | null;
  readonly #out: OutputBuffer;
  readonly #context: TransmissionContext;
  readonly #statistics: Statistics;
  readonly #operations: Operations;
  readonly #soonReads: SoonReads;
  readonly #readOperations: ReadOperations;
  readonly #writeOperations: WriteOperations;
  readonly #longReads: LongReads;
  readonly #share: Share;
  #pending: Pending | null = null;
  readonly #longWrites: LongWrites;
  readonly #writeWait: WriteWait;
  /** The offset of the request at hand as it came, which an extended refusal repeats. */
  #offsetHigh = 0;
  #offsetLow = 0;
  /** Requests answered at once since the batch began, for the observer. */
  #readsNow = 0;
  #writesNow = 0;

  constructor(agreement: Agreement, out: OutputBuffer, context: TransmissionContext, share: Share) {
    this.#share = share;
    this.#volume = agreement.served.volume;
    const form = this.#form = agreement.form;
    const extended = form === replyForm.extended;
    this.#contexts = agreement.contexts;
    this.#requestMagic = extended ? magic.extendedRequest : magic.request;
    this.#requestHeaderBytes = extended ? extendedRequestHeaderBytes : requestHeaderBytes;
    this.#dataHeaderBytes = dataHeaderBytesOf(form);
    this.#check = new RequestCheck(agreement);
    const looks = this.#volume.announce !== undefined;
    this.#lookAhead = looks
      ? new LookAhead(this.#volume, this.#requestMagic, this.#requestHeaderBytes)
      : null;
    this.#out = out;
    this.#context = context;
    this.#statistics = context.statistics;
    this.#operations = new Operations(out, form, context);
    this.#status = new StatusRequests(agreement, out, this.#operations, this.#check);
    this.#readOperations = new ReadOperations(this.#volume, out, form, this.#operations, this.#statistics);
    const otherwise: ReadOtherwise = (high, low, flags, offset, length, startedMs) =>
      this.#readOperations.start(high, low, flags, offset, length, false, startedMs);
    this.#soonReads = new SoonReads(this.#volume, out, form, context, this.#operations, otherwise);
    this.#writeOperations = new WriteOperations(this.#volume, out, form, this.#operations, this.#statistics);
    this.#writeWait = new WriteWait(this.#volume, context);
    this.#longWrites = new LongWrites(this.#volume, context.lender);
    this.#longReads = new LongReads(this.#volume, out, form, context, this.#operations, otherwise);
  }

  /** Operations under way. */
  get inFlight(): number {
    return this.#operations.inFlight;
  }

  /** Those of them that are unanswered. */
  get unanswered(): number {
    return this.#operations.unanswered;
  }

  /** From now on every new request is answered ESHUTDOWN. */
  shutdown(): void {
    this.#check.shuttingDown = true;
  }

  /** The connection is gone: operations under way finish, but nothing is queued any more. */
  drop(): void {
    this.#operations.dropped = true;
    this.#operations.stopWatching();
  }

  /** Executes every whole request in `input`, until one is incomplete, has to wait, or ends the connection. */
  run(input: InputBuffer): void {
    this.blocked = false;
    if (this.#pending === null) this.#lookAhead?.announce(input);
    const { observer, clock } = this.#context;
    if (observer === null) {
      while (this.#next(input));
      return;
    }
    const started = microsOf(clock);
    while (this.#next(input));
    if (this.#readsNow + this.#writesNow === 0) return;
    const elapsed = (microsOf(clock) - started) | 0;
    if (this.#readsNow > 0) observer.answered("read", elapsed, this.#readsNow);
    if (this.#writesNow > 0) observer.answered("write", elapsed, this.#writesNow);
    this.#readsNow = this.#writesNow = 0;
  }

  // The hot path starts here.

  /** Handles one request. False when nothing more can be done for now. */
  #next(input: InputBuffer): boolean {
    if (this.#pending !== null) return this.#resume(input);
    const view = input.view;
    const at = input.start;
    const here = input.end - at;
    const headerBytes = this.#requestHeaderBytes;
    if (here < headerBytes) return false;
    if (view.getUint32(at) !== this.#requestMagic) return this.#end("bad request magic");
    const flags = view.getUint16(at + 4);
    const type = view.getUint16(at + 6);
    const cookieHigh = view.getInt32(at + 8);
    const cookieLow = view.getInt32(at + 12);
    this.#offsetHigh = view.getUint32(at + 16);
    this.#offsetLow = view.getUint32(at + 20);
    // Beyond 2^53 these are rounded, but stay beyond the size of any volume, which is all that matters then.
    const offset = this.#offsetHigh * twoTo32 + this.#offsetLow;
    let length = view.getUint32(at + 24);
    let carries = type === command.write;
    if (this.#form === replyForm.extended) {
      length = length * twoTo32 + view.getUint32(at + 28);
      carries = (flags & commandFlag.payloadLength) !== 0 || (carries && length === 0);
    }

    if (carries) {
      if (length > payloadAcceptedBytesMax) return this.#end(`a payload of ${length} bytes`);
      if (!this.#admits(length)) return false;
      const error = this.#check.error(type, flags, offset, length);
      if (error !== 0 || here - headerBytes < length || type !== command.write) {
        const whole = headerBytes + length;
        if (error === 0 && here < whole && whole <= input.bytes.length) return false;
        this.#pending = { type, flags, cookieHigh, cookieLow, offset, length, error, isWhole: false };
        this.#beginPayload(input);
        return true;
      }
      const source = at + headerBytes;
      if (!this.#write(cookieHigh, cookieLow, flags, offset, input.bytes, source, length)) return false;
      input.consume(headerBytes + length);
      return true;
    }
    if (type === command.disconnect) return this.#end("");
    if (!this.#admits(type === command.read && length <= payloadAcceptedBytesMax ? length : 0)) return false;
    input.consume(headerBytes);
    const error = this.#check.error(type, flags, offset, length);
    if (error !== 0) this.#refuse(type, cookieHigh, cookieLow, error);
    else if (type === command.read) this.#read(cookieHigh, cookieLow, flags, offset, length);
    else this.#dispatch(type, cookieHigh, cookieLow, flags, offset, length);
    return true;
  }

  #admits(bytes: number): boolean {
    const { limits } = this.#context;
    if (this.#operations.overdue >= limits.requests) {
      return this.#end(`${limits.requests} requests that the volume does not end`);
    }
    const held = this.heldBytes;
    const admitted = this.#operations.unanswered < limits.requests &&
      (held === 0 || held + bytes <= limits.connectionBytes) && this.#share.admits(held, bytes);
    this.blocked = !admitted;
    return admitted;
  }

  /** Bytes of payloads and replies that are held. */
  get heldBytes(): number {
    return this.#operations.heldBytes + this.#out.queuedBytes;
  }

  /** True while a payload has begun to come and is not whole. */
  get isReceiving(): boolean {
    return this.#pending !== null && !this.#pending.isWhole;
  }

  /** Nothing more comes: a payload that is not whole has no effect and holds nothing. */
  stop(): void {
    if (this.#pending?.error === 0) this.#operations.heldBytes -= this.#pending.length;
    this.#pending = null;
    this.#longWrites.forget();
  }

  #read(cookieHigh: number, cookieLow: number, flags: number, offset: number, length: number): void {
    const out = this.#out;
    const form = this.#form;
    if (form !== replyForm.simple && length >= holeReadBytesMin && this.#volume.zeroesNow?.(offset, length)) {
      return this.#readHole(cookieHigh, cookieLow, offset, length);
    }
    if (this.#longReads.start(cookieHigh, cookieLow, flags, offset, length)) return;
    const headerBytes = this.#dataHeaderBytes;
    const replyBytes = headerBytes + length;
    if (length === 0 || replyBytes > out.reserveBytesMax) {
      return this.#readLarge(cookieHigh, cookieLow, flags, offset, length);
    }
    const at = out.reserve(replyBytes);
    let done = false;
    try {
      done = this.#volume.readNow(offset, out.bytes, at + headerBytes, length);
    } catch (thrown) {
      return this.#refuse(command.read, cookieHigh, cookieLow, this.#operations.errorOf(thrown));
    }
    if (!done) {
      const soon = this.#soonReads.start(cookieHigh, cookieLow, flags, offset, length);
      return soon
        ? undefined
        : this.#readOperations.start(cookieHigh, cookieLow, flags, offset, length, false);
    }
    putDataHeader(out.view, at, form, chunkDone, cookieHigh, cookieLow, offset, offset, length);
    out.commit(replyBytes);
    this.#countRead(length);
  }

  #countRead(length: number): void {
    this.#statistics.read++;
    this.#statistics.bytesRead += length;
    this.#readsNow++;
  }

  /** Puts what lies in `source`, or begins to. False, with nothing done, when it has to be tried again. */
  #write(
    cookieHigh: number,
    cookieLow: number,
    flags: number,
    offset: number,
    source: Uint8Array<ArrayBuffer>,
    at: number,
    length: number,
  ): boolean {
    let done = length === 0;
    if (!done && (flags & commandFlag.fua) === 0) {
      try {
        done = this.#volume.writeNow(offset, source, at, length);
      } catch (thrown) {
        this.#refuse(command.write, cookieHigh, cookieLow, this.#operations.errorOf(thrown));
        return true;
      }
      if (!done && this.#writeWait.may(length)) {
        this.blocked = true;
        return false;
      }
    }
    if (done) this.#written(cookieHigh, cookieLow, offset, length);
    else this.#writeOperations.startCopied(cookieHigh, cookieLow, flags, offset, source, at, length);
    return true;
  }

  #written(cookieHigh: number, cookieLow: number, offset: number, length: number): void {
    this.#writeWait.end();
    this.#statistics.write++;
    this.#statistics.bytesWritten += length;
    this.#writesNow++;
    successReply(this.#out, this.#form, cookieHigh, cookieLow, offset);
  }

  // The hot path ends here.

  #end(reason: string): false {
    this.ending = reason;
    return false;
  }

  /** Starts to collect the pending request's payload in memory of its own, or to throw it away. */
  #beginPayload(input: InputBuffer): void {
    const { type, offset, length, error } = this.#pending!;
    input.consume(this.#requestHeaderBytes);
    if (error !== 0) return input.discard(length);
    this.#operations.heldBytes += length;
    if (type === command.write) input.collect(length, this.#longWrites.begin(offset, length));
    else input.collect(length);
  }

  #resume(input: InputBuffer): boolean {
    if (input.isBusy) return false;
    const pending = this.#pending!;
    const { type, flags, cookieHigh, cookieLow, offset, length, error } = pending;
    if (type === command.write && error === 0) {
      if (!pending.isWhole) input.takePayload();
      pending.isWhole = true;
      return this.#writeCollected(pending);
    }
    this.#pending = null;
    if (error !== 0) {
      this.#refuse(type, cookieHigh, cookieLow, error);
      return true;
    }
    const payload = input.takePayload();
    this.#operations.heldBytes -= length;
    if (!this.#status.startListed(cookieHigh, cookieLow, flags, offset, payload)) {
      this.#refuse(command.blockStatus, cookieHigh, cookieLow, wireError.EINVAL);
    }
    return true;
  }

  /** Puts a payload that has come whole, or begins to. False when that has to be tried again. */
  #writeCollected({ flags, cookieHigh, cookieLow, offset, length }: Pending): boolean {
    const fua = (flags & commandFlag.fua) !== 0;
    let outcome: PutOutcome = "later";
    let error = 0;
    try {
      if (!fua) outcome = this.#longWrites.put(offset, this.#writeWait);
    } catch (thrown) {
      error = this.#operations.errorOf(thrown);
    }
    this.blocked = outcome === "again";
    if (this.blocked) return false;
    this.#pending = null;
    this.#operations.heldBytes -= length;
    if (error !== 0) {
      this.#longWrites.giveUp();
      this.#refuse(command.write, cookieHigh, cookieLow, error);
    } else if (outcome === "done") this.#written(cookieHigh, cookieLow, offset, length);
    else {this.#writeOperations.start(
        cookieHigh,
        cookieLow,
        offset,
        length,
        this.#longWrites.putLater(offset, fua),
      );}
    return true;
  }

  /** All of it is zeroes that nobody needs to send. */
  #readHole(cookieHigh: number, cookieLow: number, offset: number, length: number): void {
    holeReply(this.#out, this.#form, cookieHigh, cookieLow, offset, length);
    this.#countRead(length);
  }

  /** Nothing to read, or more than the output's fill buffer takes. */
  #readLarge(cookieHigh: number, cookieLow: number, flags: number, offset: number, length: number): void {
    if (length > 0) return this.#readOperations.start(cookieHigh, cookieLow, flags, offset, length, true);
    this.#countRead(0);
    doneReply(this.#out, this.#form, cookieHigh, cookieLow, offset);
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
    const done = () => successReply(this.#out, this.#form, cookieHigh, cookieLow, offset);
    const begin = (kind: RequestKind, work: () => Promise<void>) =>
      this.#operations.start(kind, cookieHigh, cookieLow, offset, 0, () => work().then(() => done));
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
      case command.blockStatus:
        return this.#status.start(cookieHigh, cookieLow, flags, offset, length, this.#contexts);
    }
  }

  /** Answers a request with an error at once. */
  #refuse(type: number, cookieHigh: number, cookieLow: number, error: number): void {
    const kind = requestKinds[type];
    if (kind !== undefined) this.#statistics[kind]++;
    this.#statistics.error++;
    const at = errorReply(this.#out, this.#form, cookieHigh, cookieLow, 0, error);
    if (this.#form !== replyForm.extended) return;
    this.#out.view.setUint32(at + 16, this.#offsetHigh);
    this.#out.view.setUint32(at + 20, this.#offsetLow);
  }
}
