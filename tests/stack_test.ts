import { Stack } from "../src/stack.ts";
import { assertEquals } from "./assert.ts";

Deno.test("Stack: last in, first out, and nothing when it is empty", () => {
  const stack = new Stack<number>();
  assertEquals(stack.pop(), undefined);
  stack.push(1);
  stack.push(2);
  assertEquals(stack.pop(), 2);
  stack.push(0);
  assertEquals([stack.pop(), stack.pop(), stack.pop()], [0, 1, undefined]);
});
