/** Paths of recoveries, on units that hold what the test says. */

import { assertEquals, assertThrows } from "../assert.ts";
import { Courses, View } from "./tiny_course.ts";
import { contents } from "./tiny_oracle.ts";
import { type Content, Look, Units } from "./tiny_units.ts";

/** Units 0 to 9 of one sector, each with two contents. */
function make() {
  const units = new Units(contents, new Uint8Array(16));
  const held = Array.from({ length: 10 }, (_, unit) => [units.of(unit, [0]), units.of(unit, [1])]);
  const glance = (unit: number, which: number) => ({
    unit,
    look: Look.whole,
    crc: 0,
    seen: held[unit]![which]!.id,
  });
  const view = (decided: [number, number][] = []) =>
    new View(
      { at: (unit) => held[unit]! },
      new Map<number, Content[]>(decided.map(([unit, which]) => [unit, [held[unit]![which]!]])),
    );
  return { courses: new Courses<string>(units), glance, view };
}

function walk(courses: Courses<string>, view: View): { found: string[]; missed: number } {
  const found: string[] = [];
  let missed = 0;
  courses.walk(view, (outcome) => found.push(outcome), () => missed++);
  return { found: found.sort(), missed };
}

Deno.test("Courses.walk: what was never run is missed", () => {
  const { courses, glance, view } = make();
  assertEquals(walk(courses, view()), { found: [], missed: 1 });
  courses.add([glance(3, 0), glance(4, 0)], "a");
  assertEquals(walk(courses, view()), { found: ["a"], missed: 2 });
});

Deno.test("Courses.walk: a unit is decided where a path looks at it, and not otherwise", () => {
  const { courses, glance, view } = make();
  courses.add([glance(3, 0), glance(4, 0)], "a");
  courses.add([glance(3, 0), glance(4, 1), glance(5, 0)], "b");
  courses.add([glance(3, 1)], "c");
  assertEquals(walk(courses, view()), { found: ["a", "b", "c"], missed: 1 });
  assertEquals(walk(courses, view([[3, 1]])), { found: ["c"], missed: 0 });
  assertEquals(walk(courses, view([[3, 0], [4, 0]])), { found: ["a"], missed: 0 });
  assertEquals(walk(courses, view([[3, 0], [5, 1]])), { found: ["a"], missed: 1 });
});

Deno.test("Courses.add: a run that went another way for no reason is an error", () => {
  const { courses, glance } = make();
  courses.add([glance(3, 0), glance(4, 0)], "a");
  for (const glances of [[glance(3, 0), glance(5, 0)], [glance(4, 0)], [glance(3, 0)]]) {
    assertThrows(() => courses.add(glances, "b"), Error, "another way");
  }
  assertThrows(() => courses.add([glance(3, 0), glance(4, 0), glance(5, 0)], "b"), Error, "another way");
});
