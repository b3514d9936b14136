// Why: two partial writes that merge with the same old version at once lose one of the two; a lock that is granted to nobody
// hangs a client.
import fc from "../property.ts";
import { RangeLocks } from "../../src/cache/locks.ts";
import { assertEquals } from "../assert.ts";

interface Claim {
  first: number;
  last: number;
  release: (() => void) | undefined;
}

const overlap = (a: Claim, b: Claim) => a.first <= b.last && b.first <= a.last;
const step = fc.oneof(
  { weight: 3, arbitrary: fc.record({ first: fc.nat(20), more: fc.nat(5) }) },
  { weight: 2, arbitrary: fc.record({ release: fc.nat() }) },
);

/** Everything that was granted has been told. */
const settled = () => new Promise<void>((resolve) => setTimeout(resolve, 0));

Deno.test("RangeLocks: a range is granted exactly when no earlier one overlaps it, and never two that overlap", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 30 }), async (steps) => {
      const locks = new RangeLocks();
      // In the order of arrival; what is released goes.
      const claims: Claim[] = [];
      const claim = (first: number, last: number) => {
        const own: Claim = { first, last, release: undefined };
        claims.push(own);
        locks.acquire(first, last).then((release) => own.release = release);
      };
      const check = async () => {
        await settled();
        const granted = claims.filter((own) => own.release);
        assertEquals(
          granted,
          claims.filter((own, i) => !claims.slice(0, i).some((earlier) => overlap(earlier, own))),
        );
        for (const one of granted) {
          for (const other of granted) assertEquals(overlap(one, other), one === other);
        }
        assertEquals(locks.any, claims.length > 0);
        for (let block = 0; block < 30; block++) {
          const probe = { first: block, last: block + 1, release: undefined };
          assertEquals(locks.overlaps(block, block + 1), claims.some((own) => overlap(own, probe)));
        }
      };
      for (const next of steps) {
        if ("first" in next) claim(next.first, next.first + next.more);
        else {
          const granted = claims.filter((own) => own.release);
          const gone = granted[next.release % Math.max(1, granted.length)];
          if (!gone) continue;
          claims.splice(claims.indexOf(gone), 1);
          gone.release!();
        }
        await check();
      }
      // Whoever waits is granted in the end.
      while (claims.length > 0) {
        claims.splice(claims.findIndex((own) => own.release), 1)[0]!.release!();
        await check();
      }
    }),
    { numRuns: 60 },
  );
});
