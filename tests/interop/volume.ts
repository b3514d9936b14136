/**
 * What the real clients are tested against: the real cache, in front of a sparse backing file, with a log so small that
 * it laps. One place, so that all of interop runs against the same thing.
 *
 * @module
 */

import { formatCache, openCache, openDevice } from "../../mod.ts";
import type { Volume } from "../../src/cache/volume.ts";
import type { Io } from "../../src/io/io.ts";

/** Small enough that a test of some MiB fills it. */
const cacheBytes = 16 * 1024 * 1024;

/** A volume, and how to get rid of it. */
export interface TestVolume extends AsyncDisposable {
  volume: Volume;
}

/** Makes an empty volume of `sizeBytes`. */
export async function makeVolume(sizeBytes: number, io: Io): Promise<TestVolume> {
  const directory = await Deno.makeTempDir({ prefix: "nbdboost-interop-" });
  const [cachePath, backing] = [`${directory}/cache`, `${directory}/backing`];
  await Deno.writeFile(backing, new Uint8Array());
  await Deno.truncate(backing, sizeBytes);
  await formatCache({ cache: cachePath, cacheSize: cacheBytes, backing });
  const cache = await openCache({
    cache: await openDevice(cachePath, { write: true, io, direct: true }),
    backing: await openDevice(backing, { write: true, io }),
  });
  return {
    volume: cache,
    async [Symbol.asyncDispose]() {
      await cache.close();
      await Deno.remove(directory, { recursive: true });
    },
  };
}
