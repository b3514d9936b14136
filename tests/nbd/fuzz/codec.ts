/**
 * Hostile sessions against the session codec, without sockets: as fast as it gets.
 *
 * A seed makes one session. Volumes and large buffers are used again and again.
 *
 * @module
 */

import { lentBufferBytes } from "../../../src/cache/volume.ts";
import { outputBufferBytes } from "../../../src/nbd/constants.ts";
import { defaultLimits } from "../../../src/nbd/limits.ts";
import type { TlsMode } from "../../../src/nbd/negotiation.ts";
import { SeededRandom } from "../../../src/random.ts";
import { MemoryVolume } from "../memory_volume.ts";
import { Peer } from "../peer.ts";
import { OutputCheck } from "./output_check.ts";
import { HostileSessions } from "./sessions.ts";

const sizeBytes = 1 << 16;
/** Turns in which a request of a volume in plain memory has long ended. */
const turnsMax = 1000;

/** What was done. */
export interface CodecReport {
  sessions: number;
  bytes: number;
  /** Sessions that the server ended by itself. */
  ended: number;
  /** Sessions that came as far as the transmission. */
  transmitting: number;
  /** Messages of the server that were taken apart and found well formed. */
  messages: number;
}

/** Runs `sessions` hostile sessions; throws when one breaks an invariant, with the seed that repeats it. */
export async function fuzzCodec(
  seed: number,
  sessions: number,
  more: () => boolean = () => true,
): Promise<CodecReport> {
  const report: CodecReport = { sessions: 0, bytes: 0, ended: 0, transmitting: 0, messages: 0 };
  const bench = new Bench(report);
  for (let i = 0; i < sessions && more(); i++) {
    try {
      // Most sessions end without a promise, and a wait for nothing costs as much as a session.
      const wait = bench.run(seed + i);
      if (wait !== undefined) await wait;
      report.sessions++;
    } catch (cause) {
      throw new Error(`session seed ${seed + i} broke the codec: ${(cause as Error).message}`, { cause });
    }
  }
  return report;
}

/** A volume whose lent buffers are few and used for all sessions. */
class FuzzVolume extends MemoryVolume {
  readonly #spare: Uint8Array<ArrayBuffer>[] = [];

  override lendBuffer(): Uint8Array<ArrayBuffer> {
    const buffer = this.#spare.pop() ?? new Uint8Array(lentBufferBytes);
    this.lent.add(buffer);
    return buffer;
  }

  override returnBuffer(buffer: Uint8Array<ArrayBuffer>): void {
    if (!this.lent.delete(buffer)) throw new Error("a buffer was given back twice");
    this.#spare.push(buffer);
  }
}

/** Where the sessions are executed. */
class Bench {
  readonly #report: CodecReport;
  readonly #writable = new FuzzVolume(sizeBytes);
  readonly #readOnly = new FuzzVolume(sizeBytes, { readOnly: true });
  readonly #sessions = new HostileSessions("", sizeBytes);

  constructor(report: CodecReport) {
    this.#report = report;
  }

  /** Executes one; a promise when something of it takes more than a turn. */
  run(seed: number): Promise<void> | undefined {
    const random = new SeededRandom(seed);
    const volume = random.chance(0.1) ? this.#readOnly : this.#writable;
    volume.hot = random.chance(0.7);
    volume.soon = random.chance(0.3);
    volume.into = random.chance(0.3);
    volume.calls.length = 0;
    const borrows = random.chance(0.8);
    const tls: TlsMode = random.chance(0.9) ? "off" : random.chance(0.5) ? "on" : "require";
    const peer = new Peer(volume, { borrows, tls });
    const bytes = this.#sessions.of(seed, random);
    const piece = random.chance(0.7) ? Infinity : 1 + random.below(5000);
    const run = new Run(peer, bytes, piece, random);
    const end = () => this.#end(run, volume);
    if (!run.goOn()) return run.finish().then(end);
    return void end();
  }

  #end(run: Run, volume: FuzzVolume): void {
    const { peer: { session, warnings, queuedBytesMax }, output, bytes } = run;
    const report = this.#report;
    report.bytes += bytes.length;
    if (session.isClosed) report.ended++;
    if (!session.isHandshaking) report.transmitting++;
    const failure = warnings.find((warning) => /failure/.test(warning));
    if (failure !== undefined) throw new Error(failure);
    if (queuedBytesMax > defaultLimits.connectionBytes + 2 * outputBufferBytes) {
      throw new Error(`${queuedBytesMax} bytes were held for sending`);
    }
    session.ended();
    run.drain();
    output.end();
    report.messages += output.messages;
    if (!session.isClosed || session.requestsInFlight !== 0 || volume.underWay !== 0) {
      throw new Error("the session did not come to an end");
    }
    session.returnBuffers();
    if (volume.lent.size > 0) throw new Error("the session kept a buffer of the volume");
  }
}

/** One session in the middle of it. */
class Run {
  readonly peer: Peer;
  readonly bytes: Uint8Array;
  readonly output = new OutputCheck();
  readonly #piece: number;
  readonly #random: SeededRandom;
  #at = 0;
  #waits = 0;

  constructor(peer: Peer, bytes: Uint8Array, piece: number, random: SeededRandom) {
    this.peer = peer;
    this.bytes = bytes;
    this.#piece = piece;
    this.#random = random;
  }

  /** Takes and checks what the session wants to send; TLS, where it is agreed, is a change of nothing here. */
  drain(): void {
    const { session } = this.peer;
    for (let bytes = session.output(); bytes !== null; bytes = session.output()) {
      this.output.take(bytes);
      session.sent(bytes.length);
    }
    if (session.tlsReply === null) return;
    this.output.take(session.tlsReply);
    session.tlsStarted();
  }

  /** Feeds and drains, in pieces; true when all is taken or the session ended, and nothing is under way. */
  goOn(): boolean {
    const { session } = this.peer;
    const { bytes } = this;
    while (this.#at < bytes.length && !session.isEnding) {
      this.#at += this.peer.feed(bytes.subarray(this.#at, this.#at + this.#piece), this.#piece);
      if (this.#random.chance(0.5) || !session.wantsInput) this.drain();
      if (!session.wantsInput && !session.isEnding) return false;
      if (++this.#waits > turnsMax + 2 * bytes.length) {
        throw new Error("the session takes no more and does not end");
      }
    }
    this.drain();
    return session.requestsInFlight === 0;
  }

  /** The same with waits for the volume. */
  async finish(): Promise<void> {
    for (let waits = 0; !this.goOn(); waits++) {
      await null;
      if (waits > turnsMax + 2 * this.bytes.length) throw new Error("requests stay under way");
    }
  }
}
