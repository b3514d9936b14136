/** The metrics page by the rules of its format, and what docs/ makes of it. @module */

import { ControlHandler } from "../../src/control/handler.ts";
import { systemClock } from "../../src/clock.ts";
import { Client } from "../nbd/client.ts";
import { assert, assertEquals, assertMatch } from "../assert.ts";
import { TestEngine } from "./engine.ts";

const docs = new URL("../../docs/", import.meta.url);
const read = (path: string) => Deno.readTextFileSync(new URL(path, docs));

interface Sample {
  name: string;
  labels: Record<string, string>;
  value: number;
}

async function page(): Promise<{ text: string; samples: Sample[]; types: Map<string, string> }> {
  await using engine = await TestEngine.start();
  const client = await Client.connect(engine.caches.server.uris[0]!, { structured: true });
  for (let i = 0; i < 20; i++) await client.write(i * 4096, new Uint8Array(4096));
  await client.read(0, 4096);
  await client.flush();
  await client.disconnect();
  const handler = new ControlHandler(engine.target, systemClock);
  const response = await handler.handle(
    new Request("http://localhost/metrics", { headers: { host: "localhost" } }),
  );
  assertEquals(response.headers.get("content-type"), "text/plain; version=0.0.4; charset=utf-8");
  const text = await response.text();
  const types = new Map([...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)].map(([, name, type]) => [name!, type!]));
  const samples = text.split("\n").filter((line) => line !== "" && !line.startsWith("#")).map((line) => {
    const match = /^([a-z_]+)(?:\{(.*)\})? (\S+)$/.exec(line);
    assert(match, line);
    const pairs = [...(match[2] ?? "").matchAll(/([a-z_]+)="((?:[^"\\]|\\.)*)"/g)];
    return {
      name: match[1]!,
      labels: Object.fromEntries(pairs.map(([, name, value]) => [name!, value!])),
      value: Number(match[3]),
    };
  });
  return { text, samples, types };
}

const family = (name: string) => name.replace(/_(bucket|sum|count)$/, "");

Deno.test("metricsText: every sample has a type and a help, is a number, and is named as is usual", async () => {
  const { text, samples, types } = await page();
  assert(text.endsWith("\n") && samples.length > 100);
  for (const { name, value } of samples) {
    const type = types.get(name) ?? types.get(family(name));
    assert(type !== undefined, name);
    assert(text.includes(`# HELP ${types.has(name) ? name : family(name)} `), name);
    assert(Number.isFinite(value), name);
    assertMatch(name, /^nbdboost_[a-z_]+$/);
    assertEquals(type === "counter", name.endsWith("_total"), `${name} is a ${type}`);
  }
  assertEquals(
    new Set(samples.map(({ name, labels }) => name + JSON.stringify(labels))).size,
    samples.length,
  );
});

Deno.test("metricsText: histograms are cumulative, and end with what counts all", async () => {
  const { samples } = await page();
  const of = (suffix: string, kind: string) =>
    samples.filter(({ name, labels }) =>
      name === `nbdboost_request_duration_seconds_${suffix}` && labels.kind === kind
    );
  for (const [kind, count] of [["write", 20], ["read", 1], ["flush", 1], ["trim", 0]] as const) {
    const buckets = of("bucket", kind);
    const bounds = buckets.map(({ labels }) => labels.le === "+Inf" ? Infinity : Number(labels.le));
    assertEquals(bounds, [...bounds].sort((a, b) => a - b));
    const values = buckets.map(({ value }) => value);
    assertEquals(values, [...values].sort((a, b) => a - b));
    assertEquals([values.at(-1), of("count", kind)[0]!.value], [count, count]);
    assertEquals(of("sum", kind)[0]!.value > 0, count > 0);
  }
  const state = samples.filter(({ name, value }) => name === "nbdboost_state" && value === 1);
  assertEquals(state.map(({ labels }) => labels.state), ["serving"]);
});

/** The metrics that an expression or a text names. */
function named(text: string): string[] {
  return [...text.matchAll(/\bnbdboost_[a-z_]+\b/g)].map(([name]) => name);
}

Deno.test("docs/metrics: dashboard and alerts name metrics and labels that exist", async () => {
  const { samples } = await page();
  const known = new Set(samples.map(({ name }) => name));
  const dashboard = JSON.parse(read("metrics/dashboard.json"));
  const expressions: string[] = dashboard.panels.flatMap((panel: { targets: { expr: string }[] }) =>
    panel.targets.map(({ expr }) => expr)
  );
  assert(expressions.length > 15);
  const rules = [...read("metrics/alerts.yml").matchAll(/^ +expr: (.*)$/gm)].map(([, expr]) => expr!);
  assert(rules.length >= 8);
  const others = dashboard.templating.list.map(({ query }: { query: string }) => query).join(" ");
  for (const text of [...expressions, ...rules, others]) {
    for (const name of named(text)) assert(known.has(name), `${name} in ${text}`);
    for (const [, name, label, value] of text.matchAll(/(nbdboost_[a-z_]+)\{(?:[^}]*,)?(\w+)="([^"$]*)"/g)) {
      assert(
        samples.some((one) => one.name === name && one.labels[label!] === value),
        `${label}="${value}" in ${text}`,
      );
    }
    const braces = text.split("{").length - text.split("}").length;
    assertEquals([braces, text.split("(").length - text.split(")").length], [0, 0], text);
  }
});

Deno.test("docs/metrics: the panels of the dashboard do not overlap, and have ids of their own", () => {
  const { panels } = JSON.parse(read("metrics/dashboard.json"));
  const taken = new Set<string>();
  for (const { gridPos: { x, y, w, h } } of panels) {
    assert(x + w <= 24);
    for (let i = x; i < x + w; i++) {
      for (let j = y; j < y + h; j++) {
        assert(!taken.has(`${i},${j}`));
        taken.add(`${i},${j}`);
      }
    }
  }
  assertEquals(new Set(panels.map(({ id }: { id: number }) => id)).size, panels.length);
});

Deno.test("docs/metrics.md: names every metric, and no other", async () => {
  const { samples } = await page();
  const families = new Set(samples.map(({ name }) => family(name)));
  const told = new Set(named(read("metrics.md")).filter((name) => name !== "nbdboost_info"));
  told.add("nbdboost_info");
  assertEquals([...told].sort(), [...families].sort());
});
