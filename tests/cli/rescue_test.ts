/**
 * A cache of dm-writeboost on the command line, as docs/rescue.md tells it.
 *
 * @module
 */

import { openCache } from "../../mod.ts";
import { assert, assertEquals, assertMatch, assertStringIncludes } from "../assert.ts";
import { type Golden, golden } from "../foreign/golden.ts";
import { runHere, Temp } from "./support.ts";

async function write(
  temp: Temp,
  { cache, backing }: Golden,
): Promise<{ paths: string[]; cache: string; backing: string }> {
  const files = { cache: temp.join("cache.img"), backing: temp.join("disk.img") };
  await Deno.writeFile(files.cache, cache);
  await Deno.writeFile(files.backing, backing);
  return { ...files, paths: ["--cache", files.cache, "--backing", files.backing] };
}

function isSame(path: string, expected: Uint8Array): boolean {
  const bytes = Deno.readFileSync(path);
  return bytes.length === expected.length && bytes.every((byte, i) => byte === expected[i]);
}

Deno.test("recover: one command gets the data out of a dm-writeboost cache", async () => {
  await using temp = await Temp.make();
  const original = golden("c-partial");
  const { paths, cache, backing } = await write(temp, original);
  const dry = await runHere("recover", ...paths, "--dry-run", "--json");
  assertEquals([dry.code, JSON.parse(dry.out).wrote], [0, "nothing"], dry.err);
  assert(isSame(backing, original.backing));
  const copy = temp.join("copy.img");
  assertEquals((await runHere("recover", ...paths, "--output", copy)).code, 0);
  assert(isSame(copy, original.expected) && isSame(backing, original.backing));
  const existing = await runHere("recover", ...paths, "--output", copy);
  assert(existing.code !== 0 && isSame(copy, original.expected), "an existing file is left alone");
  const done = await runHere("recover", ...paths);
  assertEquals(done.code, 0, done.err);
  assertStringIncludes(done.err, "do not recover from it again");
  assertMatch(done.out, /^format +dm-writeboost\n/);
  assert(isSame(backing, original.expected) && isSame(cache, original.cache));
});

Deno.test("recover: a damaged dm-writeboost cache ends with 4 and changes nothing, until the loss is accepted", async () => {
  await using temp = await Temp.make();
  const original = golden("g08-flip-old");
  const { paths, backing } = await write(temp, original);
  const refused = await runHere("recover", ...paths);
  assertEquals([refused.code, refused.out], [4, ""]);
  assertMatch(refused.err, /^nbdboost: Cannot recover .*segment 8.*--accept-loss[^\n]*\n$/);
  assert(isSame(backing, original.backing));
  assertEquals((await runHere("recover", ...paths, "--dry-run")).code, 4);
  const accepted = await runHere("recover", ...paths, "--accept-loss", "--json");
  assertEquals(accepted.code, 0, accepted.err);
  const { lostRanges, lostBlocks } = JSON.parse(accepted.out);
  assertEquals([lostRanges.length > 0, lostBlocks], [true, 89]);
});

Deno.test("inspect, check: read a dm-writeboost cache; without its magic only when told to", async () => {
  await using temp = await Temp.make();
  const { cache, paths } = await write(temp, golden("a-clean"));
  const seen = await runHere("inspect", "--cache", cache, "--records", "--json");
  assertEquals(seen.code, 0, seen.err);
  const { format, newestSegment, recordList } = JSON.parse(seen.out);
  assertEquals([format, newestSegment, recordList.length], ["dm-writeboost", 4, 4]);
  assertEquals((await runHere("check", ...paths)).code, 0);

  await Deno.writeFile(cache, golden("g21-magic0").cache);
  for (const words of [["inspect", "--cache", cache], ["check", ...paths], ["recover", ...paths]]) {
    const refused = await runHere(...words);
    assertEquals([refused.code, refused.out], [3, ""]);
    assertStringIncludes(refused.err, "--assume-dm-writeboost");
    assertEquals((await runHere(...words, "--assume-dm-writeboost")).code, 0);
  }

  await Deno.writeFile(cache, golden("g08-flip-old").cache);
  const checked = await runHere("check", "--cache", cache, "--json");
  assertEquals([checked.code, JSON.parse(checked.out).problems.length], [4, 1]);
});

Deno.test("recover, then format --force: the user of dm-writeboost goes on with nbdboost", async () => {
  await using temp = await Temp.make();
  const original = golden("a-clean");
  const { paths, cache, backing } = await write(temp, original);
  const early = await runHere("format", ...paths);
  assertEquals([early.code, isSame(cache, original.cache)], [3, true]);
  assertStringIncludes(early.err, "dm-writeboost");
  assertEquals((await runHere("recover", ...paths)).code, 0);
  assertEquals((await runHere("format", ...paths, "--force")).code, 0);
  const open = await openCache({ cache, backing });
  const bytes = new Uint8Array(open.sizeBytes);
  await open.read(0, bytes);
  assert(bytes.every((byte, i) => byte === original.expected[i]));
  await open.close();
});

Deno.test("format: refuses a dm-writeboost cache whose magic is gone, which can be rescued still", async () => {
  await using temp = await Temp.make();
  const original = golden("g21-magic0");
  const { paths, cache } = await write(temp, original);
  const { code, err } = await runHere("format", ...paths);
  assertEquals(code, 3);
  assertMatch(err, /^nbdboost: Cannot format .*: it holds whole segments of dm-writeboost.*--force[^\n]*\n$/);
  assert(isSame(cache, original.cache));
  assertEquals((await runHere("format", ...paths, "--force")).code, 0);
});
