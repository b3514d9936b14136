/**
 * The handshake, fixed newstyle: greeting, client flags, options, until GO or EXPORT_NAME starts the transmission.
 *
 * Whatever an option's data holds, exactly its length is consumed before the answer, so the stream never goes out of
 * sync. Only what the protocol calls a breach, or an attack, ends the connection.
 *
 * @module
 */

import {
  blockMinBytes,
  blockPreferredBytes,
  clientFlag,
  clientFlagsBytes,
  exportNamePaddingBytes,
  greetingBytes,
  handshakeFlag,
  info,
  magic,
  option,
  optionDataBytesMax,
  optionDataDrainedBytesMax,
  optionHeaderBytes,
  optionReply,
  optionsPerHandshakeMax,
  payloadAdvertisedBytesMax,
} from "./constants.ts";
import { contextsFor, type MetaContext } from "./contexts.ts";
import { type ExportTable, type Offered, transmissionFlags } from "./exports.ts";
import type { InputBuffer } from "./input_buffer.ts";
import {
  decodeInfoRequest,
  decodeMetaContextRequest,
  decodeString,
  encodeOptionReply,
  putOptionReply,
  stringBytes,
  u16,
  u64,
} from "./option_codec.ts";
import type { OutputBuffer } from "./output_buffer.ts";
import { type ReplyForm, replyForm } from "./replies.ts";

const knownOptions: ReadonlySet<number> = new Set(Object.values(option));

/** What was agreed when the transmission starts. */
export interface Agreement {
  /** What is served to this client. */
  readonly served: Offered;
  /** How requests are answered; with extended headers they have 64-bit lengths too. */
  readonly form: ReplyForm;
  /** What BLOCK_STATUS tells of this export. */
  readonly contexts: readonly MetaContext[];
}

/** Whether TLS is offered: not at all, to clients that want it, or to be used before anything else. */
export type TlsMode = "off" | "on" | "require";

/** One connection's handshake. Call {@linkcode run} whenever bytes have come. */
export class Negotiation {
  /** What was agreed, once the transmission may start. */
  agreement: Agreement | null = null;
  /** Why the connection is to end; "" when the client asked for it. */
  ending: string | null = null;
  /** Set when the server shuts down: every option but ABORT is refused. */
  shuttingDown = false;

  /** True while an export that the client asked for is made: nothing more is read meanwhile. */
  isWaiting = false;

  /** Set when the client may begin with TLS: the last reply in the clear, to be sent as the change is made. */
  tlsReply: Uint8Array<ArrayBuffer> | null = null;

  readonly #exports: ExportTable;
  readonly #tls: TlsMode;
  #secure = false;
  readonly #out: OutputBuffer;
  #flagsSeen = false;
  #noZeroes = false;
  /** The client speaks the fixed newstyle; without it there is no TLS. */
  #fixed = false;
  #form: ReplyForm = replyForm.simple;
  /** The last selection of contexts, which counts for one export only. */
  #selected: { served: Offered; contexts: readonly MetaContext[] } | null = null;
  #options = 0;
  /** The option whose data is being collected or thrown away. */
  #pending: { option: number; collect: boolean } | null = null;
  /** Exports that were made for this client, or why they could not be. */
  readonly #made = new Map<string, Offered | string>();
  /** The option that waited for one. */
  #resumed: { code: number; data: Uint8Array } | null = null;
  #released = false;
  readonly #onMade: (() => void) | undefined;

  /** `onMade`: an export was made, so {@linkcode run} is to be called; without it none are. */
  constructor(exports: ExportTable, out: OutputBuffer, tls: TlsMode = "off", onMade?: () => void) {
    this.#onMade = onMade;
    this.#exports = exports;
    this.#tls = tls;
    this.#out = out;
    const at = out.reserve(greetingBytes);
    out.view.setUint32(at, magic.passwordHigh);
    out.view.setUint32(at + 4, magic.passwordLow);
    out.view.setUint32(at + 8, magic.optionHigh);
    out.view.setUint32(at + 12, magic.optionLow);
    out.view.setUint16(at + 16, handshakeFlag.fixedNewstyle | handshakeFlag.noZeroes);
    out.commit(greetingBytes);
  }

