import { UsageError } from "../../src/errors.ts";
import { parseTunable } from "../../src/cache/tunables.ts";
import { assertEquals, assertThrows } from "../assert.ts";

Deno.test("parseTunable: takes what is in range, and 0 where that switches off", () => {
  assertEquals(parseTunable("copy_forward=0"), { copyForward: 0 });
  assertEquals(parseTunable("copy_forward=10"), { copyForward: 10 });
  assertEquals(parseTunable("flush_interval=0"), { flushInterval: 0 });
  assertEquals(parseTunable("writeback_threshold=0"), { writebackThreshold: 0 });
  assertEquals(parseTunable("bypass_sequential=0"), { bypassSequential: 0 });
  assertEquals(parseTunable("bypass_sequential=16MiB"), { bypassSequential: 16 * 1024 * 1024 });
  assertEquals(parseTunable("writeback=off"), { writeback: "off" });
});

Deno.test("parseTunable: says what is expected of what is not", () => {
  const refused = (text: string, expected: string) =>
    assertThrows(() => parseTunable(text), UsageError, expected);
  refused("copy_forward=5", "expected 0, or a whole number from 10 to 90");
  refused("bypass_sequential=1k", "expected 0, or a size from 4096 to 1099511627776");
  refused("bypass_sequential=much", "expected 0, or a size from");
  refused("writeback_batch=0", "expected a whole number from 1 to 256");
  refused("full_timeout=", "expected a whole number from 1 to 86400");
  refused("flush_interval=1.5", "expected 0, or a whole number from 1 to 3600");
  refused("writeback=perhaps", "expected auto, on or off");
  refused("toString=1", "there is no such tunable");
});
