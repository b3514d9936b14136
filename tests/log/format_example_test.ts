// Why: docs/format.md is meant for a second implementer, so nothing in it may go stale: its tables are compared with
// layout.ts, and its hex lines with an image that the engine makes here.
import { formatCache } from "../../src/cache/format.ts";
import { openCache } from "../../src/cache/open.ts";
import { MemoryDevice } from "../../src/device/memory.ts";
import {
  checkpointField,
  entryBytes,
  entryField,
  halfBytes,
  legMarkField,
  previousField,
  recordField,
  superblockField,
} from "../../src/log/layout.ts";
import { SeededRandom } from "../../src/random.ts";
import { blockBytes, kib, mib, sectorBytes } from "../../src/units.ts";
import { assert, assertEquals } from "../assert.ts";

const page = await Deno.readTextFile(new URL("../../docs/format.md", import.meta.url));

/** A device that is still there after the cache has closed it. */
class KeptDevice extends MemoryDevice {
  override close(): Promise<void> {
    return Promise.resolve();
  }
}

/** Makes the image that the page describes. */
async function exampleImage(): Promise<Uint8Array> {
  const cache = new KeptDevice(2 * mib, "example-cache");
  const backing = new KeptDevice(mib, "example-backing");
  const random = new SeededRandom(1).fill;
  const clock = { monotonicMs: () => 0, wallMs: () => 1_800_000_000_000, after: () => () => {} };
  await formatCache({ cache, backing, segmentSize: 128 * kib, clock, random });
  const open = await openCache({ cache, backing, clock, random, tunables: { writeback: "off" } });
  await open.write(3 * blockBytes, new Uint8Array(blockBytes).fill(0x61));
  await open.flush();
  await open.write(5 * blockBytes + 1024, new Uint8Array(512).fill(0x62));
  await open.trim(16 * blockBytes, 100 * blockBytes);
  await open.close();
  const bytes = new Uint8Array(cache.sizeBytes);
  await cache.read(0, bytes);
  return bytes;
}

/** A line as `hexdump -C` writes it. */
function hexLine(image: Uint8Array, offset: number): string {
  const row = image.subarray(offset, offset + 16);
  const hex = Array.from(row, (byte) => byte.toString(16).padStart(2, "0"));
  const text = Array.from(row, (byte) => byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : ".");
  const address = offset.toString(16).padStart(8, "0");
  return `${address}  ${hex.slice(0, 8).join(" ")}  ${hex.slice(8).join(" ")}  |${text.join("")}|`;
}

Deno.test("docs/format.md: every hex line is what the engine writes", async () => {
  const image = await exampleImage();
  const shown = [...page.matchAll(/^([0-9a-f]{8}) {2}.*?\|.{16}\|/gm)];
  for (const [line, address] of shown) assertEquals(line, hexLine(image, Number.parseInt(address!, 16)));
  const all = page.split("\n").filter((line) => /^[0-9a-f]{8} /.test(line));
  assertEquals(shown.length, all.length, "a hex line that is not shaped like the others");
  const offsets = new Set(shown.map(([, address]) => Number.parseInt(address!, 16)));
  // Superblock and its copy of entries, checkpoint and bitmap, two records with both halves and their data.
  for (
    const start of [0, 0x1000, 0x20000, 0x21000, 0x100000, 0x100800, 0x101000, 0x102000, 0x102800, 0x103400]
  ) {
    assert(offsets.has(start), `the page does not show ${start.toString(16)}`);
  }
});

/** The rows of the tables under a heading: field name, offset, width. */
function tablesUnder(heading: string): { name: string; offset: number; bytes: number }[][] {
  const section = page.split(/^##+ /m).find((part) => part.startsWith(`${heading}\n`));
  assert(section !== undefined, `no section "${heading}"`);
  return section.split("| offset |").slice(1).map((table) =>
    [...table.matchAll(/^\| (\d+) \| (\d+) \| `(\w+)` \|/gm)].map(([, offset, bytes, name]) => ({
      name: name!,
      offset: Number(offset),
      bytes: Number(bytes),
    }))
  );
}

function checkTable(
  heading: string,
  rows: { name: string; offset: number; bytes: number }[],
  fields: Record<string, number>,
  end: number,
): void {
  assertEquals(Object.fromEntries(rows.map(({ name, offset }) => [name, offset])), fields, heading);
  for (const [i, row] of rows.entries()) {
    const next = rows[i + 1]?.offset ?? end;
    assert(row.offset + row.bytes <= next, `${heading}: ${row.name} reaches into what follows it`);
  }
}

Deno.test("docs/format.md: the tables of fields are those of layout.ts, and no two fields overlap", () => {
  const [superblock] = tablesUnder("Superblock");
  const [checkpoint] = tablesUnder("Checkpoint");
  const [first] = tablesUnder("Record, first half");
  const [second] = tablesUnder("Record, second half");
  const [data, range] = tablesUnder("Entries");
  checkTable("superblock", superblock!, superblockField, blockBytes);
  checkTable("leg's mark", tablesUnder("Leg's mark")[0]!, legMarkField, sectorBytes);
  checkTable("checkpoint", checkpoint!, checkpointField, blockBytes);
  checkTable("first half", first!, recordField, halfBytes);
  checkTable("second half", second!, previousField, blockBytes);
  const { block, kind, mask, crc, count, rangeMask } = entryField;
  checkTable("data entry", data!, { block, kind, mask, crc }, entryBytes);
  checkTable("range entry", range!, { block, kind, count, rangeMask }, entryBytes);
});
