/**
 * The client's side of the protocol in bytes, written from the protocol's description and not from the server's
 * codec: what the tests send, and how they read what comes back.
 *
 * @module
 */

/** Concatenates numbers (as given sizes) and bytes. */
export function pack(...parts: (Uint8Array | string | [bytes: 1 | 2 | 4 | 8, value: number | bigint])[]) {
  const pieces = parts.map((part) => {
    if (typeof part === "string") return new TextEncoder().encode(part);
    if (part instanceof Uint8Array) return part;
    const [size, value] = part;
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, BigInt(value));
    return bytes.subarray(8 - size);
  });
  const whole = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}

export const IHAVEOPT = 0x49484156454f5054n;
export const NBDMAGIC = 0x4e42444d41474943n;
export const OPTION_REPLY = 0x0003e889045565a9n;

export const Opt = {
  EXPORT_NAME: 1,
  ABORT: 2,
  LIST: 3,
  PEEK_EXPORT: 4,
  STARTTLS: 5,
  INFO: 6,
  GO: 7,
  STRUCTURED_REPLY: 8,
  LIST_META_CONTEXT: 9,
  SET_META_CONTEXT: 10,
  EXTENDED_HEADERS: 11,
};
export const Rep = {
  ACK: 1,
  SERVER: 2,
  INFO: 3,
  META_CONTEXT: 4,
  ERR_UNSUP: 0x80000001,
  ERR_POLICY: 0x80000002,
  ERR_INVALID: 0x80000003,
  ERR_UNKNOWN: 0x80000006,
  ERR_SHUTDOWN: 0x80000007,
  ERR_TOO_BIG: 0x80000009,
  ERR_EXT_HEADER_REQD: 0x8000000a,
};
export const Cmd = {
  READ: 0,
  WRITE: 1,
  DISC: 2,
  FLUSH: 3,
  TRIM: 4,
  CACHE: 5,
  WRITE_ZEROES: 6,
  BLOCK_STATUS: 7,
  RESIZE: 8,
};
export const Flag = { FUA: 1, NO_HOLE: 2, DF: 4, REQ_ONE: 8, FAST_ZERO: 16, PAYLOAD_LEN: 32 };
export const Errno = {
  OK: 0,
  EPERM: 1,
  EIO: 5,
  EINVAL: 22,
  ENOSPC: 28,
  EOVERFLOW: 75,
  ESHUTDOWN: 108,
};

/** The client's flags: fixed newstyle, no zeroes. */
export const clientFlags = (flags = 3): Uint8Array => pack([4, flags]);

/** One option. */
export function optionBytes(code: number, data: Uint8Array = new Uint8Array()): Uint8Array {
  return pack([8, IHAVEOPT], [4, code], [4, data.length], data);
}

/** The data of INFO and GO. */
export function infoData(name = "", ...kinds: number[]): Uint8Array {
  const bytes = pack(name);
  return pack([4, bytes.length], bytes, [2, kinds.length], ...kinds.map((kind) => [2, kind] as [2, number]));
}

/** The data of LIST_META_CONTEXT and SET_META_CONTEXT. */
export function contextData(name: string, ...queries: string[]): Uint8Array {
  const bytes = pack(name);
  const list = queries.map((query) => pack([4, pack(query).length], query));
  return pack([4, bytes.length], bytes, [4, queries.length], ...list);
}

export interface Request {
  type: number;
  flags?: number;
  cookie?: bigint;
  offset?: number | bigint;
  length?: number | bigint;
  payload?: Uint8Array;
}

/** One request; `length` defaults to the payload's. Extended ones say by a flag that they have a payload. */
export function requestBytes(request: Request, extended = false): Uint8Array {
  const { type, cookie = 0n, offset = 0, payload = new Uint8Array() } = request;
  const length = request.length ?? payload.length;
  let { flags = 0 } = request;
  if (extended) {
    if (request.payload !== undefined && payload.length > 0) flags |= Flag.PAYLOAD_LEN;
    return pack([4, 0x21e41c71], [2, flags], [2, type], [8, cookie], [8, offset], [8, length], payload);
  }
  return pack([4, 0x25609513], [2, flags], [2, type], [8, cookie], [8, offset], [4, length], payload);
}

/** A descriptor of BLOCK_STATUS: bytes and flags. */
export type Descriptor = [length: number, flags: number];

/** What came back for one request. */
export interface Reply {
  cookie: bigint;
  error: number;
  message: string;
  /** Content chunks of a READ, or the data of a simple one. */
  data: Uint8Array;
  /** Those of `base:allocation`. */
  descriptors: Descriptor[];
  /** Those of every context, by its id. */
  contexts: Map<number, Descriptor[]>;
  /** Bytes of a READ that came as holes. */
  holeBytes: number;
  /** The first byte that failed, as ERROR_OFFSET tells it. */
  failedOffset: number | undefined;
  form: "simple" | "structured" | "extended";
  /** The offset that extended chunks repeat. */
  echo: bigint | undefined;
  chunks: number;
}

function emptyReply(cookie: bigint, form: Reply["form"], dataBytes: number): Reply {
  return {
    cookie,
    error: 0,
    message: "",
    data: new Uint8Array(dataBytes),
    descriptors: [],
    contexts: new Map(),
    holeBytes: 0,
    failedOffset: undefined,
    form,
    echo: undefined,
    chunks: 0,
  };
}

/** Where bytes come from: exactly `count` of them, or null at the end. */
export type Take = (count: number) => Promise<Uint8Array | null> | Uint8Array | null;

