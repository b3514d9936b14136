/**
 * What a drain must leave behind, with nobody else at work: a backing that is complete by itself, and a cache that takes
 * writes.
 *
 * @module
 */

import type { Cache } from "../../src/cache/cache.ts";
import { DamageError, DeviceError } from "../../src/errors.ts";
import { sectorBytes } from "../../src/units.ts";
import { Violation } from "./oracle.ts";
import { checkDrained, endIfFullOfLosses } from "./recovery_check.ts";
import type { Session } from "./session.ts";
import { settled } from "./settled.ts";
import type { World } from "./world.ts";

/** Drains, and compares the backing with the oracle. False when the life ends before. */
export async function drainAndCompare(world: World, cache: Cache, session: Session): Promise<boolean> {
  world.note(() => "drain, nobody else at work");
  const draining = settled(cache.drain());
  if (!(await world.pump(() => draining.settled))) return false;
  const { error } = draining;
  if (error && !(world.shape.faulty && (error instanceof DeviceError || error instanceof DamageError))) {
    throw new Violation(`drain failed: ${error}`);
  }
  if (error instanceof DeviceError) return true;
  world.coverage.count("drains compared");
  let lost = new Set<number>();
  const bytes = world.peekBacking();
  if (error) {
    const whole = await world.readAll(cache);
    if (!whole) return false;
    lost = whole.lost;
  }
  const excuse = (cell: number) => lost.has(Math.floor(world.oracle.offsetOf(cell) / sectorBytes));
  world.oracle.checkCopy("after a drain the backing durably holds", bytes, excuse);
  if (!error) checkDrained(cache);
  return await probe(world, cache, session);
}

/** Whatever went wrong before: now that the devices behave, a write succeeds. */
async function probe(world: World, cache: Cache, session: Session): Promise<boolean> {
  if (world.isFailing) return true;
  const probing = settled(session.probe());
  if (!(await world.pump(() => probing.settled))) return false;
  if (probing.error && world.mayBeDamaged) endIfFullOfLosses(cache, world.coverage);
  if (probing.error) throw new Violation(`a write to good devices failed: ${probing.error}`);
  world.coverage.count("probes");
  return true;
}
