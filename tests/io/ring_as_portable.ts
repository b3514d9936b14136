/**
 * Stands in for `src/io/portable.ts` when the tests run over the ring (`--import-map=tests/over_ring.json`): whatever
 * asks for the portable backend gets the ring.
 *
 * @module
 */

import type { Io } from "../../src/io/io.ts";
import { probeRing, ringIo } from "../../src/io/ring/mod.ts";

const probe = probeRing();
if (!probe.usable) throw new Error(`the tests cannot run over the ring: ${probe.why}`);

/** The ring. */
export const portableIo: Io = ringIo;
