/** CPU time and memory from /proc, on this very process and a child. @module */

import { cpuSeconds, isAlive, parseStat, peakRssBytes } from "../../bench/e2e/process_tree.ts";
import { assert, assertEquals, assertGreater } from "../assert.ts";

const linux = Deno.build.os === "linux";

Deno.test("parseStat: a name may hold spaces and brackets; children that ended count", () => {
  const text = "7 (a) b) S 3 7 7 0 -1 4194560 1 2 3 4 100 20 3 4 20 0 1 0 5 6 7";
  assertEquals(parseStat(text), { parent: 3, zombie: false, ticks: 127 });
  assert(parseStat(text.replace(" S ", " Z ")).zombie);
});

Deno.test({
  name: "cpuSeconds: a child's work counts, while it lives and afterwards no more than once",
  ignore: !linux,
  async fn() {
    const before = cpuSeconds(Deno.pid);
    const child = new Deno.Command("sh", {
      args: ["-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo done; read line"],
      stdin: "piped",
      stdout: "piped",
    }).spawn();
    const reader = child.stdout.getReader();
    await reader.read();
    const [whole, alone] = [cpuSeconds(Deno.pid), cpuSeconds(child.pid)];
    assertGreater(alone, 0);
    assertGreater(whole - before, alone * 0.9);
    assert(peakRssBytes(Deno.pid) > peakRssBytes(child.pid));
    assert(isAlive(child.pid));
    reader.releaseLock();
    await Promise.all([child.stdin.close(), child.stdout.cancel(), child.status]);
    assert(!isAlive(child.pid));
    assertEquals(cpuSeconds(child.pid), 0);
  },
});
