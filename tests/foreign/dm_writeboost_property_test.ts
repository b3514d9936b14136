/**
 * Caches by the thousand, written by the rules of the module, whole, torn and damaged: recovering them gives what the module
 * would have shown, or says what it does not give, and never puts older data over newer.
 *
 * @module
 */

import fc from "../property.ts";
import { DamageError, RefusedError } from "../../mod.ts";
import { recoverDmWriteboost } from "../../src/foreign/dm_writeboost.ts";
import { slotOffset } from "../../src/foreign/dm_writeboost_layout.ts";
import { SeededRandom } from "../../src/random.ts";
import { sectorBytes } from "../../src/units.ts";
import { assert, assertEquals } from "../assert.ts";
import { ImageDevice } from "../crash/image_device.ts";
import { damages, nextSlotOf, truncate } from "./damage.ts";
import { CacheWriter, imageOf, tagsOf } from "./writer.ts";

/** Caches for each damage. */
const runs = Number(Deno.env.get("NBDBOOST_FOREIGN_RUNS") ?? (Deno.env.get("CI") === "true" ? 60 : 15));

/** A cache after some laps or less, with some of it written back. */
function drawCache(seed: number): CacheWriter {
  const random = new SeededRandom(seed);
  const writer = new CacheWriter(2 + random.below(4), random);
  const count = 1 + random.below(3 * writer.slotCount);
  for (let i = 0; i < count; i++) {
    writer.append();
    if (random.chance(0.2)) writer.writeBack(random.below(writer.newest + 1));
  }
  if (random.chance(0.4)) writer.record(random.below(writer.writtenBack + 1));
  return writer;
}

/** Recovers; the tags of the backing device afterwards, and the sectors that are listed. */
async function recover(
  writer: CacheWriter,
  image: Uint8Array,
  options: { acceptLoss: boolean; assumeDmWriteboost?: boolean },
) {
  const cache = new ImageDevice("cache", image);
  const backing = new ImageDevice("backing", imageOf(writer.backing));
  const report = await recoverDmWriteboost({ cache, backing, ...options }).catch((error) => {
    assertEquals(backing.changes, 0, "something was written before it failed");
    throw error;
  });
  assertEquals(cache.changes, 0, "the cache device was written to");
  for (const { offset, length } of report.suspectRanges) {
    assert(
      offset + length <= backing.bytes.length,
      `suspect ${offset} + ${length} is behind the backing device's end`,
    );
  }
  const listed = new Set<number>();
  for (const { offset, length } of [...report.lostRanges, ...report.tornRanges, ...report.suspectRanges]) {
    for (let at = offset; at < offset + length; at += sectorBytes) listed.add(at / sectorBytes);
  }
  return { report, listed, tags: tagsOf(backing.bytes) };
}

/**
 * Caches that were recovered wrongly once: segments up to the damaged one had been written back; with the last one, a damaged
 * number named a block far behind the backing device's end, and all the space up to there was listed.
 */
const examples: [number][] = [[735321872], [742136346], [2007882245], [696288796], [1629730773]];

const seeds = fc.integer({ min: 0, max: 0x7fff_ffff });

Deno.test("recoverDmWriteboost: a whole cache gives what the module would have shown", async () => {
  await fc.assert(
    fc.asyncProperty(seeds, async (seed) => {
      const writer = drawCache(seed);
      const { report, tags } = await recover(writer, writer.image, { acceptLoss: false });
      assertEquals(tags, writer.content);
      assertEquals([report.newestSegment, report.lostBlocks, report.problems], [writer.newest, 0, []]);
    }),
    { numRuns: runs, examples },
  );
});

Deno.test("recoverDmWriteboost: a segment torn while it was written loses nothing", async () => {
  await fc.assert(
    fc.asyncProperty(seeds, async (seed) => {
      const writer = drawCache(seed);
      writer.makeRoom();
      const { bytes } = writer.make();
      const at = slotOffset(nextSlotOf(writer.newest, writer.slotCount));
      const kept = Array.from({ length: bytes.length / sectorBytes }, () => writer.random.chance(0.5));
      const image = writer.image.slice();
      for (const [i, isKept] of kept.entries()) {
        if (isKept) image.set(bytes.subarray(i * sectorBytes, (i + 1) * sectorBytes), at + i * sectorBytes);
      }
      if (kept.every(Boolean)) return;
      const { tags, report } = await recover(writer, image, { acceptLoss: false });
      // Sectors that happen to be the same, or not to count, may make it whole all the same.
      if (report.newestSegment === writer.newest) assertEquals(tags, writer.content);
      else assertEquals(report.newestSegment, writer.newest + 1);
    }),
    { numRuns: runs, examples },
  );
});

