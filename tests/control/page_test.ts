/**
 * The live page: its parts one by one, and the whole of it in headless Chromium, against a server on a port with a token.
 * The browser has to be there where CI=true; elsewhere its tests say that they were skipped.
 *
 * @module
 */

import { chartSpecs, decades, rangeOf } from "../../page/charts.js";
import { formatCount, formatMicros, formatPercent, formatSeconds, formatSize } from "../../page/format.js";
import { cellsOf, layOut, usedSegments } from "../../page/maps.js";
import { Samples } from "../../page/samples.js";
import { EventParser } from "../../page/stream.js";
import { systemClock } from "../../src/clock.ts";
import { ControlHandler } from "../../src/control/handler.ts";
import { HttpServer } from "../../src/control/http_server.ts";
import { pageHtml } from "../../src/control/page_html.ts";
import { serverStatus } from "../../src/control/status.ts";
import { listenPortable } from "../../src/io/portable_socket.ts";
import { assert, assertEquals, assertMatch, assertStringIncludes } from "../assert.ts";
import { Chromium, requireChromium } from "../browser/chromium.ts";
import { TestEngine } from "./engine.ts";

Deno.test("page: numbers are written as the status screen writes them", () => {
  assertEquals([0, 1023, 1024, 12.5 * 2 ** 20, 2 ** 40 - 1].map(formatSize), [
    "0 B",
    "1023 B",
    "1 KiB",
    "12.5 MiB",
    "1 TiB",
  ]);
  assertEquals([0, 999.7, 12_345, 999_600].map(formatMicros), ["0 µs", "1 ms", "12.3 ms", "1 s"]);
  assertEquals([42, 185, 7800, 200_000].map(formatSeconds), ["42 s", "3 min 05 s", "2 h 10 min", "2 d 7 h"]);
  assertEquals([0, 0.001, 0.5, 0.999, 1].map(formatPercent), ["0 %", "< 1 %", "50 %", "> 99 %", "100 %"]);
  assertEquals(formatCount(1234567), "1,234,567");
});

Deno.test("page: a segment is in use from the tail up and around to the head, whichever is higher", () => {
  const all = (head: number, tail: number) =>
    Array.from({ length: 6 }, (_, i) => usedSegments({ head, tail, count: 6 }, i, i + 1)).join("");
  assertEquals([all(3, 1), all(1, 4), all(2, 2), all(5, 0)], ["011100", "110011", "001000", "111111"]);
  assertEquals(usedSegments({ head: 1, tail: 4, count: 6 }, 0, 6), 4);
});

Deno.test("page: every cell of a map has its place, on a phone and on a wide screen", () => {
  for (const width of [40, 280, 500, 1200]) {
    for (const count of [1, 30, 1022, 2048]) {
      const { size, columns, rows } = layOut(count, width);
      assert(columns * size <= Math.max(width, size) && columns * rows >= count, `${count} in ${width}`);
    }
  }
  assertEquals([...cellsOf(new Uint8Array([0, 1, 128, 255]).toBase64())], [0, 1, 128, 255]);
});

Deno.test("page: axes show what there is, and something when there is nothing", () => {
  assertEquals(rangeOf("log", null, null), [100, 1000]);
  assertEquals(rangeOf("log", 88, 65_000), [10, 100_000]);
  assertEquals(rangeOf("share", 0.5, 0.6), [0, 1]);
  assertEquals(rangeOf("binary", null, null), [0, 1024]);
  assertEquals(decades(10, 100_000), [10, 100, 1000, 10_000, 100_000]);
  assertEquals(decades(1, 1e8), [1, 100, 10_000, 1_000_000, 100_000_000]);
});

Deno.test("page: events are put together whatever the pieces that they come in", () => {
  const text = 'event: status\ndata: {"a":1}\n\nevent: message\ndata: {"b":"x: y"}\n\n';
  const wanted = [{ event: "status", data: '{"a":1}' }, { event: "message", data: '{"b":"x: y"}' }];
  for (const size of [1, 3, 10, 100]) {
    const parser = new EventParser();
    const pieces = text.match(new RegExp(`[^]{1,${size}}`, "g"))!;
    assertEquals(pieces.flatMap((piece) => parser.take(piece)), wanted);
  }
});

Deno.test("page: rates come from two statuses; a restart and a pause break the line", async () => {
  await using engine = await TestEngine.start();
  const status = (bytes: number, uptimeSeconds: number) => {
    const one = serverStatus(engine.served.status(), engine.target);
    return { ...one, uptimeSeconds, bytes: { ...one.bytes, written: bytes }, recent: null };
  };
  const samples = new Samples();
  samples.add(status(0, 1), 100);
  samples.add(status(3000, 2), 102);
  samples.add(status(500, 0), 103);
  samples.add(status(900, 9), 112);
  assertEquals(samples.columns.at, [100, 102, 102.001, 103, 103.001, 112]);
  assertEquals(samples.columns.written, [null, 1500, null, null, null, null]);
  assertEquals(samples.columns.freeShare![1], 29 / 30);
  for (let i = 0; i < 5000; i++) samples.add(status(0, 10 + i), 113 + i);
  assertEquals(samples.columns.at!.length, 3600);
});

