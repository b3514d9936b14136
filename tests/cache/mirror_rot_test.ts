// Why: of what one leg has wrongly nothing may be noticed, and check must name it; both were found by `deno task every-bit`.
import { checkCache } from "../../src/cache/check.ts";
import { formatDevices } from "../../src/cache/format.ts";
import { openCache } from "../../src/cache/open.ts";
import { decodeRecord } from "../../src/log/codec.ts";
import { halfBytes, legMarkOffsets } from "../../src/log/layout.ts";
import { SeededRandom } from "../../src/random.ts";
import { blockBytes, mib } from "../../src/units.ts";
import { assert, assertEquals } from "../assert.ts";
import { FakeClock } from "../nbd/fake_clock.ts";
import { FaultyDevice, logOffset } from "./fault_devices.ts";

const size = 2 * mib;

class Legs {
  readonly legs = [new FaultyDevice("leg-a", size), new FaultyDevice("leg-b", size)] as const;
  readonly backing = new FaultyDevice("backing", mib);
  readonly clock = new FakeClock();

  async format(): Promise<this> {
    const [cache, mirror] = this.legs;
    await formatDevices(cache, this.backing, {
      mirror,
      segmentBlocks: 32,
      clock: this.clock,
      random: new SeededRandom(1).fill,
    });
    return this;
  }

  open(legs: readonly [FaultyDevice, FaultyDevice] = this.legs) {
    const [cache, mirror] = legs;
    return openCache({
      cache,
      mirror,
      backing: this.backing,
      clock: this.clock,
      random: new SeededRandom(2).fill,
      tunables: { writeback: "off" },
    });
  }
}

for (const rotten of [0, 1]) {
  Deno.test(`openCache: the newest flushed record, whose copy of the entries before rotted on leg ${rotten}, is taken from the other`, async () => {
    const pair = await new Legs().format();
    const cache = await pair.open();
    for (const byte of [1, 2]) {
      await cache.write(0, new Uint8Array(blockBytes).fill(byte));
      await cache.flush();
    }
    // The power goes before anything says that the second flush was one.
    const after = [pair.legs[0].copy(), pair.legs[1].copy()] as const;
    await cache.close();
    const header = after[rotten]!.bytes.subarray(logOffset + 2 * blockBytes, logOffset + 3 * blockBytes);
    const uuid = after[rotten]!.bytes.slice(16, 32);
    assertEquals(decodeRecord(header.slice(), 2, uuid)?.sequence, 2);
    header[halfBytes + 100]! ^= 1;

    const again = await pair.open(after);
    const bytes = new Uint8Array(blockBytes);
    await again.read(0, bytes);
    assertEquals(bytes[0], 2, "an older version in the place of what was flushed");
    assertEquals([again.recovery.kept, again.recovery.dropped], [1, 0]);
    await again.close();
  });
}

Deno.test("checkCache: a damaged copy of a leg's mark is named", async () => {
  const pair = await new Legs().format();
  await (await pair.open()).close();
  for (const [leg, device] of pair.legs.entries()) {
    for (const [copy, offset] of legMarkOffsets.entries()) {
      const bad = device.copy();
      bad.bytes[offset + 60]! ^= 16;
      const good = pair.legs[1 - leg]!.copy();
      const { problems } = await checkCache({ cache: bad, mirror: good });
      assertEquals(problems.length, 1);
      const [problem] = problems;
      assertEquals([problem!.leg, problem!.offset, problem!.severity], [bad.name, offset, "damage"]);
      assert(problem!.what.includes(`copy ${copy} of the leg's mark`), problem!.what);
      const alone = await checkCache({ cache: bad });
      assertEquals(alone.problems.map(({ what }) => what), [problem!.what]);
    }
  }
});
