/**
 * Caches that the real module made: recovering them gives, byte for byte, what it showed; and what is damaged is never taken
 * for whole.
 *
 * @module
 */

import { DamageError, RefusedError } from "../../mod.ts";
import {
  checkDmWriteboost,
  type DmWriteboostRecoverOptions,
  inspectDmWriteboost,
  isDmWriteboost,
  recoverDmWriteboost,
} from "../../src/foreign/dm_writeboost.ts";
import { slotBytes, slotOffset } from "../../src/foreign/dm_writeboost_layout.ts";
import { SeededRandom } from "../../src/random.ts";
import { sectorBytes } from "../../src/units.ts";
import { assert, assertEquals, assertRejects } from "../assert.ts";
import { ImageDevice } from "../crash/image_device.ts";
import { damages } from "./damage.ts";
import { type Golden, golden, goldenNames } from "./golden.ts";

const whole = goldenNames.filter((name) => !/^g\d/.test(name));

/** Recovers a case; what the backing device holds afterwards, and the sectors that are listed. */
async function recover(
  { cache, backing }: Pick<Golden, "cache" | "backing">,
  options: Partial<DmWriteboostRecoverOptions> = {},
) {
  const devices = { cache: new ImageDevice("cache", cache), backing: new ImageDevice("backing", backing) };
  const report = await recoverDmWriteboost({ ...devices, ...options }).catch((error) => {
    assertEquals(devices.backing.changes, 0, "something was written before it failed");
    throw error;
  });
  assertEquals(devices.cache.changes, 0);
  const listed = new Set<number>();
  for (const { offset, length } of [...report.lostRanges, ...report.tornRanges, ...report.suspectRanges]) {
    for (let at = offset; at < offset + length; at += sectorBytes) listed.add(at / sectorBytes);
  }
  return { report, listed, bytes: devices.backing.bytes };
}

/** Sectors in which two images differ. */
function differing(a: Uint8Array, b: Uint8Array): number[] {
  const found: number[] = [];
  const [words, others] = [a, b].map((bytes) =>
    new BigUint64Array(bytes.buffer, bytes.byteOffset, bytes.length / 8)
  );
  for (let i = 0; i < words!.length; i++) {
    if (words![i] === others![i]) continue;
    found.push(i >> 6);
    i |= 63;
  }
  return found;
}

for (const name of whole) {
  Deno.test(`recoverDmWriteboost: ${name}: the backing device becomes what the module showed`, async () => {
    const { cache, backing, expected } = golden(name);
    const { bytes, report } = await recover({ cache, backing });
    assertEquals(differing(bytes, expected), []);
    assertEquals([report.lostBlocks, report.problems, report.wrote], [0, [], "backing"]);
    // Once more changes nothing, and a dry run writes nothing.
    assertEquals(differing((await recover({ cache, backing: bytes })).bytes, expected), []);
    const dry = await recover({ cache, backing }, { dryRun: true });
    assertEquals([dry.report.wrote, differing(dry.bytes, backing)], ["nothing", []]);
    const devices = { cache: new ImageDevice("cache", cache), backing: new ImageDevice("backing", backing) };
    assertEquals((await checkDmWriteboost(devices)).problems, []);
  });
}

Deno.test("recoverDmWriteboost: g01, the newest segment torn: it is left out, and what it claims is told", async () => {
  const { bytes, listed, report } = await recover(golden("g01-torn-newest"));
  const wrong = differing(bytes, golden("g01-torn-newest").expected);
  assertEquals([report.newestSegment, report.problems, wrong.length], [3, [], 328]);
  assert(wrong.every((sector) => listed.has(sector)));
});

Deno.test("recoverDmWriteboost: g04, the oldest slot torn by the next write: nothing is lost, unlike with the module", async () => {
  const { cache, backing, expected } = golden("g04-torn-oldhdr-lap");
  const { bytes, report } = await recover({ cache, backing });
  assertEquals([differing(bytes, expected), report.problems], [[], []]);
});

Deno.test("recoverDmWriteboost: g08, a flipped bit: refused; when accepted only that segment is lost", async () => {
  const { cache, backing, expected } = golden("g08-flip-old");
  await assertRejects(() => recover({ cache, backing }), DamageError, "segment 8");
  const { bytes, listed, report } = await recover({ cache, backing }, { acceptLoss: true });
  const wrong = differing(bytes, expected);
  assert(wrong.length > 0 && wrong.every((sector) => listed.has(sector)));
  assertEquals([report.usedSegments, report.lostBlocks], [11, 89]);
});

