/**
 * Faults planted into the log, its recovery, and opening.
 *
 * @module
 */

import type { Mutant } from "./mutant.ts";

const recovery = "src/log/recovery.ts";
const durability = "src/log/durability.ts";
const store = "src/log/superblock_store.ts";
const open = "src/cache/open.ts";
const checkpoint = "src/log/checkpoint.ts";

/** See {@linkcode Mutant}. */
export const mutantsOfTheLog: readonly Mutant[] = [
  {
    name: "header-proves-record",
    rule: 1,
    why: "a record of which the header landed and the data did not hides the flushed version before it",
    edits: [{
      file: recovery,
      find: "if (recordIsWhole(header, bytes)) {",
      replace: "if (bytes.length > 0) {",
    }],
  },
  {
    name: "torn-record-passed",
    rule: 1,
    why: "records after a torn one are accepted: the next recovery finds a hole where none may be",
    edits: [{
      file: recovery,
      find: "this.#walk.dropped += pending.length - i;",
      replace: "this.#walk.dropped++;\n      if (i + 1 < pending.length) continue;",
    }],
  },
  {
    name: "one-superblock-copy",
    rule: 4,
    why: "the other copy names a tail whose segment is overwritten; it counts when the newer one rots",
    edits: [{ file: store, find: "for (let i = 0; i < 2; i++) {", replace: "for (let i = 0; i < 1; i++) {" }],
  },
  {
    name: "superblocks-not-synced",
    rule: 4,
    why: "segments are overwritten while the superblocks on the medium still name them as the tail",
    edits: [{ file: store, find: "await this.#log.syncDevice();", replace: "" }],
  },
  {
    name: "checkpoint-says-clean",
    rule: 4,
    why: "what was dirty at a clean close is never written back",
    edits: [{
      file: checkpoint,
      find: "return ((this.bytes[slot >>> 3]! >>> (slot & 7)) & 1) === 1;",
      replace: "return slot < 0;",
    }],
  },
  {
    name: "checkpoint-outlives-its-close",
    rule: 4,
    why: "after a crash the checkpoint of an older close calls clean what is dirty",
    edits: [
      {
        file: checkpoint,
        find: "  if (!superblock.clean) return { bits: undefined, problem: undefined };\n",
        replace: "",
      },
      { file: checkpoint, find: "if (!fits) return", replace: "if (!fits && header.length === 0) return" },
    ],
  },
  {
    name: "superseding-not-durable",
    rule: 4,
    why: "a segment goes though what superseded it is lost by the power cut: a flushed version is gone",
    edits: [{
      file: "src/log/segments.ts",
      find: "if (this.supersededBy[segment]! < sequence) this",
      replace: "if (sequence < 0) this",
    }],
  },
  {
    name: "damage-called-torn",
    rule: 5,
    world: "faulty",
    why: "a header that rots ends the log in silence",
    edits: [{ file: recovery, find: "if (this.#walk.mark < expected) {", replace: "if (expected > 0) {" }],
  },
  {
    name: "mark-ahead-of-sync",
    rule: 5,
    why: "a mark that no sync proved lets unverified records in, and calls a tear damage",
    edits: [{
      file: "src/log/writer.ts",
      find: "facts.durableMark = this.durableSequence;",
      replace: "facts.durableMark = this.#nextSequence - 1;",
    }],
  },
  {
    name: "lost-records-forgotten",
    rule: 6,
    world: "faulty",
    why: "two neighbouring headers rot, and older content of their blocks comes back",
    edits: [{
      file: recovery,
      find: "this.#sink.loseAll(placeFits",
      replace: "if (expected < 0) this.#sink.loseAll(placeFits",
    }],
  },
  {
    name: "rebuilt-records-not-applied",
    rule: 6,
    world: "faulty",
    why:
      "a header rots, and the older content of its blocks comes back although a copy of its entries exists",
    edits: [{
      file: recovery,
      find: "this.#sink.apply(previousEntries(copy), copy.slot, copy.sequence, true);",
      replace: "",
    }],
  },
  {
    name: "losses-not-written-down",
    rule: 6,
    world: "faulty",
    why: "what is lost reads as EIO until the next restart, and then as older content",
    edits: [{
      file: open,
      find: "if (recovery.damaged) await cacheSeam",
      replace: "if (readOnly) await cacheSeam",
    }],
  },
  {
    name: "open-rewrites-nothing",
    rule: 7,
    world: "faulty",
    why:
      "after a failed sync the page cache shows records that are not on the medium; a power cut takes them",
    edits: [{ file: open, find: "...walk.rewrites]) {", replace: "...walk.rewrites.slice(0, 0)]) {" }],
  },
  {
    name: "open-syncs-no-cache",
    rule: 7,
    why: "the new superblock lands and the records that it counts as durable do not",
    edits: [{ file: open, find: "await device.sync();", replace: "" }],
  },
  {
    name: "sync-covers-what-ends-during-it",
    rule: 9,
    why: "a log write that ends after the sync was issued is acknowledged and lost",
    edits: [
      {
        file: durability,
        find: "const reach = { ...this.#completed };",
        replace: "let reach = this.#completed;",
      },
      {
        file: durability,
        find: "    if (reach.sequence <= this.#durable.sequence) return;",
        replace:
          "    reach = { ...this.#completed };\n    if (reach.sequence <= this.#durable.sequence) return;",
      },
    ],
  },
  {
    name: "sync-covers-what-is-in-flight",
    rule: 9,
    why: "a log write that is under way when the sync is issued is acknowledged and lost",
    edits: [
      {
        file: durability,
        find: "        while (this.#completed.sequence < target && !this.#failure) await this.nextEnd();\n",
        replace: "",
      },
      {
        file: durability,
        find: "const reach = { ...this.#completed };",
        replace: "const reach = { ...this.#last ?? this.#completed };",
      },
    ],
  },
  {
    name: "completion-out-of-order",
    rule: 9,
    why: "the end of a later log write counts for an earlier one that is still under way",
    edits: [{
      file: durability,
      find: "first?.done; first = this.#first) {",
      replace: "first && (first.done || first.next?.done); first = this.#first) {",
    }],
  },
  {
    name: "flush-without-sync",
    rule: 9,
    why: "a flush is acknowledged, and a power cut takes what it covers",
    edits: [{ file: durability, find: "await this.#device.sync();", replace: "await Promise.resolve();" }],
  },
  {
    name: "zombies-follow",
    rule: 14,
    why: "a record that a crash cut off stands right behind the head and is taken for the next one",
    edits: [{
      file: recovery,
      find: "  #follows(header: RecordHeader): boolean {\n",
      replace:
        "  #follows(header: RecordHeader): boolean {\n    if (header.sequence === this.#sequence) return true;\n",
    }],
  },
  {
    name: "zombies-after-damage",
    rule: 14,
    world: "faulty",
    why: "behind a header that rots, the walk goes on with records that an earlier crash cut off",
    edits: [
      {
        file: recovery,
        find: "if (epoch.number < present.number) return header.sequence < present.firstSequence;",
        replace: "if (epoch.number < present.number) return true;",
      },
      { file: recovery, find: "if (epoch > header.epoch.number && ", replace: "if (epoch < 0 && " },
    ],
  },
  {
    name: "epoch-not-renewed",
    rule: 14,
    why: "nothing tells the records of this life from those that a crash cut off before it",
    edits: [
      {
        file: open,
        find: "  const bytes = new Uint8Array(8);\n  random(bytes);",
        replace:
          "  if (previous.number > 0) return previous;\n  const bytes = new Uint8Array(8);\n  random(bytes);",
      },
      {
        file: recovery,
        find: "header.chain !== this.#chain) return false;",
        replace: "header.chain < 0) return false;",
      },
    ],
  },
  {
    name: "failed-cache-sync-is-success",
    rule: 15,
    world: "faulty",
    why: "a sync fails, what it should have made durable is dropped, and the flush is acknowledged",
    edits: [{
      file: durability,
      find: "    } catch (error) {\n      this.fail(error);\n    }\n    if (this.#failure) throw",
      replace: "    } catch {\n      this.syncs++;\n    }\n    if (this.#failure) throw",
    }],
  },
  {
    name: "failed-log-write-is-success",
    rule: 15,
    world: "faulty",
    why: "a log write fails, and the flush after it is acknowledged",
    edits: [
      {
        file: "src/log/record_writes.ts",
        find: "    if (result === length) return this.#durability.complete(record);",
        replace: "    if (result <= length) return this.#durability.complete(record);",
      },
      {
        file: "src/log/record_writes.ts",
        find: "    }, (error) => {\n      this.#end(tag);\n      this.#durability.fail(error);",
        replace: "    }, () => {\n      this.#end(tag);\n      this.#durability.complete(record);",
      },
    ],
  },
];
