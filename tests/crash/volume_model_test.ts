import { assertEquals } from "../assert.ts";
import { VolumeModel } from "./volume_model.ts";

const bytesOf = (value: number, length = 512) => new Uint8Array(length).fill(value);

/** A model of four sectors, and what a crash left in them. */
function left(...values: number[]): Uint8Array {
  const bytes = new Uint8Array(2048);
  values.forEach((value, sector) => bytes.fill(value, sector * 512, (sector + 1) * 512));
  return bytes;
}

Deno.test("VolumeModel: an unacknowledged or unflushed write may be there or not, sector by sector", () => {
  for (
    const [found, wrong] of [[left(0, 0), 0], [left(7, 0), 0], [left(0, 7), 0], [left(0, 8), 1]] as const
  ) {
    const model = new VolumeModel(2048);
    const change = model.submit(0, 1024, bytesOf(7, 1024));
    if (found[0] === 7) model.acknowledge(change, false);
    assertEquals(model.restart(found).length, wrong);
  }
});

Deno.test("VolumeModel: half a sector of a write is wrong", () => {
  const model = new VolumeModel(2048);
  model.submit(0, 512, bytesOf(7));
  const found = left();
  found.fill(7, 0, 256);
  assertEquals(model.restart(found).length, 1);
});

Deno.test("VolumeModel: a flush fixes what was acknowledged before it was sent, and only that", () => {
  const model = new VolumeModel(2048);
  model.acknowledge(model.submit(0, 512, bytesOf(1)), false);
  const late = model.submit(512, 512, bytesOf(1));
  const sent = model.flushing();
  model.acknowledge(late, false);
  model.flushed(sent);
  assertEquals(model.openSectors, 1);
  assertEquals(model.restart(left(0, 1)), ["sector 0 does not hold what had been made durable"]);
});

Deno.test("VolumeModel: a flushed version cannot be replaced by an older one, but by a newer", () => {
  for (const [value, wrong] of [[0, 1], [1, 1], [2, 0], [3, 0]] as const) {
    const model = new VolumeModel(2048);
    model.acknowledge(model.submit(0, 512, bytesOf(1)), false);
    model.acknowledge(model.submit(0, 512, bytesOf(2)), false);
    model.flushed(model.flushing());
    model.submit(0, 512, bytesOf(3));
    assertEquals(model.restart(left(value)).length, wrong);
  }
});

Deno.test("VolumeModel: FUA fixes its own sectors and no others", () => {
  const model = new VolumeModel(2048);
  model.acknowledge(model.submit(512, 512, bytesOf(1)), false);
  model.acknowledge(model.submit(0, 512, bytesOf(1)), true);
  assertEquals(model.restart(left(1, 0)), []);
});

Deno.test("VolumeModel: what a restart showed is durable", () => {
  const model = new VolumeModel(2048);
  model.submit(0, 512, bytesOf(1));
  assertEquals(model.restart(left(1)), []);
  assertEquals(model.restart(left(0)).length, 1);
});

Deno.test("VolumeModel: a write of part of a sector keeps the rest", () => {
  const model = new VolumeModel(2048);
  model.submit(0, 512, bytesOf(1));
  model.submit(100, 10, bytesOf(2, 10));
  const found = left(1);
  found.fill(2, 100, 110);
  assertEquals(model.difference(0, found), undefined);
  assertEquals(model.restart(found), []);
});
