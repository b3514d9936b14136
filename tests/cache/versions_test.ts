// Why: `live` and `supersededBy` alone decide when the tail throws log away. A counter that is one too low loses data, one too
// high holds the log for ever. So after any sequence of operations they are compared with a count from scratch.
import fc from "../property.ts";
import { Versions } from "../../src/cache/versions.ts";
import { carriesBlock, entryKind } from "../../src/log/layout.ts";
import { Segments } from "../../src/log/segments.ts";
import { fullMask } from "../../src/units.ts";
import { noSlot } from "../../src/wasm/kernels.ts";
import { assert, assertEquals } from "../assert.ts";
import { smallKernels } from "../wasm/small_kernels.ts";

/** More blocks than slots, so that a range may be longer than the log. */
const backingBlocks = 150;
const segmentBlocks = 16;
const slotCount = 6 * segmentBlocks;

/** What is known of a block, told the plain way. */
interface Block {
  slot: number;
  mask: number;
  dirty: boolean;
  /** Reads as zeroes that the backing lacks. */
  zero: boolean;
  keep: boolean;
  written: boolean;
  syncing: boolean;
  poison: number;
  unrecorded: number;
}

/** The same operations as the engine's, on a list of blocks. */
class Model {
  readonly blocks: Block[] = Array.from({ length: backingBlocks }, () => ({
    ...{ slot: noSlot, mask: 0, dirty: false, zero: false, keep: false, written: false, syncing: false },
    ...{ poison: 0, unrecorded: 0 },
  }));
  readonly supersededBy: number[] = new Array(slotCount / segmentBlocks).fill(0);
  rangeSupersededBy = 0;

  supersede(block: Block, sequence: number): void {
    if (block.slot !== noSlot) this.supersededBy[Math.floor(block.slot / segmentBlocks)] = sequence;
  }
  forget(block: Block, sequence: number): void {
    this.supersede(block, sequence);
    block.slot = noSlot;
    block.mask = 0;
    block.dirty = false;
  }
  heal(block: Block, mask: number, sequence: number): void {
    if (block.poison & mask) this.rangeSupersededBy = sequence;
    block.poison &= ~mask;
    block.unrecorded &= ~mask;
  }
  put(at: number, slot: number, mask: number, sequence: number, dirty: boolean): void {
    const block = this.blocks[at]!;
    if (block.slot === noSlot && (block.zero || block.written || block.syncing)) {
      this.rangeSupersededBy = sequence;
    }
    this.forget(block, sequence);
    this.heal(block, mask, sequence);
    Object.assign(block, { slot, mask, dirty, zero: false });
  }
  zeroes(start: number, end: number, keep: boolean, sequence: number, dirty: boolean): void {
    for (const block of this.blocks.slice(start, end)) {
      this.forget(block, sequence);
      this.heal(block, fullMask, sequence);
      Object.assign(block, { zero: dirty, keep: dirty ? keep : block.keep });
    }
  }
  lose(start: number, end: number, mask: number, sequence: number): void {
    for (const block of this.blocks.slice(start, end)) {
      if (block.zero) this.rangeSupersededBy = sequence;
      // Of zeroes nothing is kept in part.
      const lost = block.zero ? fullMask : mask;
      block.unrecorded |= lost & ~mask;
      block.zero = false;
      this.supersede(block, sequence);
      block.mask &= ~lost;
      if (block.mask === 0) this.forget(block, sequence);
      block.poison |= lost;
    }
  }
}

const at = fc.nat(backingBlocks - 1);
const mask = fc.oneof(fc.constant(fullMask), fc.integer({ min: 1, max: 255 }));
const range = fc.oneof(
  fc.tuple(at, fc.nat(12)).map(([start, more]) => ({
    start,
    end: Math.min(start + 1 + more, backingBlocks),
  })),
  fc.constant({ start: 0, end: backingBlocks }),
);
const step = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({ what: fc.constant("put" as const), at, mask }),
  },
  { weight: 2, arbitrary: fc.record({ what: fc.constant("zeroes" as const), range, keep: fc.boolean() }) },
  { weight: 1, arbitrary: fc.record({ what: fc.constant("poison" as const), range, mask }) },
  { weight: 1, arbitrary: fc.record({ what: fc.constant("lose" as const), range, mask }) },
  { weight: 1, arbitrary: fc.record({ what: fc.constant("loseAll" as const) }) },
  { weight: 6, arbitrary: fc.record({ what: fc.constant("writeBack" as const), range }) },
  {
    weight: 3,
    arbitrary: fc.record({ what: fc.constantFrom("sync" as const, "synced" as const, "failed" as const) }),
  },
  { weight: 1, arbitrary: fc.record({ what: fc.constant("forgetSegment" as const), segment: fc.nat(5) }) },
);
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

