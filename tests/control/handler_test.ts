/** The control address as a function: what each request is answered with, and whose requests are not obeyed. @module */

import { ControlHandler } from "../../src/control/handler.ts";
import type { Guard } from "../../src/control/guard.ts";
import type { ControlTarget } from "../../src/control/target.ts";
import { systemClock } from "../../src/clock.ts";
import { assert, assertEquals, assertMatch, assertStringIncludes } from "../assert.ts";
import { FakeClock } from "../nbd/fake_clock.ts";
import { TestEngine } from "./engine.ts";

async function withHandler(
  body: (
    ask: (method: string, path: string, init?: RequestInit) => Promise<Response>,
    engine: TestEngine,
    handler: ControlHandler,
  ) => Promise<void>,
  guard?: Guard,
): Promise<void> {
  await using engine = await TestEngine.start();
  const handler = new ControlHandler(engine.target, systemClock, guard);
  await body(
    (method, path, init = {}) =>
      handler.handle(
        new Request(`http://localhost${path}`, {
          method,
          ...init,
          headers: { host: "localhost", ...(init.headers as Record<string, string> | undefined) },
        }),
      ),
    engine,
    handler,
  );
  handler.close();
}

const test = (name: string, ...args: Parameters<typeof withHandler>) =>
  Deno.test(name, () => withHandler(...args));

test("ControlHandler: GET /status has every field of the contract, as numbers", async (ask, engine) => {
  await engine.write(10);
  const response = await ask("GET", "/status");
  assertEquals(response.status, 200);
  const status = await response.json();
  const fields: Record<string, string[]> = {
    "": ["uptimeSeconds", "clients"],
    backing: ["sizeBytes"],
    cache: [
      ...["sizeBytes", "segmentBytes", "segments", "freeSegments", "dirtyBlocks", "headSequence"],
      ...["tailSequence", "durableSequence", "ramBytes"],
    ],
    requests: ["read", "write", "flush", "trim", "zero", "error"],
    bytes: ["read", "written", "log", "writeback"],
    blocks: ["readHit", "readMiss", "overwritten", "writtenBack"],
    log: ["records", "writes", "syncs", "flushesPerSync"],
    writeback: ["requests", "blocksPerRequest", "bytesPerSecond"],
  };
  for (const [part, names] of Object.entries(fields)) {
    const object = part === "" ? status : status[part];
    for (const name of names) assertEquals(typeof object[name], "number", `${part}.${name}`);
  }
  for (const name of ["version", "uuid", "state", "io", "ioReason"]) {
    assertEquals(typeof status[name], "string");
  }
  assertEquals([typeof status.backing.target, typeof status.cache.path], ["string", "string"]);
  assertEquals([status.writeback.mode, status.writeback.active], ["off", false]);
  assertEquals([status.writeback.etaSeconds, status.writeback.lastError], [null, null]);
  for (const kind of ["read", "write", "flush"]) {
    assertEquals(Object.keys(status.latencyMicros[kind]), ["p50", "p99", "max"]);
  }
  assertEquals([status.state, status.io, status.cache.dirtyBlocks], ["serving", "portable", 10]);
});

test("ControlHandler: /healthz is one word, and 503 once nothing is served", async (ask, engine) => {
  const well = await ask("GET", "/healthz");
  assertEquals([well.status, await well.text()], [200, "serving\n"]);
  await engine.caches.close();
  const ended = await ask("GET", "/healthz");
  assertEquals([ended.status, await ended.text()], [503, "stopping\n"]);
});

