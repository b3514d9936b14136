/**
 * From the devices that were named to the cache device: a plain one, or the legs of a mirror that count.
 *
 * Invariants: a leg that may lack what was flushed is never taken for the present, and two that were each written without
 * the other are refused; a leg that may be there and is not is done without only when the other durably says that it is
 * alone, or when that was accepted by name. Nothing is written here.
 *
 * @module
 */

import type { Clock } from "../clock.ts";
import type { BlockDevice } from "../device/block_device.ts";
import { Leg } from "../device/leg.ts";
import { MirrorDevice } from "../device/mirror.ts";
import { findSignature } from "../device/signature.ts";
import { NbdboostError, RefusedError } from "../errors.ts";
import { type LegMark, readLegMark } from "../log/leg_mark.ts";
import { formatUuid, type Superblock, type SuperblockProblem } from "../log/superblock.ts";
import { readSuperblocks } from "./pair.ts";

/** What names the cache device. */
export interface LegOptions {
  /** The cache device, or one leg of it. */
  cache: string | BlockDevice;
  /** The other leg, in any order. */
  mirror?: string | BlockDevice;
  /** Goes on without the other leg, although it may have what this one lacks. */
  acceptMissingMirror?: boolean;
  /** Copies to a leg that is stale or empty, once the cache is open. */
  resyncMirror?: boolean;
}

/** How paths are opened, and what a mirror needs besides. */
export interface LegContext {
  open(target: string): Promise<BlockDevice>;
  clock: Clock;
  warn: (message: string, level?: "error") => void;
}

/** A cache device that was opened, and the superblock that counts. */
export interface OpenedCache {
  device: BlockDevice;
  superblock: Superblock;
  /** Which of the two copies that is. */
  copy: number;
  problems: SuperblockProblem[];
  /** A leg that is to be copied to once the cache is open. */
  resync: BlockDevice | undefined;
}

/** A leg that was looked for. */
interface Found {
  name: string;
  device: BlockDevice | undefined;
  /** Why it could not be opened. */
  error: unknown;
  mark: LegMark | undefined;
  superblocks: Awaited<ReturnType<typeof readSuperblocks>> | undefined;
  /** Why its superblocks cannot be used. */
  refusal: RefusedError | undefined;
}

/** Opens what was named. Whatever it opened is closed again when it refuses; devices that were handed in are, too. */
export async function openLegs(options: LegOptions, context: LegContext): Promise<OpenedCache> {
  const targets = options.mirror === undefined ? [options.cache] : [options.cache, options.mirror];
  const found: Found[] = [];
  try {
    // With one device there is nothing to go on with when it cannot be opened.
    for (const target of targets) found.push(await look(target, targets.length > 1, context));
    return await choose(options, found, context);
  } catch (error) {
    for (const { device } of found) await device?.close().catch(() => {});
    throw error;
  }
}

async function look(target: string | BlockDevice, tolerant: boolean, context: LegContext): Promise<Found> {
  const name = typeof target === "string" ? target : target.name;
  const found: Found = {
    name,
    device: undefined,
    error: undefined,
    mark: undefined,
    superblocks: undefined,
    refusal: undefined,
  };
  try {
    found.device = typeof target === "string" ? await context.open(target) : target;
    try {
      found.superblocks = await readSuperblocks(found.device);
    } catch (error) {
      if (!tolerant || !(error instanceof RefusedError)) throw error;
      found.refusal = error;
    }
    if (found.superblocks?.superblock.mirrored || found.refusal) found.mark = await readLegMark(found.device);
  } catch (error) {
    if (!tolerant || !(error instanceof NbdboostError)) {
      await found.device?.close().catch(() => {});
      throw error;
    }
    found.error = error;
  }
  return found;
}

async function choose(options: LegOptions, found: Found[], context: LegContext): Promise<OpenedCache> {
  const [first, second] = found;
  if (second === undefined) {
    const { device, superblocks } = first!;
    if (!superblocks!.superblock.mirrored) return { device: device!, ...superblocks!, resync: undefined };
    return alone(options, first!, undefined, context);
  }
  const there = found.filter(({ error }) => error === undefined);
  if (there.length === 0) throw first!.error;
  if (there.length === 1) {
    const absent = found.find(({ error }) => error !== undefined)!;
    return alone(options, there[0]!, absent, context);
  }
  return await both(options, first!, second, context);
}

