/**
 * Faults planted into history: its floor, what a hold keeps, views, rewinds, and what changed since a flush point.
 *
 * @module
 */

import type { Mutant } from "./mutant.ts";

const hold = "src/cache/history_hold.ts";
const open = "src/cache/open.ts";
const changes = "src/cache/changes.ts";
const frozenView = "src/cache/frozen_view.ts";
const writeback = "src/cache/writeback.ts";

const rule = 18;
const world = "history";

/** See {@linkcode Mutant}. */
export const mutantsOfThePast: readonly Mutant[] = [
  {
    name: "held-history-written-back",
    rule,
    world,
    why: "history is held, and write-back goes on",
    edits: [
      {
        file: writeback,
        find: "if (this.#writer.failure || this.#core.history.held) return false;\n    if (this.drains",
        replace: "if (this.#writer.failure) return false;\n    if (this.drains",
      },
      {
        file: writeback,
        find: "this.#writer.failure || this.#core.history.held || (!wasTight",
        replace: "this.#writer.failure || (!wasTight",
      },
    ],
  },
  {
    name: "held-history-recycled",
    rule,
    world,
    why: "history is held, and the tail goes on",
    edits: [
      {
        file: writeback,
        find: "if (this.#writer.failure || this.#core.history.held) return false;\n    if (this.drains",
        replace: "if (this.#writer.failure) return false;\n    if (this.drains",
      },
      {
        file: writeback,
        find: "    if (this.#core.history.held) return true;\n    if (this.holdTail",
        replace: "    if (this.holdTail",
      },
    ],
  },
  {
    name: "hold-not-written-down",
    rule,
    world,
    why: "somebody hears that history is held, and a crash forgets it",
    edits: [{ file: hold, find: "        await this.#write();\n", replace: "" }],
  },
  {
    name: "release-not-written-down",
    rule,
    world,
    why: "write-back goes on while the superblocks still say how far back the past goes",
    edits: [{
      file: hold,
      find:
        "      await this.#store.write({\n        history: { ...this.#store.current.history, held: false, floor: undefined },\n      });\n",
      replace: "",
    }],
  },
  {
    name: "view-outlives-its-floor",
    rule,
    world,
    why: "a view goes on showing what is newer than its flush point",
    edits: [{
      file: frozenView,
      find: "    if (this.sequence >= history.floor) return;\n",
      replace: "    if (this.sequence >= 0) return;\n",
    }],
  },
  {
    name: "view-of-more-than-its-point",
    rule,
    world,
    why: "a view shows records behind its flush point, too",
    edits: [{
      file: frozenView,
      find: "    }, this.sequence);\n    this.#refuseEnded();",
      replace: "    });\n    this.#refuseEnded();",
    }],
  },
  {
    name: "rewind-keeps-the-newer",
    rule,
    world,
    why:
      "a rewind begins no epoch and is not closed in order, either of which voids what came after the flush point",
    edits: [
      {
        file: open,
        find: "const epoch = newEpoch(superblock.epoch",
        replace: "const epoch = point ? superblock.epoch : newEpoch(superblock.epoch",
      },
      {
        file: "src/cache/rewind.ts",
        find: "  const { readOnly } = cache;\n  await cache.close();\n",
        replace: "  const { readOnly } = cache;\n  if (readOnly) await cache.close();\n",
      },
    ],
  },
  {
    name: "since-misses-trims",
    rule,
    world,
    why: "a block that was trimmed since a flush point is not called changed",
    edits: [{
      file: changes,
      find: "if (kind === entryKind.clean) continue;",
      replace: "if (kind !== entryKind.data) continue;",
    }],
  },
  {
    name: "since-misses-the-last-records",
    rule,
    world,
    why: "what was written since the changes were asked for before is not called changed",
    edits: [{
      file: "src/cache/cache_history.ts",
      find: "await changes.extend(superblock, superblock.durableMark);",
      replace:
        "if (changes.runs(0, length, 2).length < 2) await changes.extend(superblock, superblock.durableMark);",
    }],
  },
];
