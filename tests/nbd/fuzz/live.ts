/**
 * Hostile connections against a real server with real caches, while a client in good standing goes on with its work.
 *
 * @module
 */

import { type Cache, formatCache, MemoryDevice, openCache } from "../../../mod.ts";
import type { Io } from "../../../src/io/io.ts";
import { portableIo } from "../../../src/io/portable.ts";
import { serve } from "../../../src/nbd/mod.ts";
import { SeededRandom } from "../../../src/random.ts";
import { Client } from "../client.ts";
import { temporarySocket } from "../temp.ts";
import { optionBytes, pack } from "../wire.ts";
import { HostileSessions } from "./sessions.ts";

const mib = 1024 * 1024;
const backingBytes = 32 * mib;
/** Attackers at once. */
const attackersMax = 32;
/** Time that the victim's requests may take on a busy machine before the server counts as hung. */
const answerMsMax = 30_000;

/** What was done and what it cost. */
export interface LiveReport {
  connections: number;
  bytes: number;
  /** Requests of the client in good standing, all of them answered rightly. */
  victimRequests: number;
  /** Warnings that the operator got. */
  warnings: number;
  /** Descriptors open before and after. */
  descriptors: [before: number, after: number];
  /** Resident memory after a first tenth and at the end. */
  rssMib: [early: number, late: number];
}

/** Open descriptors of this process; 0 where the system does not tell. */
export function openDescriptors(): number {
  try {
    return [...Deno.readDirSync("/proc/self/fd")].length;
  } catch {
    return 0;
  }
}

/** What the runtime opens once, at some connection or other, is no leak. */
export const runtimeDescriptors = 2;

/** Descriptors that an attack left open. */
export function leftOpen({ descriptors: [before, after] }: LiveReport): number {
  return after - before;
}

async function memoryCache(): Promise<Cache> {
  const pair = { cache: new MemoryDevice(16 * mib), backing: new MemoryDevice(backingBytes) };
  await formatCache(pair);
  return await openCache(pair);
}

/** Attacks with `connections` connections, or as long as `more` says; throws when anybody else is harmed. */
export async function fuzzLive(
  seed: number,
  connections: number,
  more: () => boolean = () => true,
  io: Io = portableIo,
): Promise<LiveReport> {
  const before = openDescriptors();
  await using socket = await temporarySocket();
  const [prey, victim] = [await memoryCache(), await memoryCache()];
  const warnings: string[] = [];
  let warned = 0;
  const server = await serve([
    { name: "prey", description: "", readOnly: false, volume: prey },
    { name: "victim", description: "", readOnly: false, volume: victim },
  ], {
    listen: socket.uri,
    io,
    warn: (message) => {
      warned++;
      if (/failure/.test(message)) warnings.push(message);
    },
  });
  const path = `${socket.directory}/s`;
  const sessions = new HostileSessions("prey", backingBytes);
  const report: LiveReport = {
    connections: 0,
    bytes: 0,
    victimRequests: 0,
    warnings: 0,
    descriptors: [before, 0],
    rssMib: [0, 0],
  };
  let attacking = true;
  const working = work(server.uris[0]!.replace("/prey", "/victim"), new SeededRandom(seed), () => attacking);
  working.catch(() => {});
  const attack = async () => {
    while (report.connections < connections && more()) {
      const number = report.connections++;
      const bytes = await attackOnce(path, seed + number, sessions).catch((cause) => {
        throw new Error(`the attack of seed ${seed + number} found no server: ${cause.message}`, { cause });
      });
      report.bytes += bytes;
      if (number === Math.floor(connections / 10)) report.rssMib[0] = rssMib();
    }
  };
  try {
    await Promise.all(Array.from({ length: attackersMax }, attack));
  } finally {
    attacking = false;
    report.victimRequests = await working;
    report.rssMib[1] = rssMib();
    await server.close();
    await Promise.all([prey.close(), victim.close()]);
  }
  report.warnings = warned;
  report.descriptors[1] = openDescriptors();
  if (warnings.length > 0) throw new Error(`the server failed: ${warnings[0]}`);
  if (server.clients !== 0) throw new Error(`${server.clients} connections are left`);
  return report;
}

function rssMib(): number {
  return Math.round(Deno.memoryUsage().rss / mib);
}

/** One hostile connection. Whatever the server does to it is right. */
async function attackOnce(path: string, seed: number, sessions: HostileSessions): Promise<number> {
  const random = new SeededRandom(seed);
  const bytes = shape(seed, random, sessions);
  const connection = await Deno.connect({ transport: "unix", path });
  try {
    const cut = random.chance(0.3) ? random.below(bytes.length + 1) : bytes.length;
    for (let at = 0; at < cut;) {
      const until = random.chance(0.6) ? cut : Math.min(cut, at + 1 + random.below(500));
      at += await connection.write(bytes.subarray(at, until));
    }
    if (random.chance(0.3)) await connection.closeWrite();
    if (random.chance(0.4)) await drainFor(connection, 1 + random.below(10));
    if (random.chance(0.05)) await pause(random.below(50));
  } catch {
    // The server had enough of it.
  }
  try {
    connection.close();
  } catch {
    // The pause for reading closed it.
  }
  return bytes.length;
}

/** Mostly mutated sessions; now and then garbage, a storm of options, or nothing at all. */
function shape(seed: number, random: SeededRandom, sessions: HostileSessions): Uint8Array<ArrayBuffer> {
  const kind = random.below(20);
  if (kind === 0) return new Uint8Array(0);
  if (kind === 1) {
    const garbage = new Uint8Array(random.below(2000));
    random.fill(garbage);
    return garbage;
  }
  if (kind === 2) {
    const option = optionBytes(random.below(12), new Uint8Array(random.below(20)));
    return pack([4, 3], ...Array.from({ length: 200 }, () => option));
  }
  return sessions.of(seed, random);
}

/** Reads for at most so many milliseconds, then closes. */
async function drainFor(connection: Deno.Conn, ms: number): Promise<void> {
  const buffer = new Uint8Array(65_536);
  const timer = setTimeout(() => {
    try {
      connection.close();
    } catch {
      // It is closed.
    }
  }, ms);
  try {
    while (await connection.read(buffer) !== null);
  } finally {
    clearTimeout(timer);
  }
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** A client in good standing: everything that it writes is there. Returns how many requests it made. */
async function work(uri: string, random: SeededRandom, more: () => boolean): Promise<number> {
  const client = await Client.connect(uri, { exportName: "victim", structured: true });
  const model = new Uint8Array(backingBytes);
  let requests = 0;
  const timely = async <T>(request: Promise<T>): Promise<T> => {
    requests++;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const limit = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error("the victim got no answer")), answerMsMax);
    });
    return await Promise.race([request, limit]).finally(() => clearTimeout(timer));
  };
  try {
    while (more()) {
      const at = random.below(backingBytes - 20_000);
      const bytes = new Uint8Array(1 + random.below(20_000));
      random.fill(bytes.subarray(0, 16));
      if (await timely(client.write(at, bytes)) !== 0) throw new Error("the victim's write failed");
      model.set(bytes, at);
      const from = random.below(backingBytes - 20_000);
      const found = await timely(client.read(from, 20_000));
      if (!found.every((byte, i) => byte === model[from + i])) {
        throw new Error("the victim read what it did not write");
      }
      if (random.chance(0.1) && await timely(client.flush()) !== 0) {
        throw new Error("the victim's flush failed");
      }
      await pause(1);
    }
    await client.disconnect();
  } catch (error) {
    client.close();
    throw error;
  }
  return requests;
}
