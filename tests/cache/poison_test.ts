// Why: a sector that is lost and not remembered is read as stale data, one that is remembered too long is an error for nothing.
import fc from "../property.ts";
import { BlockSet } from "../../src/cache/block_set.ts";
import { Poison } from "../../src/cache/poison.ts";
import { fullMask } from "../../src/units.ts";
import { assertEquals } from "../assert.ts";

/** Not a multiple of the 32 bits of a word. */
const length = 150;
const block = fc.nat(length - 1);
const range = fc.tuple(fc.nat(length), fc.nat(length)).map(([a, b]) => ({
  start: Math.min(a, b),
  end: Math.max(a, b),
}));

const setStep = fc.oneof(
  fc.record({ what: fc.constantFrom("add" as const, "delete" as const), block }),
  fc.record({ what: fc.constantFrom("addRange" as const, "deleteRange" as const), range }),
);

Deno.test("BlockSet: does what a Set of numbers does", () => {
  fc.assert(
    fc.property(fc.array(setStep, { maxLength: 40 }), (steps) => {
      const set = new BlockSet(length);
      const model = new Set<number>();
      for (const step of steps) {
        if ("range" in step) {
          const { start, end } = step.range;
          set[step.what](start, end);
          for (let i = start; i < end; i++) model[step.what === "addRange" ? "add" : "delete"](i);
        } else {
          const changes = model.has(step.block) === (step.what === "delete");
          assertEquals(set[step.what](step.block), changes);
          model[step.what](step.block);
        }
        assertEquals(set.count, model.size);
      }
      const members = [...model].sort((a, b) => a - b);
      assertEquals(Array.from({ length }, (_, i) => i).filter((i) => set.has(i)), members);
      for (const end of [0, 31, 32, 33, 64, length]) {
        for (let from = 0; from <= end; from++) {
          assertEquals(set.next(from, end), members.find((i) => i >= from && i < end) ?? -1);
          let absent = from;
          while (absent < end && model.has(absent)) absent++;
          assertEquals(set.nextAbsent(from, end), absent);
        }
      }
    }),
    { numRuns: 100 },
  );
});

const mask = fc.oneof(fc.integer({ min: 1, max: 255 }), fc.constantFrom(1, 128, 254, fullMask));
const poisonStep = fc.oneof(
  fc.record({ what: fc.constant("add" as const), block, mask }),
  fc.record({ what: fc.constant("heal" as const), block, mask }),
  fc.record({ what: fc.constantFrom("addRange" as const, "healRange" as const), range }),
);

Deno.test("Poison: does what a Map from block to lost sectors does", () => {
  fc.assert(
    fc.property(fc.array(poisonStep, { maxLength: 40 }), range, (steps, asked) => {
      const poison = new Poison(length);
      const model = new Map<number, number>();
      const put = (at: number, lost: number) => lost === 0 ? model.delete(at) : model.set(at, lost);
      for (const step of steps) {
        if (step.what === "add") {
          poison.add(step.block, step.mask);
          put(step.block, (model.get(step.block) ?? 0) | step.mask);
        } else if (step.what === "heal") {
          const before = model.get(step.block) ?? 0;
          assertEquals(poison.heal(step.block, step.mask), (before & step.mask) !== 0);
          put(step.block, before & ~step.mask);
        } else {
          const { start, end } = step.range;
          const inside = [...model.keys()].filter((at) => at >= start && at < end);
          if (step.what === "addRange") poison.addRange(start, end);
          else assertEquals(poison.healRange(start, end), inside.length > 0);
          for (let at = start; at < end; at++) put(at, step.what === "addRange" ? fullMask : 0);
        }
        assertEquals([poison.any, poison.blocks], [model.size > 0, model.size]);
      }
      for (let at = 0; at < length; at++) assertEquals(poison.mask(at), model.get(at) ?? 0, `block ${at}`);
      const { start, end } = asked;
      const inside = [...model].filter(([at]) => at >= start && at < end).sort(([a], [b]) => a - b);
      assertEquals(poison.anyIn(start, end), inside.length > 0);
      const ranges = [...poison.ranges(start, end)];
      const told = ranges.flatMap((run) =>
        Array.from({ length: run.end - run.start }, (_, i): [number, number] => [run.start + i, run.mask])
      );
      assertEquals(told.sort(([a], [b]) => a - b), inside);
      // Whole blocks that touch are one range: a lost device is one entry of the log, not a million.
      const whole = ranges.filter((run) => run.mask === fullMask);
      for (const run of whole) assertEquals(whole.some((other) => other.start === run.end), false);
    }),
    { numRuns: 300 },
  );
});
