import fc from "../property.ts";
import { SeededRandom } from "../../src/random.ts";
import { assertEquals } from "../assert.ts";
import { smallKernels } from "./small_kernels.ts";
import { sortTwin } from "./twins/sort_plan.ts";

const kernels = smallKernels({ stagingBlocks: 5000 });
const keys = new BigUint64Array(kernels.bytes.buffer, kernels.map.plan, 5000);

function sorted(input: bigint[]): bigint[] {
  keys.set(input);
  kernels.sortPlan(input.length);
  return [...keys.subarray(0, input.length)];
}

Deno.test("sortPlan: sorts as the typed array does", () => {
  const key = fc.oneof(
    fc.bigInt({ min: 0n, max: 0xffff_ffff_ffff_ffffn }),
    fc.bigInt({ min: 0n, max: 300n }),
    // Keys that differ in one digit only, wherever it stands.
    fc.tuple(fc.nat(7), fc.nat(255)).map(([digit, value]) => BigInt(value) << BigInt(8 * digit)),
  );
  fc.assert(
    fc.property(fc.array(key, { maxLength: 500 }), (input) => assertEquals(sorted(input), sortTwin(input))),
    { numRuns: 300 },
  );
});

Deno.test("sortPlan: block numbers above and slots below, as write-back plans are", () => {
  const random = new SeededRandom(3);
  const input = Array.from({ length: 5000 }, (_, slot) => (BigInt(random.next()) << 32n) | BigInt(slot));
  assertEquals(sorted(input), sortTwin(input));
});

Deno.test("sortPlan: leaves what lies behind the keys alone", () => {
  keys.fill(5n);
  keys.set([3n, 1n, 2n]);
  kernels.sortPlan(3);
  assertEquals([...keys.subarray(0, 5)], [1n, 2n, 3n, 5n, 5n]);
  kernels.sortPlan(0);
  kernels.sortPlan(1);
  assertEquals([...keys.subarray(0, 5)], [1n, 2n, 3n, 5n, 5n]);
});
