/** libnbd's view of the handshake: options, sizes, flags, contexts. It is the strictest client that there is. */

import type { Cache } from "../../mod.ts";
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
        "contexts": ["base:allocation", "x-nbdboost:dirty", "x-nbdboost:cached"],
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

interface MapRow {
  offset: number;
  length: number;
  type: number;
}

testTool(
  "nbdinfo",
  "--map=x-nbdboost:dirty and :cached tell what the backing lacks and what reads find in the log",
  { sizeBytes: 64 * mib },
  async ({ uri, volume }) => {
    await volume.write(8 * mib, new Uint8Array(1 * mib).fill(1));
    await volume.trim(32 * mib, 4 * mib);
    const map = async (context: string) => {
      const rows: MapRow[] = JSON.parse(await run("nbdinfo", `--map=${context}`, "--json", uri));
      assertEquals(rows.reduce((sum, { length }) => sum + length, 0), 64 * mib);
      return rows.filter(({ type }) => type !== 0).map(({ offset, length }) => [offset / mib, length / mib]);
    };
    assertEquals(await map("x-nbdboost:cached"), [[8, 1]]);
    const dirty = await map("x-nbdboost:dirty");
    // Write-back may have begun, which only takes away.
    for (const [offset, length] of dirty) {
      assert(
        (offset! >= 8 && offset! + length! <= 9) || (offset! >= 32 && offset! + length! <= 36),
        String(dirty),
      );
    }
    await (volume as Cache).drain();
    assertEquals(await map("x-nbdboost:dirty"), []);
  },
);

testTool(
  "nbdsh",
  "structured reads with holes, and several contexts at once",
  { sizeBytes: 64 * mib },
  async ({ uri, volume }) => {
    // Zeroes that the backing has are data, and an idle cache begins to write back after half a second.
    (volume as Cache).tune({ writeback: "off" });
    await volume.write(1 * mib, new Uint8Array(64 * 1024).fill(1));
    await volume.trim(2 * mib, 1 * mib);
    await run(
      "nbdsh",
      "-c",
      "h.add_meta_context('base:allocation')",
      "-c",
      "h.add_meta_context('x-nbdboost:dirty')",
      "-c",
      `h.connect_uri(${JSON.stringify(uri)})`,
      "-c",
      `
kinds = set()
def chunk(data, offset, status, error): kinds.add(status)
data = h.pread_structured(1048576, 2*1048576, chunk)
assert data == bytearray(1048576), "the hole is not zero"
assert kinds == {nbd.READ_HOLE}, kinds
seen = {}
def extents(context, offset, entries, error): seen[context] = entries
h.block_status(64*1048576, 0, extents)
assert set(seen) == {"base:allocation", "x-nbdboost:dirty"}, seen
`,
    );
  },
);
