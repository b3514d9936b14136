/**
 * Faults planted into `writeback_order=prefix`: versions of another moment than the point's, and steps that overlap.
 *
 * @module
 */

import type { Mutant } from "./mutant.ts";

const order = "src/cache/point_order.ts";

const rule = 17;
const world = "prefix";

/** See {@linkcode Mutant}. */
export const mutantsOfTheOrder: readonly Mutant[] = [
  {
    name: "newest-version-in-a-step",
    rule,
    world,
    why: "a step writes what a block is now, not what it was at the point",
    edits: [{
      file: "src/cache/batch.ts",
      find: "this.#add(block, step.slot(step.cursor));",
      replace:
        "const now = this.#core.kernels.indexGet(block);\n      this.#add(block, now >= 0 && now < this.#core.kernels.reverse.length ? now : step.slot(step.cursor));",
    }],
  },
  {
    name: "next-step-before-the-sync",
    rule,
    world,
    why: "the next step begins when the one before is written, and nobody has synced that",
    edits: [{ file: order, find: "if (!step?.isDone ||", replace: "if (!step || step.unwritten > 0 ||" }],
  },
  {
    name: "point-inside-a-record",
    rule,
    world,
    why: "a point is taken without closing the record, so that it is of no moment that has a name",
    edits: [{
      file: order,
      find: "    writer.seal();\n    if (writer.openHasEntries) return;\n",
      replace: "",
    }],
  },
  {
    name: "superseded-versions-recycled",
    rule,
    world,
    why: "the tail passes versions that a step still needs, as they are superseded",
    edits: [{
      file: "src/cache/tail.ts",
      find: "segments.live[segment]! > 0 || segments.planned[segment]! > 0 ||",
      replace: "segments.live[segment]! > 0 ||",
    }, {
      file: "src/cache/tail.ts",
      find: "segments.live[segment] === 0 && segments.planned[segment] === 0 &&",
      replace: "segments.live[segment] === 0 &&",
    }],
  },
  {
    name: "zeroes-forget-a-newer-trim",
    rule,
    world,
    why: "a step's zeroes clean blocks that were written and trimmed again after its point",
    edits: [{
      file: order,
      find: "versions.rangeLog!.slice(step.rangesBefore - this.#rangesDropped)",
      replace: "[]",
    }],
  },
  {
    name: "failed-sync-settles-a-step",
    rule,
    world,
    why: "what a failed sync dropped counts as written",
    edits: [{ file: order, find: "syncEnded(ok);", replace: "syncEnded(ok || true);" }],
  },
  {
    name: "gap-between-steps",
    rule,
    world,
    why: "a step begins two slots after the one before ended, and what lies between is in none",
    edits: [{
      file: order,
      find: "this.#fromSlot = this.#writer.head.slot;",
      replace: "this.#fromSlot = (this.#writer.head.slot + 2) % this.#core.geometry.slotCount;",
    }],
  },
];
