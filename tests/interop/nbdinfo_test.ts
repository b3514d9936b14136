/** libnbd's view of the handshake: options, sizes, flags, contexts. It is the strictest client that there is. */

import { run } from "./tools.ts";
import { testTool } from "./serving.ts";
import { assert, assertEquals, assertObjectMatch, assertStringIncludes } from "../assert.ts";

const mib = 1 << 20;
const named = { sizeBytes: 64 * mib, exportName: "disk", description: "the test's disk" };

for (const transport of ["unix", "tcp"] as const) {
  testTool(
    "nbdinfo",
    `--json over ${transport} tells everything about the export`,
    { ...named, transport },
    async ({
      uri,
    }) => {
      const facts = JSON.parse(await run("nbdinfo", "--json", uri));
      assertEquals([facts.protocol, facts.TLS, facts.structured], ["newstyle-fixed", false, true]);
      assertEquals(facts.exports.length, 1);
      assertObjectMatch(facts.exports[0], {
        "export-name": "disk",
        "description": "the test's disk",
        "export-size": 64 * mib,
        "contexts": ["base:allocation"],
        "is_read_only": false,
        "can_cache": true,
        "can_df": true,
        "can_fast_zero": true,
        "can_flush": true,
        "can_fua": true,
        "can_multi_conn": true,
        "can_trim": true,
        "can_zero": true,
        "block_size_minimum": 1,
        "block_size_preferred": 4096,
        "block_size_maximum": 32 * mib,
      });
    },
  );
}

testTool(
  "nbdinfo",
  "a read-only export says so, and cannot be written",
  { ...named, readOnly: true },
  async ({
    uri,
  }) => {
    const { exports: [served] } = JSON.parse(await run("nbdinfo", "--json", uri));
    assertObjectMatch(served, {
      "is_read_only": true,
      "can_trim": false,
      "can_zero": false,
      "can_flush": true,
    });
  },
);

testTool("nbdinfo", "--size and --list", named, async ({ uri }) => {
  assertEquals((await run("nbdinfo", "--size", uri)).trim(), String(64 * mib));
  const { exports } = JSON.parse(await run("nbdinfo", "--list", "--json", uri));
  assertEquals(exports.length, 1);
  assertObjectMatch(exports[0], { "export-name": "disk", "export-size": 64 * mib });
  assertStringIncludes(await run("nbdinfo", "--list", uri), 'export="disk"');
});

testTool(
  "nbdinfo",
  "--map tells written from unwritten",
  { sizeBytes: 64 * mib },
  async ({ uri, volume }) => {
    await volume.write(1 * mib, new Uint8Array(1 * mib).fill(1));
    const map = JSON.parse(await run("nbdinfo", "--map", "--json", uri)) as {
      offset: number;
      length: number;
      type: number;
    }[];
    let next = 0;
    for (const { offset, length } of map) {
      assertEquals(offset, next);
      next += length;
    }
    assertEquals(next, 64 * mib);
    const written = map.find(({ offset, length }) => offset <= mib && offset + length > mib)!;
    assertEquals(written.type, 0);
    assert(map.length >= 1);
  },
);
