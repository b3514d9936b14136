/**
 * The index: block -> log slot. Open addressing with linear probing; the key of an entry is `reverse[slot]`, which
 * is needed anyway. Removal shifts entries back (Knuth, vol. 3, 6.4, algorithm R), so there are no tombstones.
 *
 * An entry is a u32: the slot in as many low bits as slots need, and a tag of the key's hash in the bits above. At
 * a load of 0.85 an absent block is compared with 22 entries on average, and without tags each would be a cache miss
 * in `reverse`; 64 GiB of log leave 8 bits, which spare 255 of 256 of them.
 *
 * Invariants: `reverse[slot]` of a slot in the table is its block and nobody else writes it; a slot stands in the
 * table at most once; the table is never full. `reverse[slot]` of any other slot may be stale.
 */

/** No slot; also an empty entry of the table, which no tag and slot can make: slots are below `slotMask`. */
const noSlot: u32 = 0xffffffff;
/** 2^32 divided by the golden ratio, odd: spreads neighbours evenly (Knuth, vol. 3, 6.4). */
const multiplier: u32 = 0x9e3779b1;

let table: usize = 0;
let tableLength: u32 = 0;
let reverse: usize = 0;
let slotMask: u32 = 0;

/**
 * Says where the table and the reverse array lie. The table is not touched: see `indexClear`.
 * REQUIRES: slots are below `length` - 1.
 */
export function indexConfigure(tablePointer: usize, length: u32, reversePointer: usize): void {
  table = tablePointer;
  tableLength = length;
  reverse = reversePointer;
  slotMask = 0xffffffff >>> <u32> clz(length);
}

/** Empties the table. */
export function indexClear(): void {
  memory.fill(table, 0xff, <usize> tableLength << 2);
}

/**
 * The hash of `block`, multiply-shift scaled to a table of any length: the high half is the position where the
 * search starts, the low half tells apart the blocks that start there.
 */
function hash(block: u32): u64 {
  return <u64> (block * multiplier) * <u64> tableLength;
}

function home(block: u32): u32 {
  return <u32> (hash(block) >> 32);
}

function tagOf(block: u32): u32 {
  return <u32> hash(block) & ~slotMask;
}

function entryAt(position: u32): usize {
  return table + (<usize> position << 2);
}

function blockOf(entry: u32): u32 {
  return load<u32>(reverse + (<usize> (entry & slotMask) << 2));
}

function after(position: u32): u32 {
  const next = position + 1;
  return next == tableLength ? 0 : next;
}

/** The position of `block`, or of the empty entry where it would go. */
function find(block: u32): u32 {
  const tag = tagOf(block);
  let position = home(block);
  let entry = load<u32>(entryAt(position));
  while (entry != noSlot && ((entry ^ tag) > slotMask || blockOf(entry) != block)) {
    position = after(position);
    entry = load<u32>(entryAt(position));
  }
  return position;
}

/** The slot of an entry, which may be empty. */
function slotOf(entry: u32): u32 {
  return entry == noSlot ? noSlot : entry & slotMask;
}

/** The slot of `block`, or 0xffffffff. */
export function indexGet(block: u32): u32 {
  return slotOf(load<u32>(entryAt(find(block))));
}

/**
 * Brings near what looking up each of the `count` blocks at `blocks` will load: the entry, the block of its slot, and the bit in
 * the bitmap at `bits`. Each is a cache miss where the index is large; here they do not wait for one another, since nothing
 * but the sum depends on what is loaded. Without a branch, or a wrong guess would make them wait. What it returns means nothing.
 */
export function indexWarm(blocks: usize, count: u32, bits: usize): u32 {
  const end = blocks + (<usize> count << 2);
  let sum: u32 = 0;
  while (blocks < end) {
    const block = load<u32>(blocks);
    const entry = load<u32>(entryAt(home(block)));
    const slot = select<u32>(0, entry & slotMask, entry == noSlot);
    sum += load<u32>(reverse + (<usize> slot << 2)) + load<u32>(bits + (<usize> (block >>> 5) << 2));
    blocks += 4;
  }
  return sum;
}

/**
 * Makes `slot` the slot of `block` and returns the one before it, or 0xffffffff.
 * REQUIRES: `slot` is not in the table for another block.
 */
export function indexPut(block: u32, slot: u32): u32 {
  const pointer = entryAt(find(block));
  const previous = load<u32>(pointer);
  store<u32>(reverse + (<usize> slot << 2), block);
  store<u32>(pointer, tagOf(block) | slot);
  return slotOf(previous);
}

/** Takes `block` out and returns its slot, or 0xffffffff. */
export function indexRemove(block: u32): u32 {
  let hole = find(block);
  const removed = slotOf(load<u32>(entryAt(hole)));
  if (removed == noSlot) return noSlot;
  let position = after(hole);
  let entry = load<u32>(entryAt(position));
  while (entry != noSlot) {
    // An entry may move back into the hole unless its home lies cyclically behind the hole.
    const start = home(blockOf(entry));
    const fromStart = position - start + (position < start ? tableLength : 0);
    const fromHole = position - hole + (position < hole ? tableLength : 0);
    if (fromStart >= fromHole) {
      store<u32>(entryAt(hole), entry);
      hole = position;
    }
    position = after(position);
    entry = load<u32>(entryAt(position));
  }
  store<u32>(entryAt(hole), noSlot);
  return removed;
}
