// Why: a leg behind a network may go away at any moment, and the other one is to go on without it.
import { formatDevices } from "../../src/cache/format.ts";
import { openCache } from "../../src/cache/open.ts";
import { DeviceError } from "../../src/errors.ts";
import { readLegMark, readLegMarkCopies } from "../../src/log/leg_mark.ts";
import { SeededRandom } from "../../src/random.ts";
import { blockBytes, mib } from "../../src/units.ts";
import { assert, assertEquals, assertRejects } from "../assert.ts";
import { FakeClock } from "../nbd/fake_clock.ts";
import { FaultyDevice, logOffset } from "./fault_devices.ts";

const block = (value: number) => new Uint8Array(blockBytes).fill(value);

/** A cache of which leg-b was given up, to be copied to again. */
async function alone() {
  const clock = new FakeClock();
  const [leg, other] = [new FaultyDevice("leg-a", 2 * mib), new FaultyDevice("leg-b", 2 * mib)];
  const backing = new FaultyDevice("backing", mib);
  const random = new SeededRandom(1).fill;
  await formatDevices(leg, backing, { mirror: other, segmentBlocks: 32, clock, random });
  const cache = await openCache({
    ...{ cache: leg, mirror: other, backing, clock, random },
    tunables: { writeback: "off" },
    warn: () => {},
  });
  await cache.write(0, block(1), { fua: true });
  await cache.mirror!.drop("leg-b");
  return { cache, clock, leg, other };
}

// What is written to the piece that is being copied waits for that, and so, with a leg that is away, did every flush: for as long as a
// request to that leg may wait for it to come back, which may be set to an hour.
Deno.test("mirror: a leg that goes away while it is copied to holds up no flush", async () => {
  const { cache, clock, other } = await alone();
  const hangs = Promise.withResolvers<void>();
  let copies = false;
  let isAway = false;
  other.onWrite = (offset) => {
    if (offset < logOffset) return;
    copies = true;
    return hangs.promise;
  };
  Object.assign(other, {
    away: () => isAway ? "its server is gone" : undefined,
    abandon: () => hangs.reject(new DeviceError("ENODEV", "it was abandoned")),
  });
  const passUntil = async (done: () => boolean) => {
    for (let i = 0; i < 1000 && !done(); i++) {
      await new Promise((resolve) => setTimeout(resolve, 1));
      clock.advance(10);
    }
    return done();
  };
  const copying = cache.mirror!.attach(other);
  copying.catch(() => {});
  assert(await passUntil(() => copies), "nothing is copied");
  isAway = true;
  let flushed = false;
  cache.write(0, block(2), { fua: true }).then(() => flushed = true);
  const wentOn = await passUntil(() => flushed);
  hangs.reject(new DeviceError("ENODEV", "the test is over"));
  assert(wentOn, "a flush waits for the leg that is away");
  await assertRejects(() => copying, DeviceError, "gone");
  await cache.close();
});

// Its own mark said that both count, and so then did the other's, durably: after a crash both would have counted, and what was
// flushed without the one that was given up could have been read from it.
Deno.test("mirror: a leg that is given up at the end of the copy to it is not said to count", async () => {
  const { cache, leg, other } = await alone();
  let dropping: Promise<unknown> | undefined;
  other.onSync = async () => {
    const claims = (await readLegMarkCopies(other)).map((mark) => mark?.claim);
    if (claims.every((claim) => claim === "together")) dropping ??= cache.mirror!.drop("leg-b");
  };
  await assertRejects(() => cache.mirror!.attach(other), DeviceError, "given up");
  assert(dropping !== undefined, "it was given up too late");
  await dropping;
  assertEquals((await readLegMark(leg))?.claim, "alone");
  await cache.close();
});
