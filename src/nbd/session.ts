/**
 * One client's conversation as a state machine without I/O: bytes in, bytes out. A driver (portable sockets today, a
 * ring tomorrow) moves them:
 *
 * ```text
 *   while not closed:
 *     if wantsInput: receive into inputSpace(), then received(count) or, at the end, ended()
 *     if output(): send it, then sent(count)
 *     else wait for onOutput
 * ```
 *
 * One receive and one send may be under way at once. `received` and `sent` never throw for what a client did.
 *
 * @module
 */

import type { Volume } from "../cache/volume.ts";
import type { Clock } from "../clock.ts";
import type { Budget, Share } from "./budget.ts";
import { handshakeBufferBytes, inputBufferBytes, outputBufferBytes } from "./constants.ts";
import type { ExportTable, Offered } from "./exports.ts";
import { InputBuffer } from "./input_buffer.ts";
import { Lender } from "./lender.ts";
import type { Limits } from "./limits.ts";
import { Negotiation, type TlsMode } from "./negotiation.ts";
import { OutputBuffer } from "./output_buffer.ts";
import { Transmission } from "./transmission.ts";

/** What a session needs from around it. */
export interface SessionOptions {
  /** What is offered. */
  exports: ExportTable;
  /** Time for observers. */
  clock: Clock;
  /** Takes a sentence for the operator. */
  warn: (message: string) => void;
  /** What the client may cost. */
  limits: Limits;
  /** The bytes that it shares with other connections. */
  budget: Budget;
  /** Whether TLS is offered; the driver then has to be able to start it. `off` by default. */
  tls?: TlsMode | undefined;
  /** Called when `output`, `wantsInput` or `isClosed` may have changed outside of `received` and `sent`. */
  onOutput: () => void;
  /** Called when a request was started of which a promise will tell the end. */
  onPromise?: (() => void) | undefined;
  /** Moves the buffers into memory of the volume; the driver then calls `returnBuffers` at the end. */
  borrows?: boolean | undefined;
}

/** One client's conversation. */
export class Session {
  readonly #options: SessionOptions;
  readonly #input = new InputBuffer(handshakeBufferBytes);
  readonly #output = new OutputBuffer(handshakeBufferBytes);
  readonly #negotiation: Negotiation;
  #transmission: Transmission | null = null;
  /** Nothing more is read; what was begun is finished. */
  #ending = false;
  #dropped = false;
  /** The volume's memory that this session uses. */
  #lender = new Lender(undefined);
  readonly #share: Share;

