/**
 * Writes the AssemblyScript source of `crc32c_reduce.ts`, the fast part of CRC-32C. It exists because that source
 * is hundreds of straight lines that nobody should have to read; the build feeds it to the compiler and keeps it
 * nowhere.
 *
 * A message is a polynomial over GF(2) whose first byte has the highest power of y = x^8. Adding a multiple of the
 * CRC polynomial changes no remainder, so with a *sparse* multiple y^290 + y^136 + y^113 + y^107 + y^32 + 1 a byte
 * can be moved onto the bytes that follow it at 154, 177, 183, 258 and 290, by XOR alone. Seen from a byte i:
 *
 * ```text
 * moved[i] = message[i] ^ moved[i-154] ^ moved[i-177] ^ moved[i-183] ^ moved[i-258] ^ moved[i-290]
 * ```
 *
 * Done for all but the last 304 bytes, the whole remainder stands in those (the idea of Chorba, Russell 2024, for
 * CRC-32). What is left is folded by nibble tables, 19 vectors into 6 and those into 2, and a table takes the rest:
 *
 * ```text
 * | opening 336, straight | loop, 64 bytes a turn | closing 304 = 19 vectors -> 6 -> 2 | slicing table
 * ```
 *
 * The opening is straight because it reads few of its sources; measured: 9.2 instead of 8.4 GB/s for a 4 KiB block
 * (2-core EPYC, Deno 2.9.6, quiet moments). The whole block as straight lines makes 7.3. Folding 6 vectors into 2
 * rather than giving all 6 to the table makes 9.7 out of 9.2.
 *
 * @module
 */

/** The offsets, in bytes, at which a byte of the message comes back. */
export const sparseOffsets = [154, 177, 183, 258, 290] as const;
/** Bytes in a vector. */
const vectorBytes = 16;
/** Bytes that a turn of the loop takes. */
const turnBytes = 64;
/** Bytes that are left after the loop; at least the largest offset. */
const closingBytes = 304;
/** Bytes before the loop; at least the largest offset, and such that 4096 and 2048 are lengths that fit. */
const openingBytes = 336;

/** Lengths that the kernel takes: the least (the loop makes a turn), the greatest, and the step. */
export const reduceLengths = {
  min: openingBytes + turnBytes + closingBytes,
  max: 4096,
  step: turnBytes,
} as const;

/** CRC-32C's polynomial with its leading term, the highest power first. */
export const crc32cPolynomial = 0x11edc6f41n;

/** x^power modulo the polynomial. */
export function powerOfX(power: number): bigint {
  let rest = 1n;
  for (let i = 0; i < power; i++) {
    rest <<= 1n;
    if (rest >> 32n) rest ^= crc32cPolynomial;
  }
  return rest;
}

/** The powers of x that the 8 bits of a byte stand for, lowest bit first: CRC-32C reflects bytes. */
const powersOfByte = (power: number): bigint[] =>
  Array.from({ length: 8 }, (_, bit) => powerOfX(8 * power + 7 - bit));

/** Says which members of `basis` add up to each of `targets`, as bit masks. Throws when it is none. */
function solve(basis: bigint[], targets: bigint[]): bigint[] {
  const size = BigInt(basis.length);
  const bit = (value: bigint, index: number) => (value >> BigInt(index)) & 1n;
  // Row r: coefficient of x^r in each basis member, then in each target.
  const rows = Array.from({ length: basis.length }, (_, r) => {
    const columns = [...basis, ...targets];
    return columns.reduce((row, column, c) => row | (bit(column, r) << BigInt(c)), 0n);
  });
  for (let c = 0; c < basis.length; c++) {
    const pivot = rows.findIndex((row, r) => r >= c && bit(row, c) === 1n);
    if (pivot < 0) throw new Error("the chosen distances are no basis: choose others");
    [rows[c], rows[pivot]] = [rows[pivot]!, rows[c]!];
    rows.forEach((row, r) => {
      if (r !== c && bit(row, c)) rows[r] = row ^ rows[c]!;
    });
  }
  return targets.map((_, t) =>
    rows.reduce((mask, row, r) => mask | (((row >> (size + BigInt(t))) & 1n) << BigInt(r)), 0n)
  );
}

/**
 * Tables that move a byte `distance` bytes ahead: for each of the four `powers` of y (where its pieces land), 16
 * bytes for the low nibble and 16 for the high one.
 */
function foldTables(distance: number, powers: number[]): number[] {
  const bits = solve(powers.flatMap(powersOfByte), powersOfByte(distance));
  const tables: number[] = [];
  for (let piece = 0; piece < 4; piece++) {
    for (const low of [0, 4]) {
      for (let nibble = 0; nibble < 16; nibble++) {
        let sum = 0n;
        for (let i = 0; i < 4; i++) if ((nibble >> i) & 1) sum ^= bits[low + i]!;
        tables.push(Number((sum >> BigInt(8 * piece)) & 0xffn));
      }
    }
  }
  return tables;
}

/** How many vectors ahead the pieces of a vector land in the wide fold; a basis, which most choices are not. */
const wideDistances = [1, 2, 4, 6];
const wideMax = Math.max(...wideDistances);

const load = (pointer: string, offset: number) => `v128.load(${pointer}, ${offset})`;
const xor = (terms: string[]): string => {
  if (terms.length === 1) return terms[0]!;
  const half = terms.length >> 1;
  return `v128.xor(${xor(terms.slice(0, half))}, ${xor(terms.slice(half))})`;
};

