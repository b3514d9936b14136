/** The demo can tell right from wrong: its judge is itself judged here. @module */

import { assertEquals, assertStringIncludes } from "../assert.ts";
import { blockContent, type Findings, sectorVersion, WrittenBlocks } from "../../src/cli/demo_blocks.ts";

function nothing(): Findings {
  return { kept: 0, old: 0, new: 0, wrong: [] };
}

Deno.test("sectorVersion: finds the version, zeroes as 0, anything else as undefined", () => {
  const bytes = blockContent(7, 42);
  assertEquals([0, 3, 7].map((sector) => sectorVersion(bytes, 7, sector)), [42, 42, 42]);
  assertEquals(sectorVersion(bytes, 8, 0), undefined);
  assertEquals(sectorVersion(new Uint8Array(4096), 7, 0), 0);
  bytes[3 * 512 + 511]! ^= 1;
  assertEquals([2, 3, 4].map((sector) => sectorVersion(bytes, 7, sector)), [42, undefined, 42]);
});

Deno.test("WrittenBlocks: a flushed block must be there, a later write may be old or new", () => {
  const written = new WrittenBlocks();
  const first = written.next(1);
  written.flushed();
  const second = written.next(1);
  for (const [bytes, expected] of [[first, { old: 1 }], [second, { new: 1 }]] as const) {
    const blocks = new WrittenBlocks();
    blocks.next(1);
    blocks.flushed();
    blocks.next(1);
    const findings = nothing();
    blocks.judge(1, bytes, findings);
    assertEquals(findings, { ...nothing(), ...expected });
    blocks.judge(1, bytes, findings);
    assertEquals(findings.kept, 1, "what was shown once is right again");
    blocks.judge(1, bytes === first ? second : first, findings);
    assertEquals(findings.wrong.length, 1, "nothing else is right afterwards");
  }
});

Deno.test("WrittenBlocks: lost flushed data, foreign data and a flipped bit are wrong", () => {
  const blocks = new WrittenBlocks();
  const good = blocks.next(5);
  blocks.flushed();
  const flipped = good.slice();
  flipped[100]! ^= 4;
  for (const bytes of [new Uint8Array(4096), blockContent(6, 1), flipped]) {
    const findings = nothing();
    blocks.judge(5, bytes, findings);
    assertEquals(findings.wrong.length, 1);
    assertStringIncludes(findings.wrong[0]!, "block 5, sector 0");
  }
  const findings = nothing();
  blocks.judge(5, good, findings);
  assertEquals(findings, { ...nothing(), kept: 1 });
});
