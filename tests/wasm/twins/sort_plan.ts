/**
 * Plain twin of the plan's sort: the typed array's own.
 *
 * @module
 */

/** The keys, ascending. */
export function sortTwin(keys: readonly bigint[]): bigint[] {
  return [...BigUint64Array.from(keys).sort()];
}
