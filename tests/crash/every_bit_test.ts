/**
 * Some of the bits of every region of every image; `deno task every-bit` takes all of them.
 *
 * @module
 */

import { assert, assertGreater, assertRejects } from "../assert.ts";
import { allImages, type Image } from "./bit_images.ts";
import { bitsOf, emptyTally, type Tally, tryFlipped, tryUndamaged } from "./every_bit.ts";

/** Bits between two that are tried: a prime, so that all bits of a byte come up. */
const stride = Deno.env.get("CI") === "true" ? 1009 : 4001;
const images = await allImages();
const tallies = new Map<string, Tally>();

async function tryEach(image: Image): Promise<Tally> {
  const tally = emptyTally();
  await tryUndamaged(image);
  for (const [i, region] of image.regions.entries()) {
    for (const bit of bitsOf(region, i * 7, stride)) tally[await tryFlipped(image, region, bit)]++;
  }
  return tally;
}

for (const image of images) {
  Deno.test(`openCache, checkCache: a flipped bit of a ${image.name} cache is noticed, or matters nothing`, async () => {
    tallies.set(image.name, await tryEach(image));
  });
}

Deno.test("bitImages: every sort of outcome was met", () => {
  const sum = (key: keyof Tally) => [...tallies.values()].reduce((total, tally) => total + tally[key], 0);
  for (const key of Object.keys(emptyTally()) as (keyof Tally)[]) assertGreater(sum(key), 0, key);
});

Deno.test("tryUndamaged, tryFlipped: a wrong byte is not overlooked", async () => {
  const [image] = images;
  assert(image);
  const content = image.content.slice();
  content[5000]! ^= 1;
  const wrong = { ...image, content };
  await assertRejects(() => tryUndamaged(wrong), Error, "wrong bytes");
  const region = image.regions.find(({ expect }) => expect === "live")!;
  await assertRejects(() => tryFlipped(wrong, region, 8), Error, "wrong bytes");
  // What is called live and is not is told as well: the demand is then that `check` names it.
  const dead = image.regions.find(({ expect }) => expect === "dead")!;
  await assertRejects(
    () => tryFlipped(image, { ...dead, expect: "live" }, dead.from * 8),
    Error,
    "check says",
  );
});
