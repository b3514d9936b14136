/** Asking our server what it counts. @module */

import { askStatus } from "../../bench/e2e/status.ts";
import { NbdboostError } from "../../src/errors.ts";
import { assertEquals, assertRejects } from "../assert.ts";

Deno.test("askStatus: takes the JSON that the control socket gives, and refuses anything else", async () => {
  const directory = await Deno.makeTempDir({ prefix: "nbdboost-status-" });
  const path = `${directory}/control`;
  const server = Deno.serve(
    { path, onListen() {} },
    (request) =>
      new URL(request.url).pathname === "/status" && good
        ? Response.json({ log: { syncs: 3 }, text: "ü".repeat(5000) })
        : new Response("no", { status: 404 }),
  );
  let good = true;
  try {
    const status = await askStatus(path) as unknown;
    assertEquals(status, { log: { syncs: 3 }, text: "ü".repeat(5000) });
    good = false;
    await assertRejects(() => askStatus(path), NbdboostError, "404");
  } finally {
    await server.shutdown();
    await Deno.remove(directory, { recursive: true });
  }
});
