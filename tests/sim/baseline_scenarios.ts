/**
 * Bad days for a write cache, each of which dm-writeboost is known to come out of with lost or wrong data, run on any
 * {@linkcode Subject}.
 *
 * Invariant: a run differs from another only by its seed and its subject; what is counted is what a client sees, by 512 B
 * sector: neither the last flushed content nor a later one, and no I/O error either.
 *
 * @module
 */

import type { SeededRandom } from "../../src/random.ts";
import { blockBytes, sectorBytes, sectorsPerBlock } from "../../src/units.ts";
import type { Piece, Subject } from "./baseline_subjects.ts";
import { Oracle, Violation } from "./oracle.ts";
import { crashPolicies, Medium } from "./medium.ts";
import { DeviceError } from "../../src/errors.ts";

/** Blocks of the backing device. */
const blocks = 24;
/** The size of the backing device. */
export const backingBytes = blocks * blockBytes;
/** Writes that do not fill a log, and writes that make it lap more than once. */
const fewWrites = 14;
const manyWrites = 90;

/** What a run came to. */
export interface Verdict {
  /** Sectors that read as something that they must not be. */
  wrong: number;
  /** Sectors that gave an I/O error. */
  failed: number;
  /** It did not start: a refusal that changes nothing, or a kernel that stops. */
  refused: boolean;
}

/** What happens on a bad day. */
interface Scenario {
  name: string;
  /** Whether a right cache may lose nothing at all on such a day, not even as an I/O error. */
  harmless: boolean;
  /** Whether dm-writeboost is known to lose data on such a day. */
  modelLoses: boolean;
  run(day: Day): Promise<void>;
}

/** One run: a subject, what its clients know, and the damage that a scenario may do. */
class Day {
  readonly subject: Subject;
  readonly random: SeededRandom;
  readonly oracle = new Oracle(backingBytes, false);
  readonly verdict: Verdict = { wrong: 0, failed: 0, refused: false };

  constructor(subject: Subject) {
    this.subject = subject;
    this.random = subject.random;
  }

  async begin(): Promise<void> {
    const { subject, oracle } = this;
    await subject.format();
    const version = oracle.ask(0, oracle.cellCount, false);
    subject.backing.poke(0, oracle.content(version.id, 0, oracle.cellCount));
    oracle.answer(version, true);
    await this.open();
  }

  /** False when it refuses. */
  async open(): Promise<boolean> {
    const open = await this.subject.open();
    this.verdict.refused = !open;
    return open;
  }

  /** Random writes in single blocks, with a flush now and then; `settled`: and one at the end. */
  async work(writes: number, settled: boolean, flushShare = 0.3): Promise<void> {
    const { oracle, subject, random } = this;
    for (let i = 0; i < writes; i++) {
      const whole = random.chance(0.7);
      const from = whole ? 0 : random.below(sectorsPerBlock);
      const first = random.below(blocks) * sectorsPerBlock + from;
      const end = first + (whole ? sectorsPerBlock : 1 + random.below(sectorsPerBlock - from));
      const version = oracle.ask(first, end, false);
      await subject.write(first * sectorBytes, oracle.content(version.id, first, end));
      oracle.answer(version, false);
      if (random.chance(flushShare)) await this.flush();
    }
    if (settled) await this.flush();
  }

  async flush(): Promise<void> {
    const covered = this.oracle.askFlush();
    await this.subject.flush();
    this.oracle.answerFlush(covered);
  }

  /** The power goes; any of the un-synced sector writes may have reached the devices. */
  cut(): void {
    this.subject.powerCut(crashPolicies[this.random.below(crashPolicies.length)]!);
    this.oracle.crash();
  }

  /** The power goes, with nothing under way. */
  async off(): Promise<void> {
    await this.subject.idle();
    this.subject.powerCut("all");
    this.oracle.crash();
  }

  /** Reads everything and counts what is wrong. */
  async look(): Promise<void> {
    const { oracle, subject, verdict } = this;
    const bytes = new Uint8Array(backingBytes);
    const failed = new Set<number>();
    for (let cell = 0; cell < oracle.cellCount; cell++) {
      const sector = bytes.subarray(cell * sectorBytes, (cell + 1) * sectorBytes);
      if (!(await subject.read(cell * sectorBytes, sector))) failed.add(cell);
    }
    for (let cell = 0; cell < oracle.cellCount; cell++) {
      if (failed.has(cell)) continue;
      try {
        oracle.recovered(bytes, (other) => other !== cell);
      } catch (error) {
        if (!(error instanceof Violation)) throw error;
        verdict.wrong++;
      }
    }
    verdict.failed += failed.size;
  }

  async openAndLook(): Promise<void> {
    if (await this.open()) await this.look();
  }

  poke(offset: number, ...bytes: number[]): void {
    this.subject.cache.poke(offset, Uint8Array.from(bytes));
  }

  flip(offset: number): void {
    const byte = new Uint8Array(1);
    this.subject.cache.peek(offset, byte);
    this.poke(offset, byte[0]! ^ (1 << this.random.below(8)));
  }