test(
  "ControlHandler: PATCH /tunables changes what it names, in either spelling, or nothing",
  async (ask, engine) => {
    const patch = (body: string) => ask("PATCH", "/tunables", { body });
    const changed = await patch('{"writeback": "on", "fullTimeout": 60, "flush_interval": "5"}');
    assertEquals(changed.status, 200);
    const all = await changed.json();
    assertEquals([all.writeback, all.full_timeout, all.flush_interval], ["on", 60, 5]);
    assertEquals(engine.served.cache.tunables.fullTimeout, 60);
    assertEquals(await (await ask("GET", "/tunables")).json(), all);
    const wrong: [string, string][] = [
      ["", "no"],
      ["[1]", "object"],
      ["null", "object"],
      ['{"speed": 9}', "speed"],
      ['{"writeback": true}', "expected a number or a string"],
      ['{"full_timeout": 5, "writeback": "maybe"}', "auto, on or off"],
      ['{"__proto__": 5}', "no such tunable"],
      ['{"constructor": 5}', "no such tunable"],
    ];
    for (const [body, says] of wrong) {
      const response = await patch(body);
      assertEquals(response.status, 400, body);
      const { error } = await response.json();
      assertEquals([error.name, error.exitCode], ["UsageError", 2]);
      if (says !== "no") assertStringIncludes(error.message, says);
    }
    assertEquals(engine.served.cache.tunables.fullTimeout, 60);
  },
);

test(
  "ControlHandler: GET /map is a byte a cell, and many who ask at once cost one look",
  async (ask, engine) => {
    await engine.write(200);
    let asked = 0;
    const map = engine.target.map;
    (engine.target as { map: ControlTarget["map"] }).map = () => {
      asked++;
      return map();
    };
    const responses = await Promise.all(Array.from({ length: 20 }, () => ask("GET", "/map")));
    assertEquals(asked, 1);
    const documents = await Promise.all(responses.map((response) => response.json()));
    const { segments, backing } = documents[19];
    assertEquals([segments.count, segments.perCell, segments.blocks], [30, 1, 128]);
    assertEquals([backing.blocks, backing.perCell], [8192, 4]);
    const cells = (text: string) => Uint8Array.fromBase64(text);
    assertEquals(cells(segments.dirty).length, 30);
    assertEquals(cells(segments.live)[0], 253);
    const dirty = cells(backing.dirty);
    assertEquals([dirty.length, dirty.indexOf(0), dirty.lastIndexOf(255)], [2048, 50, 49]);
  },
);

async function lines(response: Response): Promise<Record<string, unknown>[]> {
  return (await response.text()).trimEnd().split("\n").map((line) => JSON.parse(line));
}

test(
  "ControlHandler: POST /drain tells of its progress line by line, and of its end",
  async (ask, engine) => {
    await engine.write(300);
    const response = await ask("POST", "/drain");
    assertEquals([response.status, response.headers.get("content-type")], [200, "application/x-ndjson"]);
    const told = await lines(response);
    assertEquals(told[0], { phase: "draining", done: 0, total: 300 });
    assertEquals(told.at(-1), { result: { comparedBlocks: 0 } });
    assertEquals(engine.served.cache.status().cache.dirtyBlocks, 0);
  },
);

test("ControlHandler: a drain goes on although nobody reads on", async (ask, engine) => {
  await engine.write(300);
  const response = await ask("POST", "/drain");
  await response.body!.cancel();
  for (let i = 0; i < 500 && engine.served.cache.status().cache.dirtyBlocks > 0; i++) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  assertEquals(engine.served.cache.status().cache.dirtyBlocks, 0);
});

test(
  "ControlHandler: POST /detach reads back, ends the server, and is refused the second time",
  async (ask, engine) => {
    await engine.write(50);
    const told = await lines(await ask("POST", "/detach?verify=true"));
    assertEquals(told.at(-1), { result: { comparedBlocks: 50 } });
    assertEquals((await (await ask("GET", "/status")).json()).state, "stopping");
    const again = await ask("POST", "/detach");
    assertEquals([again.status, (await again.json()).error.exitCode], [409, 3]);
    assertEquals((await ask("POST", "/detach?verify=perhaps")).status, 400);
  },
);

test("ControlHandler: HEAD answers as GET does, without content", async (ask) => {
  for (const path of ["/", "/status", "/metrics", "/healthz", "/events", "/drain", "/secret"]) {
    const [head, get] = [await ask("HEAD", path), await ask("GET", path)];
    await get.body?.cancel();
    assertEquals([head.status, head.body], [get.status, null], path);
    assertEquals(head.headers.get("content-type"), get.headers.get("content-type"));
  }
});