/** Writes the source of the kernel, and of its twin that copies the message to `target` on the way. */
export function generateReduce(): string {
  const lines: string[] = [];
  const put = (line: string) => lines.push(line);
  const wide = foldTables(vectorBytes * wideMax, wideDistances.map((d) => vectorBytes * (wideMax - d)));
  const narrow = foldTables(2 * vectorBytes, [0, 1, 2, 3]);

  put(`import { movedEnd, foldedPointer } from "./memory";`);
  put(`const foldTables = memory.data<u8>([${[...wide, ...narrow].join(",")}], 16);`);
  put(`export const reduceMin: usize = ${reduceLengths.min};`);
  put(`export const reduceMax: usize = ${reduceLengths.max};`);
  put(`export const reduceStep: usize = ${reduceLengths.step};`);
  putReduce(put, false);
  putReduce(put, true);
  return lines.join("\n") + "\n";
}

function putReduce(put: (line: string) => void, copies: boolean): void {
  // Each vector of the message is loaded once, and stored at once where it is to be copied.
  let vectorCount = 0;
  const message = (offset: number) => {
    if (!copies) return load("pointer", offset);
    const name = `message${vectorCount++}`;
    put(`const ${name} = ${load("pointer", offset)};`);
    put(`v128.store(target, ${name}, ${offset});`);
    return name;
  };
  const head = copies ? "reduceCopy(target: usize, " : "reduce(";
  put(`export function ${head}pointer: usize, length: usize, state: u32): usize {`);
  put(`const zero = i64x2.splat(0);`);

  // Opening. `start` lies one largest-reach below the first moved byte, so that every offset is positive.
  const reach = 320;
  put(`const start: usize = movedEnd + ${closingBytes - reach} - length;`);
  put(`v128.store(start, zero, ${reach - vectorBytes});`);
  for (let i = 0; i < openingBytes; i += vectorBytes) {
    const terms = [message(i)];
    if (i === 0) terms.push("i32x4.replace_lane(zero, 0, state)");
    for (const offset of sparseOffsets) {
      if (i - offset > -vectorBytes) terms.push(load("start", reach + i - offset));
    }
    put(`v128.store(start, ${xor(terms)}, ${reach + i});`);
  }

  // Loop. A pointer to each source with small immediates was measured 7 % faster than one with large ones.
  const target = (bytes: number) => copies ? ` target += ${bytes};` : "";
  put(`pointer += ${openingBytes};${target(openingBytes)}`);
  put(`let moved: usize = start + ${reach + openingBytes};`);
  put(`do {`);
  sparseOffsets.forEach((offset) => put(`const back${offset} = moved - ${offset};`));
  for (let i = 0; i < turnBytes; i += vectorBytes) {
    const terms = [message(i), ...sparseOffsets.map((offset) => load(`back${offset}`, i))];
    put(`const turn${i} = ${xor(terms)};`);
  }
  for (let i = 0; i < turnBytes; i += vectorBytes) put(`v128.store(moved, turn${i}, ${i});`);
  put(`pointer += ${turnBytes}; moved += ${turnBytes};${target(turnBytes)}`);
  put(`} while (moved < movedEnd);`);

  // Closing: constant addresses, which need no bounds check. Bytes past movedEnd are zero for ever.
  const vectors = closingBytes / vectorBytes;
  for (let n = 0; n < vectors; n++) {
    const i = n * vectorBytes;
    const terms = [message(i)];
    for (const offset of sparseOffsets) {
      if (i < offset) terms.push(load(`movedEnd - ${offset - i}`, 0));
    }
    put(`let rest${n} = ${xor(terms)};`);
  }

  put(`const nibbles = i8x16.splat(15);`);
  put(`let low: v128, high: v128, piece0: v128, piece1: v128, piece2: v128, piece3: v128;`);
  const split = (n: number) => {
    put(`low = v128.and(rest${n}, nibbles); high = v128.and(i16x8.shr_u(rest${n}, 4), nibbles);`);
  };
  const product = (piece: number, table: string) =>
    `v128.xor(i8x16.swizzle(${table}${2 * piece}, low), i8x16.swizzle(${table}${2 * piece + 1}, high))`;

  // Wide fold: the pieces of a vector land on whole vectors.
  for (let t = 0; t < 8; t++) put(`const wide${t} = ${load("foldTables", t * vectorBytes)};`);
  let n = 0;
  for (; n + wideMax < vectors; n++) {
    split(n);
    wideDistances.forEach((distance, piece) => {
      put(`rest${n + distance} = ${xor([`rest${n + distance}`, product(piece, "wide")])};`);
    });
  }
  // Narrow fold: the pieces of a byte land on four neighbours, so three of them are shifted across vectors.
  for (let t = 0; t < 8; t++) put(`const narrow${t} = ${load("foldTables", (8 + t) * vectorBytes)};`);
  const shift = (first: string, second: string, by: number) =>
    `i8x16.shuffle(${first}, ${second}, ${Array.from({ length: 16 }, (_, lane) => lane + by).join(", ")})`;
  for (; n + 2 < vectors; n++) {
    split(n);
    for (let piece = 0; piece < 4; piece++) put(`piece${piece} = ${product(piece, "narrow")};`);
    const near = [1, 2, 3].map((piece) => shift("zero", `piece${piece}`, piece));
    const far = [1, 2, 3].map((piece) => shift(`piece${piece}`, "zero", piece));
    put(`rest${n + 1} = ${xor([`rest${n + 1}`, ...near])};`);
    put(`rest${n + 2} = ${xor([`rest${n + 2}`, "piece0", ...far])};`);
  }
  put(`v128.store(foldedPointer, rest${n}, 0); v128.store(foldedPointer, rest${n + 1}, ${vectorBytes});`);
  put(`return foldedPointer;`);
  put(`}`);
}