  /** Works until the log has pieces with data that are neither its oldest nor its newest; turns the power off; one of them. */
  async workAndOff(): Promise<Piece> {
    for (;;) {
      await this.work(fewWrites, true);
      await this.off();
      const inside = (await this.subject.pieces()).slice(1, -1).filter(({ length }) => length > blockBytes);
      if (inside.length > 0) return inside[this.random.below(inside.length)]!;
      await this.open();
    }
  }
}

/** All scenarios, in the order of the table in docs/durability.md. */
export const scenarios: readonly Scenario[] = [
  {
    name: "power cut, the log has not lapped",
    harmless: true,
    modelLoses: false,
    async run(day) {
      await day.work(fewWrites, false);
      day.cut();
      await day.openAndLook();
    },
  },
  {
    name: "power cut while the oldest slot of a lapped log is overwritten",
    harmless: true,
    modelLoses: true,
    async run(day) {
      await day.work(manyWrites, true);
      await day.work(20, false, 0);
      day.cut();
      await day.openAndLook();
    },
  },
  {
    name: "power cut, resume, work, power cut: what was dropped comes back",
    harmless: true,
    modelLoses: true,
    async run(day) {
      for (let life = 0; life < 3; life++) {
        await day.work(4, true);
        await day.work(20, false, 0);
        day.cut();
        if (!(await day.open())) return;
        await day.look();
      }
    },
  },
  {
    name: "bit flip in the data of an older segment",
    harmless: false,
    modelLoses: true,
    async run(day) {
      const { offset, length } = await day.workAndOff();
      day.flip(offset + blockBytes + day.random.below(length - blockBytes));
      await day.openAndLook();
    },
  },
  {
    name: "bit flip in a dirty block while the cache is in use",
    harmless: false,
    modelLoses: true,
    async run(day) {
      const { offset, length } = await day.workAndOff();
      if (!(await day.open())) return;
      day.flip(offset + blockBytes + day.random.below(length - blockBytes));
      await day.look();
    },
  },
  {
    name: "a middle header's number is zeroed",
    harmless: false,
    modelLoses: true,
    async run(day) {
      const { offset } = await day.workAndOff();
      // In both formats: the sector that holds the number of the segment, or of the record.
      day.poke(offset, ...new Uint8Array(32));
      await day.openAndLook();
    },
  },
  {
    name: "a middle header's length is damaged",
    harmless: false,
    modelLoses: true,
    async run(day) {
      const { offset } = await day.workAndOff();
      day.poke(offset + 12, 200);
      await day.openAndLook();
    },
  },
  {
    name: "the mark of what is written back is ahead of the log",
    harmless: false,
    modelLoses: true,
    async run(day) {
      await day.work(fewWrites, true);
      await day.off();
      for (const { offset } of day.subject.places.positions) day.poke(offset, 0, 16, 0, 0, 0, 0, 0, 0);
      if (!(await day.open())) return;
      // What is taken for written back is lost when its place is used again.
      await day.work(manyWrites, true);
      await day.look();
    },
  },
  {
    name: "the cache device is truncated after a lap",
    harmless: false,
    modelLoses: true,
    async run(day) {
      await day.work(manyWrites, true);
      await day.off();
      day.subject.resize(day.subject.cache.sizeBytes - 2 * day.subject.step);
      await day.openAndLook();
    },
  },
  {
    name: "the cache device is grown after a lap",
    harmless: false,
    modelLoses: true,
    async run(day) {
      await day.work(manyWrites, true);
      await day.off();
      day.subject.resize(day.subject.cache.sizeBytes + 2 * day.subject.step);
      await day.openAndLook();
    },
  },
  {
    name: "the magic is zeroed",
    harmless: false,
    modelLoses: true,
    async run(day) {
      await day.work(fewWrites, true);
      await day.off();
      for (const { offset, length } of day.subject.places.magics) day.poke(offset, ...new Uint8Array(length));
      await day.openAndLook();
    },
  },
  {
    name: "the backing device's sync fails now and then, and drops what it had",
    harmless: true,
    modelLoses: true,
    async run(day) {
      const { subject, random } = day;
      subject.fault = (disk, { kind }) =>
        disk.name === "backing" && kind === "sync" && random.chance(0.3)
          ? { error: new DeviceError("EIO", "simulated EIO of a sync"), drop: true }
          : undefined;
      await day.work(manyWrites, true);
      subject.fault = () => undefined;
      day.cut();
      await day.openAndLook();
    },
  },
  {
    name: "the wrong backing device",
    harmless: false,
    modelLoses: true,
    async run(day) {
      await day.work(fewWrites, true);
      await day.off();
      const { subject, verdict } = day;
      subject.backing = new Medium(backingBytes, "another");
      if (!(await day.open())) return;
      await subject.drain();
      const bytes = new Uint8Array(backingBytes);
      subject.backing.peek(0, bytes);
      for (let at = 0; at < bytes.length; at += sectorBytes) {
        if (bytes.subarray(at, at + sectorBytes).some((byte) => byte !== 0)) verdict.wrong++;
      }
    },
  },
];

/** Runs one scenario once. */
export async function runScenario(scenario: Scenario, subject: Subject): Promise<Verdict> {
  const day = new Day(subject);
  await day.begin();
  await scenario.run(day);
  return day.verdict;
}
