/**
 * Offline `recover` of what a killed server left: the backing becomes what the server would have shown, and nothing is
 * written where nothing may be.
 *
 * @module
 */

import { checkCache, type RecoverReport } from "../../mod.ts";
import { blockBytes } from "../../src/units.ts";
import { assert, assertEquals, assertStringIncludes } from "../assert.ts";
import { runHere, Temp } from "../cli/support.ts";
import {
  copyPair,
  findDirtyBlock,
  flipBit,
  hashPair,
  killedBackingBytes,
  makeKilledPair,
  type PathPair,
  served,
} from "./killed_pair.ts";

/** Offsets of the first differences, block by block. */
function differences(a: Uint8Array, b: Uint8Array): number[] {
  assertEquals(a.length, b.length);
  const found: number[] = [];
  for (let block = 0; block * blockBytes < a.length; block++) {
    const end = Math.min((block + 1) * blockBytes, a.length);
    for (let at = block * blockBytes; at < end; at++) {
      if (a[at] === b[at]) continue;
      found.push(block);
      break;
    }
  }
  return found;
}

async function recover({ pair }: PathPair, ...options: string[]) {
  const ended = await runHere("recover", ...pair, "--json", ...options);
  return { ...ended, report: ended.out === "" ? undefined : JSON.parse(ended.out) as RecoverReport };
}

Deno.test("recover: the backing of a killed cache becomes what the server would have shown", async (t) => {
  await using temp = await Temp.make();
  const killed = await makeKilledPair(temp, 21);
  const shown = await served(temp, await copyPair(temp, killed, "served"), killed.model);
  const before = await hashPair(killed);
  assert(differences(await Deno.readFile(killed.backing), shown).length > 100, "much is only in the cache");

  await t.step("--dry-run changes nothing", async () => {
    const { code, report, err } = await recover(killed, "--dry-run");
    assertEquals(code, 0, err);
    assertEquals(report!.wrote, "nothing");
    assert(report!.dirtyBlocks > 100 && report!.lostRanges.length === 0);
    assertEquals(await hashPair(killed), before);
  });
  await t.step("--output leaves both as they are and writes a full copy", async () => {
    const output = temp.join("rescued.img");
    const { code, report, err } = await recover(killed, "--output", output);
    assertEquals(code, 0, err);
    assertEquals([report!.wrote, report!.target], ["copy", output]);
    assertEquals(await hashPair(killed), before);
    assertEquals(differences(await Deno.readFile(output), shown), []);
  });
  await t.step("--output to a file that exists is refused, and that file stays", async () => {
    const output = temp.join("precious");
    await Deno.writeTextFile(output, "precious");
    for (const target of [output, killed.backing, killed.cache]) {
      const { code, err } = await recover(killed, "--output", target);
      assertEquals(code, 3, err);
      assertStringIncludes(err, target);
      assertStringIncludes(err, "exists");
    }
    assertEquals(await Deno.readTextFile(output), "precious");
    assertEquals(await hashPair(killed), before);
  });
  await t.step("without options it writes the backing, and leaves an empty cache", async () => {
    const { code, report, err } = await recover(killed);
    assertEquals(code, 0, err);
    assertEquals(report!.wrote, "backing");
    assertEquals(differences(await Deno.readFile(killed.backing), shown), []);
    const checked = await checkCache({ cache: killed.cache, backing: killed.backing });
    assertEquals([checked.problems.length, checked.dirtyBlocks, checked.zeroBlocks, checked.clean], [
      0,
      0,
      0,
      true,
    ]);
  });
  await t.step("a second time there is nothing to do", async () => {
    const { code, report, err } = await recover(killed);
    assertEquals(code, 0, err);
    assertEquals([report!.dirtyBlocks, report!.zeroBlocks], [0, 0]);
    assertEquals(differences(await Deno.readFile(killed.backing), shown), []);
  });
});

Deno.test("recover: with a damaged dirty block nothing is changed, until the loss is accepted", async (t) => {
  await using temp = await Temp.make();
  const killed = await makeKilledPair(temp, 22);
  const shown = await served(temp, await copyPair(temp, killed, "served"), killed.model);
  const old = await Deno.readFile(killed.backing);
  // After a kill everything counts as dirty, also what the backing has already.
  const lacking = new Set(differences(old, shown));
  const { block, offset } = await findDirtyBlock(killed.cache, (block) => lacking.has(block));
  await flipBit(killed.cache, offset + 777, 3);
  const range = { offset: block * blockBytes, length: blockBytes };
  const before = await hashPair(killed);

  await t.step("plainly, or with --output: exit 4", async () => {
    const output = temp.join("rescued.img");
    for (const options of [[], ["--output", output]]) {
      const { code, err } = await recover(killed, ...options);
      assertEquals(code, 4, err);
      assertStringIncludes(err, `block ${block}`);
      assertStringIncludes(err, "--accept-loss");
    }
    assertEquals(await Deno.lstat(output).catch(() => undefined), undefined);
    assertEquals(await hashPair(killed), before);
  });
  await t.step("--dry-run lists the range", async () => {
    const { code, report, err } = await recover(killed, "--dry-run");
    assertEquals(code, 0, err);
    assertEquals(report!.lostRanges, [range]);
    assertEquals(await hashPair(killed), before);
  });
  await t.step("--accept-loss --output saves the rest into the copy", async () => {
    const output = temp.join("rescued.img");
    const { code, report, err } = await recover(killed, "--accept-loss", "--output", output);
    assertEquals(code, 0, err);
    assertEquals(report!.lostRanges, [range]);
    assertEquals(await hashPair(killed), before);
    assertSaved(await Deno.readFile(output));
  });
  await t.step("--accept-loss saves the rest into the backing", async () => {
    const { code, report, err } = await recover(killed, "--accept-loss");
    assertEquals(code, 0, err);
    assertEquals([report!.lostRanges, report!.lostBlocks], [[range], 1]);
    assertSaved(await Deno.readFile(killed.backing));
  });
  await t.step("the loss is still known afterwards", async () => {
    const checked = await checkCache({ cache: killed.cache, backing: killed.backing });
    assertEquals(checked.lostBlocks, 1);
    assertEquals((await runHere("drain", ...killed.pair)).code, 4);
  });

  function assertSaved(saved: Uint8Array): void {
    assertEquals(saved.length, killedBackingBytes);
    assertEquals(differences(saved, shown), [block]);
    const end = range.offset + range.length;
    assertEquals(saved.subarray(range.offset, end), old.subarray(range.offset, end));
  }
});