  constructor(options: SessionOptions) {
    this.#options = options;
    this.#share = options.budget.share({
      roomCame: () => this.#roomCame(),
      waitsForClient: () => this.#output.queuedBytes > 0 || (this.#transmission?.isReceiving ?? false),
      stalled: () => {
        const { stallSeconds } = options.limits;
        options.warn(
          `dropped a client's connection: it held ${this.#share.held} bytes and moved none for ${stallSeconds} s, ` +
            `while others waited for memory`,
        );
        this.drop();
        options.onOutput();
      },
    });
    this.#negotiation = new Negotiation(options.exports, this.#output, options.tls, () => {
      this.#run();
      options.onOutput();
    });
  }

  /** What the client has chosen, or that of which it has chosen an earlier state. */
  get served(): Offered | undefined {
    return this.#negotiation.agreement?.served.origin;
  }

  /** True until the client has chosen an export. */
  get isHandshaking(): boolean {
    return this.#transmission === null;
  }

  /** True when nothing more is read from the client; `isClosed` follows once all replies are sent. */
  get isEnding(): boolean {
    return this.#ending;
  }

  /** True when the connection is to be closed now. */
  get isClosed(): boolean {
    return this.#dropped || (this.#ending && this.isQuiet);
  }

  /** True when no request is unanswered or waits for room, and no reply waits to be sent. */
  get isQuiet(): boolean {
    const waits = !this.#ending && (this.#transmission?.blocked ?? false);
    return (this.#transmission?.unanswered ?? 0) === 0 && this.#output.queuedBytes === 0 && !waits;
  }

  /** Requests that wait for the volume. */
  get requestsInFlight(): number {
    return this.#transmission?.inFlight ?? 0;
  }

  /** Bytes that wait to be sent. */
  get queuedBytes(): number {
    return this.#output.queuedBytes;
  }

  /** False while enough is under way, so that the client has to wait; and at the end. */
  get wantsInput(): boolean {
    const { tlsReply, isWaiting } = this.#negotiation;
    return !this.#ending && tlsReply === null && !isWaiting && !(this.#transmission?.blocked ?? false);
  }

  /** Where the next receive goes. Only while `wantsInput`, and once per `received`. */
  inputSpace(): Uint8Array<ArrayBuffer> {
    return this.#input.space();
  }

  /** The same without allocating anything: `target` of the result, from `targetStart` on. */
  aimInput(): InputBuffer {
    this.#input.aim();
    return this.#input;
  }

  /** Takes the `count` bytes that arrived in `inputSpace()`, and executes every whole request. */
  received(count: number): void {
    this.#share.moves++;
    this.#input.received(count);
    this.#run();
  }

  /** The client will send no more. What it began to send has no effect; what it asked for is finished. */
  ended(): void {
    this.#end("");
  }

  /** Bytes to be sent next, or null. They stay as they are until `sent`. */
  output(): Uint8Array<ArrayBuffer> | null {
    return this.#dropped ? null : this.#output.output();
  }

  /** The same without allocating anything: `source` of the result within its limits, or null. */
  nextOutput(): OutputBuffer | null {
    return !this.#dropped && this.#output.next() ? this.#output : null;
  }

  /** Takes note that the first `count` bytes of `output()` are sent. */
  sent(count: number): void {
    if (this.#dropped) return;
    this.#share.moves++;
    this.#output.sent(count);
    this.#settle();
    if (this.#transmission?.blocked) this.#run();
  }

  /**
   * When the client may begin with TLS: the reply that says so. The driver sends what is queued, then this and begins in the
   * same turn, and then calls `tlsStarted`.
   */
  get tlsReply(): Uint8Array<ArrayBuffer> | null {
    return this.#ending ? null : this.#negotiation.tlsReply;
  }

  /** TLS is on: what is received and sent from now on is secret. */
  tlsStarted(): void {
    this.#negotiation.tlsStarted();
  }

  /** The server shuts down: requests under way finish, new ones are answered ESHUTDOWN. */
  shutdown(): void {
    this.#negotiation.shuttingDown = true;
    this.#transmission?.shutdown();
  }

  /** The connection is lost or too slow: nothing is sent any more. Requests under way still finish. */
  drop(): void {
    this.#dropped = this.#ending = true;
    this.#transmission?.drop();
    this.#output.clear();
    this.#settle();
  }

  /** The connection is closed: nothing is answered any more. */
  closed(): void {
    this.#transmission?.drop();
  }

  /** Tells the budget what is held; and nothing any more, once nothing more will be. */
  #settle(): void {
    const transmission = this.#transmission;
    if (this.#ending) {
      transmission?.stop();
      this.#negotiation.release();
    }
    const held = transmission?.heldBytes ?? 0;
    if (this.#ending) this.#share.end(held);
    else this.#share.settle(held);
  }

  /** Gives the volume its memory back. REQUIRES: it is closed, and neither a receive, a send nor a request is under way. */
  returnBuffers(): void {
    this.#lender.returnAll();
  }

  /** Gets the buffers of the transmission, of the volume's memory where it lends some. */
  #enlarge(volume: Volume): void {
    const lender = this.#lender = new Lender(this.#options.borrows ? volume : undefined);
    this.#input.adopt(lender.lend() ?? new Uint8Array(inputBufferBytes));
    const output = lender.lend();
    if (output === null) this.#output.adopt(new Uint8Array(outputBufferBytes), null);
    else this.#output.adopt(output, lender.lend());
    this.#output.onLentSent = (buffer) => lender.giveBack(buffer);
  }

  /** Parses and executes. Whatever goes wrong in here costs this client its connection and nobody else anything. */
  #run(): void {
    if (this.#ending) return;
    try {
      this.#parse();
      // What was refused, or done at once, is not held any more, whenever its reply is taken.
      this.#settle();
    } catch (thrown) {
      this.#fail(thrown);
    }
  }

  #fail(thrown: unknown): void {
    const text = thrown instanceof Error ? thrown.stack ?? thrown.message : String(thrown);
    this.#options.warn(
      `dropped a client's connection because of a failure in the server; what it had flushed is safe: ${text}`,
    );
    this.drop();
  }

  #parse(): void {
    if (this.#transmission === null && !this.#negotiate()) return;
    const transmission = this.#transmission!;
    transmission.run(this.#input);
    if (transmission.ending !== null) this.#end(transmission.ending);
  }

  /** Goes on with the handshake; true when it is done. */
  #negotiate(): boolean {
    const negotiation = this.#negotiation;
    negotiation.run(this.#input);
    if (negotiation.ending !== null) this.#end(negotiation.ending);
    if (negotiation.isWaiting) this.#options.onPromise?.();
    if (negotiation.ending !== null || negotiation.agreement === null) return false;
    const { clock, warn, limits, onPromise = () => {} } = this.#options;
    const onCompletion = () => this.#completed();
    const onFailure = (thrown: unknown) => {
      this.#fail(thrown);
      this.#options.onOutput();
    };
    const { statistics, observer = null, volume } = negotiation.agreement.served;
    this.#enlarge(volume);
    const lender = this.#lender;
    const onRoom = () => this.#roomCame();
    const context = {
      statistics,
      observer,
      lender,
      clock,
      warn,
      limits,
      onPromise,
      onRoom,
      onCompletion,
      onFailure,
    };
    this.#transmission = new Transmission(negotiation.agreement, this.#output, context, this.#share);
    return true;
  }

  #end(reason: string): void {
    if (!this.#ending && reason !== "") {
      this.#options.warn(`ended a client's connection because of ${reason}; what it had flushed is safe`);
    }
    this.#ending = true;
    this.#settle();
  }

  /** What waited for room is tried again. */
  #roomCame(): void {
    if (!this.#transmission?.blocked) return;
    this.#run();
    this.#options.onOutput();
  }

  #completed(): void {
    this.#settle();
    if (this.#transmission?.blocked) this.#run();
    this.#options.onOutput();
  }
}
