/**
 * Whole messages from and to a stream connection.
 *
 * Invariant: at most one `take` and one `send` are under way.
 *
 * @module
 */

import type { IoConnection } from "../../io/io.ts";

/** Bytes that are received ahead of what was asked for. */
const aheadBytes = 64 * 1024;

/** The server closed the connection, or the way there broke. */
export class StreamEnd extends Error {
  override name = "StreamEnd";
}

/** A connection that gives and takes exact numbers of bytes. */
export class ByteStream {
  readonly #socket: IoConnection;
  readonly #ahead = new Uint8Array(aheadBytes);
  #start = 0;
  #end = 0;
  /** Called after every receive and send that moved something. */
  onProgress: () => void = () => {};

  constructor(socket: IoConnection) {
    this.#socket = socket;
  }

  /** Bytes that were received and not asked for yet. */
  get aheadBytes(): number {
    return this.#end - this.#start;
  }

  /** The next `count` bytes, which stay as they are until the next call; `count` is small. */
  async peek(count: number): Promise<DataView> {
    if (this.#end - this.#start < count) {
      this.#ahead.copyWithin(0, this.#start, this.#end);
      this.#end -= this.#start;
      this.#start = 0;
      while (this.#end < count) this.#end += await this.#receive(this.#ahead.subarray(this.#end));
    }
    const view = new DataView(this.#ahead.buffer, this.#start, count);
    this.#start += count;
    return view;
  }

  /** Fills `into`. */
  async take(into: Uint8Array<ArrayBuffer>): Promise<void> {
    const here = Math.min(into.length, this.#end - this.#start);
    into.set(this.#ahead.subarray(this.#start, this.#start + here));
    this.#start += here;
    for (let at = here; at < into.length;) at += await this.#receive(into.subarray(at));
  }

  /** Sends all of `bytes`. */
  async send(bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    for (let at = 0; at < bytes.length;) {
      const count = await this.#socket.write(at === 0 ? bytes : bytes.subarray(at));
      if (count <= 0) throw new StreamEnd("the connection takes no more");
      at += count;
      this.onProgress();
    }
  }

  /** Ends what is under way. */
  close(): void {
    this.#socket.close();
  }

  async #receive(into: Uint8Array<ArrayBuffer>): Promise<number> {
    const count = await this.#socket.read(into);
    if (count === null || count === 0) throw new StreamEnd("the server closed the connection");
    this.onProgress();
    return count;
  }
}
