/**
 * Some of the bits of every region of every image; `deno task every-bit` takes all of them.
 *
 * @module
 */

import { assert, assertGreater, assertRejects } from "../assert.ts";
import { imageNames, makeImage } from "./bit_images.ts";
import { bitsOf, emptyTally, groupsOf, type Tally } from "./bit_choice.ts";
import { type Effort, Prober } from "./every_bit.ts";
import { faults, huntFault } from "./every_bit_faults.ts";

/** Bits between two that are tried: a prime, so that all bits of a byte come up. */
const stride = Deno.env.get("CI") === "true" ? 1009 : 4001;
/** The same for idle slots' groups. */
const groupStride = 31;
const sum = emptyTally();
const effort: Effort = { full: 0, known: 0, crossChecked: 0 };

for (const name of imageNames) {
  Deno.test(`openCache, checkCache: a flipped bit of a ${name} cache is noticed, or matters nothing`, async () => {
    const prober = new Prober(await makeImage(name));
    await prober.tryUndamaged();
    for (const [i, region] of prober.image.regions.entries()) {
      for (const bit of bitsOf(region, i * 7, stride)) sum[await prober.tryBit(region, bit)]++;
      for (const group of groupsOf(region, i % groupStride, groupStride)) {
        sum[await prober.tryGroup(region, group)]++;
      }
    }
    prober.assertUnread();
    for (const key of Object.keys(effort) as (keyof Effort)[]) effort[key] += prober.effort[key];
  });
}

Deno.test("bitImages: every sort of outcome was met", () => {
  for (const key of Object.keys(sum) as (keyof Tally)[]) assertGreater(sum[key], 0, key);
  assertGreater(effort.known, effort.crossChecked, "known states let most off");
});

Deno.test("Prober: with its shortcuts it comes to the same as without", async () => {
  for (const name of ["clean", "crashed", "mirrored-crashed"] as const) {
    const image = await makeImage(name);
    const [quick, slow] = [new Prober(image), new Prober(image, true)];
    for (const prober of [quick, slow]) await prober.tryUndamaged();
    for (const [i, region] of image.regions.entries()) {
      for (const bit of bitsOf(region, i * 11, 12_007)) {
        const [a, b] = [await quick.tryBit(region, bit), await slow.tryBit(region, bit)];
        assert(a === b, `${region.name}, bit ${bit}: ${a} and ${b}`);
      }
    }
  }
});

Deno.test("Prober: a wrong byte is not overlooked", async () => {
  const image = await makeImage("clean");
  const content = image.content.slice();
  content[5000]! ^= 1;
  const wrong = new Prober({ ...image, content });
  await assertRejects(() => wrong.tryUndamaged(), Error, "wrong bytes");
  const region = image.regions.find(({ expect }) => expect === "live")!;
  await assertRejects(() => wrong.tryBit(region, 8), Error, "wrong bytes");
  // What is called live and is not is told as well: the demand is then that `check` names it.
  const dead = image.regions.find(({ expect }) => expect === "dead")!;
  const right = new Prober(image);
  await assertRejects(
    () => right.tryBit({ ...dead, expect: "live" }, dead.from * 8),
    Error,
    "check says",
  );
  // And so is what is called idle: half of a slot that is live.
  const header = image.regions.find(({ kind }) => kind === "header")!;
  await assertRejects(() => right.tryGroup({ ...header, expect: "idle" }, 3), Error, "group 3");
});

Deno.test("every-bit: a planted fault is found", async () => {
  const fault = faults.find(({ name }) => name === "write-back-verifies-nothing")!;
  const found = await huntFault(fault, ["--image", "copies"]);
  assert(found?.includes("wrong"), found);
});
