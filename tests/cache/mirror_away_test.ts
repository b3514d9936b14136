// Why: a leg behind a network may go away at any moment, and the other one is to go on without it.
import { formatDevices } from "../../src/cache/format.ts";
import { openCache } from "../../src/cache/open.ts";
import { DeviceError } from "../../src/errors.ts";
import { SeededRandom } from "../../src/random.ts";
import { blockBytes, mib } from "../../src/units.ts";
import { assert, assertRejects } from "../assert.ts";
import { FakeClock } from "../nbd/fake_clock.ts";
import { FaultyDevice, logOffset } from "./fault_devices.ts";

// What is written to the piece that is being copied waits for that, and so, with a leg that is away, did every flush: for as long as a
// request to that leg may wait for it to come back, which may be set to an hour.
Deno.test("mirror: a leg that goes away while it is copied to holds up no flush", async () => {
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
  await cache.write(0, new Uint8Array(blockBytes).fill(1), { fua: true });
  await cache.mirror!.drop("leg-b");
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
  cache.write(0, new Uint8Array(blockBytes).fill(2), { fua: true }).then(() => flushed = true);
  const wentOn = await passUntil(() => flushed);
  hangs.reject(new DeviceError("ENODEV", "the test is over"));
  assert(wentOn, "a flush waits for the leg that is away");
  await assertRejects(() => copying, DeviceError, "gone");
  await cache.close();
});
