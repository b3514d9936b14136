/**
 * A client that changes a volume over several connections, knows what it did, and keeps the oracle up to date while the
 * server may die at any moment.
 *
 * Invariant: no two requests in flight touch the same sector, of which one writes; blocks they may share.
 *
 * @module
 */

import type { SeededRandom } from "../../src/random.ts";
import { blockBytes, kib, mib, roundDown, sectorBytes } from "../../src/units.ts";
import { Client } from "../nbd/client.ts";
import { Cmd, Errno, Flag, type Request } from "../nbd/wire.ts";
import type { VolumeModel } from "./volume_model.ts";

const connectionCount = 3;
/** Requests in flight on each connection. */
const depth = 6;
const poolBytes = mib;
const readBytes = mib;

interface Range {
  first: number;
  last: number;
}

/** What was done. */
export interface Counts {
  writes: number;
  bytes: number;
  zeroes: number;
  flushes: number;
  reads: number;
}

/** The verifying client. */
export class Workload {
  readonly counts: Counts = { writes: 0, bytes: 0, zeroes: 0, flushes: 0, reads: 0 };
  /** No more requests are begun: asked for, or because the server is gone or wrong. */
  stopping = false;
  /** The server has been asked to stop. */
  mayShutDown = false;
  readonly #model: VolumeModel;
  readonly #random: SeededRandom;
  readonly #clients: Client[];
  readonly #pool: Uint8Array;
  readonly #busy: Range[] = [];
  #stamp = 0;
  #failure: string | undefined;