Deno.test("page: needs nothing from anywhere, and says whose uPlot is", () => {
  const addresses = pageHtml.match(/https?:\/\/[^\s"'<>)]+/g) ?? [];
  // None of these is fetched: a notice, names of XML, and an example.
  assertEquals([...new Set(addresses)].filter((one) => !/uPlot|w3\.org|…/.test(one)), []);
  assertStringIncludes(pageHtml, "Copyright (c) 2022 Leon Sorokin");
  assert(!/<(script|link|img|iframe)[^>]+(src|href)="(?!data:)/.test(pageHtml));
});

const token = "0123456789abcdef";

/** A served engine behind a port that wants a token, and a browser. */
async function withPage(
  body: (
    parts: { engine: TestEngine; browser: Chromium; address: string; server: HttpServer },
  ) => Promise<void>,
): Promise<void> {
  if (!requireChromium()) return;
  await using engine = await TestEngine.start();
  const listener = await listenPortable({ transport: "tcp", hostname: "127.0.0.1", port: 0 });
  assert(listener.address.transport === "tcp");
  const { port } = listener.address;
  const handler = new ControlHandler(engine.target, systemClock, { hosts: [`127.0.0.1:${port}`], token });
  const server = new HttpServer(listener, (request) => handler.handle(request), systemClock, () => {});
  try {
    await using browser = await Chromium.start();
    await body({ engine, browser, address: `http://127.0.0.1:${port}/`, server });
  } finally {
    handler.close();
    await server.close();
  }
}

const test = (name: string, body: Parameters<typeof withPage>[0]) =>
  Deno.test({ name, ignore: Deno.build.os === "windows", fn: () => withPage(body) });

/** How many pixels of a map have about the colour of a custom property. */
const pixels = (canvas: string, colour: string) =>
  `(() => {
  const map = document.getElementById("${canvas}");
  const probe = document.createElement("canvas").getContext("2d");
  probe.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("${colour}");
  probe.fillRect(0, 0, 1, 1);
  const [r, g, b] = probe.getImageData(0, 0, 1, 1).data;
  const { data } = map.getContext("2d").getImageData(0, 0, map.width, map.height);
  let count = 0;
  for (let i = 0; i < data.length; i += 4) {
    if (Math.abs(data[i] - r) + Math.abs(data[i + 1] - g) + Math.abs(data[i + 2] - b) < 6) count++;
  }
  return count;
})()`;

test(
  "page: shows a working server, light and dark, wide and on a phone, and asks nobody else for anything",
  async ({ engine, browser, address }) => {
    await browser.prefer("light");
    await browser.resize(1280, 900);
    await engine.write(2000);
    await browser.open(`${address}#token=${token}`);
    await browser.until('document.body.dataset.state === "live"');
    // The token is not left in the address, where it would be copied along.
    assertEquals(await browser.evaluate("location.href"), address);
    const text = (id: string) => browser.evaluate<string>(`document.getElementById("${id}").innerText`);
    assertEquals(await text("state"), "serving");
    assertMatch(await text("meaning"), /^All is well: 2,000 blocks wait in the cache/);
    await browser.until('document.getElementById("log-text").textContent !== ""');
    assertMatch(
      await text("log-text"),
      /^30 segments of 512 KiB, a cell each\. In use: 16, from the tail at 0 to the head at 15;/,
    );
    assert(await browser.evaluate<number>(pixels("log-map", "--dirty")) > 500);
    assert(await browser.evaluate<number>(pixels("backing-map", "--dirty")) > 500);
    assertEquals(
      await browser.evaluate("document.querySelectorAll('.uplot canvas').length"),
      chartSpecs.length,
    );

    // It moves: after a drain nothing is orange any more, and the words say so.
    await engine.served.cache.drain();
    await browser.until('document.getElementById("meaning").textContent.includes("nothing waits")');
    await browser.until(`${pixels("backing-map", "--dirty")} === 0`);
    await browser.until('/dirty/.test(document.getElementById("tiles").innerText)');

    for (const scheme of ["light", "dark"] as const) {
      await browser.prefer(scheme);
      for (const width of [360, 1280]) {
        await browser.resize(width, 800, width === 360);
        await browser.until(`innerWidth === ${width}`);
        // Nothing sticks out sideways.
        await browser.until(`document.documentElement.scrollWidth === ${width}`);
      }
    }
    const ground = await browser.evaluate<string>("getComputedStyle(document.body).backgroundColor");
    assertEquals(ground, "rgb(14, 18, 23)");
    assertEquals([browser.complaints, [...new Set(browser.requested)].toSorted()], [[], [
      address,
      `${address}events?map=true`,
    ]]);
  },
);

test("page: without the token it shows nothing and asks for it, and a wrong one is not taken", async ({ browser, address }) => {
  const isHidden = (id: string) => browser.evaluate<boolean>(`document.getElementById("${id}").hidden`);
  const give = (text: string) =>
    browser.evaluate(`(() => {
      document.getElementById("token-text").value = ${JSON.stringify(text)};
      document.querySelector("#token button").click();
    })()`);
  await browser.open(address);
  await browser.until('document.body.dataset.state === "token"');
  assertEquals([await isHidden("content"), await isHidden("token"), await isHidden("token-wrong")], [
    true,
    false,
    true,
  ]);
  await give("no");
  await browser.until('!document.getElementById("token-wrong").hidden');
  await give(token);
  await browser.until('document.body.dataset.state === "live"');
  assertEquals([await isHidden("content"), await isHidden("token")], [false, true]);
});

test("page: says that the server does not answer, and for how long", async ({ browser, address, server }) => {
  await browser.open(`${address}#token=${token}`);
  await browser.until('document.body.dataset.state === "live"');
  await server.close();
  await browser.until('document.body.dataset.state === "away"');
  await browser.until(
    '/^The server has not answered for .*Trying again/.test(document.getElementById("meaning").textContent)',
  );
});