test("ControlHandler: what is not there is 404, what is not taken 405, each with a sentence", async (ask) => {
  const nothing = await ask("GET", "/secret");
  assertEquals(nothing.status, 404);
  assertStringIncludes((await nothing.json()).error.message, "/status");
  for (
    const [method, path] of [["POST", "/status"], ["GET", "/drain"], ["OPTIONS", "/tunables"], [
      "PUT",
      "/tunables",
    ]]
  ) {
    const response = await ask(method!, path!);
    assertEquals(response.status, 405, `${method} ${path}`);
    assert(response.headers.has("allow"));
    assertMatch((await response.json()).error.message, /expected/);
  }
  for (const path of ["/constructor", "/__proto__", "/toString"]) {
    assertEquals((await ask("GET", path)).status, 404);
  }
});

test(
  "ControlHandler: no page of another origin is obeyed, and no request is answered with CORS headers",
  async (ask, engine) => {
    await engine.write(1);
    const origins = ["https://evil.example", "null", "http://localhost:8000", "file://"];
    for (const origin of origins) {
      for (const [method, path] of [["POST", "/drain"], ["GET", "/status"], ["PATCH", "/tunables"]]) {
        const response = await ask(method!, path!, { headers: { origin } });
        assertEquals(response.status, 403, `${origin} ${path}`);
        assertEquals(response.headers.get("access-control-allow-origin"), null);
        await response.body?.cancel();
      }
    }
    for (const site of ["cross-site", "same-site"]) {
      assertEquals((await ask("POST", "/drain", { headers: { "sec-fetch-site": site } })).status, 403);
    }
    assertEquals(engine.served.cache.status().cache.dirtyBlocks, 1);
    const own = await ask("GET", "/status", {
      headers: { origin: "http://localhost", "sec-fetch-site": "same-origin" },
    });
    assertEquals(own.status, 200);
  },
);

test("ControlHandler: on a unix socket a Host that is a name in the DNS is refused", async (ask, engine) => {
  await engine.write(1);
  // What a page whose name was made to mean this machine sends through a forwarded port: no Origin, for a GET.
  for (const host of ["evil.example:9000", "evil.example", "127.0.0.1.evil.example", "10.0.0.1:9000", ""]) {
    for (const [method, path] of [["GET", "/status"], ["POST", "/drain"], ["GET", "/"]] as const) {
      const origin = method === "POST" ? { origin: `http://${host}` } : {};
      const response = await ask(method, path, { headers: { host, ...origin } });
      await response.body?.cancel();
      assertEquals(response.status, 403, `${method} ${path} of ${host}`);
    }
  }
  assertEquals(engine.served.cache.status().cache.dirtyBlocks, 1);
  for (const host of ["localhost", "localhost:9809", "127.0.0.1:9809", "[::1]:9809", "unix", "d"]) {
    const response = await ask("GET", "/healthz", { headers: { host } });
    assertEquals([response.status, await response.text()], [200, "serving\n"], host);
  }
});

const port: Guard = { hosts: ["127.0.0.1:9000", "localhost:9000"], token: "0123456789abcdef" };

test(
  "ControlHandler: on a port a foreign Host is refused, and so is everything without the token",
  async (ask) => {
    const host = "127.0.0.1:9000";
    const authorization = "Bearer 0123456789abcdef";
    const status = async (headers: Record<string, string>, path = "/status") => {
      const response = await ask("GET", path, { headers });
      await response.body?.cancel();
      return response.status;
    };
    assertEquals(await status({ host, authorization }), 200);
    assertEquals(await status({ host: "LOCALHOST:9000", authorization }), 200);
    for (const wrong of ["evil.example:9000", "127.0.0.1", "127.0.0.1:9001", ""]) {
      assertEquals(await status({ host: wrong, authorization }), 403, wrong);
    }
    const guesses = [
      "",
      "Bearer",
      "Bearer 0123456789abcdeF",
      "Bearer 0123456789abcdef0",
      "Basic 0123456789abcdef",
      "Bearer ",
    ];
    for (const wrong of guesses) assertEquals(await status({ host, authorization: wrong }), 401, wrong);
    assertEquals(await status({ host }, "/metrics"), 401);
    assertEquals(await status({ host }, "/healthz"), 200);
    assertEquals(await status({ host }, "/"), 200);
    const message = (await (await ask("GET", "/status", { headers: { host } })).json()).error.message;
    assertStringIncludes(message, "Authorization: Bearer");
  },
  port,
);