for (const [name, damage] of Object.entries(damages)) {
  Deno.test(`recoverDmWriteboost: ${name}: nothing older over newer, and all that is missing is listed`, async () => {
    await fc.assert(
      fc.asyncProperty(seeds, async (seed) => {
        const writer = drawCache(seed);
        const { image, id, unmarked } = damage({ image: writer.image.slice(), random: writer.random });
        if (unmarked) {
          await recover(writer, image, { acceptLoss: true }).then(
            () => assert(false, "it was read without its magic"),
            (error) => assert(error instanceof RefusedError, `${error}`),
          );
        }
        const assume = unmarked ? { assumeDmWriteboost: true } : {};
        for (const acceptLoss of [false, true]) {
          const result = await recover(writer, image, { acceptLoss, ...assume }).catch((error) => {
            assert(
              error instanceof (acceptLoss ? RefusedError : DamageError) || error instanceof RefusedError,
              `${error}`,
            );
          });
          if (!result) continue;
          const { tags, listed } = result;
          // Nobody can tell a newest segment that went bad, but for a single bit, from one that was torn, nor the oldest one
          // of a log that has lapped, as the next one was going there.
          const isNewest = id === writer.newest;
          const isOldest = id === writer.newest + 1 - writer.slotCount;
          for (const [sector, tag] of tags.entries()) {
            // So what is left out with the newest may be on the backing device already, and what is older goes over it.
            const isNewer = tag >= writer.backing[sector]! ||
              (isNewest && tag === writer.contentBefore[sector]);
            assert(isNewer, `sector ${sector}: ${tag} over ${writer.backing[sector]}`);
            const allowed = [writer.content[sector]];
            if (isNewest) allowed.push(writer.contentBefore[sector]);
            if (isOldest) allowed.push(writer.backing[sector]);
            assert(
              allowed.includes(tag) || listed.has(sector),
              `sector ${sector} is ${tag} instead of ${allowed}, and not listed (accepted: ${acceptLoss})`,
            );
          }
        }
      }),
      { numRuns: runs, examples },
    );
  });
}

Deno.test("recoverDmWriteboost: a truncated device is refused, or nothing older goes over newer", async () => {
  await fc.assert(
    fc.asyncProperty(seeds, async (seed) => {
      const writer = drawCache(seed);
      const image = truncate({ image: writer.image, random: writer.random });
      for (const acceptLoss of [false, true]) {
        const result = await recover(writer, image, { acceptLoss }).catch((error) => {
          assert(error instanceof RefusedError || error instanceof DamageError, `${error}`);
        });
        if (!result) continue;
        // In the first lap nothing tells that there was more, nor where the numbers fit the shorter length as well; the
        // latter is pointed out.
        const isLapped = writer.newest > writer.slotCount;
        if (!isLapped || result.report.notes.some((note) => note.includes("truncated"))) continue;
        for (const [sector, tag] of result.tags.entries()) {
          assert(tag >= writer.backing[sector]!, `sector ${sector}: ${tag} over ${writer.backing[sector]}`);
        }
      }
    }),
    { numRuns: runs, examples },
  );
});

Deno.test("recoverDmWriteboost: several damages at once never crash it, and what is refused is left alone", async () => {
  const kinds = Object.values(damages);
  await fc.assert(
    fc.asyncProperty(seeds, async (seed) => {
      const writer = drawCache(seed);
      const { random } = writer;
      let image = writer.image.slice();
      for (let count = 2 + random.below(5); count > 0; count--) {
        // Damage may have left no segment to damage.
        const isUsed = image.subarray(slotOffset(0)).some((byte) => byte !== 0);
        if (isUsed) image = kinds[random.below(kinds.length)]!({ image, random }).image;
      }
      for (const acceptLoss of [false, true]) {
        await recover(writer, image, { acceptLoss, assumeDmWriteboost: random.chance(0.5) }).catch((error) =>
          assert(error instanceof RefusedError || (error instanceof DamageError && !acceptLoss), `${error}`)
        );
      }
    }),
    { numRuns: runs, examples },
  );
});

Deno.test("recoverDmWriteboost: garbage of any size never crashes or hangs it, and never writes", async () => {
  await fc.assert(
    fc.asyncProperty(seeds, async (seed) => {
      const random = new SeededRandom(seed);
      const writer = new CacheWriter(3, random);
      const image = new Uint8Array(512 * (1 + random.below(7000)));
      random.fill(image);
      for (const assumeDmWriteboost of [false, true]) {
        const options = { acceptLoss: true, assumeDmWriteboost };
        const result = await recover(writer, image, options).catch((error) =>
          assert(error instanceof RefusedError, `${error}`)
        );
        if (result) assertEquals(result.tags, writer.backing);
      }
    }),
    { numRuns: Math.min(runs, 20) },
  );
});
