/**
 * The cache against a plain byte array: random requests, crashes, clean closes and drains, over a log that laps all the
 * time, shrunk to the shortest failing sequence by fast-check. The simulator (tests/sim) goes further; this finds the
 * smallest example.
 *
 * @module
 */

import fc from "../property.ts";
import type { Cache } from "../../src/cache/cache.ts";
import { assert, assertEquals } from "../assert.ts";
import { Machine } from "../sim/machine.ts";
import { crashPolicies, type CrashPolicy } from "../sim/medium.ts";

/** The last block is short. */
const backingBytes = 12 * 4096 - 1536;
const runs = 150;

/** What every byte is, and what it was at the last flush. */
interface Model {
  now: Uint8Array;
  flushed: Uint8Array;
  /** By byte: the contents that an un-flushed byte may fall back to. */
  since: Uint8Array[];
}

interface Real {
  machine: Machine;
  cache: Cache;
}

function change(model: Model, offset: number, bytes: Uint8Array): void {
  model.now.set(bytes, offset);
  model.since.push(model.now.slice());
}

function flush(model: Model): void {
  model.flushed = model.now.slice();
  model.since = [];
}

async function compare(model: Model, real: Real): Promise<void> {
  const bytes = new Uint8Array(backingBytes);
  await real.machine.run(real.cache.read(0, bytes));
  assertEquals(firstDifference(bytes, model.now), -1);
}

function firstDifference(a: Uint8Array, b: Uint8Array): number {
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return i;
  return -1;
}

type Step = fc.AsyncCommand<Model, Real>;

class Write implements Step {
  readonly offset: number;
  readonly length: number;
  readonly value: number;
  readonly fua: boolean;
  constructor(offset: number, length: number, value: number, fua: boolean) {
    this.offset = offset;
    this.length = Math.min(length, backingBytes - offset);
    this.value = value;
    this.fua = fua;
  }
  check = () => true;
  async run(model: Model, { machine, cache }: Real): Promise<void> {
    const bytes = new Uint8Array(this.length).map((_, i) => this.value + i);
    await machine.run(cache.write(this.offset, bytes, { fua: this.fua }));
    change(model, this.offset, bytes);
    // One client only: a FUA write makes all before it durable in this engine, and it at least.
    if (this.fua) flush(model);
  }
  toString = () => `write(${this.offset}, ${this.length}, ${this.value}${this.fua ? ", fua" : ""})`;
}

class Zero implements Step {
  readonly offset: number;
  readonly length: number;
  readonly trim: boolean;
  constructor(offset: number, length: number, trim: boolean) {
    this.offset = offset;
    this.length = Math.min(length, backingBytes - offset);
    this.trim = trim;
  }
  check = () => true;
  async run(model: Model, { machine, cache }: Real): Promise<void> {
    const done = this.trim
      ? cache.trim(this.offset, this.length)
      : cache.zero(this.offset, this.length, { keepAllocated: this.offset % 2 === 0 });
    await machine.run(done);
    change(model, this.offset, new Uint8Array(this.length));
  }
  toString = () => `${this.trim ? "trim" : "zero"}(${this.offset}, ${this.length})`;
}

class Flush implements Step {
  check = () => true;
  async run(model: Model, { machine, cache }: Real): Promise<void> {
    await machine.run(cache.flush());
    flush(model);
  }
  toString = () => "flush()";
}

class Read implements Step {
  check = () => true;
  run = compare;
  toString = () => "read()";
}

class Pause implements Step {
  readonly ms: number;
  constructor(ms: number) {
    this.ms = ms;
  }
  check = () => true;
  run = (_: Model, { machine }: Real) => machine.pass(this.ms);
  toString = () => `pause(${this.ms})`;
}

class Drain implements Step {
  check = () => true;
  async run(model: Model, { machine, cache }: Real): Promise<void> {
    await machine.run(cache.drain());
    flush(model);
    const copy = new Uint8Array(backingBytes);
    machine.backingMedium.peekDurable(0, copy);
    assertEquals(firstDifference(copy, model.now), -1);
  }
  toString = () => "drain()";
}

class Reopen implements Step {
  check = () => true;
  async run(model: Model, real: Real): Promise<void> {
    await real.machine.run(real.cache.close());
    real.machine.powerCut("none");
    real.cache = await real.machine.open();
    assert(real.cache.recovery.clean);
    flush(model);
    await compare(model, real);
  }
  toString = () => "reopen()";
}

class Crash implements Step {
  readonly policy: CrashPolicy | "kill";
  constructor(policy: CrashPolicy | "kill") {
    this.policy = policy;
  }
  check = () => true;
  async run(model: Model, real: Real): Promise<void> {
    if (this.policy === "kill") real.machine.kill();
    else real.machine.powerCut(this.policy);
    real.cache = await real.machine.open();
    assertEquals(real.cache.recovery.gaps, []);
    const bytes = new Uint8Array(backingBytes);
    await real.machine.run(real.cache.read(0, bytes));
    for (let i = 0; i < backingBytes; i++) {
      const fits = bytes[i] === model.flushed[i] || model.since.some((content) => content[i] === bytes[i]);
      assert(fits, `byte ${i} is neither what was flushed nor anything written since`);
    }
    model.now = bytes;
    flush(model);
  }
  toString = () => `crash(${this.policy})`;
}

const offset = fc.oneof(
  fc.integer({ min: 0, max: 11 }).map((block) => block * 4096),
  fc.integer({ min: 0, max: backingBytes / 512 - 1 }).map((sector) => sector * 512),
  fc.integer({ min: 0, max: backingBytes - 1 }),
);
const length = fc.oneof(fc.constant(4096), fc.constant(512), fc.integer({ min: 1, max: 3 * 4096 }));

const step = fc.oneof(
  {
    weight: 10,
    arbitrary: fc.tuple(offset, length, fc.nat(255), fc.boolean()).map(([at, size, value, fua]) =>
      new Write(at, size, value, fua && value % 4 === 0)
    ),
  },
  {
    weight: 3,
    arbitrary: fc.tuple(offset, length, fc.boolean()).map(([at, size, trim]) => new Zero(at, size, trim)),
  },
  { weight: 3, arbitrary: fc.constant(new Flush()) },
  { weight: 2, arbitrary: fc.constant(new Read()) },
  { weight: 1, arbitrary: fc.constantFrom(1, 600).map((ms) => new Pause(ms)) },
  { weight: 1, arbitrary: fc.constant(new Drain()) },
  { weight: 1, arbitrary: fc.constant(new Reopen()) },
  {
    weight: 2,
    arbitrary: fc.constantFrom(...crashPolicies, "kill" as const).map((policy) => new Crash(policy)),
  },
);

Deno.test("Cache: is a byte array that survives crashes", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.commands([step], { maxCommands: 60, size: "+1" }),
      fc.nat(1000),
      async (steps, seed) => {
        const machine = new Machine({ backingBytes, segmentBlocks: 4, segmentCount: 6, seed });
        await machine.format();
        const cache = await machine.open();
        const zero = () => new Uint8Array(backingBytes);
        await fc.asyncModelRun(() => ({
          model: { now: zero(), flushed: zero(), since: [] },
          real: { machine, cache },
        }), steps);
        machine.powerCut("none");
        assertEquals(machine.violations, []);
      },
    ),
    { numRuns: runs },
  );
});
