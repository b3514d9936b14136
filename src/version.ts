/**
 * The version of this nbdboost; `deno.json` repeats it, and a test compares the two.
 *
 * @module
 */

/** Semantic version. */
export const version = "0.1.0";