  /** Handles what `input` holds: flags, and every whole option up to the one that starts the transmission. */
  run(input: InputBuffer): void {
    if (this.isWaiting || (!this.#flagsSeen && !this.#clientFlags(input))) return;
    const resumed = this.#resumed;
    this.#resumed = null;
    if (resumed) this.#handle(resumed.code, resumed.data);
    while (
      !this.isWaiting && this.agreement === null && this.ending === null && this.tlsReply === null &&
      this.#nextOption(input)
    );
    // Whoever sends on before the reply has come wants something that was said in the clear to count as secret.
    if (this.tlsReply !== null && input.end > input.start) this.ending = "plain text after STARTTLS";
  }

  /** The connection has ended: what was made for it is given up. */
  release(): void {
    this.#released = true;
    for (const made of this.#made.values()) if (typeof made === "object") made.close?.();
    this.#made.clear();
  }

  /** Makes the export of that name, if there is one to be made; the option is handled once that has ended. */
  #makesFirst(name: string, code: number, data: Uint8Array): boolean {
    if (this.#onMade === undefined || this.#made.has(name)) return false;
    const making = this.#exports.make(name);
    if (making === undefined) return false;
    this.isWaiting = true;
    making.catch((error) => error instanceof Error ? error.message : String(error)).then((made) => {
      this.isWaiting = false;
      if (!this.#released) this.#made.set(name, made);
      else if (typeof made === "object") made.close?.();
      this.#resumed = { code, data };
      this.#onMade?.();
    });
    return true;
  }

  #find(name: string): Offered | undefined {
    const made = this.#made.get(name);
    if (typeof made === "object") return this.#exports.offers(made) ? made : undefined;
    return this.#exports.find(name);
  }

  #unknown(code: number, name: string): void {
    const why = this.#made.get(name);
    this.#reply(code, optionReply.unknown, typeof why === "string" ? why : "no such export");
  }

  /** The connection is secret from here on, and nothing that was agreed before counts. */
  tlsStarted(): void {
    this.tlsReply = null;
    this.#secure = true;
    this.#form = replyForm.simple;
    this.#selected = null;
  }

  #clientFlags(input: InputBuffer): boolean {
    if (input.end - input.start < clientFlagsBytes) return false;
    const flags = input.view.getUint32(input.start);
    input.consume(clientFlagsBytes);
    this.#flagsSeen = true;
    if ((flags & ~(clientFlag.fixedNewstyle | clientFlag.noZeroes)) !== 0) {
      this.ending = `unknown client flags 0x${flags.toString(16)}`;
    }
    this.#fixed = (flags & clientFlag.fixedNewstyle) !== 0;
    this.#noZeroes = (flags & clientFlag.noZeroes) !== 0;
    return true;
  }

  /** Handles one option. False when more bytes have to come. */
  #nextOption(input: InputBuffer): boolean {
    if (this.#pending !== null) {
      if (input.isBusy) return false;
      const { option: code, collect } = this.#pending;
      this.#pending = null;
      if (collect) this.#handle(code, input.takePayload());
      else this.#refuse(code);
      return true;
    }
    const { view, start } = input;
    const here = input.end - start;
    if (here < optionHeaderBytes) return false;
    if (view.getUint32(start) !== magic.optionHigh || view.getUint32(start + 4) !== magic.optionLow) {
      this.ending = "bad option magic";
      return false;
    }
    const code = view.getUint32(start + 8);
    const dataBytes = view.getUint32(start + 12);
    if (dataBytes > optionDataDrainedBytesMax) {
      this.ending = `option ${code} with ${dataBytes} bytes of data`;
      return false;
    }
    if (this.#options === optionsPerHandshakeMax) {
      this.ending = `more than ${optionsPerHandshakeMax} options in one handshake`;
      return false;
    }
    this.#options++;
    input.consume(optionHeaderBytes);
    const collect = dataBytes <= optionDataBytesMax && knownOptions.has(code);
    if (collect && here - optionHeaderBytes >= dataBytes) {
      const from = start + optionHeaderBytes;
      const data = input.bytes.slice(from, from + dataBytes);
      input.consume(dataBytes);
      this.#handle(code, data);
      return true;
    }
    this.#pending = { option: code, collect };
    if (collect) input.collect(dataBytes);
    else input.discard(dataBytes);
    return true;
  }

  /** Answers an option whose data was thrown away. */
  #refuse(code: number): void {
    if (code === option.exportName) this.ending = "an export name that is too long";
    else if (code === option.abort) this.#abort();
    else if (this.shuttingDown) this.#reply(code, optionReply.shutdown);
    else if (this.#wantsTls) this.#reply(code, optionReply.tlsRequired, "use STARTTLS first");
    else if (knownOptions.has(code)) this.#reply(code, optionReply.tooBig, "too much option data");
    else this.#reply(code, optionReply.unsupported, "unknown option");
  }

