/**
 * An export of an NBD server as a {@linkcode BlockDevice}. A server that is lost is a device that is away: it is tried for
 * again and again, requests wait for it for a stated time, and then fail.
 *
 * Invariants:
 * - A lost connection is a failed sync: what was written since the last good sync may be gone with the old server, so the
 *   next sync rejects if anything was (log-rules 15).
 * - No request waits without a bound: without a connection for `waitMs`, on one that moves nothing for `waitMs`, and on one
 *   that moves, but leaves this request unanswered, for `waitsPerRequestMax` times that.
 * - A READ resolves only when the reply covered all of it.
 * - A sync that overlaps with one that fails fails too: what the latter tells of concerns what the former covers.
 *
 * @module
 */

import { type Clock, sleep } from "../../clock.ts";
import { assert, DeviceError, type DeviceErrorCode } from "../../errors.ts";
import { command, commandFlag, transmissionFlag, wireError } from "../../nbd/constants.ts";
import type { BlockDevice, DeviceIdentity } from "../block_device.ts";
import { shorten } from "../identity.ts";
import { sectorBytes } from "../../units.ts";
import { assertRange } from "../range.ts";
import type { ExportFacts } from "./handshake.ts";
import { type Link, LinkLost, type LinkRequest, ServerError } from "./link.ts";
import { Pool } from "./pool.ts";
import {
  lateWritesMs,
  type NbdSettings,
  payloadBytesMin,
  pieceBytesMax,
  piecesInFlightMax,
  reconnectMsMax,
  waitsPerRequestMax,
  zeroPieceBytesMax,
} from "./settings.ts";

/** What a device is made of. */
export interface NbdDeviceOptions {
  readonly settings: NbdSettings;
  readonly readOnly: boolean;
  readonly clock: Clock;
  /** Makes the connections of a new generation. */
  connect(onLost: (link: Link, reason: string) => void): Promise<Link[]>;
}

/** An export of an NBD server. Use `openDevice`. */
export class NbdDevice implements BlockDevice {
  readonly name: string;
  readonly readOnly: boolean;
  readonly #settings: NbdSettings;
  readonly #clock: Clock;
  readonly #pool: Pool;
  #facts: ExportFacts | undefined;
  /** Writes that have resolved, and how many of them the last good sync covered. */
  #written = 0;
  #synced = 0;
  /** Syncs that have failed. */
  #failedSyncs = 0;
  /** The most that a request may carry, as the server of today says. */
  #payloadBytesMax = pieceBytesMax;
  /** Why what was written since the last good sync cannot be trusted. */
  #inDoubt: string | undefined;
  /** Nothing is written before this. */
  #writesFromMs = 0;
  #settleWrites = false;
  #callsUnderWay = 0;
  #onIdle: () => void = () => {};
  #closed: Promise<void> | undefined;
  #cancelWatch: (() => void) | undefined;

  private constructor(options: NbdDeviceOptions) {
    this.#settings = options.settings;
    this.name = options.settings.uri;
    this.readOnly = options.readOnly;
    this.#clock = options.clock;
    this.#pool = new Pool({
      clock: options.clock,
      pauseMsMax: Math.min(reconnectMsMax, options.settings.waitMs / 4),
      connect: async (onLost) => {
        const links = await options.connect(onLost);
        const changed = this.#changeOf(links[0]!.facts);
        if (changed === undefined) {
          this.#payloadBytesMax = links[0]!.facts.payloadBytesMax;
          return links;
        }
        await Promise.all(links.map((link) => link.disconnect()));
        throw new Error(changed);
      },
      onAway: (writing) => {
        if (this.#written > this.#synced) this.#inDoubt ??= this.#pool.away ?? "the connection was lost";
        this.#settleWrites ||= writing;
      },
      onBack: () => {
        if (this.#settleWrites) this.#writesFromMs = this.#clock.monotonicMs() + lateWritesMs;
        this.#settleWrites = false;
      },
    });
  }

