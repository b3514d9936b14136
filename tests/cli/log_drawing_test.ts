/** The log drawn by `inspect`: what the letters of a segment say, the strips, the map, and the picture. @module */

import { formatCache, inspectCache, MemoryDevice, openCache } from "../../mod.ts";
import type { InspectedSegment } from "../../src/cache/inspect_segments.ts";
import { logDrawing, segmentsInOrder } from "../../src/cli/log_drawing.ts";
import { logPicture } from "../../src/cli/log_picture.ts";
import { blockBytes, kib, mib } from "../../src/units.ts";
import { assert, assertEquals, assertMatch, assertStringIncludes } from "../assert.ts";
import { runHere, Temp } from "./support.ts";

/** A device that outlives the cache on it. */
class OpenDevice extends MemoryDevice {
  override close(): Promise<void> {
    return Promise.resolve();
  }
}

/** A cache that holds: ten blocks written back, ten dirty ones, and one of each written again. */
async function inspected() {
  const [fast, slow] = [new OpenDevice(16 * mib), new MemoryDevice(64 * mib)];
  await formatCache({ cache: fast, backing: slow, segmentSize: 128 * kib });
  const cache = await openCache({ cache: fast, backing: slow, tunables: { writeback: "off" } });
  const write = async (block: number) => await cache.write(block * blockBytes, new Uint8Array(blockBytes));
  for (let i = 0; i < 10; i++) await write(i);
  await cache.drain({ keepLog: true });
  for (let i = 10; i < 20; i++) await write(i);
  await write(3);
  await cache.flush();
  await write(10);
  await cache.flush();
  await cache.close();
  return await inspectCache({ cache: fast, segments: true });
}

Deno.test("inspectCache: a segment's letters say what each of its blocks is good for", async () => {
  const { segmentList = [], segments } = await inspected();
  assertEquals(segmentList.length, segments);
  assertEquals(segmentList[0], {
    segment: 0,
    offset: mib,
    inUse: true,
    records: 3,
    dirtyBlocks: 11,
    liveBlocks: 20,
    // The log grows from left to right: what was written back, its header first, then what is dirty.
    blocks: "hlllsllllll" + "hsdddddddddd" + "hd.......",
  });
  assert(segmentList.slice(1).every(({ inUse, blocks }) => !inUse && blocks === ""));
});

function segment(number: number, blocks: string): InspectedSegment {
  const count = (letter: string) => blocks.split(letter).length - 1;
  return {
    segment: number,
    offset: 0,
    inUse: blocks !== "",
    records: count("h"),
    dirtyBlocks: count("d"),
    liveBlocks: count("d") + count("l"),
    blocks,
  };
}

/** Ten segments, of which 8 to 1 are in use, around the end. */
const ring = [
  segment(0, "hdds".repeat(8)),
  segment(1, "hd".padEnd(32, ".")),
  ...Array.from({ length: 6 }, (_, i) => segment(2 + i, "")),
  segment(8, "h".padEnd(32, "s")),
  segment(9, "h".padEnd(32, "l")),
];

Deno.test("logDrawing: a map of all, strips from the tail to the head, no colour where none is wanted", () => {
  assertEquals(segmentsInOrder(ring).map(({ segment }) => segment), [8, 9, 0, 1]);
  assertEquals(logDrawing(ring, { columns: 62, colours: false, all: false }), [
    "the log: 4 of 10 segments in use",
    "  #_......:+",
    "from the tail to the head, block by block:",
    `  8 tail |${":".repeat(31)}`,
    `  9      |${"+".repeat(31)}`,
    `  0      ${"|##:".repeat(8)}  16 dirty`,
    `  1 head |#${"_".repeat(30)}  1 dirty`,
    "  # dirty  + live, on the backing too  | record header  : superseded  _ empty  . free",
  ]);
  const coloured = logDrawing(ring, { columns: 62, colours: true, all: false });
  assertEquals(coloured[3], `  8 tail \x1b[36m|\x1b[90m${":".repeat(31)}\x1b[0m`);
});

Deno.test("logDrawing: fits any terminal, and leaves the middle out unless all is wanted", () => {
  const many = Array.from({ length: 5000 }, (_, i) => segment(i, i < 4000 ? "hdsl".repeat(32) : ""));
  for (const columns of [40, 80, 200]) {
    const lines = logDrawing(many, { columns, colours: false, all: false });
    assert(lines.length <= 32, `${lines.length} lines`);
    // The legend is one line on purpose: a narrow terminal wraps it.
    for (const line of lines.slice(0, -1)) assert(line.length <= Math.max(64, columns), line);
    assertStringIncludes(lines.join("\n"), "3,984 more in use; --segments shows all");
  }
  assertEquals(logDrawing(many, { columns: 80, colours: false, all: true }).length > 4000, true);
});

Deno.test("logPicture: is well-formed, bounded, and shows each segment once", async () => {
  const { segmentList = [], ...report } = await inspected();
  const svg = logPicture(report, segmentList);
  assertEquals(svg.match(/class="free"/g)!.length, report.segments + 1 + 1);
  assertEquals(svg.match(/class="(tail|head)"/g)!.length, 4);
  assertStringIncludes(svg, "11 dirty blocks (44 KiB)");
  // Every element that is opened is closed, in order.
  const open: string[] = [];
  for (const [, end, name, rest] of svg.matchAll(/<(\/?)(\w+)([^>]*)>/g)) {
    if (end) assertEquals(open.pop(), name);
    else if (!rest!.endsWith("/")) open.push(name!);
  }
  assertEquals(open, []);
  const many = Array.from({ length: 100_000 }, (_, i) => segment(i, i < 90_000 ? "hdsl".repeat(32) : ""));
  assert(logPicture({ ...report, backing: { kind: "file", id: '<&">', sizeBytes: 1 } }, many).length < mib);
});

Deno.test("inspect: draws for people, lists for scripts, and writes a picture where it is told to", async () => {
  await using temp = await Temp.make();
  const { cache } = await temp.pair();
  const svg = temp.join("log.svg");
  const { code, out, err } = await runHere("inspect", "--cache", cache, "--svg", svg);
  assertEquals([code, err], [0, ""]);
  assertMatch(out, /\nthe log: 1 of [\d,]+ segments in use\n/);
  assertMatch(Deno.readTextFileSync(svg), /^<svg xmlns="http:\/\/www\.w3\.org\/2000\/svg" [^]*<\/svg>\n$/);
  const document = JSON.parse((await runHere("inspect", "--cache", cache, "--json", "--segments")).out);
  assertEquals(document.segmentList.length, document.segments);
  assertEquals(
    "segmentList" in JSON.parse((await runHere("inspect", "--cache", cache, "--json")).out),
    false,
  );
  const failed = await runHere("inspect", "--cache", cache, "--svg", temp.join("none/log.svg"));
  assertEquals(failed.code, 1);
  assertMatch(failed.err, /^nbdboost: Cannot write the picture to /);
});
