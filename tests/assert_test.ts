/** The assertions are there and bite; the typed shim matches what npm:deno-std ships. @module */
import * as all from "./assert.ts";
import {
  assert,
  assertEquals,
  assertGreater,
  AssertionError,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "./assert.ts";

Deno.test("assert: every name of the shim is a function", () => {
  for (const [name, value] of Object.entries(all)) assertEquals(typeof value, "function", name);
});

Deno.test("assert: a failed assertion throws, and the thrown error comes back typed", async () => {
  const error = assertThrows(() => assertEquals([1, 2], [1, 3]), AssertionError, "not equal");
  assertStringIncludes(error.message, "3");
  assertThrows(() => assertGreater(1, 1), AssertionError);
  const range = await assertRejects(() => Promise.reject(new RangeError("too far")), RangeError, "far");
  assert(range instanceof RangeError);
});