  /** Connects. Rejects when the server cannot be reached now. */
  static async open(options: NbdDeviceOptions): Promise<NbdDevice> {
    const device = new NbdDevice(options);
    await device.#pool.open();
    device.#facts = device.#pool.links[0]!.facts;
    return device;
  }

  /** The size in bytes. */
  get sizeBytes(): number {
    return this.facts.sizeBytes;
  }

  /** What was negotiated when it was opened. */
  get facts(): ExportFacts {
    assert(this.#facts !== undefined, "a device that was never connected was handed out");
    return this.#facts;
  }

  /** Connections there are just now. */
  get connections(): number {
    return this.#pool.links.length;
  }

  /** See {@linkcode BlockDevice.away}. */
  away(): string | undefined {
    return this.#pool.away;
  }

  /** See {@linkcode BlockDevice.abandon}. */
  abandon(): void {
    this.#pool.abandon();
  }

  /** See {@linkcode BlockDevice.awayMs}. */
  awayMs(): number {
    return this.#pool.awayMs;
  }

  /** Its URI without parameters. */
  async identity(): Promise<DeviceIdentity> {
    return { kind: "nbd", id: await shorten(this.#settings.id), modifiedMs: 0 };
  }

  /** See {@linkcode BlockDevice}. */
  read(offset: number, into: Uint8Array<ArrayBuffer>): Promise<void> {
    return this.#call(
      offset,
      into.length,
      () =>
        this.#inPieces(offset, into.length, this.#pieceBytes, (at, length) => {
          const target = into.subarray(at - offset, at - offset + length);
          return this.#perform("read", { command: command.read, flags: 0, offset: at, length, target });
        }),
    );
  }