Deno.test("ControlHandler: an engine that hangs is said to, and is no reason to hang", async () => {
  const clock = new FakeClock();
  const never = () => new Promise<never>(() => {});
  const target: ControlTarget = {
    ...{
      io: "ring",
      ioReason: "",
      status: never,
      map: never,
      tune: never,
      mirror: never,
      drain: never,
      history: never,
      hold: never,
      detach: never,
    },
  };
  const handler = new ControlHandler(target, clock);
  const asked = handler.handle(new Request("http://localhost/status", { headers: { host: "localhost" } }));
  const health = handler.handle(new Request("http://localhost/healthz", { headers: { host: "localhost" } }));
  clock.advance(5000);
  const response = await asked;
  assertEquals(response.status, 500);
  assertStringIncludes((await response.json()).error.message, "has not answered");
  assertEquals((await health).status, 503);
});

test(
  "ControlHandler: /events tells the status and messages, and asks the engine only while somebody listens",
  async (ask, engine, handler) => {
    let asked = 0;
    const status = engine.target.status;
    (engine.target as { status: ControlTarget["status"] }).status = () => {
      asked++;
      return status();
    };
    const response = await ask("GET", "/events");
    assertEquals(response.headers.get("content-type"), "text/event-stream");
    const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
    const first = (await reader.read()).value!;
    assertMatch(first, /^event: status\ndata: \{"version".*\}\n\n$/);
    for (let i = 0; i < 500; i++) handler.tell({ time: "now", level: "warning", message: `look\n${i}` });
    const second = (await reader.read()).value!;
    // A client that does not read keeps the newest only.
    assertEquals(second.split("event: message\n").length - 1, 100);
    assertStringIncludes(second, 'data: {"time":"now","level":"warning","message":"look\\n499"}\n\n');
    const write = engine.caches.server.statistics.write;
    const third = JSON.parse(/^event: status\ndata: (.*)\n\n$/.exec((await reader.read()).value!)![1]!);
    assertEquals([third.requests.write, third.recent.latencyMicros.write.count], [write, 0]);
    assert(third.recent.seconds > 0.5);
    await reader.cancel();
    const drawn = (await ask("GET", "/events?map=true")).body!.pipeThrough(new TextDecoderStream())
      .getReader();
    const both = (await drawn.read()).value!;
    assertMatch(both, /^event: status\ndata: \{.*\}\n\nevent: map\ndata: \{"segments":\{.*\}\n\n$/);
    await drawn.cancel();
    assertEquals((await ask("GET", "/events?map=perhaps")).status, 400);
    const before = asked;
    await new Promise((resolve) => setTimeout(resolve, 1200));
    assertEquals(asked, before);
  },
);

test("ControlHandler: responses that go on are limited, and one that ends makes room", async (ask) => {
  const open: Response[] = [];
  for (let i = 0; i < 16; i++) open.push(await ask("GET", "/events"));
  assert(open.every(({ status }) => status === 200));
  assertEquals((await ask("GET", "/events")).status, 503);
  assertEquals((await ask("GET", "/status")).status, 200);
  await open[3]!.body!.cancel();
  const again = await ask("GET", "/events");
  assertEquals(again.status, 200);
  for (const response of [...open, again]) {
    if (!response.bodyUsed) await response.body!.cancel().catch(() => {});
  }
});
