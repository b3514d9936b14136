// Why: a mirrored cache must lose nothing that was flushed with either of its legs, and must know a stale one.
import { type Cache } from "../../src/cache/cache.ts";
import { formatDevices } from "../../src/cache/format.ts";
import { type EngineOptions, openCache } from "../../src/cache/open.ts";
import { planRewind, rewindCache } from "../../src/cache/rewind.ts";
import { DeviceError, RefusedError } from "../../src/errors.ts";
import { readLegMark } from "../../src/log/leg_mark.ts";
import { checkpointOffset, legMarkOffsets, superblockOffsets } from "../../src/log/layout.ts";
import { SeededRandom } from "../../src/random.ts";
import { blockBytes, mib } from "../../src/units.ts";
import { assert, assertEquals, assertRejects } from "../assert.ts";
import { FakeClock } from "../nbd/fake_clock.ts";
import { FaultyDevice, logOffset } from "./fault_devices.ts";

const cacheBytes = 2 * mib;
const segmentBlocks = 32;

/** Two legs and a backing device that outlive the caches over them. */
class Pair {
  a = new FaultyDevice("leg-a", cacheBytes);
  b = new FaultyDevice("leg-b", cacheBytes);
  readonly backing = new FaultyDevice("backing", mib);
  readonly clock = new FakeClock();
  readonly warnings: string[] = [];

  async format(): Promise<this> {
    await formatDevices(this.a, this.backing, {
      mirror: this.b,
      segmentBlocks,
      clock: this.clock,
      random: new SeededRandom(1).fill,
    });
    return this;
  }

  open(options: Partial<EngineOptions> = {}): Promise<Cache> {
    this.a.heal();
    this.b.heal();
    return openCache({
      cache: this.a,
      mirror: this.b,
      backing: this.backing,
      clock: this.clock,
      random: new SeededRandom(this.warnings.length + 7).fill,
      tunables: { writeback: "off" },
      warn: (message) => this.warnings.push(message),
      bufferCount: 4,
      ...options,
    });
  }

  /** Opens one leg, with nobody beside it. */
  alone(leg: FaultyDevice, options: Partial<EngineOptions> = {}): Promise<Cache> {
    const { mirror: _, ...rest } = { mirror: undefined, ...options };
    leg.heal();
    return openCache({
      cache: leg,
      backing: this.backing,
      clock: this.clock,
      tunables: { writeback: "off" },
      warn: (message) => this.warnings.push(message),
      bufferCount: 4,
      ...rest,
    });
  }

  /** Both legs as they are now, as after a crash. */
  crash(): void {
    this.a = this.a.copy();
    this.b = this.b.copy();
  }
}

const block = (byte: number) => new Uint8Array(blockBytes).fill(byte);

async function read(cache: Cache, number: number): Promise<number> {
  const bytes = new Uint8Array(blockBytes);
  await cache.read(number * blockBytes, bytes);
  assert(bytes.every((byte) => byte === bytes[0]), "a block is of one write");
  return bytes[0]!;
}

function fail(device: FaultyDevice, ...what: ("read" | "write" | "sync")[]): void {
  const error = () => {
    throw new DeviceError("EIO", `${device.name} is broken`);
  };
  if (what.includes("read")) device.onRead = error;
  if (what.includes("write")) device.onWrite = error;
  if (what.includes("sync")) device.onSync = error;
}

async function claims(pair: Pair): Promise<(string | undefined)[]> {
  return [(await readLegMark(pair.a))?.claim, (await readLegMark(pair.b))?.claim];
}

Deno.test("mirror: either leg alone has what was flushed", async () => {
  for (const lost of ["a", "b"] as const) {
    const pair = await new Pair().format();
    const cache = await pair.open();
    await cache.write(0, block(1));
    await cache.flush();
    pair.crash();
    const leg = lost === "a" ? pair.b : pair.a;
    const again = await pair.alone(leg, { acceptMissingMirror: true });
    assertEquals(await read(again, 0), 1);
    assertEquals(again.status().state, "degraded");
    await again.close();
  }
});

Deno.test("mirror: a leg that may lack something is opened alone only when that is accepted", async () => {
  const pair = await new Pair().format();
  await (await pair.open()).close();
  await assertRejects(() => pair.alone(pair.a), RefusedError, "--accept-missing-mirror");
  // The other is known to be out of service, so nothing can be missing.
  const cache = await pair.open();
  fail(pair.b, "write");
  await cache.write(0, block(1), { fua: true });
  await cache.close();
  await (await pair.alone(pair.a)).close();
});