  /** See {@linkcode BlockDevice}. */
  write(offset: number, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    return this.#call(
      offset,
      bytes.length,
      () =>
        this.#inPieces(offset, bytes.length, this.#pieceBytes, (at, length) => {
          const source = bytes.subarray(at - offset, at - offset + length);
          return this.#perform("write", { command: command.write, flags: 0, offset: at, length, source });
        }),
    );
  }

  /** See {@linkcode BlockDevice}. */
  zero(offset: number, length: number, { keepAllocated }: { keepAllocated: boolean }): Promise<void> {
    return this.#call(offset, length, async () => {
      if ((this.facts.flags & transmissionFlag.sendWriteZeroes) === 0) {
        return await this.#writeZeroes(offset, length);
      }
      const flags = keepAllocated ? commandFlag.noHole : 0;
      await this.#inPieces(
        offset,
        length,
        zeroPieceBytesMax,
        (at, length) => this.#perform("zero", { command: command.writeZeroes, flags, offset: at, length }),
      );
    });
  }

  /** See {@linkcode BlockDevice}; rejects also when a connection was lost since the last good sync with something written. */
  sync(): Promise<void> {
    return this.#call(0, 0, async () => {
      const covers = this.#written;
      const failedSyncs = this.#failedSyncs;
      try {
        await this.#flush();
        if (this.#failedSyncs !== failedSyncs) {
          throw new DeviceError("EIO", `Cannot sync ${this.name}: another sync of it failed meanwhile`);
        }
        this.#synced = Math.max(this.#synced, covers);
      } catch (error) {
        // Everybody is told by this rejection that nothing since the last good sync can be trusted; so a new life begins.
        this.#failedSyncs++;
        this.#synced = this.#written;
        this.#inDoubt = undefined;
        throw error;
      }
    });
  }

  /** See {@linkcode BlockDevice}. */
  close(): Promise<void> {
    return this.#closed ??= this.#close();
  }

  async #close(): Promise<void> {
    if (this.#callsUnderWay > 0) await new Promise<void>((resolve) => this.#onIdle = resolve);
    this.#cancelWatch?.();
    await this.#pool.close();
  }

  get #pieceBytes(): number {
    return Math.min(pieceBytesMax, this.#payloadBytesMax);
  }

  async #call<T>(offset: number, length: number, action: () => Promise<T>): Promise<T> {
    if (this.#closed) throw new DeviceError("ESHUTDOWN", `Cannot use ${this.name}: it is closed`);
    assertRange(this, offset, length);
    this.#callsUnderWay++;
    try {
      return await action();
    } finally {
      if (--this.#callsUnderWay === 0) this.#onIdle();
    }
  }

  /** Performs `action` for pieces of the range, some at once; rejects with the first failure, when none is under way. */
  async #inPieces(
    offset: number,
    length: number,
    pieceBytes: number,
    action: (at: number, length: number) => Promise<void>,
  ): Promise<void> {
    if (length <= pieceBytes) return length === 0 ? undefined : await action(offset, length);
    let next = offset;
    let failure: { error: unknown } | undefined;
    const work = async () => {
      while (next < offset + length && failure === undefined) {
        const at = next;
        next = Math.min(at + pieceBytes, offset + length);
        await action(at, next - at).catch((error) => failure ??= { error });
      }
    };
    await Promise.all(Array.from({ length: piecesInFlightMax }, work));
    if (failure !== undefined) throw failure.error;
  }

  #writeZeroes(offset: number, length: number): Promise<void> {
    const zeroes = new Uint8Array(Math.min(length, this.#pieceBytes));
    return this.#inPieces(offset, length, this.#pieceBytes, (at, length) => {
      const source = zeroes.subarray(0, length);
      return this.#perform("zero", { command: command.write, flags: 0, offset: at, length, source });
    });
  }

  /** Sends a request, again on a new connection when one is lost, until it is answered or has waited too long. */
  async #perform(operation: string, request: LinkRequest): Promise<void> {
    const startMs = this.#clock.monotonicMs();
    const deadlineMs = startMs + this.#settings.waitMs;
    const writes = request.command !== command.read;
    for (;;) {
      const link = await this.#pool.acquire(deadlineMs);
      const what = `Cannot ${operation} ${request.length} bytes at ${request.offset} of ${this.name}`;
      if (link === undefined) throw this.#tooLate(what, startMs);
      const { payloadBytesMax } = link.facts;
      const isPayload = request.source !== undefined || request.target !== undefined;
      // It was cut when another server answered.
      if (isPayload && request.length > payloadBytesMax) {
        return await this.#performCut(operation, request, payloadBytesMax);
      }
      const early = writes ? this.#writesFromMs - this.#clock.monotonicMs() : 0;
      if (early > 0) {
        await sleep(this.#clock, early);
        continue;
      }
      try {
        await this.#ask(link, request);
        // What a lost connection still delivered is not known to the server that comes after it.
        if (writes && link.isLost) throw new LinkLost("it was lost just then");
        if (writes) this.#written++;
        return;
      } catch (error) {
        if (error instanceof ServerError) {
          if (error.errno !== wireError.ESHUTDOWN) throw serverFailure(what, error, request.offset);
          this.#pool.lose("the server is shutting down");
        } else if (!(error instanceof LinkLost)) throw error;
        if (this.#clock.monotonicMs() >= deadlineMs) throw this.#tooLate(what, startMs);
      }
    }
  }

  #performCut(operation: string, request: LinkRequest, pieceBytes: number): Promise<void> {
    const { offset, source, target } = request;
    return this.#inPieces(offset, request.length, pieceBytes, (at, length) => {
      const part = (bytes: Uint8Array<ArrayBuffer>) => bytes.subarray(at - offset, at - offset + length);
      return this.#perform(operation, {
        command: request.command,
        flags: request.flags,
        offset: at,
        length,
        ...(source === undefined ? {} : { source: part(source) }),
        ...(target === undefined ? {} : { target: part(target) }),
      });
    });
  }

  async #flush(): Promise<void> {
    const what = `Cannot sync ${this.name}`;
    const startMs = this.#clock.monotonicMs();
    this.#checkDoubt(what);
    if ((this.facts.flags & transmissionFlag.sendFlush) === 0) return;
    const link = await this.#pool.acquire(startMs + this.#settings.waitMs);
    if (link === undefined) throw this.#tooLate(what, startMs);
    this.#checkDoubt(what);
    try {
      await this.#ask(link, { command: command.flush, flags: 0, offset: 0, length: 0 });
      if (link.isLost) throw new LinkLost("it was lost just then");
    } catch (error) {
      if (error instanceof ServerError) throw serverFailure(what, error);
      const reason = error instanceof Error ? error.message : String(error);
      throw new DeviceError("EIO", `${what}: the connection was lost (${reason})`, { cause: error });
    }
  }

  /** Rejects when what was written since the last good sync may be gone. */
  #checkDoubt(what: string): void {
    if (this.#inDoubt === undefined) return;
    throw new DeviceError(
      "EIO",
      `${what}: the connection was lost since the last sync (${this.#inDoubt}), so what was written since then may be ` +
        `gone and has to be written again`,
    );
  }

  #ask(link: Link, request: LinkRequest): Promise<void> {
    this.#watch();
    return link.request(request);
  }

  /** Looks now and then whether a connection with requests under way is dead. */
  #watch(): void {
    const { waitMs } = this.#settings;
    this.#cancelWatch ??= this.#clock.after(waitMs / 4, () => {
      this.#cancelWatch = undefined;
      const nowMs = this.#clock.monotonicMs();
      const busy = this.#pool.links.map((link) => link.times).filter((times) => times !== undefined);
      if (busy.length === 0) return;
      const dead = busy.some(({ progressMs, oldestMs }) =>
        nowMs - progressMs >= waitMs || nowMs - oldestMs >= waitsPerRequestMax * waitMs
      );
      if (dead) this.#pool.lose(`the server did not answer for ${waitMs / 1000} s`);
      else this.#watch();
    });
  }

  #tooLate(what: string, startMs: number): DeviceError {
    const seconds = Math.round((this.#clock.monotonicMs() - startMs) / 1000);
    return new DeviceError(
      "ETIMEDOUT",
      `${what}: the server is away (${
        this.#pool.away ?? "its connection was lost"
      }) and did not come back within ` +
        `${seconds} s; it is tried for again, see that it runs and can be reached`,
    );
  }

  /** Why a server that came back is not the one that was there. */
  #changeOf(facts: ExportFacts): string | undefined {
    const before = this.#facts;
    if (before === undefined) return undefined;
    if (facts.sizeBytes !== before.sizeBytes) {
      return `the export had ${before.sizeBytes} bytes and came back with ${facts.sizeBytes}`;
    }
    if (!this.readOnly && (facts.flags & transmissionFlag.readOnly) !== 0) {
      return "the export came back read-only";
    }
    const { blockBytesMin, payloadBytesMax } = facts;
    if (!takesSectors(facts)) {
      return `the export came back with requests of multiples of ${blockBytesMin} and at most ${payloadBytesMax} bytes`;
    }
    const needed = transmissionFlag.sendFlush | transmissionFlag.sendWriteZeroes;
    if ((before.flags & needed & ~facts.flags) !== 0) return "the export came back with fewer abilities";
    return undefined;
  }
}

/** Whether the requests that we make are such as the server takes. */
export function takesSectors({ blockBytesMin, payloadBytesMax }: ExportFacts): boolean {
  return blockBytesMin <= sectorBytes && payloadBytesMax >= payloadBytesMin;
}

const codes: Record<number, DeviceErrorCode> = { [wireError.EPERM]: "EROFS", [wireError.ENOSPC]: "ENOSPC" };

function serverFailure(what: string, { errno, message }: ServerError, offset?: number): DeviceError {
  const name = Object.entries(wireError).find(([, value]) => value === errno)?.[0] ?? `error ${errno}`;
  const words = message === "" ? "" : `, "${message.replace(/[^\x20-\x7e]/g, "?").slice(0, 200)}"`;
  return new DeviceError(
    codes[errno] ?? "EIO",
    `${what}: the server says ${name}${words}`,
    offset === undefined ? {} : { offset },
  );
}
