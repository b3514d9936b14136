/**
 * Run by open_test.ts as a process with no permission but to read and write one directory: creates, opens, writes,
 * zeroes, syncs and refuses a second opener, all without FFI.
 *
 * @module
 */

import { createFile } from "../../src/device/create.ts";
import { openDevice } from "../../src/device/open.ts";
import { assert, RefusedError } from "../../src/errors.ts";
import { openLinuxFile } from "../../src/io/linux.ts";
import { mib } from "../../src/units.ts";

const directory = Deno.args[0]!;
assert(openLinuxFile(`${directory}/disk`, { write: false, claim: false }) === undefined, "no FFI");
await createFile(`${directory}/made`, 3 * mib);
for (const name of ["disk", "made"]) {
  const device = await openDevice(`${directory}/${name}`, { write: true });
  await device.identity();
  const refused = await openDevice(`${directory}/${name}`, { write: true }).catch((error: unknown) => error);
  assert(refused instanceof RefusedError, `a second opener is refused, not ${refused}`);
  await device.write(0, new Uint8Array(2 * mib).fill(5));
  await device.zero(mib, mib, { keepAllocated: true });
  await device.zero(0, 512, { keepAllocated: false });
  await device.sync();
  const bytes = new Uint8Array(2 * mib);
  await device.read(0, bytes);
  assert(
    bytes.every((byte, index) => byte === (index >= 512 && index < mib ? 5 : 0)),
    "reads what was written",
  );
  await device.close();
}
const outside = await openDevice("/etc/hostname", { write: false }).catch((error: unknown) => error);
assert(
  outside instanceof RefusedError && outside.message.includes("Deno does not permit it"),
  String(outside),
);
console.log("all done without FFI");