  #handle(code: number, data: Uint8Array): void {
    if (code === option.abort) return this.#abort();
    if (code === option.exportName) return this.#exportName(data);
    if (this.shuttingDown) return this.#reply(code, optionReply.shutdown, "the server is shutting down");
    if (this.#wantsTls && code !== option.startTls) {
      return this.#reply(code, optionReply.tlsRequired, "use STARTTLS first");
    }
    switch (code) {
      case option.info:
      case option.go:
        return this.#info(code, data);
      case option.listMetaContext:
      case option.setMetaContext:
        return this.#metaContext(code, data);
    }
    // The rest takes no data.
    if (data.length > 0) return this.#reply(code, optionReply.invalid, "this option takes no data");
    switch (code) {
      case option.list:
        for (const { name, description } of this.#exports.all) {
          this.#reply(code, optionReply.server, stringBytes(name), name, description);
        }
        return this.#reply(code, optionReply.ack);
      case option.structuredReply:
        if (this.#form === replyForm.extended) {
          return this.#reply(code, optionReply.extendedHeadersRequired, "extended headers are on already");
        }
        this.#form = replyForm.structured;
        return this.#reply(code, optionReply.ack);
      case option.extendedHeaders:
        this.#form = replyForm.extended;
        return this.#reply(code, optionReply.ack);
      case option.startTls:
        return this.#startTls();
    }
  }

  get #wantsTls(): boolean {
    return this.#tls === "require" && !this.#secure;
  }

  #startTls(): void {
    const code = option.startTls;
    if (this.#tls === "off") return this.#reply(code, optionReply.policy, "TLS is not offered here");
    if (!this.#fixed) return this.#reply(code, optionReply.policy, "TLS needs the fixed newstyle handshake");
    if (this.#secure) return this.#reply(code, optionReply.invalid, "TLS is on already");
    this.tlsReply = encodeOptionReply(code, optionReply.ack);
  }

  #abort(): void {
    this.#reply(option.abort, optionReply.ack);
    this.ending = "";
  }

  #exportName(data: Uint8Array): void {
    if (this.#wantsTls) {
      this.ending = "EXPORT_NAME before TLS, which is required";
      return;
    }
    if (this.#form === replyForm.extended) {
      this.ending = "EXPORT_NAME after extended headers";
      return;
    }
    const name = decodeString(data);
    if (name !== undefined && this.#makesFirst(name, option.exportName, data)) return;
    const served = name === undefined ? undefined : this.#find(name);
    if (served === undefined || this.shuttingDown) {
      this.ending = served === undefined ? "EXPORT_NAME of an unknown export" : "";
      return;
    }
    const reply = new Uint8Array(10 + (this.#noZeroes ? 0 : exportNamePaddingBytes));
    reply.set(u64(served.volume.sizeBytes));
    reply.set(u16(this.#flags(served)), 8);
    this.#out.push(reply);
    this.#agree(served);
  }

  #info(code: number, data: Uint8Array): void {
    const request = decodeInfoRequest(data);
    if (request === undefined) return this.#reply(code, optionReply.invalid, "malformed data");
    if (this.#makesFirst(request.name, code, data)) return;
    const served = this.#find(request.name);
    if (served === undefined) return this.#unknown(code, request.name);
    const size = u64(served.volume.sizeBytes);
    this.#reply(code, optionReply.info, u16(info.export), size, u16(this.#flags(served)));
    const kinds = new Set(request.kinds);
    if (kinds.has(info.name)) this.#reply(code, optionReply.info, u16(info.name), served.name);
    if (kinds.has(info.description) && served.description !== "") {
      this.#reply(code, optionReply.info, u16(info.description), served.description);
    }
    if (kinds.has(info.blockSize)) {
      const sizes = [blockMinBytes, blockPreferredBytes, payloadAdvertisedBytesMax];
      this.#reply(code, optionReply.info, u16(info.blockSize), ...sizes);
    }
    this.#reply(code, optionReply.ack);
    if (code === option.go) this.#agree(served);
  }

  #metaContext(code: number, data: Uint8Array): void {
    const setting = code === option.setMetaContext;
    // A new selection replaces the old one even when it fails.
    if (setting) this.#selected = null;
    const request = decodeMetaContextRequest(data);
    if (request === undefined) return this.#reply(code, optionReply.invalid, "malformed data");
    if (setting && this.#form === replyForm.simple) {
      return this.#reply(code, optionReply.invalid, "negotiate structured replies or extended headers first");
    }
    if (this.#makesFirst(request.name, code, data)) return;
    const served = this.#find(request.name);
    if (served === undefined) return this.#unknown(code, request.name);
    const contexts = contextsFor(served.volume, request.queries, !setting);
    if (setting) this.#selected = { served, contexts };
    for (const { id, name } of contexts) this.#reply(code, optionReply.metaContext, setting ? id : 0, name);
    this.#reply(code, optionReply.ack);
  }

  #contexts(served: Offered): readonly MetaContext[] {
    return this.#selected?.served === served ? this.#selected.contexts : [];
  }

  #flags(served: Offered): number {
    const payloads = this.#form === replyForm.extended && this.#contexts(served).length > 0;
    return transmissionFlags(served, { chunks: this.#form !== replyForm.simple, payloads });
  }

  #agree(served: Offered): void {
    this.agreement = { served, form: this.#form, contexts: this.#contexts(served) };
  }

  #reply(code: number, type: number, ...data: (number | string | Uint8Array)[]): void {
    putOptionReply(this.#out, code, type, ...data);
  }
}
