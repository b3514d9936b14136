/**
 * Hostile sessions against the session codec, without sockets: as fast as it gets.
 *
 * @module
 */

import { outputBufferBytes } from "../../../src/nbd/constants.ts";
import { defaultLimits } from "../../../src/nbd/limits.ts";
import { SeededRandom } from "../../../src/random.ts";
import { MemoryVolume } from "../memory_volume.ts";
import { Peer } from "../peer.ts";
import { SessionMaker } from "./sessions.ts";

const sizeBytes = 1 << 16;
/** Turns in which a request of a volume in plain memory has long ended. */
const turnsMax = 1000;

/** What was done. */
export interface CodecReport {
  sessions: number;
  bytes: number;
  /** Sessions that the server ended by itself. */
  ended: number;
}

/** Runs `sessions` hostile sessions; throws when one breaks an invariant, with the seed that repeats it. */
export async function fuzzCodec(
  seed: number,
  sessions: number,
  more: () => boolean = () => true,
): Promise<CodecReport> {
  const report: CodecReport = { sessions: 0, bytes: 0, ended: 0 };
  for (let i = 0; i < sessions && more(); i++) {
    try {
      const { bytes, ended } = await hostileSession(seed + i);
      report.sessions++;
      report.bytes += bytes;
      if (ended) report.ended++;
    } catch (cause) {
      throw new Error(`session seed ${seed + i} broke the codec: ${(cause as Error).message}`, { cause });
    }
  }
  return report;
}

async function hostileSession(seed: number): Promise<{ bytes: number; ended: boolean }> {
  const random = new SeededRandom(seed);
  const volume = new MemoryVolume(sizeBytes, { hot: random.chance(0.5), readOnly: random.chance(0.1) });
  const peer = new Peer(volume);
  const bytes = new SessionMaker(random, "", sizeBytes).hostile();
  const piece = random.chance(0.5) ? Infinity : 1 + random.below(5000);
  await exchange(peer, bytes, piece, random);
  const { session, warnings } = peer;
  const ended = session.isClosed;
  const failure = warnings.find((warning) => /failure/.test(warning));
  if (failure !== undefined) throw new Error(failure);
  if (peer.queuedBytesMax > defaultLimits.connectionBytes + 2 * outputBufferBytes) {
    throw new Error(`${peer.queuedBytesMax} bytes were held for sending`);
  }
  session.ended();
  peer.drain();
  if (!session.isClosed || session.requestsInFlight !== 0 || volume.underWay !== 0) {
    throw new Error("the session did not come to an end");
  }
  return { bytes: bytes.length, ended };
}

/** Feeds and drains, in pieces, until all is taken or the session ended; then lets what is under way finish. */
async function exchange(peer: Peer, bytes: Uint8Array, piece: number, random: SeededRandom): Promise<void> {
  const { session } = peer;
  for (let at = 0, waits = 0; at < bytes.length && !session.isEnding;) {
    at += peer.feed(bytes.subarray(at, at + piece), piece);
    if (random.chance(0.5) || !session.wantsInput) {
      peer.drain();
      peer.received = new Uint8Array();
    }
    if (!session.wantsInput) await null;
    if (++waits > turnsMax + 2 * bytes.length) throw new Error("the session takes no more and does not end");
  }
  for (let waits = 0; session.requestsInFlight > 0; waits++) {
    peer.drain();
    peer.received = new Uint8Array();
    await null;
    if (waits > turnsMax) throw new Error("requests stay under way");
  }
  peer.drain();
}