/** One leg is there. */
function alone(
  options: LegOptions,
  leg: Found,
  absent: Found | undefined,
  context: LegContext,
): OpenedCache {
  if (leg.refusal) throw leg.refusal;
  const mark = markOf(leg);
  if (mark.claim === "copying") throw incomplete(leg);
  const why = absent === undefined
    ? "it was not named"
    : absent.error instanceof Error
    ? absent.error.message
    : "it is not there";
  if (mark.claim === "together" && !options.acceptMissingMirror) {
    throw new RefusedError(
      `Cannot open ${leg.name}: it is one leg of a mirror, and the other, which may have flushed data that this one lacks, is ` +
        `missing (${why}); name both with --cache and --mirror, or, if the other is lost for good, add --accept-missing-mirror`,
    );
  }
  // It was opened, and then something of it could not be read.
  void absent?.device?.close().catch(() => {});
  const missing = { name: absent?.name ?? "the other leg", reason: why };
  return open([leg], missing, context, undefined);
}

/** What two marks of one cache say: both count, one does not, or nobody can tell. */
export type Judgement =
  | { kind: "pair" }
  | { kind: "stale"; stale: 0 | 1; why: string }
  | { kind: "split" | "strangers" | "incomplete" };

/** Judges the marks of two different legs of one cache. */
export function judge(a: LegMark, b: LegMark): Judgement {
  if (a.claim === "alone" && b.claim === "alone") return { kind: "split" };
  if (a.claim === "copying" && b.claim === "copying") return { kind: "incomplete" };
  const isPair = a.other === b.self && b.other === a.self;
  if (a.claim === "together" && b.claim === "together") return { kind: isPair ? "pair" : "strangers" };
  for (const [stale, leg, other] of [[1, b, a], [0, a, b]] as const) {
    if (leg.claim === "copying") return { kind: "stale", stale, why: "its copy was never completed" };
    if (other.claim === "alone" && leg.other === other.self) {
      return { kind: "stale", stale, why: `it lacks what was written since ${timeOf(other)}` };
    }
  }
  return { kind: "strangers" };
}

/** Both are there. */
async function both(
  options: LegOptions,
  first: Found,
  second: Found,
  context: LegContext,
): Promise<OpenedCache> {
  for (const leg of [first, second]) {
    if (leg.superblocks && !leg.superblocks.superblock.mirrored) {
      throw new RefusedError(
        `Cannot use ${first.name} and ${second.name} as a mirror: ${leg.name} holds a cache without one; name it alone, or ` +
          `drain it and make a mirrored one with nbdboost format --mirror`,
      );
    }
  }
  const [a, b] = [first.mark, second.mark];
  if (a === undefined || b === undefined) return await halfKnown(options, first, second, context);
  if (a.self === b.self) {
    throw new RefusedError(
      `Cannot use ${first.name} and ${second.name} as a mirror: they are the same leg, or one is a copy of the other; name ` +
        "the other leg",
    );
  }
  if (formatUuid(a.uuid) !== formatUuid(b.uuid)) {
    throw new RefusedError(
      `Cannot use ${first.name} and ${second.name} as a mirror: they belong to different caches (${
        formatUuid(a.uuid)
      } and ${formatUuid(b.uuid)}); name the legs of one`,
    );
  }
  const judgement = judge(a, b);
  switch (judgement.kind) {
    case "pair":
      return open([first, second], undefined, context, undefined);
    case "stale": {
      const stale = judgement.stale === 0 ? first : second;
      return followed(options, stale === first ? second : first, stale, judgement.why, context);
    }
    case "incomplete":
      throw incomplete(first);
    case "split":
      throw new RefusedError(
        `Cannot use ${first.name} and ${second.name} as a mirror: each was written without the other (since ${
          timeOf(a)
        } and since ${
          timeOf(b)
        }), so neither has all; choose the one to keep, serve it alone by --cache, and give the other ` +
          "to nbdboost mirror --replace --force, which overwrites it",
      );
    case "strangers":
      throw new RefusedError(
        `Cannot use ${first.name} and ${second.name} as a mirror: they are legs of one cache, but each had another partner ` +
          "last; name the two that belong together",
      );
  }
}

