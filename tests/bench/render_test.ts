/** Tables and charts: what they show, and that the committed ones are what the committed results give. @module */

import { drawChart, escapeXml, themes } from "../../bench/e2e/chart.ts";
import { chartOf } from "../../bench/e2e/charts.ts";
import { renderMarkdown, replaceBetweenMarkers } from "../../bench/e2e/tables.ts";
import { findDrift } from "../../bench/render.ts";
import { assert, assertEquals, assertStringIncludes, assertThrows } from "../assert.ts";
import { sampleResult, sampleRun } from "./sample.ts";

const result = sampleResult([
  sampleRun(1, "randwrite-qd64", "nbdboost-ring", 120_000),
  sampleRun(1, "randwrite-qd64", "nbdboost-portable", 90_000),
  sampleRun(1, "randwrite-qd64", "nbdkit-file", 100_000),
  sampleRun(1, "randwrite-qd64", "nbd-server", 40_000),
  sampleRun(1, "sync-1", "nbdboost-ring", 1500),
  sampleRun(1, "sync-1", "device", 2000),
]);

Deno.test("renderMarkdown: a table for each job that was run, with ratios of ours to theirs", () => {
  const markdown = renderMarkdown(result);
  assertStringIncludes(markdown, "| **nbdboost, io_uring** | 120 | 492 | 100 | 200 | 300 | 6.00 | 100 |  |");
  assertStringIncludes(markdown, "| nbd-server | 40.0 | 164 | 100 | 200 | 300 | 6.00 | 100 | 3.00 × |");
  assertStringIncludes(markdown, "| nbdboost, io_uring, 1 client | 1500 | – | 0.75 × |");
  assertStringIncludes(markdown, "left out: nbd-server: nbd-server is not installed");
  assert(!markdown.includes("sequential 1 MiB writes"));
  assert(!/undefined|NaN/.test(markdown), markdown);
});

Deno.test("renderMarkdown: every table has as many cells in each row as in its head", () => {
  for (const table of renderMarkdown(result).match(/(^\|.*\n)+/gm)!) {
    const counts = table.trim().split("\n").map((line) => line.split("|").length);
    assertEquals(new Set(counts).size, 1, table);
  }
});

Deno.test("renderMarkdown: few rounds are called what they are", () => {
  const { parameters } = result;
  const tryOut = { ...result, parameters: { ...parameters, rounds: 1, seconds: 0.5 } };
  assertStringIncludes(renderMarkdown(tryOut), "1 round of 0.5 s: a try-out");
  assertStringIncludes(renderMarkdown(tryOut), "| 1.20 × | not judged: fewer than 5 rounds |");
  assertStringIncludes(renderMarkdown(result), "| 1.20 × | met |");
  assert(!renderMarkdown(result).includes("try-out"));
});

Deno.test("renderMarkdown: nothing measured gives no figures, and no nonsense", () => {
  const nothing = {
    ...result,
    runs: [],
    inProcess: { crc32cGigabytesPerSecond: [], ceilingMegabytesPerSecond: [] },
  };
  const markdown = renderMarkdown(nothing);
  assert(!/undefined|NaN|\bmet\b/.test(markdown.replace("not measured", "")), markdown);
});

Deno.test("replaceBetweenMarkers: changes what is between them, and insists on them", () => {
  const document = "a\n<!-- bench:begin (made by `deno task bench:render`) -->\nold\n<!-- bench:end -->\nz\n";
  const replaced = replaceBetweenMarkers(document, "new\n");
  assertEquals(replaced, document.replace("old", "new"));
  assertEquals(replaceBetweenMarkers(replaced, "new\n"), replaced);
  assertThrows(() => replaceBetweenMarkers("nothing", "new\n"), Error, "lacks");
});

/** Checks that `text` is one element: tags nest and close, attributes are quoted, entities are known. */
function checkXml(text: string): void {
  const open: string[] = [];
  let roots = 0;
  for (const [token, content] of text.matchAll(/<([^>]*)>|[^<]+/g)) {
    if (content === undefined) {
      assert(open.length > 0 || token.trim() === "", `text outside: ${token}`);
      assertEquals(token.replace(/&(amp|lt|gt|quot|#39);/g, "").match(/[&<>]/), null, token);
      continue;
    }
    if (content.startsWith("/")) {
      assertEquals(open.pop(), content.slice(1));
      continue;
    }
    const tag = /^([a-z]+)((?: [a-zA-Z][\w:-]*="[^"<&]*(?:&(?:amp|lt|gt|quot|#39);[^"<&]*)*")*)(\/?)$/.exec(
      content,
    );
    assert(tag, `bad tag: ${token}`);
    const names = [...tag[2]!.matchAll(/ ([a-zA-Z][\w:-]*)=/g)].map((match) => match[1]);
    assertEquals(new Set(names).size, names.length, token);
    if (open.length === 0) roots++;
    if (tag[3] === "") open.push(tag[1]!);
  }
  assertEquals([open, roots], [[], 1]);
}

Deno.test("checkXml: sees what is wrong", () => {
  for (
    const bad of ["<a><b></a></b>", "<a>&</a>", "<a b=c/>", "<a/><a/>", "<a>", '<a b="1" b="2"/>', "<a/>x"]
  ) {
    assertThrows(() => checkXml(bad), Error, undefined, bad);
  }
  checkXml('<a b="&lt;"><c/>text &amp; more</a>\n');
});

Deno.test("escapeXml: what would be markup is none", () => {
  assertEquals(escapeXml(`<a b="c" d='e'> & f`), "&lt;a b=&quot;c&quot; d=&#39;e&#39;&gt; &amp; f");
});

for (const dress of ["light", "dark"] as const) {
  Deno.test(`drawChart: ${dress}: well-formed, sorted, ours in its colour, titles and units there`, () => {
    const svg = drawChart(chartOf(result), dress);
    checkXml(svg);
    assertStringIncludes(svg, "A &lt;fast&gt; &amp; small CPU");
    const first = svg.slice(svg.indexOf("Random 4 KiB writes, QD64"), svg.indexOf("Server CPU"));
    const order = [...first.matchAll(/>(nbd[^<]*)<\/text>/g)].map((match) => match[1]);
    assertEquals(order, ["nbdboost, io_uring", "nbdkit file", "nbdboost, portable", "nbd-server"]);
    assertEquals(first.split(`fill="${themes[dress].ours}"`).length - 1, 1);
    const widths = [...first.matchAll(/<rect [^>]*width="([\d.]+)"/g)].map((match) => Number(match[1]));
    assertEquals(widths, widths.toSorted((a, b) => b - a));
    for (const words of ["120 k", "3.0×", "per second", "µs, less is better"]) {
      assertStringIncludes(svg, words);
    }
    assert(!/NaN|undefined/.test(svg));
  });
}

Deno.test("bench/results: tables and charts are what the committed results give", () => {
  assertEquals(findDrift(), [], "run: deno task bench:render");
});
