/**
 * Faults planted into the mirror: its legs, their marks, and what is copied to a new one.
 *
 * @module
 */

import type { Mutant } from "./mutant.ts";

const mirror = "src/device/mirror.ts";
const copy = "src/device/mirror_copy.ts";
const legs = "src/cache/legs.ts";

const rule = 16;
const world = "mirrored";

/** See {@linkcode Mutant}. */
export const mutantsOfTheMirror: readonly Mutant[] = [
  {
    name: "stale-mark-not-awaited",
    rule,
    world,
    why:
      "a flush is acknowledged before the leg that is left says so durably; the other comes back and is believed",
    edits: [{
      file: mirror,
      find: "if (!this.isWhole && !this.#saysAlone && !this.readOnly) await this.#sayAlone();",
      replace: "if (!this.isWhole && !this.#saysAlone && !this.readOnly) this.#sayAlone().catch(() => {});",
    }],
  },
  {
    name: "stale-mark-not-synced",
    rule,
    world,
    why: "the mark of the leg that is left is written and a power cut takes it",
    edits: [{ file: "src/log/leg_mark.ts", find: "    await leg.sync();\n", replace: "" }],
  },
  {
    name: "stale-leg-believed",
    rule,
    world,
    why: "a leg that lacks what was flushed without it is taken into service",
    edits: [{
      file: legs,
      find: 'if (a.claim === "together" && b.claim === "together") return',
      replace: "if (isPair) return",
    }],
  },
  {
    name: "half-copy-believed",
    rule,
    world,
    why: "a leg to which not everything was copied is taken into service at the next opening",
    edits: [
      {
        file: mirror,
        find: 'await writeLegMarks(leg, { claim: "copying", other: source.mark.self });',
        replace: 'await writeLegMarks(leg, { claim: "together", other: source.mark.self });',
      },
      {
        file: mirror,
        find: "      if (isDropped(leg)) throw leg.failure;\n      this.#legs.push(leg);",
        replace:
          '      if (isDropped(leg)) throw leg.failure;\n      await writeLegMarks(source, { claim: "together", other: leg.mark.self });\n      this.#legs.push(leg);',
      },
    ],
  },
  {
    name: "copy-counts-unsynced",
    rule,
    world,
    why: "a copy counts that was never synced: a power cut takes it, and then the other leg is lost",
    edits: [
      {
        file: mirror,
        find: '      leg.state = "joining";\n      await leg.sync();\n',
        replace: '      leg.state = "joining";\n',
      },
      {
        file: "src/log/leg_mark.ts",
        find: "    await leg.sync();\n",
        replace: '    if (mark.claim === "alone") await leg.sync();\n',
      },
    ],
  },
  {
    name: "sync-of-one-leg-is-enough",
    rule,
    world,
    why: "a flush is acknowledged that one leg alone has made durable, and that one is lost",
    edits: [{
      file: mirror,
      find: 'const legs = this.#legs.filter(({ state }) => state !== "copying");',
      replace: "const legs = this.#legs.slice(0, 1);",
    }],
  },
  {
    name: "failed-leg-stays",
    rule,
    world,
    why: "a leg whose write failed stays in service, and then the other is lost",
    edits: [{
      file: mirror,
      find: '    if (leg.state === "dropped") return true;\n    const others',
      replace: "    if (this.isWhole && error) return true;\n    const others",
    }],
  },
  {
    name: "copy-leaves-out-the-tail",
    rule,
    world,
    why: "the oldest segment that is needed is not copied",
    edits: [{
      file: "src/cache/mirror.ts",
      find: "const count = segmentCount - writer.freeSegments;",
      replace: "const count = Math.max(1, segmentCount - writer.freeSegments - 1);",
    }],
  },
  {
    name: "new-leg-gets-no-writes",
    rule,
    world,
    why: "what is written while a copy is under way is not on the new leg",
    edits: [{
      file: mirror,
      find: '          if (leg.state === "dropped") return;\n',
      replace: '          if (leg.state === "dropped" || leg.state === "copying") return;\n',
    }],
  },
  {
    name: "copy-overtakes-writes",
    rule,
    world,
    why: "a piece that is copied lands over what was written to it meanwhile",
    edits: [{ file: copy, find: "const release = await lock(piece);", replace: "const release = () => {};" }],
  },
  {
    name: "copy-misses-what-was-under-way",
    rule,
    world,
    why: "what was being written to the source alone when the copy began is on neither way to the new leg",
    edits: [{
      file: mirror,
      find: "    if (turn.writes > 0) await new Promise<void>((resolve) => turn.onEnd = resolve);\n",
      replace: "    turn.onEnd = () => {};\n",
    }],
  },
  {
    name: "copy-leaves-out-the-superblocks",
    rule,
    world,
    why: "a leg that came back keeps the superblocks of the time when it was lost, and a new one has none",
    edits: [{
      file: "src/cache/mirror.ts",
      find: "const ranges = [{ offset: 0, length: logOffset }];",
      replace: "const ranges: Range[] = [];",
    }],
  },
  {
    name: "one-copy-read-alone",
    rule,
    world,
    why: "what one leg has wrongly counts as lost, although the other has it right",
    edits: [{
      file: mirror,
      find: "return this.#inService.map((leg) => ({",
      replace: "return this.#inService.slice(0, 1).map((leg) => ({",
    }],
  },
];
