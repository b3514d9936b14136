/**
 * What every device must do, whatever it is made of: used by the tests of each.
 *
 * @module
 */

import type { BlockDevice } from "../../src/device/block_device.ts";
import { AssertionError, DeviceError } from "../../src/errors.ts";
import { SeededRandom } from "../../src/random.ts";
import { kib, mib } from "../../src/units.ts";
import { assert, assertEquals, assertRejects } from "../assert.ts";

/** What the devices under test have, at least and exactly. */
export const contractBytes = 4 * mib;

/** Opens a device of {@linkcode contractBytes} bytes and passes it to `body`, which closes it. */
export type WithDevice = (body: (device: BlockDevice) => Promise<void>) => Promise<void>;

/** Options of {@linkcode testContract}. */
interface ContractOptions {
  /** Skips the tests. */
  ignore?: boolean;
}

/** Registers the tests of the contract for one sort of device. */
export function testContract(
  symbol: string,
  withDevice: WithDevice,
  { ignore = false }: ContractOptions = {},
): void {
  const test = (statement: string, body: (device: BlockDevice) => Promise<void>) =>
    Deno.test({
      name: `${symbol}: ${statement}`,
      ignore,
      fn: () =>
        withDevice(async (device) => {
          try {
            await body(device);
          } finally {
            await device.close();
          }
        }),
    });

  test("reads what was written and zeroed, in any order and size", async (device) => {
    const seed = 20240607;
    const random = new SeededRandom(seed);
    const model = new Uint8Array(contractBytes);
    await device.zero(0, contractBytes, { keepAllocated: false });
    for (let step = 0; step < 300; step++) {
      const offset = random.below(contractBytes / 512) * 512;
      const length =
        Math.min(1 + random.below(random.chance(0.1) ? 3000 : 40), (contractBytes - offset) / 512) * 512;
      const action = random.below(4);
      if (action === 0) {
        const keepAllocated = random.chance(0.5);
        await device.zero(offset, length, { keepAllocated });
        model.fill(0, offset, offset + length);
      } else if (action === 1) {
        const bytes = new Uint8Array(length);
        await device.read(offset, bytes);
        assertSame(bytes, model.subarray(offset, offset + length), `seed ${seed} step ${step}`);
      } else {
        const bytes = new Uint8Array(length);
        random.fill(bytes);
        await device.write(offset, bytes);
        model.set(bytes, offset);
      }
      if (step % 100 === 50) await device.sync();
    }
    const all = new Uint8Array(contractBytes);
    await device.read(0, all);
    assertSame(all, model, `seed ${seed}`);
  });

  test("takes many overlapping calls at once", async (device) => {
    const pieceBytes = 16 * kib;
    const pieces = Array.from({ length: 200 }, (_, index) => new Uint8Array(pieceBytes).fill(index + 1));
    await Promise.all(pieces.map((piece, index) => device.write(index * pieceBytes, piece)));
    const reads = pieces.map(() => new Uint8Array(pieceBytes));
    await Promise.all([...reads.map((read, index) => device.read(index * pieceBytes, read)), device.sync()]);
    reads.forEach((read, index) => assertSame(read, pieces[index]!, `piece ${index}`));
  });

  test("moves bytes into and out of WebAssembly memory", async (device) => {
    const memory = new WebAssembly.Memory({ initial: 8, maximum: 8 });
    const source = new Uint8Array(memory.buffer as ArrayBuffer, 8 * kib, 128 * kib);
    const target = new Uint8Array(memory.buffer as ArrayBuffer, 256 * kib, 128 * kib);
    new SeededRandom(7).fill(source);
    await device.write(64 * kib, source);
    await device.read(64 * kib, target);
    assertSame(target, source, "wasm memory");
  });

  test("zeroes whole ranges so that they read as zeroes, allocated or not", async (device) => {
    for (const keepAllocated of [false, true]) {
      await device.write(0, new Uint8Array(contractBytes).fill(0xa5));
      await device.zero(512, contractBytes - 1024, { keepAllocated });
      await device.sync();
      const all = new Uint8Array(contractBytes);
      await device.read(0, all);
      const expected = new Uint8Array(contractBytes).fill(0xa5, 0, 512).fill(0xa5, contractBytes - 512);
      assertSame(all, expected, `keepAllocated ${keepAllocated}`);
    }
    await device.zero(0, 0, { keepAllocated: false });
  });

  test("asserts ranges of sectors inside the device", async (device) => {
    const sector = new Uint8Array(512);
    await assertRejects(() => device.read(1, sector), AssertionError, "not of sectors");
    await assertRejects(() => device.read(-512, sector), AssertionError, "not of sectors");
    await assertRejects(() => device.read(NaN, sector), AssertionError, "not of sectors");
    await assertRejects(() => device.write(0, sector.subarray(1)), AssertionError, "not of sectors");
    await assertRejects(() => device.write(device.sizeBytes, sector), AssertionError, "not of sectors");
    await assertRejects(
      () => device.zero(device.sizeBytes - 512, 1024, { keepAllocated: true }),
      AssertionError,
      "not of sectors",
    );
    await device.write(device.sizeBytes - 512, sector);
  });

  test("finishes calls under way when closed, and refuses later ones", async (device) => {
    const bytes = new Uint8Array(mib).fill(3);
    const calls = [0, 1, 2, 3].map((index) => device.write(index * mib, bytes));
    const read = device.read(0, new Uint8Array(512));
    const closed = device.close();
    await Promise.all([...calls, read, closed, device.close()]);
    for (
      const call of [
        () => device.read(0, new Uint8Array(512)),
        () => device.write(0, new Uint8Array(512)),
        () => device.zero(0, 512, { keepAllocated: true }),
        () => device.sync(),
      ]
    ) {
      const error = await assertRejects(call, DeviceError, "it is closed");
      assertEquals(error.code, "ESHUTDOWN");
    }
  });
}

/** Compares long arrays; `assertEquals` would spell out both. */
export function assertSame(actual: Uint8Array, expected: Uint8Array, what: string): void {
  assertEquals(actual.length, expected.length, what);
  for (let i = 0; i < actual.length; i++) {
    if (actual[i] !== expected[i]) {
      assert(false, `${what}: byte ${i} is ${actual[i]}, expected ${expected[i]}`);
    }
  }
}
