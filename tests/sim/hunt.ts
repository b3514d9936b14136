/**
 * `deno task sim --prefix|--history [--seed S] [--from S] [--worlds N] [--crashes N] [--minutes M]`: worlds of their own kind
 * (`writeback_order=prefix`, the past) in the simulator, for as long as wanted.
 *
 * @module
 */

/**
 * Lives through worlds until one is wrong, or there were enough. Returns the exit code. `flag` chooses these worlds on the
 * command line; `counts` is what came up in them.
 */
export async function hunt<Counts extends { crashes: number }>(
  flag: string,
  live: (seed: number, counts: Counts) => Promise<void>,
  counts: Counts,
  args: string[],
): Promise<number> {
  const value = (name: string) => {
    const at = args.indexOf(`--${name}`);
    if (at < 0) return undefined;
    const number = Number(args[at + 1]);
    if (Number.isNaN(number)) throw new Error(`--${name} is ${args[at + 1]}: expected a number`);
    return number;
  };
  const one = value("seed");
  const first = one ?? value("from") ?? 1;
  const worldsMax = one === undefined ? value("worlds") ?? Infinity : 1;
  const crashesMax = value("crashes") ?? (value("minutes") === undefined ? 2000 : Infinity);
  const startMs = performance.now();
  const deadlineMs = startMs + (value("minutes") ?? Infinity) * 60_000;
  let worlds = 0;
  let failed = 0;
  while (
    failed === 0 && worlds < worldsMax && counts.crashes < crashesMax && performance.now() < deadlineMs
  ) {
    const seed = first + worlds++;
    try {
      await live(seed, counts);
    } catch (error) {
      failed++;
      console.log(`again: deno task sim ${flag} --seed ${seed}`);
      console.log(`seed ${seed}, crash ${counts.crashes}: ${String(error).split("\n")[0]}`);
      console.log(error instanceof Error ? error.stack : error);
    }
  }
  const seconds = (performance.now() - startMs) / 1000;
  console.log(Object.entries(counts).map(([what, count]) => `${what} ${count}`).join(", "));
  console.log(
    `${failed === 0 ? "ok" : "FAILED"}: ${worlds} worlds, ${counts.crashes} crashes, ${failed} violations, ` +
      `${seconds.toFixed(1)} s`,
  );
  return failed;
}