Deno.test("recoverDmWriteboost: g16, truncated in its first lap: what is left is right, and the danger is told", async () => {
  const { cache, backing } = golden("g16-trunc5M");
  const { report } = await recover({ cache, backing });
  assertEquals(report.newestSegment, 8);
  assert(report.notes.some((note) => note.includes("truncated")));
});

Deno.test("recoverDmWriteboost: g21, the magic zeroed: refused with the way on; assumed, all of it is there", async () => {
  const { cache, backing, expected } = golden("g21-magic0");
  await assertRejects(() => recover({ cache, backing }), RefusedError, "--assume-dm-writeboost");
  await assertRejects(
    () => isDmWriteboost(new ImageDevice("cache", cache)),
    RefusedError,
    "--assume-dm-writeboost",
  );
  const { bytes } = await recover({ cache, backing }, { assumeDmWriteboost: true });
  assertEquals(differing(bytes, expected), []);
});

Deno.test("recoverDmWriteboost: a log that lapped on a shorter device is read as it was written", async () => {
  const { cache, backing, expected } = golden("b-laps");
  const grown = new Uint8Array(cache.length + 3 * slotBytes);
  grown.set(cache);
  const { bytes, report } = await recover({ cache: grown, backing });
  assertEquals([differing(bytes, expected), report.segments], [[], 6]);
  // Its last slot is gone, and with it what told how long the log was: nothing fits.
  await assertRejects(
    () => recover({ cache: cache.slice(0, slotOffset(5)), backing }),
    RefusedError,
    "truncated",
  );
});

Deno.test("recoverDmWriteboost: a backing device that is too small is not written to", async () => {
  const { cache, backing } = golden("a-clean");
  await assertRejects(
    () => recover({ cache, backing: backing.slice(0, 4 << 20) }),
    DamageError,
    "behind the end",
  );
});

Deno.test("recoverDmWriteboost: a backing device that is another one is noticed by the clean copies", async () => {
  const { cache, backing } = golden("e-readcache");
  const other = backing.slice();
  new SeededRandom(1).fill(other);
  await assertRejects(() => recover({ cache, backing: other }), DamageError, "is backing the right device");
});

Deno.test("inspectDmWriteboost: tells the geometry and lists the segments", async () => {
  const { cache } = golden("f-sbrecord");
  const report = await inspectDmWriteboost({ cache: new ImageDevice("cache", cache) });
  assertEquals([report.format, report.segments, report.newestSegment, report.lastWriteback], [
    "dm-writeboost",
    14,
    15,
    4,
  ]);
  assertEquals(report.recordList.map(({ id }) => id), [15, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]);
  assert(report.recordList.every((segment) => segment.whole));
});

// The bases differ in what they have: laps, partial blocks, clean copies, a mark of what is written back.
for (const name of whole.filter((name) => name !== "a2-clean64")) {
  Deno.test(`recoverDmWriteboost: ${name}, damaged in every way: nothing silently wrong`, async () => {
    const { cache, backing, expected } = golden(name);
    const ids = await inspectDmWriteboost({ cache: new ImageDevice("cache", cache) });
    const newest = ids.newestSegment;
    for (const [damageName, damage] of Object.entries(damages)) {
      const random = new SeededRandom(damageName.length * 31 + newest);
      const { image, id, unmarked } = damage({ image: cache.slice(), random });
      const assume = unmarked ? { assumeDmWriteboost: true } : {};
      for (const acceptLoss of [false, true]) {
        const result = await recover({ cache: image, backing }, { acceptLoss, ...assume }).catch((error) => {
          assert(error instanceof DamageError || error instanceof RefusedError, `${damageName}: ${error}`);
          assert(!acceptLoss || error instanceof RefusedError, `${damageName}: ${error}`);
        });
        // The newest, and in a lapped log the oldest, may look like a write that was under way.
        if (!result || id === newest || id === newest + 1 - ids.segments) continue;
        const silent = differing(result.bytes, expected).filter((sector) => !result.listed.has(sector));
        assertEquals(silent, [], `${damageName} of segment ${id}, accepted: ${acceptLoss}`);
      }
    }
  });
}
