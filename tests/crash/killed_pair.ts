/**
 * Pairs of files as a killed server leaves them, and ways to look at them.
 *
 * @module
 */

import { openDevice } from "../../mod.ts";
import { scanCache } from "../../src/cache/scan.ts";
import { SeededRandom } from "../../src/random.ts";
import { blockBytes, fullMask, kib, mib } from "../../src/units.ts";
import { assert, assertEquals } from "../assert.ts";
import { runHere, type Temp } from "../cli/support.ts";
import { ServerChild } from "./server_child.ts";
import { VolumeModel } from "./volume_model.ts";
import { Workload } from "./workload.ts";

/** The last block is short, on purpose. */
export const killedBackingBytes = 24 * mib + 1536;
/** What the client has done at least when its server is killed, in full work. */
const writesMin = 400;
const flushesMin = 12;
/** More than is written before the kill, also on a fast machine: a full log would be written back. */
const cacheBytes = 128 * mib;
const pollMs = 5;

/** A cache and its backing, as paths and as options of the command line. */
export interface PathPair {
  cache: string;
  backing: string;
  pair: string[];
}

function pathPair(cache: string, backing: string): PathPair {
  return { cache, backing, pair: ["--cache", cache, "--backing", backing] };
}

/** Serves a new pair to the verifying client and kills the server. */
export async function makeKilledPair(temp: Temp, seed: number): Promise<PathPair & { model: VolumeModel }> {
  const made = pathPair(temp.join("cache.nbb"), await temp.sparse("disk.img", killedBackingBytes));
  const formatted = await runHere(
    "format",
    ...made.pair,
    "--cache-size",
    `${cacheBytes}`,
    "--segment-size",
    `${128 * kib}`,
  );
  assertEquals(formatted.code, 0, formatted.err);
  const model = new VolumeModel(killedBackingBytes);
  const uri = `nbd+unix:///?socket=${temp.join("killed")}`;
  const server = await ServerChild.start([...made.pair, "--listen", uri, "--set", "writeback=off"]);
  try {
    const workload = await Workload.connect(uri, model, new SeededRandom(seed));
    try {
      const working = workload.run();
      working.catch(() => {});
      const { counts } = workload;
      while (!workload.stopping && (counts.writes < writesMin || counts.flushes < flushesMin)) {
        await new Promise((resolve) => setTimeout(resolve, pollMs));
      }
      await server.kill();
      await working;
    } finally {
      workload.close();
    }
  } finally {
    await server.kill();
  }
  return { ...made, model };
}

/** Copies both files to names of their own. */
export async function copyPair(temp: Temp, source: PathPair, name: string): Promise<PathPair> {
  const copy = pathPair(temp.join(`${name}.nbb`), temp.join(`${name}.img`));
  await Deno.copyFile(source.cache, copy.cache);
  await Deno.copyFile(source.backing, copy.backing);
  return copy;
}

/** What a server shows of a pair, which it changes: use a copy. Fails when that is not what the model allows. */
export async function served(temp: Temp, copy: PathPair, model: VolumeModel): Promise<Uint8Array> {
  const uri = `nbd+unix:///?socket=${temp.join("served")}`;
  // A copy is another file than the one that the cache belongs to.
  const server = await ServerChild.start([...copy.pair, "--listen", uri, "--accept-changed-backing"]);
  try {
    const workload = await Workload.connect(uri, model, new SeededRandom(1));
    const shown = await workload.readAll();
    workload.close();
    assertEquals(model.restart(shown), []);
    return shown;
  } finally {
    await server.kill();
  }
}

/** The SHA-256 of both files. */
export async function hashPair({ cache, backing }: PathPair): Promise<string[]> {
  return await Promise.all([cache, backing].map(async (path) => {
    const digest = await crypto.subtle.digest("SHA-256", await Deno.readFile(path));
    return new Uint8Array(digest).toHex();
  }));
}

/** A place in the log, before the durable mark, that holds a whole block for which `isWanted`. */
export async function findDirtyBlock(
  cache: string,
  isWanted: (block: number) => boolean,
): Promise<{ block: number; offset: number }> {
  const device = await openDevice(cache, { write: false });
  try {
    const { records, versions: { kernels }, walk, superblock } = await scanCache(device);
    for (const { slot: header, dataCount, sequence } of records) {
      if (sequence > walk.mark) break;
      for (let slot = header + 1; slot <= header + dataCount; slot++) {
        const block = kernels.reverse[slot]!;
        if (kernels.indexGet(block) !== slot || !kernels.dirty.test(block)) continue;
        if (kernels.masks[slot] !== fullMask || (block + 1) * blockBytes > killedBackingBytes) continue;
        if (!isWanted(block)) continue;
        return { block, offset: superblock.geometry.logOffset + slot * blockBytes };
      }
    }
  } finally {
    await device.close();
  }
  assert(false, "a killed pair has dirty blocks before the mark");
}

/** Turns one bit of a file over. */
export async function flipBit(path: string, offset: number, bit: number): Promise<void> {
  using file = await Deno.open(path, { read: true, write: true });
  const byte = new Uint8Array(1);
  await file.seek(offset, Deno.SeekMode.Start);
  await file.read(byte);
  byte[0]! ^= 1 << bit;
  await file.seek(offset, Deno.SeekMode.Start);
  await file.write(byte);
}