/** A slot that the index does not hold, from `from` on. */
function freeSlot(versions: Versions, from: number): number {
  const { kernels } = versions;
  for (let i = 0; i < slotCount; i++) {
    const slot = (from + i) % slotCount;
    if (kernels.indexGet(kernels.reverse[slot]!) !== slot) return slot;
  }
  return -1;
}

function makeVersions(): Versions {
  const kernels = smallKernels({ slotCount, backingBlocks, segmentBlocks });
  kernels.reverse.fill(backingBlocks - 1);
  return new Versions(kernels, new Segments(slotCount / segmentBlocks, segmentBlocks), backingBlocks);
}

/** Does a step to both. The backing's part is what `WriteBack` does around its requests and syncs. */
function apply(versions: Versions, model: Model, next: Step, sequence: number): void {
  const { kernels, segments } = versions;
  const { dirty, zeroDirty, written, syncing } = kernels;
  switch (next.what) {
    case "put": {
      const slot = freeSlot(versions, sequence);
      if (slot < 0) return;
      versions.putData(next.at, slot, next.mask, sequence);
      return model.put(next.at, slot, next.mask, sequence, true);
    }
    case "zeroes":
      versions.putZeroes({ ...next.range, headerSlot: sequence % slotCount }, next.keep, sequence);
      return model.zeroes(next.range.start, next.range.end, next.keep, sequence, true);
    case "poison":
      versions.putPoison({ ...next.range, headerSlot: sequence % slotCount }, next.mask, sequence);
      model.lose(next.range.start, next.range.end, next.mask, sequence);
      for (const block of model.blocks.slice(next.range.start, next.range.end)) {
        block.unrecorded &= ~next.mask;
      }
      return;
    case "lose":
      versions.losePart(next.range.start, next.range.end, next.mask, sequence);
      return model.lose(next.range.start, next.range.end, next.mask, sequence);
    case "loseAll":
      versions.loseAll(sequence);
      model.lose(0, backingBlocks, fullMask, sequence);
      for (const block of model.blocks) block.unrecorded = fullMask;
      return;
    case "writeBack":
      for (let i = next.range.start; i < next.range.end; i++) {
        const block = model.blocks[i]!;
        if (!block.dirty && !block.zero) continue;
        written.set(i);
        dirty.clear(i);
        zeroDirty.clear(i);
        versions.provisioned.delete(i);
        Object.assign(block, { written: true, dirty: false, zero: false, keep: false });
      }
      return;
    case "sync":
      if (syncing.count > 0) return;
      written.moveInto(syncing);
      for (const block of model.blocks) Object.assign(block, { syncing: block.written, written: false });
      return;
    case "synced":
      for (const [i, block] of model.blocks.entries()) {
        if (block.syncing && block.slot !== noSlot && !block.dirty && !block.written) {
          segments.live[segments.of(kernels.indexGet(i))]!--;
        }
        block.syncing = false;
      }
      syncing.clearRange(0, backingBlocks);
      return;
    case "failed":
      for (const [i, block] of model.blocks.entries()) {
        if (!block.syncing) continue;
        if (block.slot !== noSlot) {
          dirty.set(i);
          block.dirty = true;
        } else if (block.poison === 0) {
          zeroDirty.set(i);
          block.zero = true;
        }
        block.syncing = false;
      }
      syncing.clearRange(0, backingBlocks);
      return;
    case "forgetSegment":
      // Only what nothing needs any more is passed by the tail.
      if (segments.live[next.segment]! > 0) return;
      versions.forgetSegment(next.segment);
      for (const block of model.blocks) {
        if (Math.floor(block.slot / segmentBlocks) === next.segment) {
          Object.assign(block, { slot: noSlot, mask: 0 });
        }
      }
  }
}