for (const what of ["write", "sync"] as const) {
  for (const lost of ["a", "b"] as const) {
    Deno.test(`mirror: a leg whose ${what} fails is dropped, leg ${lost}, and the other says so before a flush is answered`, async () => {
      const pair = await new Pair().format();
      const cache = await pair.open();
      await cache.write(0, block(1), { fua: true });
      fail(pair[lost], what);
      const [good, bad] = lost === "a" ? [pair.b, pair.a] : [pair.a, pair.b];
      await cache.write(0, block(2));
      await cache.flush();
      assertEquals((await readLegMark(good))!.claim, "alone");
      bad.heal();
      assertEquals((await readLegMark(bad))!.claim, "together");
      const { mirror, state } = cache.status();
      assertEquals([mirror!.whole, state], [false, "degraded"]);
      assertEquals(mirror!.legs.map(({ path, state }) => [path, state]), [
        [good.name, "in service"],
        [bad.name, "missing"],
      ]);
      assert(pair.warnings.some((message) => message.includes(`${bad.name} of the mirror is dropped`)));
      await cache.write(0, block(3), { fua: true });
      pair.crash();
      await assertRejects(() => pair.open(), RefusedError, "--resync-mirror");
      const again = await pair.alone(lost === "a" ? pair.b : pair.a);
      assertEquals(await read(again, 0), 3);
      await again.close();
    });
  }
}

Deno.test("mirror: a flush is not answered while the mark of the leg that is left is not durable", async () => {
  const pair = await new Pair().format();
  const cache = await pair.open();
  fail(pair.b, "write");
  let letGo = () => {};
  const held = new Promise<void>((resolve) => letGo = resolve);
  pair.a.onWrite = (offset) => legMarkOffsets.some((mark) => mark === offset) ? held : undefined;
  let answered = false;
  const write = cache.write(0, block(1), { fua: true }).then(() => answered = true);
  for (let i = 0; i < 200; i++) await null;
  assert(!answered);
  letGo();
  await write;
  assertEquals(await claims(pair), ["alone", "together"]);
  await cache.close();
});

Deno.test("mirror: when the last leg fails, too, the log is poisoned", async () => {
  const pair = await new Pair().format();
  const cache = await pair.open();
  await cache.write(0, block(1), { fua: true });
  fail(pair.a, "write");
  await cache.write(0, block(2), { fua: true });
  fail(pair.b, "sync");
  await assertRejects(() => cache.write(0, block(3), { fua: true }), DeviceError);
  assertEquals(cache.status().state, "poisoned");
  await assertRejects(() => cache.flush(), DeviceError);
  await cache.close().catch(() => {});
  assertEquals((await readLegMark(pair.b))!.claim, "alone");
});

Deno.test("mirror: two legs that were each written without the other are refused", async () => {
  const pair = await new Pair().format();
  await (await pair.open()).close();
  for (const leg of [pair.a, pair.b]) {
    const cache = await pair.alone(leg, { acceptMissingMirror: true });
    await cache.write(0, block(9), { fua: true });
    await cache.close();
  }
  await assertRejects(
    () => pair.open({ resyncMirror: true }),
    RefusedError,
    "each was written without the other",
  );
});

Deno.test("mirror: a leg of another cache, the same leg twice, and a plain cache are refused", async () => {
  const pair = await new Pair().format();
  const other = await new Pair().format();
  // The seed is the same, so the names are: only the uuid tells.
  const strange = await new Pair();
  await formatDevices(strange.a, strange.backing, {
    mirror: strange.b,
    segmentBlocks,
    random: new SeededRandom(2).fill,
  });
  await assertRejects(() => pair.open({ mirror: strange.b }), RefusedError, "different caches");
  await assertRejects(() => pair.open({ mirror: pair.a.copy() }), RefusedError, "the same leg");
  await formatDevices(other.a, other.backing, { segmentBlocks });
  await assertRejects(() => pair.open({ mirror: other.a }), RefusedError, "without one");
  const foreign = new FaultyDevice("foreign", cacheBytes);
  foreign.bytes.set(new TextEncoder().encode("XFSB"));
  await assertRejects(
    () => pair.open({ mirror: foreign, resyncMirror: true }),
    RefusedError,
    "an XFS filesystem",
  );
  await assertRejects(
    () =>
      pair.open({ mirror: new FaultyDevice("small", mib), resyncMirror: true, acceptMissingMirror: true }),
    RefusedError,
    "a larger device",
  );
});

