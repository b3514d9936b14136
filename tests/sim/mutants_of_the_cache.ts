/**
 * Faults planted into reading, writing, write-back and the tail.
 *
 * @module
 */

import type { Mutant } from "./mutant.ts";

const writes = "src/cache/writes.ts";
const reads = "src/cache/reads.ts";
const readSlots = "src/cache/read_slots.ts";
const longReads = "src/cache/long_reads.ts";
const tail = "src/cache/tail.ts";
const backingSync = "src/cache/backing_sync.ts";
const sweep = "src/cache/sweep.ts";
const batch = "src/cache/batch.ts";
const versions = "src/cache/versions.ts";
const bypass = "src/cache/bypass.ts";
const copies = "src/cache/clean_copies.ts";

/** See {@linkcode Mutant}. */
export const mutantsOfTheCache: readonly Mutant[] = [
  {
    name: "partial-write-forgets-the-rest",
    rule: 2,
    why: "a partial write hides the other sectors of the version before it, which the backing lacks",
    edits: [{
      file: writes,
      find: "      return kernels.masks[old]!;\n    }\n    kernels.bytes.fill",
      replace: "      return 0;\n    }\n    kernels.bytes.fill",
    }],
  },
  {
    name: "overwritten-block-keeps-its-checksum",
    rule: 2,
    why: "a block of the open record is changed after its checksum was computed, and cannot be read any more",
    edits: [{ file: writes, find: "      kernels.changeBlock(old);\n", replace: "" }],
  },
  {
    name: "old-version-taken-for-clean",
    rule: 2,
    why: "the version before is on the cache device alone, and is dropped as if the backing had it",
    edits: [{
      file: writes,
      find: "return cut === 0 && !versions.isLive(block);",
      replace: "return cut === 0;",
    }],
  },
  {
    name: "written-taken-for-synced",
    rule: 2,
    why: "a partial write drops sectors of the version before that the backing got, but did not sync",
    edits: [{
      file: versions,
      find:
        "return dirty.test(block) || written.test(block) || syncing.test(block);\n  }\n\n  /** Whether a block without",
      replace: "return dirty.test(block);\n  }\n\n  /** Whether a block without",
    }],
  },
  {
    name: "locks-hold-nobody",
    rule: 2,
    why: "two partial writes of a block both start from the version before",
    edits: [{
      file: "src/cache/locks.ts",
      find: "if (blocked) await",
      replace: "if (blocked && first < 0) await",
    }],
  },
  {
    name: "partial-write-over-zeroes-not-full",
    rule: 3,
    why: "the rest of a trimmed block comes from the backing, which still holds what was there before",
    edits: [{
      file: writes,
      find: "return old === noSlot && versions.readsZero(block) ? fullMask : 0;",
      replace: "return 0;",
    }],
  },
  {
    name: "zeroed-taken-for-synced",
    rule: 3,
    why: "the rest of a trimmed block is taken from the backing, where the zeroes are not durable",
    edits: [{
      file: versions,
      find: "return zeroDirty.test(block) || written.test(block) || syncing.test(block);",
      replace: "return zeroDirty.test(block);",
    }],
  },
  {
    name: "range-dropped-unapplied",
    rule: 3,
    world: "faulty",
    why: "the backing refuses to zero, the tail passes the trim all the same, and a restart forgets it",
    edits: [{
      file: tail,
      find: "return !this.#core.segments.ranges.has(segment);",
      replace: "this.#core.segments.ranges.delete(segment);\n    return true;",
    }],
  },
  {
    name: "range-superseded-not-durable",
    rule: 3,
    why: "the tail passes a trim whose block was written anew, and a power cut takes the new write",
    edits: [{
      file: tail,
      find: "if (left.length < ranges.length) segments.supersede",
      replace: "if (left.length < 0) segments.supersede",
    }],
  },
  {
    name: "backing-not-synced",
    rule: 4,
    why: "the tail passes what was written back and not synced",
    edits: [{ file: backingSync, find: "await backing.sync();", replace: "await Promise.resolve();" }],
  },
  {
    name: "segment-free-before-superblock",
    rule: 4,
    why: "a segment is overwritten while the durable superblocks still name it as the tail",
    edits: [{
      file: tail,
      find: "await this.#store.write({ tail: position });",
      replace: "this.#writer.setReusableTail(segment);\n    await this.#store.write({ tail: position });",
    }],
  },
  {
    name: "close-waits-for-nobody",
    rule: 4,
    why: "a request still under way puts something after the head that the clean superblock names",
    edits: [{
      file: "src/cache/cache.ts",
      find: "if (this.#inFlight > 0) await",
      replace: "if (this.#inFlight < 0) await",
    }],
  },
  {
    name: "write-back-ignores-mask",
    rule: 8,
    why: "sectors that the log does not hold are written to the backing as zeroes",
    edits: [{
      file: batch,
      find: "if (batch.masks[i] !== fullMask) {",
      replace: "if (batch.masks[i] === 0) {",
    }],
  },
  {
    name: "read-ignores-mask",
    rule: 8,
    why: "sectors that only the backing holds read as zeroes",
    edits: [{ file: reads, find: "if (mask !== fullMask) {", replace: "if (mask === 0) {" }],
  },
  {
    name: "read-bypasses-zeroes",
    rule: 8,
    why: "a trimmed block reads as what the backing still holds",
    edits: [
      { file: reads, find: "if (!kernels.zeroDirty.test(block)) return false;", replace: "return false;" },
      { file: reads, find: "if (kernels.zeroDirty.test(block)) {", replace: "if (slot !== noSlot) {" },
    ],
  },
  {
    name: "bypass-of-what-the-log-holds",
    rule: 8,
    why: "a block is written past an older version in the log, which a crash replays over it",
    edits: [{
      file: bypass,
      find: "if (this.#writer.isInUse(segments.of(slot))) return false;",
      replace: "",
    }],
  },
  {
    name: "bypass-of-a-settled-range",
    rule: 8,
    why:
      "a block is written past a trim that is applied and synced, but still in the log: a crash replays it",
    edits: [{
      file: bypass,
      find: "if (this.#writer.failure || versions.touched.any(start, end)) return false;",
      replace: "if (this.#writer.failure) return false;",
    }],
  },
  {
    name: "flush-forgets-what-went-past",
    rule: 8,
    why: "a flush syncs the log alone, and the backing loses what went past it",
    edits: [{
      file: writes,
      find: "return this.#core.bypassed.outstanding === 0 ? log",
      replace: "return this.#core.bypassed.outstanding >= 0 ? log",
    }],
  },
  {
    name: "failed-sync-of-what-went-past-is-success",
    rule: 8,
    world: "faulty",
    why: "the backing drops what went past the log at a failed sync, and a flush says that all is well",
    edits: [
      { file: backingSync, find: "if (lost) this.#core.writer?.fail(lost, lost);", replace: "" },
      {
        file: bypass,
        find: "      await this.#backing.sync.coverBypassed();",
        replace: "      await this.#backing.sync.coverBypassed().catch(() => {});",
      },
    ],
  },
  {
    name: "write-back-of-open-records",
    rule: 10,
    why: "what is still being overwritten is written back",
    edits: [{
      file: batch,
      find: "if (segments.lastSequence[segments.of(slot)]! > durable || isTaken(block)) continue;",
      replace: "if (isTaken(block)) continue;",
    }],
  },
  {
    name: "write-back-cleans-newer",
    rule: 10,
    why: "a block written anew while its older version is written back counts as written back",
    edits: [{
      file: sweep,
      find: "if (batch.loader.isCurrent(i)) kernels.dirty.clear(block);",
      replace: "kernels.dirty.clear(block);",
    }],
  },
  {
    name: "written-not-noted",
    rule: 10,
    why: "what was written back is never synced, and its segment goes",
    edits: [{
      file: sweep,
      find: 'if (outcome !== "dropped") kernels.written.set(block);',
      replace: "",
    }],
  },
  {
    name: "reserve-open-to-clients",
    rule: 11,
    world: "faulty",
    why: "clients take the last segment, and there is no room to say what is lost: the tail stands for ever",
    edits: [
      {
        file: "src/log/appender.ts",
        find: "client: segmentsReserved,",
        replace: "client: 0,",
      },
      {
        file: "src/log/writer.ts",
        find: "this.freeSegments >= segmentsReserved + count",
        replace: "this.freeSegments >= count",
      },
    ],
  },
  {
    name: "full-log-asks-nobody",
    rule: 11,
    why: "a writer waits for log space, and write-back does not know",
    edits: [{ file: "src/cache/room.ts", find: "this.onSpaceNeeded();", replace: ";" }],
  },
  {
    name: "unsynced-limit-asks-nobody",
    rule: 11,
    why: "so much log is un-synced that no record may begin, and nobody syncs",
    edits: [{
      file: "src/log/writer.ts",
      find: "      this.#durability.start(this.sealedSequence);\n      return",
      replace: "      return",
    }, {
      file: "src/log/writer.ts",
      find: "if (this.unsyncedBlocks > this.#unsyncedMax / 2) this",
      replace: "if (this.unsyncedBlocks < 0) this",
    }],
  },
  {
    name: "tail-passes-the-lost",
    rule: 12,
    world: "faulty",
    why: "a lost block reads as older content once the tail has passed the entry that says so",
    edits: [{
      file: tail,
      find: "if (!(await this.#moveUnsettled(segment))) return false;",
      replace: "segments.poisoned.delete(segment);\n    segments.losses.delete(segment);",
    }],
  },
  {
    name: "write-back-verifies-nothing",
    rule: 12,
    world: "faulty",
    why: "flipped bits are written to the backing",
    edits: [{
      file: batch,
      find: "batch.skipped[i] || kernels.crc32cBlock",
      replace: "batch.skipped[i] || i >= 0 || kernels.crc32cBlock",
    }],
  },
  {
    name: "rot-not-written-down",
    rule: 12,
    world: "faulty",
    why: "a block found rotten reads as EIO until the next restart, and then as older content",
    edits: [{ file: "src/cache/losses.ts", find: "if (left !== 0) {", replace: "if (left < 0) {" }],
  },
  {
    name: "log-read-not-verified",
    rule: 13,
    world: "faulty",
    why: "a read returns flipped bits",
    edits: [
      {
        file: reads,
        find: "kernels.crc32cOf(bytes) === crcs[i]) continue;",
        replace: "crcs.length > i) continue;",
      },
      { file: readSlots, find: "!== this.#crcs[crcs + i]) return false;", replace: "< 0) return false;" },
      { file: longReads, find: "!== kernels.crcs[slot + i]) return false;", replace: "< 0) return false;" },
    ],
  },
  {
    name: "read-pins-nothing",
    rule: 13,
    why: "a segment is overwritten while a read of it is under way",
    edits: [
      { file: reads, find: "segments.pins[segment]!++;", replace: "segments.pins[segment]! += 0;" },
      { file: reads, find: "segments.pins[segment]!--;", replace: "segments.pins[segment]! -= 0;" },
      { file: readSlots, find: "segments.pins[segment]!++;", replace: "segments.pins[segment]! += 0;" },
      {
        file: readSlots,
        find: "if (--segments.pins[segment]! === 0 &&",
        replace: "if (segments.pins[segment]! === 0 &&",
      },
      {
        file: longReads,
        find: "segments.pins[segments.of(slot)]!++;",
        replace: "segments.pins[segments.of(slot)]! += 0;",
      },
      {
        file: longReads,
        find: "if (--segments.pins[segments.of(slot)]! === 0 &&",
        replace: "if (segments.pins[segments.of(slot)]! === 0 &&",
      },
    ],
  },
  {
    name: "clean-copy-supersedes-newer",
    rule: 13,
    why: "a block is written while it is read for the read cache, and the copy hides what was written",
    edits: [
      { file: copies, find: "kernels.indexGet(block) !== noSlot || versions", replace: "versions" },
      { file: copies, find: "versions.isLive(block) ||", replace: "" },
      { file: versions, find: 'assert(old === noSlot, "a clean copy supersedes nothing");', replace: "" },
    ],
  },
  {
    name: "clean-copy-of-what-was-before",
    rule: 13,
    why: "a block goes past the log while it is read for the read cache, and the old content stays as a copy",
    edits: [{
      file: copies,
      find: "if (generation !== this.generation || bypassed.inFlight > 0) return true;",
      replace: "if (bypassed.inFlight > 0) return true;",
    }],
  },
  {
    name: "clean-copy-while-the-backing-changes",
    rule: 13,
    why: "a copy is put while a write past the log is under way, and outlives it",
    edits: [
      { file: copies, find: " || bypassed.inFlight > 0) return true;", replace: ") return true;" },
      { file: copies, find: "if (locks.any && locks.overlaps(block, block)) return false;", replace: "" },
    ],
  },
  {
    name: "clean-copy-survives-a-crash",
    rule: 13,
    why: "recovery takes a copy for data, and what went past the log over it is hidden",
    edits: [{
      file: versions,
      find: "if (entry.kind === entryKind.data) {",
      replace: "if (entry.kind === entryKind.data || entry.kind === entryKind.clean) {",
    }],
  },
  {
    name: "clean-copy-overwritten-in-place",
    rule: 13,
    why: "a write goes over a copy in the open record, and recovery forgets it as a copy",
    edits: [{
      file: writes,
      find: "isOverwritable(old) && kernels.dirty.test(block)) {",
      replace: "isOverwritable(old)) {",
    }],
  },
  {
    name: "clean-copy-outlives-its-slot",
    rule: 13,
    why: "the log goes over what the index still holds of a segment",
    edits: [{ file: copies, find: "      versions.forgetSegment(segment);\n", replace: "" }],
  },
  {
    name: "failed-backing-sync-is-success",
    rule: 15,
    world: "faulty",
    why: "the backing drops what it could not sync, and the log drops it as well",
    edits: [{
      file: backingSync,
      find: "      await backing.sync();\n    } catch (error) {",
      replace: "      await backing.sync().catch(() => {});\n    } catch (error) {",
    }],
  },
  {
    name: "failed-backing-sync-keeps-clean",
    rule: 15,
    world: "faulty",
    why: "what a failed sync dropped stays clean, and the next sync that succeeds is believed",
    edits: [{
      file: backingSync,
      find: "if (kernels.indexGet(block) !== noSlot) dirty.set(block);",
      replace: "if (kernels.indexGet(block) !== noSlot) kernels.written.set(block);",
    }],
  },
  {
    name: "failed-write-back-is-success",
    rule: 15,
    world: "faulty",
    why: "the backing refuses a write, and the block counts as written back",
    edits: [{
      file: sweep,
      find: 'if (outcome !== "written") batch.failed[i] = 1;',
      replace: 'if (outcome === "dropped") batch.failed[i] = 1;',
    }],
  },
];
