/** The search for sparse multiples finds what the kernel uses, and what it finds is right. @module */

import { sparseOffsets } from "../../wasm/generate_crc32c.ts";
import { isMultiple, searchMultiples } from "../../wasm/search_multiples.ts";
import { assert, assertEquals, assertFalse, assertThrows } from "../assert.ts";

Deno.test("searchMultiples: the kernel's multiple is one of three that leave 120 bytes below degree 300", () => {
  const found = searchMultiples({ terms: 6, degreeMax: 300, leastOffset: 120 });
  assertEquals(found, [[157, 165, 237, 278, 299], [154, 177, 183, 258, 290], [123, 145, 178, 195, 266]]);
  assertEquals(found[1], [...sparseOffsets]);
  for (const offsets of found) assert(isMultiple(offsets) && isMultiple(offsets, 8));
});

Deno.test("searchMultiples: six terms need degree 209, which one multiple has; an odd number of terms is never one", () => {
  assertEquals(searchMultiples({ terms: 6, degreeMax: 208, leastOffset: 1 }), []);
  assertEquals(searchMultiples({ terms: 6, degreeMax: 209, leastOffset: 1 }), [[65, 155, 170, 195, 209]]);
  // x + 1 divides the polynomial, so an odd number of terms, which is 1 at x = 1, leaves a rest.
  assertEquals(searchMultiples({ terms: 5, degreeMax: 150, leastOffset: 1 }), []);
});

Deno.test("isMultiple: one term more, less or elsewhere is none", () => {
  const offsets = [...sparseOffsets];
  assertFalse(isMultiple(offsets.slice(1)));
  assertFalse(isMultiple([...offsets, 100]));
  assertFalse(isMultiple([155, ...offsets.slice(1)]));
});

Deno.test("searchMultiples: takes 4 to 6 terms", () => {
  assertThrows(() => searchMultiples({ terms: 7, degreeMax: 100, leastOffset: 1 }), Error, "4, 5 or 6");
});
