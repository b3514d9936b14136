/**
 * A small cache in front of a large backing takes many times its size in random writes, without an error and without a
 * wrong byte: the log laps, write-back never ends, and writers wait for space.
 *
 * In full (4 GiB of writes through 64 MiB of cache into 1 GiB) in CI or with NBDBOOST_ENDURANCE=1, else a small version of it.
 * The oracle keeps one generation number a sector; a sector's content follows from its number and its generation.
 *
 * @module
 */

import { type Cache, openCache, openDevice } from "../../mod.ts";
import { createFile } from "../../src/device/create.ts";
import { formatCache } from "../../src/cache/format.ts";
import { SeededRandom } from "../../src/random.ts";
import { blockBytes, formatSize, gib, kib, mib, sectorBytes } from "../../src/units.ts";
import { assert, assertEquals } from "../assert.ts";
import { withDirectory } from "../device/temp.ts";

const full = Deno.env.get("CI") === "true" || Deno.env.get("NBDBOOST_ENDURANCE") === "1";
const cacheBytes = full ? 64 * mib : 16 * mib;
const backingBytes = full ? gib : 256 * mib;
const writtenBytes = full ? 4 * gib : 256 * mib;
const sectorCount = backingBytes / sectorBytes;
const wordsPerSector = sectorBytes / 4;
const writeBytesMax = 128 * kib;
/** Writes in flight at a time. */
const depth = 16;
/** A flush after about so many writes. */
const flushEvery = 256;
const readBytes = mib;
const seed = Number(Deno.env.get("NBDBOOST_ENDURANCE_SEED") ?? 4);

/** The volume as it must be. */
class Oracle {
  /** How often each sector has been written. */
  readonly generations = new Uint32Array(sectorCount);
  /** Random words; a sector's content starts at a place that its number and generation choose. */
  readonly #pool = new Int32Array(64 * kib + wordsPerSector);

  constructor(random: SeededRandom) {
    random.fill(new Uint8Array(this.#pool.buffer));
  }

  #contentAt(sector: number, generation: number): number {
    return (Math.imul(sector, 0x9e3779b1) ^ Math.imul(generation, 0x85ebca6b)) >>> 16;
  }

  /** Fills `bytes` with the next generation of the sectors from `sector` on. */
  next(sector: number, bytes: Uint8Array<ArrayBuffer>): void {
    const words = new Int32Array(bytes.buffer);
    for (let at = 0; at < words.length; at += wordsPerSector, sector++) {
      const from = this.#contentAt(sector, ++this.generations[sector]!);
      words.set(this.#pool.subarray(from, from + wordsPerSector), at);
      words[at] = sector;
      words[at + 1] = this.generations[sector]!;
    }
  }

  /** The first sector of `bytes`, read from `sector` on, that is not as it must be. */
  difference(sector: number, bytes: Uint8Array<ArrayBuffer>): string | undefined {
    const words = new Int32Array(bytes.buffer);
    for (let at = 0; at < words.length; at += wordsPerSector, sector++) {
      const generation = this.generations[sector]!;
      const from = this.#contentAt(sector, generation);
      for (let i = 0; i < wordsPerSector; i++) {
        const word = generation === 0 ? 0 : i === 0 ? sector : i === 1 ? generation : this.#pool[from + i]!;
        if (words[at + i] === word) continue;
        return `sector ${sector} has generation ${words[at + 1]} of sector ${
          words[at]
        }, and should have ${generation}`;
      }
    }
    return undefined;
  }
}

/** Where and how much: mostly whole blocks, some single sectors, some large. */
function choose(random: SeededRandom): { sector: number; count: number } {
  const kind = random.below(10);
  const perBlock = blockBytes / sectorBytes;
  if (kind === 0) {
    const count = 1 + random.below(12);
    return { sector: random.below(sectorCount - count), count };
  }
  const blocks = kind === 9 ? 1 + random.below(writeBytesMax / blockBytes) : 1 + random.below(8);
  const blockCount = sectorCount / perBlock;
  return { sector: random.below(blockCount - blocks) * perBlock, count: blocks * perBlock };
}

async function writeAll(cache: Cache, oracle: Oracle, random: SeededRandom): Promise<number> {
  let left = writtenBytes;
  let flushes = 0;
  const busy = new Set<{ first: number; last: number }>();
  const work = async () => {
    while (left > 0) {
      const { sector, count } = choose(random);
      let clash = false;
      for (const { first, last } of busy) clash ||= first < sector + count && sector <= last;
      if (clash) continue;
      const bytes = new Uint8Array(count * sectorBytes);
      oracle.next(sector, bytes);
      left -= bytes.length;
      if (!cache.writeNow(sector * sectorBytes, bytes, 0, bytes.length)) {
        const range = { first: sector, last: sector + count - 1 };
        busy.add(range);
        await cache.write(sector * sectorBytes, bytes);
        busy.delete(range);
      }
      if (random.below(flushEvery) === 0) {
        flushes++;
        await cache.flush();
      }
    }
  };
  await Promise.all(Array.from({ length: depth }, work));
  return flushes;
}

async function verify(
  read: (offset: number, into: Uint8Array<ArrayBuffer>) => Promise<void>,
  oracle: Oracle,
) {
  const bytes = new Uint8Array(readBytes);
  for (let offset = 0; offset < backingBytes; offset += bytes.length) {
    await read(offset, bytes);
    assertEquals(oracle.difference(offset / sectorBytes, bytes), undefined);
  }
}

Deno.test(`Cache: ${formatSize(cacheBytes)} in front of ${formatSize(backingBytes)} take ${formatSize(writtenBytes)}`, async () => {
  await withDirectory(async (directory) => {
    const [cachePath, backingPath] = [`${directory}/cache`, `${directory}/backing`];
    await Deno.writeFile(backingPath, new Uint8Array(0));
    await Deno.truncate(backingPath, backingBytes);
    await createFile(cachePath, cacheBytes, {});
    await formatCache({ cache: cachePath, backing: backingPath });
    const random = new SeededRandom(seed);
    const oracle = new Oracle(random);
    const warnings: string[] = [];
    const started = performance.now();
    const cache = await openCache({
      cache: await openDevice(cachePath, { write: true }),
      backing: await openDevice(backingPath, { write: true }),
      warn: (message) => warnings.push(message),
    });
    const flushes = await writeAll(cache, oracle, random);
    const written = performance.now();
    const { log, writeback, requests } = cache.status();
    await verify((offset, into) => cache.read(offset, into), oracle);
    await cache.drain();
    assertEquals(cache.status().cache.dirtyBlocks, 0);
    await cache.close();
    assertEquals(warnings, []);
    assertEquals(requests.error, 0);

    const backing = await openDevice(backingPath, { write: false });
    await verify((offset, into) => backing.read(offset, into), oracle);
    await backing.close();
    const seconds = (written - started) / 1000;
    console.log(
      `endurance: seed ${seed}, ${formatSize(writtenBytes)} written in ${seconds.toFixed(1)} s ` +
        `(${(writtenBytes / mib / seconds).toFixed(0)} MiB/s), ${flushes} flushes, ${log.records} records, ` +
        `${writeback.requests} write-back requests of ${
          writeback.blocksPerRequest.toFixed(1)
        } blocks; verified twice in ` +
        `${((performance.now() - written) / 1000).toFixed(1)} s`,
    );
    assert(log.records > 0);
  });
});