Deno.test("mirror: the legs may be named in any order", async () => {
  const pair = await new Pair().format();
  const cache = await pair.open({ cache: pair.b, mirror: pair.a });
  await cache.write(0, block(5), { fua: true });
  await cache.close();
  const again = await pair.open();
  assertEquals(await read(again, 0), 5);
  assertEquals(again.recovery.clean, true);
  await again.close();
});

Deno.test("mirror: a stale leg is copied to while the cache is used, and counts then", async () => {
  const pair = await new Pair().format();
  const cache = await pair.open();
  await cache.write(0, block(1), { fua: true });
  fail(pair.b, "write");
  for (let i = 0; i < 60; i++) await cache.write(i * blockBytes, block(i + 10), { fua: i % 7 === 0 });
  await cache.flush();
  pair.b.heal();
  const copying = cache.mirror!.attach(pair.b);
  for (let i = 0; i < 60; i++) await cache.write((i + 60) * blockBytes, block(i + 100), { fua: i % 5 === 0 });
  const { copiedBytes } = await copying;
  assert(copiedBytes >= logOffset);
  assertEquals(await claims(pair), ["together", "together"]);
  assertEquals(cache.status().mirror!.whole, true);
  await cache.write(200 * blockBytes, block(7), { fua: true });
  pair.crash();
  const again = await pair.alone(pair.b, { acceptMissingMirror: true });
  for (let i = 0; i < 60; i++) {
    assertEquals([await read(again, i), await read(again, i + 60)], [i + 10, i + 100]);
  }
  assertEquals(await read(again, 200), 7);
  await again.close();
});

Deno.test("mirror: a new device takes the place of a lost leg, after it was wiped", async () => {
  const pair = await new Pair().format();
  const cache = await pair.open();
  await cache.write(0, block(1), { fua: true });
  fail(pair.a, "sync");
  await cache.write(0, block(2), { fua: true });
  const fresh = new FaultyDevice("fresh", cacheBytes + mib);
  fresh.bytes.fill(0xa5);
  await assertRejects(() => cache.mirror!.attach(fresh), RefusedError, "--force");
  await cache.mirror!.attach(fresh, { force: true });
  await cache.write(0, block(3), { fua: true });
  await cache.close();
  await assertRejects(() => pair.open(), RefusedError);
  const again = await pair.alone(fresh, { acceptMissingMirror: true });
  assertEquals(await read(again, 0), 3);
  await again.close();
});

Deno.test("mirror: a copy that was not completed never counts", async () => {
  const pair = await new Pair().format();
  const cache = await pair.open();
  fail(pair.b, "write");
  await cache.write(0, block(1), { fua: true });
  pair.b.heal();
  pair.b.onWrite = (offset) => {
    if (offset >= logOffset) throw new DeviceError("EIO", "no further");
  };
  await assertRejects(() => cache.mirror!.attach(pair.b), DeviceError, "no further");
  assertEquals(await claims(pair), ["alone", "copying"]);
  await cache.write(0, block(2), { fua: true });
  pair.crash();
  await assertRejects(
    () => pair.alone(pair.b, { acceptMissingMirror: true }),
    RefusedError,
    "never completed",
  );
  const again = await pair.open({ resyncMirror: true });
  while (!again.status().mirror!.whole) await new Promise((resolve) => setTimeout(resolve, 1));
  assertEquals(await read(again, 0), 2);
  await again.close();
  assertEquals(await claims(pair), ["together", "together"]);
});

Deno.test("mirror: no new leg says that both count while the marks of the other may still name the one before", async () => {
  const pair = await new Pair().format();
  const cache = await pair.open();
  await cache.write(0, block(1), { fua: true });
  let release = () => {};
  const held = new Promise<void>((resolve) => release = resolve);
  pair.a.onSync = () => held;
  const dropping = cache.mirror!.drop("leg-b");
  const fresh = new FaultyDevice("leg-b", cacheBytes);
  const copying = cache.mirror!.attach(fresh);
  for (let i = 0; i < 50; i++) await new Promise((resolve) => setTimeout(resolve, 1));
  assertEquals(await readLegMark(fresh), undefined);
  release();
  await Promise.all([dropping, copying]);
  pair.b = fresh;
  assertEquals(await claims(pair), ["together", "together"]);
  await cache.close();
});

