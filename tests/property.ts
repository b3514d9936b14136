/**
 * fast-check, with the seed that this run takes.
 *
 * In CI every property sees the same values each time, so that what fails there was broken by the change and not met by luck;
 * anywhere else they are new each time. `NBDBOOST_SEED=N` repeats a run, `NBDBOOST_SEED=random` makes CI's hunt too.
 *
 * @module
 */

import fc from "fast-check";

/** What CI takes; nothing is special about it. */
const ciSeed = 20261128;

const asked = Deno.env.get("NBDBOOST_SEED") ?? (Deno.env.get("CI") === "true" ? String(ciSeed) : "random");
if (asked !== "random") {
  const seed = Number(asked);
  if (asked.trim() === "" || !Number.isInteger(seed)) {
    throw new Error(`NBDBOOST_SEED is ${JSON.stringify(asked)}; give an integer, or "random"`);
  }
  fc.configureGlobal({ ...fc.readConfigureGlobal(), seed });
}

export default fc;