/**
 * Reads one simple reply or one structured chunk and merges it into `open` (replies whose last chunk has not come).
 * `reads` tells what each cookie asked for: a READ has data at its offset.
 *
 * @returns the reply when it is complete, undefined when more chunks follow, null at the end of the stream
 */
export async function takeReply(
  take: Take,
  open: Map<bigint, Reply>,
  reads: Map<bigint, { offset: number; length: number }>,
): Promise<Reply | undefined | null> {
  const head = await take(16);
  if (head === null) return null;
  const view = new DataView(head.buffer, head.byteOffset);
  const cookie = view.getBigUint64(8);
  const read = reads.get(cookie);
  const magic = view.getUint32(0);
  if (magic === 0x67446698) {
    const error = view.getUint32(4);
    const data = error === 0 && read ? await take(read.length) : new Uint8Array();
    if (data === null) return null;
    reads.delete(cookie);
    return { ...emptyReply(cookie, "simple", 0), error, data };
  }
  const extended = magic === 0x6e8a278c;
  if (!extended && magic !== 0x668e33ef) throw new Error(`bad reply magic 0x${magic.toString(16)}`);
  const flags = view.getUint16(4);
  const type = view.getUint16(6);
  const rest = await take(extended ? 16 : 4);
  if (rest === null) return null;
  const restView = new DataView(rest.buffer, rest.byteOffset);
  const length = extended ? Number(restView.getBigUint64(8)) : restView.getUint32(0);
  const payload = await take(length);
  if (payload === null) return null;
  const form = extended ? "extended" : "structured";
  const reply = open.get(cookie) ?? emptyReply(cookie, form, read?.length ?? 0);
  if (reply.form !== form) throw new Error(`a ${form} chunk in a reply that was ${reply.form}`);
  if (extended) {
    const echo = restView.getBigUint64(0);
    if (reply.echo !== undefined && reply.echo !== echo) {
      throw new Error("chunks of one reply differ in offset");
    }
    reply.echo = echo;
  }
  reply.chunks++;
  open.set(cookie, reply);
  takeChunk(type, payload, reply, read);
  if ((flags & 1) === 0) return undefined;
  open.delete(cookie);
  reads.delete(cookie);
  return reply;
}

function takeChunk(
  type: number,
  payload: Uint8Array,
  reply: Reply,
  read: { offset: number; length: number } | undefined,
): void {
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  switch (type) {
    case 0:
      if (payload.length !== 0) throw new Error("NONE chunk with a payload");
      return;
    case 1: {
      if (!read || payload.length < 9) throw new Error("stray or empty OFFSET_DATA");
      const at = Number(view.getBigUint64(0)) - read.offset;
      if (at < 0 || at + payload.length - 8 > read.length) throw new Error("OFFSET_DATA outside the request");
      reply.data.set(payload.subarray(8), at);
      return;
    }
    case 2: {
      if (!read || payload.length !== 12) throw new Error("stray or malformed OFFSET_HOLE");
      const at = Number(view.getBigUint64(0)) - read.offset;
      const length = view.getUint32(8);
      if (at < 0 || length === 0 || at + length > read.length) {
        throw new Error("OFFSET_HOLE outside the request");
      }
      reply.data.fill(0, at, at + length);
      reply.holeBytes += length;
      return;
    }
    case 5: {
      if (reply.form !== "structured") throw new Error("BLOCK_STATUS with extended headers");
      const found: Descriptor[] = [];
      for (let at = 4; at < payload.length; at += 8) found.push([view.getUint32(at), view.getUint32(at + 4)]);
      takeDescriptors(reply, view.getUint32(0), found);
      return;
    }
    case 6: {
      const count = view.getUint32(4);
      if (reply.form !== "extended" || payload.length !== 8 + 16 * count) {
        throw new Error("bad BLOCK_STATUS_EXT");
      }
      const found: Descriptor[] = [];
      for (let at = 8; at < payload.length; at += 16) {
        found.push([Number(view.getBigUint64(at)), Number(view.getBigUint64(at + 8))]);
      }
      takeDescriptors(reply, view.getUint32(0), found);
      return;
    }
    case 0x8001:
    case 0x8002: {
      reply.error = view.getUint32(0);
      const length = view.getUint16(4);
      const offsetBytes = type === 0x8002 ? 8 : 0;
      if (payload.length !== 6 + length + offsetBytes) throw new Error("malformed error chunk");
      reply.message = new TextDecoder().decode(payload.subarray(6, 6 + length));
      if (offsetBytes > 0) reply.failedOffset = Number(view.getBigUint64(6 + length));
      return;
    }
    default:
      throw new Error(`unknown chunk type ${type}`);
  }
}

function takeDescriptors(reply: Reply, context: number, found: Descriptor[]): void {
  if (reply.contexts.has(context)) throw new Error(`two chunks of context ${context}`);
  if (found.length === 0 || found.some(([length]) => length === 0)) throw new Error("empty descriptors");
  reply.contexts.set(context, found);
  if (context === 1) reply.descriptors = found;
}

export interface OptionReply {
  option: number;
  type: number;
  data: Uint8Array;
}

/** Reads one reply to an option; null at the end of the stream. */
export async function takeOptionReply(take: Take): Promise<OptionReply | null> {
  const head = await take(20);
  if (head === null) return null;
  const view = new DataView(head.buffer, head.byteOffset);
  if (view.getBigUint64(0) !== OPTION_REPLY) throw new Error("bad option reply magic");
  const data = await take(view.getUint32(16));
  if (data === null) return null;
  return { option: view.getUint32(8), type: view.getUint32(12), data };
}
