/**
 * What a server offers: volumes by name.
 *
 * @module
 */

import type { Volume } from "../cache/volume.ts";
import { UsageError } from "../errors.ts";
import { stringBytesMax, transmissionFlag } from "./constants.ts";
import { newStatistics, type Observer, type Statistics } from "./statistics.ts";

/** One volume under its name. */
export interface Export {
  /** The name that clients ask for; "" is the default export. */
  readonly name: string;
  /** A line for people, shown by LIST and INFO. */
  readonly description: string;
  /** Writes are refused with EPERM, whatever the volume could do. */
  readonly readOnly: boolean;
  /** What is served. */
  readonly volume: Volume;
  /** Is told how long its requests took; by default that of all exports. */
  readonly observer?: Observer | undefined;
  /** Gives it up: it was made for one client. */
  readonly close?: () => void;
}

/** An export with what is counted of it. */
export interface Offered extends Export {
  readonly statistics: Statistics;
  /** The one that it is an earlier state of, or else itself. */
  readonly origin: Offered;
}

/** The name of an export, and the flush point as of which it is wanted. */
const frozenName = /^(.*)@(\d{1,15})$/s;

function checkString(what: string, value: string): void {
  const bytes = new TextEncoder().encode(value).length;
  if (bytes <= stringBytesMax && !value.includes("\0") && value.isWellFormed()) return;
  const shown = JSON.stringify(value.length > 64 ? `${value.slice(0, 64)}…` : value);
  throw new UsageError(
    `the ${what} ${shown} has ${bytes} bytes, expected at most ${stringBytesMax} bytes of well-formed text ` +
      `without NUL: choose another one`,
  );
}

/** The exports of a server, in the order in which they are listed. */
export class ExportTable {
  #all: readonly Offered[];
  /** The one that "" finds: always the same, or a client that connects again would write to another volume. */
  readonly #default: Offered;

  /**
   * `observer` is told of those that have none of their own.
   *
   * @throws {UsageError} when there is none, or a name is not possible or not unique
   */
  constructor(all: readonly Export[], observer?: Observer) {
    if (all.length === 0) throw new UsageError("there is no export to serve, expected at least one volume");
    const names = new Set<string>();
    for (const { name, description } of all) {
      checkString("export name", name);
      checkString("export description", description);
      if (names.has(name)) {
        throw new UsageError(`the export name "${name}" is given twice, expected distinct names`);
      }
      names.add(name);
    }
    this.#all = all.map((each) => {
      const offered = { ...each, observer: each.observer ?? observer, statistics: newStatistics() } as
        & Offered
        & { origin: Offered };
      offered.origin = offered;
      return offered;
    });
    this.#default = this.#all.find(({ name }) => name === "") ?? this.#all[0]!;
  }

  /** Those that are offered now. */
  get all(): readonly Offered[] {
    return this.#all;
  }

  /** Offers it to nobody any more, nor its earlier states. */
  withdraw(served: Offered): void {
    this.#all = this.#all.filter((each) => each !== served);
  }

  /** Whether it, or what it is an earlier state of, is offered. */
  offers(served: Offered): boolean {
    return this.#all.includes(served.origin);
  }

  /**
   * Makes the export `NAME@SEQUENCE`: NAME as of a flush point. Undefined where the name means nothing of the kind; rejects
   * when that cannot be had. Whoever asked for it closes it.
   */
  make(name: string): Promise<Offered> | undefined {
    const [, base, digits] = frozenName.exec(name) ?? [];
    const served = base === undefined || this.find(name) ? undefined : this.find(base);
    if (served?.volume.frozen === undefined) return undefined;
    return served.volume.frozen(Number(digits)).then((volume) => ({
      name,
      description: `${served.description} as of flush point ${digits}`.trim().slice(0, stringBytesMax / 4),
      readOnly: true,
      volume,
      observer: served.observer,
      statistics: served.statistics,
      origin: served,
      close: () => volume.close(),
    }));
  }

  /** The export of that name. "" finds the default export, as long as it is offered: the one named "", else the first of all. */
  find(name: string): Offered | undefined {
    const found = this.#all.find((each) => each.name === name);
    return found ?? (name === "" && this.#all.includes(this.#default) ? this.#default : undefined);
  }
}

/**
 * The transmission flags of an export, which depend on what was negotiated: replies in `chunks`, and status requests that
 * carry `payloads`.
 */
export function transmissionFlags(
  served: Export,
  negotiated: { chunks: boolean; payloads: boolean },
): number {
  let flags = transmissionFlag.hasFlags | transmissionFlag.sendFlush | transmissionFlag.sendFua |
    transmissionFlag.canMultiConn | transmissionFlag.sendCache;
  if (served.readOnly || served.volume.readOnly) flags |= transmissionFlag.readOnly;
  else flags |= transmissionFlag.sendTrim | transmissionFlag.sendWriteZeroes | transmissionFlag.sendFastZero;
  if (negotiated.chunks) flags |= transmissionFlag.sendDf;
  if (negotiated.payloads) flags |= transmissionFlag.blockStatusPayload;
  return flags;
}