  private constructor(model: VolumeModel, random: SeededRandom, clients: Client[]) {
    this.#model = model;
    this.#random = random;
    this.#clients = clients;
    this.#pool = new Uint8Array(poolBytes);
    random.fill(this.#pool);
  }

  /** Connects to the server. */
  static async connect(uri: string, model: VolumeModel, random: SeededRandom): Promise<Workload> {
    const clients: Client[] = [];
    for (let i = 0; i < connectionCount; i++) clients.push(await Client.connect(uri));
    return new Workload(model, random, clients);
  }

  /** Reads the whole volume. */
  async readAll(): Promise<Uint8Array<ArrayBuffer>> {
    const size = this.#model.newest.length;
    const whole = new Uint8Array(size);
    let next = 0;
    await Promise.all(this.#clients.map(async (client) => {
      while (next < size) {
        const offset = next;
        next += readBytes;
        whole.set(await client.read(offset, Math.min(readBytes, size - offset)), offset);
      }
    }));
    return whole;
  }

  /**
   * Works until {@linkcode stop} or the server's death. Rejects when the server said something that it must not say
   * while it lives.
   */
  async run(): Promise<void> {
    const workers = this.#clients.flatMap((client) =>
      Array.from({ length: depth }, () => this.#work(client))
    );
    await Promise.all(workers);
    if (this.#failure !== undefined) throw new Error(this.#failure);
  }

  /**
   * A few small requests one by one, and then a flush or, as the last of them, FUA: all on whatever connection. The moment
   * of that last reply is the one that shows a lie best, because nothing else has filled the open record since.
   */
  async lastWords(): Promise<void> {
    const client = () => this.#clients[this.#random.below(connectionCount)]!;
    for (let left = this.#random.below(6); left > 0; left--) {
      if (this.#random.chance(0.3)) await this.#zero(client(), 1 + this.#random.below(5 * blockBytes), 0);
      else await this.#write(client(), 1 + this.#random.below(3 * blockBytes), 1, 0);
    }
    if (this.#random.chance(0.3)) {
      await this.#write(client(), 1 + this.#random.below(blockBytes), 1, Flag.FUA);
    } else await this.#flush(client());
    if (this.#failure !== undefined) throw new Error(this.#failure);
  }

  /** Lets the requests in flight end, and begins none. */
  stop(): void {
    this.stopping = true;
  }

  close(): void {
    for (const client of this.#clients) client.close();
  }

  async #work(client: Client): Promise<void> {
    while (!this.stopping) {
      try {
        await this.#one(client);
      } catch {
        // The server is gone: what was in flight is neither acknowledged nor refused.
        this.stopping = true;
      }
    }
  }

  /** Takes note of an error reply. A server that was asked to stop may refuse with ESHUTDOWN. */
  #refused(what: string, errno: number): void {
    if (errno === Errno.ESHUTDOWN && this.mayShutDown) this.stopping = true;
    else this.#fail(`${what} failed with errno ${errno}`);
  }

  #fail(what: string): void {
    this.#failure ??= what;
    this.stopping = true;
  }

  /** One request, chosen by chance. */
  async #one(client: Client): Promise<void> {
    const choice = this.#random.below(1000);
    if (choice < 30) return await this.#flush(client);
    if (choice < 90) return await this.#read(client);
    const fua = this.#random.chance(0.08) ? Flag.FUA : 0;
    if (choice < 93) return await this.#zero(client, mib + this.#random.below(7 * mib), fua);
    if (choice < 180) return await this.#zero(client, 1 + this.#random.below(200 * kib), fua);
    if (choice < 280) return await this.#write(client, 1 + this.#random.below(9000), 1, fua);
    if (choice < 400) return await this.#write(client, this.#blocks(15) / 8, sectorBytes, fua);
    if (choice < 900) return await this.#write(client, this.#blocks(12), blockBytes, fua);
    await this.#write(client, this.#blocks(64), blockBytes, fua);
  }

  #blocks(max: number): number {
    return (1 + this.#random.below(max)) * blockBytes;
  }

  /** A place for `length` bytes that nothing in flight touches; undefined when chance finds none. */
  #place(length: number, unit: number): number | undefined {
    const size = this.#model.newest.length;
    for (let tries = 0; tries < 8; tries++) {
      const where = this.#random.below(10);
      // Some at the start, which is overwritten all the time; some at the end, where the last block is short.
      const span = Math.min(where < 4 ? 2 * mib + length : size, size) - length;
      const offset = where === 9 ? size - length : roundDown(this.#random.below(span + 1), unit);
      const range = {
        first: Math.floor(offset / sectorBytes),
        last: Math.floor((offset + length - 1) / sectorBytes),
      };
      if (!this.#busy.some(({ first, last }) => first <= range.last && range.first <= last)) return offset;
    }
    return undefined;
  }

  async #during<T>(offset: number, length: number, action: () => Promise<T>): Promise<T> {
    const range = {
      first: Math.floor(offset / sectorBytes),
      last: Math.floor((offset + length - 1) / sectorBytes),
    };
    this.#busy.push(range);
    try {
      return await action();
    } finally {
      this.#busy.splice(this.#busy.indexOf(range), 1);
    }
  }

  async #write(client: Client, length: number, unit: number, flags: number): Promise<void> {
    const offset = this.#place(length, unit);
    if (offset === undefined) return;
    const from = this.#random.below(poolBytes - length);
    const payload = this.#pool.slice(from, from + length);
    // No two writes are alike, and none repeats what its place held.
    const stamp = new DataView(payload.buffer);
    for (let at = 0; at + 4 <= length; at += 256) stamp.setUint32(at, ++this.#stamp);
    this.counts.writes++;
    this.counts.bytes += length;
    await this.#change(client, { type: Cmd.WRITE, offset, payload, flags }, length, payload);
  }

  async #zero(client: Client, length: number, flags: number): Promise<void> {
    const offset = this.#place(length, this.#random.chance(0.5) ? 1 : blockBytes);
    if (offset === undefined) return;
    const trim = this.#random.chance(0.5);
    const hole = this.#random.chance(0.5) || trim ? 0 : Flag.NO_HOLE;
    this.counts.zeroes++;
    const request = { type: trim ? Cmd.TRIM : Cmd.WRITE_ZEROES, offset, length, flags: flags | hole };
    await this.#change(client, request, length);
  }

  async #change(client: Client, request: Request & { offset: number }, length: number, bytes?: Uint8Array) {
    await this.#during(request.offset, length, async () => {
      const change = this.#model.submit(request.offset, length, bytes);
      const { error } = await client.request(request);
      if (error !== 0) this.#refused(`request ${request.type} at ${request.offset}+${length}`, error);
      else this.#model.acknowledge(change, ((request.flags ?? 0) & Flag.FUA) !== 0);
    });
  }

  async #flush(client: Client): Promise<void> {
    this.counts.flushes++;
    const sent = this.#model.flushing();
    const error = await client.flush();
    if (error !== 0) this.#refused("a flush", error);
    else this.#model.flushed(sent);
  }

  async #read(client: Client): Promise<void> {
    const length = this.#blocks(16);
    const offset = this.#place(length, sectorBytes);
    if (offset === undefined) return;
    this.counts.reads++;
    await this.#during(offset, length, async () => {
      const reply = await client.request({ type: Cmd.READ, offset, length });
      if (reply.error !== 0) return this.#refused(`a read at ${offset}+${length}`, reply.error);

      const sector = this.#model.difference(offset, reply.data);
      if (sector !== undefined) this.#fail(`sector ${sector} was read and is not what was written last`);
    });
  }
}
