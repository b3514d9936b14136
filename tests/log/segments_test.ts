// Why: where a segment begins is where the tail may come to rest; a lost record that it skips is read as stale data.
import { Segments } from "../../src/log/segments.ts";
import { assertEquals } from "../assert.ts";

const first = (segments: Segments, segment: number) => [
  segments.firstSlot[segment],
  segments.firstSequence[segment],
  segments.firstChain[segment],
];

Deno.test("Segments.placeLost: a segment begins with its lost record until the loss is written down", () => {
  const segments = new Segments(4, 8);
  segments.placeLost(8, 18, 7);
  segments.place(10, 19, 6);
  segments.place(12, 20, 5);
  assertEquals([first(segments, 1), segments.lastSequence[1]], [[8, 18, 7], 20]);
  segments.forgetLost();
  assertEquals([first(segments, 1), segments.lastSequence[1]], [[10, 19, 6], 20]);
});

Deno.test("Segments.placeLost: the record that took the place of a lost one is the first that is known", () => {
  const segments = new Segments(4, 8);
  segments.placeLost(8, 18, 7);
  segments.place(8, 19, 6);
  segments.place(9, 20, 5);
  assertEquals(first(segments, 1), [8, 18, 7]);
  segments.forgetLost();
  assertEquals([first(segments, 1), segments.lastSequence[1]], [[8, 19, 6], 20]);
});

Deno.test("Segments.placeLost: a loss behind known records, or behind another, moves no beginning", () => {
  const segments = new Segments(4, 8);
  segments.place(8, 18, 7);
  segments.placeLost(10, 19, 6);
  segments.place(12, 20, 5);
  segments.placeLost(16, 21, 4);
  segments.placeLost(18, 22, 3);
  segments.place(20, 23, 2);
  segments.forgetLost();
  assertEquals([first(segments, 1), first(segments, 2)], [[8, 18, 7], [20, 23, 2]]);
});