Deno.test("mirror: a bit that flips on the way from the only leg does not get onto its copy", async () => {
  for (const { times, succeeds } of [{ times: 1, succeeds: true }, { times: Infinity, succeeds: false }]) {
    const pair = await new Pair().format();
    const cache = await pair.open();
    await cache.write(0, block(1), { fua: true });
    await cache.mirror!.drop("leg-b");
    // The data block of the first record of this life.
    const at = logOffset + blockBytes;
    const right = pair.a.bytes[at]!;
    let reads = 0;
    pair.a.onRead = (offset, length) => {
      if (offset > at || offset + length <= at) return;
      pair.a.bytes[at] = ++reads <= times ? right ^ (1 << reads % 8) : right;
    };
    const copying = cache.mirror!.attach(pair.b);
    if (succeeds) await copying;
    else await assertRejects(() => copying, DeviceError, "others each time");
    assert(reads > 1);
    pair.a.bytes[at] = right;
    assertEquals(await claims(pair), [succeeds ? "together" : "alone", succeeds ? "together" : "copying"]);
    await cache.close();
    if (!succeeds) continue;
    const again = await pair.alone(pair.b, { acceptMissingMirror: true });
    assertEquals(await read(again, 0), 1);
    await again.close();
  }
});

Deno.test("mirror: what one leg has wrongly, or cannot read, comes from the other and is mended", async () => {
  const pair = await new Pair().format();
  const cache = await pair.open();
  for (let i = 0; i < 3; i++) await cache.write(i * blockBytes, block(i + 1), { fua: true });
  await cache.close();
  const again = await pair.open();
  // Data blocks of records of one block each: slots 1, 3 and 5.
  const at = (slot: number) => logOffset + slot * blockBytes;
  pair.a.flip(at(1));
  pair.b.flip(at(3));
  pair.a.onRead = (offset, length) => {
    if (offset <= at(5) && offset + length > at(5)) throw new DeviceError("EIO", "unreadable");
  };
  for (let i = 0; i < 3; i++) assertEquals(await read(again, i), i + 1);
  assertEquals(again.status().mirror!.mendedBlocks, 2);
  assertEquals(pair.a.bytes[at(1)], 1);
  await again.close();
});

Deno.test("mirror: headers and superblocks that one leg has lost are taken from the other, and written again", async () => {
  const pair = await new Pair().format();
  const cache = await pair.open();
  for (let i = 0; i < 3; i++) await cache.write(i * blockBytes, block(i + 1), { fua: true });
  await cache.close();
  for (const slot of [0, 2]) {
    pair.a.bytes.fill(0, logOffset + slot * blockBytes, logOffset + (slot + 1) * blockBytes);
  }
  for (const offset of superblockOffsets) pair.a.bytes.fill(0xee, offset, offset + 512);
  const again = await pair.open();
  assertEquals(again.recovery.gaps, []);
  for (let i = 0; i < 3; i++) assertEquals(await read(again, i), i + 1);
  await again.close();
  const third = await pair.alone(pair.a, { acceptMissingMirror: true });
  assertEquals(third.recovery.gaps, []);
  for (let i = 0; i < 3; i++) assertEquals(await read(third, i), i + 1);
  await third.close();
});

Deno.test("mirror: a checkpoint that one leg has wrongly is taken from the other", async () => {
  for (const leg of ["a", "b"] as const) {
    const pair = await new Pair().format();
    const cache = await pair.open();
    for (let i = 0; i < 3; i++) await cache.write(i * blockBytes, block(i + 1), { fua: true });
    await cache.drain();
    await cache.write(0, block(9));
    await cache.close();
    pair[leg].flip(checkpointOffset + 100);
    const again = await pair.open();
    assertEquals(again.status().cache.dirtyBlocks, 1, "only what the drain did not write back");
    assertEquals(pair.warnings.filter((text) => text.includes("checkpoint")), []);
    await again.close();
  }
});

Deno.test("mirror: what a rewind would undo is told by the leg that counts, and a past that is only looked at needs no other", async () => {
  const pair = await new Pair().format();
  const cache = await pair.open();
  await cache.history.hold();
  await cache.write(0, block(1), { fua: true });
  await cache.mirror!.drop("leg-a");
  await cache.write(0, block(2), { fua: true });
  const to = cache.status().cache.durableSequence;
  await cache.write(0, block(3), { fua: true });
  await cache.close();
  const legs = { cache: pair.a, mirror: pair.b, resyncMirror: true };
  assertEquals((await planRewind({ ...legs, to })).undoneFlushPoints, 1);
  let closed = 0;
  pair.a.onClose = () => closed++;
  const past = await pair.open({ ...legs, readOnly: true, at: to });
  assertEquals([await read(past, 0), closed], [2, 1]);
  await past.close();
  const { undoneFlushPoints } = await rewindCache({ ...legs, backing: pair.backing, clock: pair.clock, to });
  assertEquals(undoneFlushPoints, 1);
  const again = await pair.open({ resyncMirror: true });
  assertEquals(await read(again, 0), 2);
  await again.close();
});
