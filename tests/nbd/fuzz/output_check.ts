/**
 * Whether what a server sends is a sequence of well-formed messages, whatever the client sent: greeting, replies to options,
 * replies to requests. Without chunks only the request tells how much data a reply carries; so then nothing behind the first one
 * without an error is looked at.
 *
 * @module
 */

const greetingBytes = 18;
const optionReplyHeaderBytes = 20;
const simpleReplyBytes = 16;
const chunkHeaderBytes = 20;
const extendedChunkHeaderBytes = 32;
const knownErrors: ReadonlySet<number> = new Set([1, 5, 22, 28, 75, 95, 108]);
/** The largest chunk: what is advertised, and the offset before it. */
const chunkPayloadBytesMax = 32 * 1024 * 1024 + 8;
const optionReplyBytesMax = 64 * 1024;

/** Takes a server's bytes as they come; throws when they cannot be right. */
export class OutputCheck {
  /** Whole messages that were found. */
  messages = 0;
  #rest: Uint8Array = new Uint8Array(0);
  #greeted = false;
  #transmitting = false;
  /** READs are answered in chunks. */
  #chunks = false;
  #blind = false;
  /** Bytes of a payload that are still to be passed over. */
  #skip = 0;

  /** Looks at the next bytes. */
  take(bytes: Uint8Array): void {
    if (this.#blind) return;
    const passed = Math.min(this.#skip, bytes.length);
    this.#skip -= passed;
    let all = passed === 0 ? bytes : bytes.subarray(passed);
    if (this.#rest.length > 0) {
      const joined = new Uint8Array(this.#rest.length + all.length);
      joined.set(this.#rest);
      joined.set(all, this.#rest.length);
      all = joined;
    }
    const view = new DataView(all.buffer, all.byteOffset, all.length);
    let at = 0;
    while (at < all.length) {
      const count = this.#message(view, at);
      if (count < 0) break;
      this.messages++;
      at += count;
      if (at > all.length) this.#skip = at - all.length;
    }
    this.#rest = this.#blind || at >= all.length ? new Uint8Array(0) : all.slice(at);
  }

  /** The session is over: it must not have ended within a message. */
  end(): void {
    if (this.#blind) return;
    if (this.#rest.length > 0 || this.#skip > 0) {
      throw new Error("the server stopped in the middle of a message");
    }
  }

  /** The length of the message at `at`, negative when more bytes have to come or nothing can be told. */
  #message(view: DataView, at: number): number {
    const here = view.byteLength - at;
    if (!this.#greeted) {
      if (here < greetingBytes) return -1;
      this.#greeted = true;
      return greetingBytes;
    }
    if (here < 4) return -1;
    return this.#transmitting ? this.#reply(view, at, here) : this.#optionReply(view, at, here);
  }

  #optionReply(view: DataView, at: number, here: number): number {
    // A reply to EXPORT_NAME is the size of the export, which is small here; a reply to an option begins otherwise.
    if (view.getUint32(at) !== 0x0003e889) return this.#stopLooking();
    if (here < optionReplyHeaderBytes) return -1;
    const [option, type, bytes] = [view.getUint32(at + 8), view.getUint32(at + 12), view.getUint32(at + 16)];
    if (view.getUint32(at + 4) !== 0x045565a9) throw new Error("a reply to an option has a wrong magic");
    const isKnown = (type >= 1 && type <= 4) || (type >= 0x80000001 && type <= 0x8000000a);
    if (!isKnown || bytes > optionReplyBytesMax) {
      throw new Error(`a reply to option ${option} has type ${type} and ${bytes} bytes`);
    }
    if (type === 1 && bytes !== 0) throw new Error("an ACK has data");
    if (type === 1) {
      if (option === 7) this.#transmitting = true;
      if (option === 5) this.#chunks = false;
      if (option === 8 || option === 11) this.#chunks = true;
    }
    return optionReplyHeaderBytes + bytes;
  }

  #reply(view: DataView, at: number, here: number): number {
    const magic = view.getUint32(at);
    if (magic === 0x67446698) {
      if (here < simpleReplyBytes) return -1;
      const error = view.getUint32(at + 4);
      if (error === 0 && !this.#chunks) return this.#stopLooking();
      if (error !== 0 && !knownErrors.has(error)) throw new Error(`a simple reply has error ${error}`);
      return simpleReplyBytes;
    }
    const extended = magic === 0x6e8a278c;
    if (!extended && magic !== 0x668e33ef) throw new Error(`a reply has magic ${magic.toString(16)}`);
    const headerBytes = extended ? extendedChunkHeaderBytes : chunkHeaderBytes;
    // The number of an error is looked at too.
    if (here < headerBytes + 4) return this.#shortChunk(view, at, here, headerBytes);
    const [flags, type] = [view.getUint16(at + 4), view.getUint16(at + 6)];
    const payloadBytes = view.getUint32(at + headerBytes - 4);
    if (extended && view.getUint32(at + 24) !== 0) throw new Error("a chunk is longer than 4 GiB");
    checkChunk(extended, flags, type, payloadBytes, view.getUint32(at + headerBytes));
    return headerBytes + payloadBytes;
  }

  /** A chunk without payload may be all that there is. */
  #shortChunk(view: DataView, at: number, here: number, headerBytes: number): number {
    if (here < headerBytes || view.getUint32(at + headerBytes - 4) !== 0) return -1;
    checkChunk(
      headerBytes === extendedChunkHeaderBytes,
      view.getUint16(at + 4),
      view.getUint16(at + 6),
      0,
      0,
    );
    return headerBytes;
  }

  #stopLooking(): number {
    this.#blind = true;
    return -1;
  }
}

function checkChunk(extended: boolean, flags: number, type: number, bytes: number, first: number): void {
  const done = (flags & 1) !== 0;
  const isRight = flags <= 1 && bytes <= chunkPayloadBytesMax && (
    type === 0
      ? done && bytes === 0
      : type === 1
      ? bytes >= 9
      : type === 2
      ? bytes === 12
      : type === 5
      ? !extended && bytes >= 12 && bytes % 8 === 4
      : type === 6
      ? extended && bytes >= 24 && bytes % 16 === 8
      : type === 0x8001
      ? bytes >= 6 && knownErrors.has(first)
      : type === 0x8002 && bytes >= 14 && knownErrors.has(first)
  );
  if (!isRight) {
    throw new Error(`a chunk has flags ${flags}, type ${type}, ${bytes} bytes, first word ${first}`);
  }
}