/** One has no mark, so it is no leg, or a ruined one. */
async function halfKnown(
  options: LegOptions,
  first: Found,
  second: Found,
  context: LegContext,
): Promise<OpenedCache> {
  const good = first.mark ? first : second;
  const other = good === first ? second : first;
  if (good.mark === undefined) throw first.refusal ?? second.refusal ?? noMark(first);
  const signature = await findSignature(other.device!);
  const what = signature === undefined ? "it is empty" : `it holds ${signature}, and no leg's mark`;
  if (signature === undefined) return followed(options, good, other, what, context);
  throw new RefusedError(
    `Cannot use ${other.name} as the mirror of ${good.name}: ${what}; name the right device, or serve ${good.name} alone and ` +
      "overwrite this one with nbdboost mirror --replace --force",
  );
}

/** Goes on with `good`, to be followed by `stale` if that was asked for. */
function followed(
  options: LegOptions,
  good: Found,
  stale: Found,
  what: string,
  context: LegContext,
): OpenedCache {
  if (good.superblocks === undefined) throw good.refusal;
  if (!options.resyncMirror) {
    throw new RefusedError(
      `Cannot use ${stale.name} as the mirror of ${good.name}: ${what}; add --resync-mirror to copy ${good.name} to it while ` +
        `serving, or leave it out`,
    );
  }
  const { cacheBytes } = good.superblocks.superblock;
  if (stale.device!.sizeBytes < cacheBytes) {
    throw new RefusedError(
      `Cannot use ${stale.name} as the mirror of ${good.name}: it has ${
        stale.device!.sizeBytes
      } bytes, and ${cacheBytes} are needed; name a larger device`,
    );
  }
  const missing = { name: stale.name, reason: what };
  const absent = { ...stale, error: new RefusedError(what) };
  if (good.mark!.claim === "together" && !options.acceptMissingMirror) alone(options, good, absent, context);
  return open([good], missing, context, stale.device);
}

function open(
  legs: Found[],
  missing: { name: string; reason: string } | undefined,
  context: LegContext,
  resync: BlockDevice | undefined,
): OpenedCache {
  // The newest superblock of all counts. A leg whose own are ruined gets them again from the other.
  const usable = legs.filter(({ superblocks }) => superblocks !== undefined);
  const best =
    usable.sort((a, b) => b.superblocks!.superblock.generation - a.superblocks!.superblock.generation)[0];
  if (best === undefined) throw legs[0]!.refusal;
  const { superblock, copy } = best.superblocks!;
  for (const leg of legs) {
    const mark = markOf(leg);
    const bytes = leg.device!.sizeBytes;
    if (mark.legBytes !== bytes || bytes < superblock.cacheBytes) {
      throw new RefusedError(
        `Cannot open ${leg.name}: it is ${bytes} bytes and became a leg with ${mark.legBytes}; restore its size`,
      );
    }
  }
  const problems = usable.flatMap(({ superblocks }) => superblocks!.problems);
  for (const { refusal } of legs) if (refusal) context.warn(`${refusal.message}; the other leg has them`);
  if (missing) {
    context.warn(
      `the mirror has one leg, ${
        legs[0]!.name
      }: ${missing.name} is not in service (${missing.reason}); see nbdboost mirror`,
      "error",
    );
  }
  const device = new MirrorDevice({
    legs: legs.map((leg) => new Leg(leg.device!, markOf(leg), "in service")),
    ...(missing ? { missing } : {}),
    sizeBytes: superblock.cacheBytes,
    clock: context.clock,
    warn: context.warn,
  });
  return { device, superblock, copy, problems, resync };
}

function markOf(leg: Found): LegMark {
  if (leg.mark === undefined) throw noMark(leg);
  return leg.mark;
}

function noMark(leg: Found): RefusedError {
  return new RefusedError(
    `Cannot open ${leg.name}: it is a leg of a mirror, and its marks are damaged, so nobody knows whether it counts; name the ` +
      "other leg alone, or restore it from a copy",
  );
}

function incomplete(leg: Found): RefusedError {
  return new RefusedError(
    `Cannot open ${leg.name}: it is a leg of a mirror whose copy was never completed, so it has only a part; name the leg that ` +
      "it was copied from",
  );
}

function timeOf(mark: LegMark): string {
  return `${new Date(mark.sinceMs).toISOString()}, record ${mark.sinceSequence}`;
}
