/**
 * What needs neither server nor client: the checksum, and the engine on devices that take no time.
 *
 * @module
 */

import { type Cache, formatCache, MemoryDevice, openCache } from "../../mod.ts";
import { SeededRandom } from "../../src/random.ts";
import { blockBytes, mib } from "../../src/units.ts";
import { Kernels } from "../../src/wasm/kernels.ts";
import { median } from "./result.ts";

/** 10^9 bytes of 4 KiB blocks, over 16 blocks in turn, per second of the best tenth of `seconds`. */
export function measureCrc32c(seconds: number): number {
  const kernels = Kernels.create({
    slotCount: 1024,
    backingBlocks: 65536,
    segmentBlocks: 128,
    bufferCount: 4,
    stagingBlocks: 1024,
  });
  const area = kernels.map.buffers;
  new SeededRandom(1).fill(kernels.bytes.subarray(area, area + 16 * blockBytes));
  let sink = 0;
  const turns = 2000;
  // The best slice of ten: a neighbour on the same machine takes from the others.
  let best = 0;
  for (let slice = 0; slice < 10; slice++) {
    const start = performance.now();
    let count = 0;
    let elapsed = 0;
    do {
      for (let turn = 0; turn < turns; turn++) sink ^= kernels.crc32cBlock(area + (turn & 15) * blockBytes);
      count += turns;
      elapsed = performance.now() - start;
    } while (elapsed < seconds * 100);
    best = Math.max(best, count * blockBytes / elapsed / 1e6);
  }
  // The checksums are used, so that none can be left out.
  return sink === 0.5 ? NaN : best;
}

/** Requests of a turn: what a server's buffer holds of 4 KiB writes, and what it looks ahead. */
const turnWrites = 64;

/**
 * Writes a block of `source` at each of `offsets` as the server's hot path does it: some at a time, which are announced first; at once
 * where that is possible; and then promises, in which log writes end here, have their turn.
 */
export async function writeAsServed(cache: Cache, offsets: Float64Array, source: Uint8Array): Promise<void> {
  const ahead = new Float64Array(turnWrites);
  for (let first = 0; first < offsets.length; first += turnWrites) {
    const end = Math.min(first + turnWrites, offsets.length);
    for (let i = first; i < end; i++) ahead[i - first] = offsets[i]!;
    cache.announce(ahead, end - first);
    for (let i = first; i < end; i++) {
      const from = i * blockBytes % source.length;
      if (cache.writeNow(offsets[i]!, source, from, blockBytes)) continue;
      await cache.write(offsets[i]!, source.subarray(from, from + blockBytes));
    }
    await null;
  }
}

/** The log of the ceiling, and how much of it a turn fills: before the log runs full there is nothing to write back. */
const ceilingLogBytes = 512 * mib;
const ceilingTurnBytes = 384 * mib;
const ceilingBackingBytes = 256 * mib;

/**
 * Random 4 KiB writes into a cache whose devices are RAM, one after the other from one thread, in 10^6 bytes per second:
 * index, checksums and log, without kernel and client. Turns with a fresh log until `seconds` are over; the median turn.
 */
export async function measureCeiling(seconds: number): Promise<number> {
  const rates: number[] = [];
  const end = performance.now() + seconds * 1000;
  // The first turn warms the engine up.
  do rates.push(await ceilingTurn()); while (performance.now() < end || rates.length < 2);
  return median(rates.slice(1));
}

async function ceilingTurn(): Promise<number> {
  const [device, backing] = [new MemoryDevice(ceilingLogBytes), new MemoryDevice(ceilingBackingBytes)];
  // RAM that was never written is not there yet: taking it from the kernel is not what is measured.
  const piece = new Uint8Array(mib).fill(1);
  for (let at = 0; at < device.sizeBytes; at += piece.length) await device.write(at, piece);
  await formatCache({ cache: device, backing, force: true });
  const cache = await openCache({ cache: device, backing, tunables: { writeback: "off" } });
  try {
    const random = new SeededRandom(1);
    const blocks = cache.sizeBytes / blockBytes;
    const offsets = Float64Array.from(
      { length: ceilingTurnBytes / blockBytes },
      () => random.below(blocks) * blockBytes,
    );
    // What comes from a client comes into a buffer that the cache lent.
    const source = cache.lendBuffer()!;
    random.fill(source);
    const start = performance.now();
    await writeAsServed(cache, offsets, source);
    await cache.flush();
    const rate = ceilingTurnBytes / (performance.now() - start) / 1000;
    cache.returnBuffer(source);
    return rate;
  } finally {
    await cache.close();
  }
}