/** Every number that is kept up step by step, against a count. */
function check(versions: Versions, model: Model): void {
  const { kernels, segments, poison, unrecorded, provisioned } = versions;
  const live = new Array(segments.count).fill(0);
  let [cached, dirty, zero] = [0, 0, 0];
  for (const [i, block] of model.blocks.entries()) {
    const slot = kernels.indexGet(i);
    const isLive = block.dirty || block.written || block.syncing;
    assertEquals(slot, block.slot, `slot of block ${i}`);
    assertEquals([kernels.dirty.test(i), kernels.zeroDirty.test(i)], [block.dirty, block.zero], `block ${i}`);
    assertEquals(
      [poison.mask(i), unrecorded.mask(i)],
      [block.poison, block.unrecorded],
      `lost of block ${i}`,
    );
    assertEquals(versions.isLive(i), isLive);
    if (block.zero) assertEquals(provisioned.has(i), block.keep, `block ${i} keeps its space`);
    if (block.dirty) cached++, dirty++;
    else if (slot !== noSlot) cached++;
    if (block.zero) zero++;
    assert(!(block.zero && slot !== noSlot), "zeroes have no version in the log");
    assert(!block.dirty || slot !== noSlot, "what is dirty has a version in the log");
    if (slot === noSlot) {
      assertEquals(
        versions.readsZero(i),
        block.poison === 0 && (block.zero || block.written || block.syncing),
      );
      continue;
    }
    assertEquals(kernels.masks[slot], block.mask, `mask of block ${i}`);
    if (isLive) live[segments.of(slot)]++;
  }
  assertEquals([...segments.live], live, "live");
  assertEquals([...segments.supersededBy], model.supersededBy, "supersededBy");
  assertEquals(versions.rangeSupersededBy, model.rangeSupersededBy, "rangeSupersededBy");
  assertEquals([kernels.count, kernels.dirty.count, kernels.zeroDirty.count], [cached, dirty, zero]);
}

Deno.test("Versions: after any operations every counter is what a count from scratch gives", () => {
  fc.assert(
    fc.property(fc.array(step, { minLength: 1, maxLength: 60 }), (steps) => {
      const versions = makeVersions();
      const model = new Model();
      for (const [i, next] of steps.entries()) {
        apply(versions, model, next, i + 1);
        check(versions, model);
      }
    }),
    { numRuns: 150 },
  );
});

/** What a record of the log may hold, reaching past the backing's end now and then. */
const entry = fc.oneof(
  fc.record({
    kind: fc.constantFrom<number[]>(entryKind.data, entryKind.data, entryKind.clean),
    block: fc.nat(backingBlocks + 5),
    mask,
    count: fc.constant(1),
  }),
  fc.record({
    kind: fc.constantFrom<number[]>(entryKind.zero, entryKind.trim, entryKind.poisoned),
    block: fc.nat(backingBlocks + 5),
    mask,
    count: fc.oneof(fc.nat(12), fc.constant(0xffff_ffff)),
  }),
);

Deno.test("Versions.replay: does what the entries say, in order, and cuts off what lies past the backing", () => {
  const record = fc.record({ entries: fc.array(entry, { maxLength: 12 }), clean: fc.boolean() });
  fc.assert(
    fc.property(fc.array(record, { minLength: 1, maxLength: 5 }), (records) => {
      const versions = makeVersions();
      const model = new Model();
      const { kernels } = versions;
      for (const [i, { entries, clean }] of records.entries()) {
        const headerSlot = i * segmentBlocks;
        let slot = headerSlot;
        for (const [n, { kind, block, mask, count }] of entries.entries()) {
          const end = Math.min(block + count, backingBlocks);
          if (carriesBlock(kind)) {
            kernels.recordAddData(kernels.map.buffers, n, kind, block, mask);
            slot++;
            if (kind === entryKind.data && block < backingBlocks) model.put(block, slot, mask, i + 1, !clean);
            continue;
          }
          kernels.recordAddRange(kernels.map.buffers, n, kind, block, count, mask);
          if (kind === entryKind.poisoned) {
            model.lose(block, end, mask, i + 1);
            for (const lost of model.blocks.slice(block, Math.max(block, end))) lost.unrecorded &= ~mask;
          } else model.zeroes(block, end, kind === entryKind.zero, i + 1, !clean);
        }
        const list = { bytes: kernels.bytes, offset: kernels.map.buffers + 128, count: entries.length };
        versions.replay(list, headerSlot, i + 1, () => !clean);
        check(versions, model);
      }
    }),
    { numRuns: 150 },
  );
});
