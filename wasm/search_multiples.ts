/**
 * Finds the sparse multiples of the CRC-32C polynomial on which the checksum kernel rests (generate_crc32c.ts): sums of
 * few powers of x that the polynomial divides. It meets in the middle: of the exponents between 0 and the highest, one
 * half comes from a table of the sums of all small sets, the other is enumerated.
 *
 * ```text
 * deno task search-multiples                                     what the kernel uses: 6 terms, degree up to 300
 * deno task search-multiples --terms 4 --degree 5300 --least 0   the shortest with 4 terms
 * ```
 *
 * A multiple x^d + x^c + ... + 1 holds in any unit: squaring doubles all exponents and keeps it a multiple, so the same
 * numbers hold for y = x^8, that is for bytes. With the exponents 0 < ... < c < d, a byte comes back at the offsets
 * d - c, ..., d. The least of them, d - c, says how soon a byte that was just stored is loaded again.
 *
 * @module
 */

import { parseArgs } from "node:util";
import { crc32cPolynomial } from "./generate_crc32c.ts";

/** What to look for. */
export interface Search {
  /** Terms of the multiple, 1 and the highest power included: 4, 5 or 6. */
  readonly terms: number;
  /** The highest exponent allowed. */
  readonly degreeMax: number;
  /** The least offset allowed: the distance between the two highest exponents. */
  readonly leastOffset: number;
}

/** A multiple, as the offsets at which the kernel uses it, ascending; the last one is the degree. */
export type Offsets = readonly number[];

/** x^i modulo the polynomial for i from 0 to `degree`, bit r standing for x^r. */
function powers(degree: number): Uint32Array {
  const rests = new Uint32Array(degree + 1);
  const low = Number(crc32cPolynomial & 0xffff_ffffn);
  let rest = 1;
  for (let i = 0; i <= degree; i++) {
    rests[i] = rest;
    rest = (rest << 1 ^ (rest >>> 31 ? low : 0)) >>> 0;
  }
  return rests;
}

/** Calls `use` with each set of `size` exponents below `end`, ascending in place, and the sum of their rests. */
function eachSet(
  rests: Uint32Array,
  size: number,
  start: number,
  end: number,
  use: (exponents: readonly number[], sum: number) => void,
): void {
  const exponents: number[] = [];
  const grow = (from: number, sum: number) => {
    if (exponents.length === size) return use(exponents, sum);
    for (let exponent = from; exponent < end; exponent++) {
      exponents.push(exponent);
      grow(exponent + 1, (sum ^ rests[exponent]!) >>> 0);
      exponents.pop();
    }
  };
  grow(start, 0);
}

/** All multiples that `search` allows, by their least offset, the largest first. */
export function searchMultiples({ terms, degreeMax, leastOffset }: Search): Offsets[] {
  if (!(terms >= 4 && terms <= 6)) throw new Error(`Cannot look for ${terms} terms: expected 4, 5 or 6.`);
  const rests = powers(degreeMax);
  // 1 and the highest power are given; of the others the lower half is in the table.
  const lowerCount = Math.floor((terms - 2) / 2);
  const upperCount = terms - 2 - lowerCount;
  const table = new Map<number, number[][]>();
  eachSet(rests, lowerCount, 1, degreeMax, (exponents, sum) => {
    const sets = table.get(sum);
    if (sets) sets.push([...exponents]);
    else table.set(sum, [[...exponents]]);
  });
  const found: Offsets[] = [];
  eachSet(rests, upperCount, 1, degreeMax - Math.max(leastOffset, 1) + 1, (exponents, sum) => {
    const second = exponents.at(-1)!;
    for (let degree = second + Math.max(leastOffset, 1); degree <= degreeMax; degree++) {
      for (const lower of table.get((1 ^ sum ^ rests[degree]!) >>> 0) ?? []) {
        // Each set once: the lower half lies below the upper one.
        if (lower.at(-1)! >= exponents[0]!) continue;
        found.push([...lower, ...exponents].map((exponent) => degree - exponent).reverse().concat(degree));
      }
    }
  });
  return found.sort((a, b) => b[0]! - a[0]! || a.at(-1)! - b.at(-1)!);
}

/** Whether 1 + the powers that `offsets` stand for, in units of `unit` bits, are a multiple: by long division. */
export function isMultiple(offsets: Offsets, unit = 1): boolean {
  const degree = Math.max(...offsets) * unit;
  let dividend = 1n << BigInt(degree);
  for (const offset of offsets) dividend ^= 1n << BigInt(degree - offset * unit);
  for (let power = degree; power >= 32; power--) {
    if ((dividend >> BigInt(power)) & 1n) dividend ^= crc32cPolynomial << BigInt(power - 32);
  }
  return dividend === 0n;
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      terms: { type: "string", default: "6" },
      degree: { type: "string", default: "300" },
      least: { type: "string", default: "120" },
    },
  });
  const start = performance.now();
  const found = searchMultiples({
    terms: Number(values.terms),
    degreeMax: Number(values.degree),
    leastOffset: Number(values.least),
  });
  for (const offsets of found) {
    if (!isMultiple(offsets)) throw new Error(`${offsets} is no multiple`);
    console.log(`offsets ${offsets.join(", ")}`);
  }
  console.log(`${found.length} multiples in ${((performance.now() - start) / 1000).toFixed(1)} s`);
}
