/**
 * Types of the assertions of `npm:deno-std`, which ships plain JavaScript.
 *
 * @module
 */

// deno-lint-ignore no-explicit-any -- a constructor of any error, whatever it takes
type ErrorClass<E extends Error = Error> = abstract new (...args: any[]) => E;
// deno-lint-ignore no-explicit-any -- a constructor of anything, whatever it takes
type AnyClass<T> = abstract new (...args: any[]) => T;

/** What a failed assertion throws. */
export class AssertionError extends Error {}
/** Fails unless `expr` is truthy. */
export function assert(expr: unknown, msg?: string): asserts expr;
/** Fails unless `expr` is false. */
export function assertFalse(expr: unknown, msg?: string): asserts expr is false;
/** Fails unless the two numbers differ by at most `tolerance`. */
export function assertAlmostEquals(actual: number, expected: number, tolerance?: number, msg?: string): void;
/** Fails unless `actual` holds each of `expected`. */
export function assertArrayIncludes<T>(actual: ArrayLike<T>, expected: ArrayLike<T>, msg?: string): void;
/** Fails unless the two are deeply equal. */
export function assertEquals<T>(actual: T, expected: T, msg?: string): void;
/** Fails if the two are deeply equal. */
export function assertNotEquals<T>(actual: T, expected: T, msg?: string): void;
/** Fails unless the two are the same value by `Object.is`. */
export function assertStrictEquals<T>(actual: unknown, expected: T, msg?: string): asserts actual is T;
/** Fails if the two are the same value by `Object.is`. */
export function assertNotStrictEquals<T>(actual: T, expected: T, msg?: string): void;
/** Fails on null and undefined. */
export function assertExists<T>(actual: T, msg?: string): asserts actual is NonNullable<T>;
/** Fails unless `actual > expected`. */
export function assertGreater<T>(actual: T, expected: T, msg?: string): void;
/** Fails unless `actual >= expected`. */
export function assertGreaterOrEqual<T>(actual: T, expected: T, msg?: string): void;
/** Fails unless `actual < expected`. */
export function assertLess<T>(actual: T, expected: T, msg?: string): void;
/** Fails unless `actual <= expected`. */
export function assertLessOrEqual<T>(actual: T, expected: T, msg?: string): void;
/** Fails unless `actual` is an instance of `expected`. */
export function assertInstanceOf<T>(
  actual: unknown,
  expected: AnyClass<T>,
  msg?: string,
): asserts actual is T;
/** Fails unless `error` is one of `errorClass` whose message holds `msgMatches`. */
export function assertIsError<E extends Error = Error>(
  error: unknown,
  errorClass?: ErrorClass<E>,
  msgMatches?: string | RegExp,
  msg?: string,
): asserts error is E;
/** Fails unless `actual` matches. */
export function assertMatch(actual: string, expected: RegExp, msg?: string): void;
/** Fails if `actual` matches. */
export function assertNotMatch(actual: string, expected: RegExp, msg?: string): void;
/** Fails unless `actual` holds all that `expected` holds. */
export function assertObjectMatch(actual: object, expected: object, msg?: string): void;
/** Fails unless `actual` holds `expected`. */
export function assertStringIncludes(actual: string, expected: string, msg?: string): void;
/** Fails unless `fn` throws; returns what it threw. */
export function assertThrows(fn: () => unknown, msg?: string): unknown;
/** Fails unless `fn` throws an `errorClass` whose message holds `msgIncludes`; returns what it threw. */
export function assertThrows<E extends Error = Error>(
  fn: () => unknown,
  errorClass: ErrorClass<E>,
  msgIncludes?: string,
  msg?: string,
): E;
/** Fails unless the promise of `fn` rejects; resolves to the reason. */
export function assertRejects(fn: () => PromiseLike<unknown>, msg?: string): Promise<unknown>;
/** Fails unless the promise of `fn` rejects with an `errorClass` whose message holds `msgIncludes`. */
export function assertRejects<E extends Error = Error>(
  fn: () => PromiseLike<unknown>,
  errorClass: ErrorClass<E>,
  msgIncludes?: string,
  msg?: string,
): Promise<E>;
/** Whether the two are deeply equal. */
export function equal(a: unknown, b: unknown): boolean;
/** Fails. */
export function fail(msg?: string): never;
/** Fails: this line cannot be reached. */
export function unreachable(msg?: string): never;
