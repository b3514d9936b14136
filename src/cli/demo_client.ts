/**
 * A small NBD client for the demo: fixed newstyle, GO, and READ, WRITE, FLUSH with simple replies, any number of
 * requests in flight. It shares the protocol's numbers with the server, and nothing else.
 *
 * @module
 */

import { assert, DeviceError, NbdboostError } from "../errors.ts";
import {
  clientFlag,
  command,
  greetingBytes,
  handshakeFlag,
  info,
  magic,
  option,
  optionHeaderBytes,
  optionReply,
  optionReplyHeaderBytes,
  requestHeaderBytes,
  simpleReplyHeaderBytes,
} from "../nbd/constants.ts";

const optionReplyBytesMax = 4096;
const twoTo32 = 0x1_0000_0000;

interface Pending {
  into: Uint8Array<ArrayBuffer> | undefined;
  resolve(): void;
  reject(error: Error): void;
}

function setU64(view: DataView, at: number, value: number): void {
  view.setUint32(at, Math.floor(value / twoTo32));
  view.setUint32(at + 4, value % twoTo32);
}

/** A connection to one export. */
export class DemoClient {
  readonly #connection: Deno.Conn;
  readonly #pending = new Map<number, Pending>();
  #cookie = 0;
  #writing: Promise<unknown> = Promise.resolve();
  #received: Promise<void> = Promise.resolve();
  #lost: Error | undefined;
  #sizeBytes = 0;

  private constructor(connection: Deno.Conn) {
    this.#connection = connection;
  }

  /** Connects to the default export at `uri`, an `nbd://HOST:PORT`. */
  static async connect(uri: string): Promise<DemoClient> {
    const { hostname, port } = new URL(uri);
    const connection = await Deno.connect({ hostname, port: Number(port) });
    const client = new DemoClient(connection);
    try {
      await client.#negotiate();
    } catch (error) {
      connection.close();
      throw error;
    }
    client.#received = client.#receive();
    return client;
  }

  /** The size of the export. */
  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  async #fill(into: Uint8Array<ArrayBuffer>): Promise<void> {
    for (let at = 0; at < into.length;) {
      const count = await this.#connection.read(into.subarray(at));
      if (count === null) throw new DeviceError("EIO", "The server closed the connection.");
      at += count;
    }
  }

  async #take(length: number): Promise<DataView<ArrayBuffer>> {
    const bytes = new Uint8Array(length);
    await this.#fill(bytes);
    return new DataView(bytes.buffer);
  }

  async #send(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length;) at += await this.#connection.write(bytes.subarray(at));
  }

  async #negotiate(): Promise<void> {
    const greeting = await this.#take(greetingBytes);
    const fixed = greeting.getUint32(0) === magic.passwordHigh &&
      greeting.getUint32(4) === magic.passwordLow &&
      greeting.getUint32(8) === magic.optionHigh && greeting.getUint32(12) === magic.optionLow &&
      (greeting.getUint16(16) & handshakeFlag.fixedNewstyle) !== 0;
    if (!fixed) throw new NbdboostError("What answers there is no NBD server of the fixed newstyle kind.");
    // The client's flags, then GO for the export "" with no further questions.
    const hello = new DataView(new ArrayBuffer(4 + optionHeaderBytes + 6));
    hello.setUint32(0, clientFlag.fixedNewstyle | clientFlag.noZeroes);
    hello.setUint32(4, magic.optionHigh);
    hello.setUint32(8, magic.optionLow);
    hello.setUint32(12, option.go);
    hello.setUint32(16, 6);
    await this.#send(new Uint8Array(hello.buffer));
    for (;;) {
      const header = await this.#take(optionReplyHeaderBytes);
      const type = header.getUint32(12);
      const length = header.getUint32(16);
      if (length > optionReplyBytesMax) {
        throw new NbdboostError(`The server's reply to GO is too long: ${length} B.`);
      }
      const body = await this.#take(length);
      if (type === optionReply.ack) return;
      if (type !== optionReply.info) throw new NbdboostError(`The server refused GO with reply ${type}.`);
      if (body.getUint16(0) === info.export) {
        this.#sizeBytes = body.getUint32(2) * twoTo32 + body.getUint32(6);
      }
    }
  }

  async #receive(): Promise<void> {
    try {
      for (;;) {
        const header = await this.#take(simpleReplyHeaderBytes);
        const cookie = header.getUint32(12);
        const pending = this.#pending.get(cookie);
        if (header.getUint32(0) !== magic.simpleReply || pending === undefined) {
          throw new NbdboostError("The server sent a reply that nobody asked for.");
        }
        const error = header.getUint32(4);
        if (error === 0 && pending.into) await this.#fill(pending.into);
        this.#pending.delete(cookie);
        if (error === 0) pending.resolve();
        else pending.reject(new DeviceError("EIO", `The server failed a request with errno ${error}.`));
      }
    } catch (error) {
      this.#lose(error as Error);
    }
  }

  #lose(error: Error): void {
    this.#lost ??= error;
    for (const { reject } of this.#pending.values()) reject(error);
    this.#pending.clear();
  }

  #request(
    type: number,
    offset: number,
    length: number,
    payload?: Uint8Array,
    into?: Uint8Array<ArrayBuffer>,
  ) {
    if (this.#lost) return Promise.reject(this.#lost);
    const cookie = this.#cookie = (this.#cookie + 1) >>> 0;
    const bytes = new Uint8Array(requestHeaderBytes + (payload?.length ?? 0));
    const view = new DataView(bytes.buffer);
    view.setUint32(0, magic.request);
    view.setUint16(6, type);
    view.setUint32(12, cookie);
    setU64(view, 16, offset);
    view.setUint32(24, length);
    if (payload) bytes.set(payload, requestHeaderBytes);
    const reply = new Promise<void>((resolve, reject) =>
      this.#pending.set(cookie, { into, resolve, reject })
    );
    this.#writing = this.#writing.then(() => this.#send(bytes)).catch((error) => this.#lose(error));
    return reply;
  }

  /** Fills `into` from `offset`. */
  read(offset: number, into: Uint8Array<ArrayBuffer>): Promise<void> {
    assert(offset + into.length <= this.#sizeBytes, "the demo reads inside the export");
    return this.#request(command.read, offset, into.length, undefined, into);
  }

  /** Writes `bytes` at `offset`. */
  write(offset: number, bytes: Uint8Array): Promise<void> {
    assert(offset + bytes.length <= this.#sizeBytes, "the demo writes inside the export");
    return this.#request(command.write, offset, bytes.length, bytes);
  }

  /** Makes all that was acknowledged durable. */
  flush(): Promise<void> {
    return this.#request(command.flush, 0, 0);
  }

  /** Says goodbye, if anybody is listening, and closes. */
  async close(): Promise<void> {
    if (!this.#lost) {
      this.#request(command.disconnect, 0, 0).catch(() => {});
      await this.#writing;
    }
    await this.#received;
    this.#connection.close();
  }
}
