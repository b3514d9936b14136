// Why: without copying forward the pace of every writer hangs on this guess of what lies ahead of the sweep.
import { Zones } from "../../src/cache/zones.ts";
import { assertEquals } from "../assert.ts";

/** Dirty where `isDirty` says so; notes how much was counted. */
function dirtyWhere(isDirty: (block: number) => boolean) {
  return {
    counted: 0,
    countRange(start: number, end: number): number {
      this.counted += end - start;
      let count = 0;
      for (let block = start; block < end; block++) if (isDirty(block)) count++;
      return count;
    },
  };
}

Deno.test("Zones.ahead: counts to the place asked for, over the end from the start again, and any number of laps", () => {
  const zones = new Zones(dirtyWhere((block) => block >= 500 && block < 600), 1000);
  zones.count(0);
  for (
    const [position, way, expected] of [
      [0, 480, 0],
      [0, 640, 100],
      [640, 800, 0],
      [640, 1000, 100],
      [
        3000 + 640,
        1000,
        100,
      ],
      [0, 2400, 200],
      [0, 0, 0],
    ]
  ) {
    assertEquals(Math.round(zones.ahead(position!, way!)), expected, `${way} blocks from ${position}`);
  }
});

Deno.test("Zones.ahead: a volume with fewer blocks than zones, and one whose last zone is short", () => {
  for (const blocks of [1, 5, 64, 65, 127, 1001]) {
    const zones = new Zones(dirtyWhere(() => true), blocks);
    zones.count(0);
    for (let from = 0; from < blocks; from++) assertEquals(zones.ahead(from, blocks), blocks, `${blocks}`);
  }
});

Deno.test("Zones.count: all at first, then a few at a time, and not again at once", () => {
  const dirty = dirtyWhere(() => false);
  const zones = new Zones(dirty, 6400);
  zones.count(0);
  assertEquals(dirty.counted, 6400);
  zones.count(19);
  assertEquals(dirty.counted, 6400);
  zones.count(20);
  assertEquals(dirty.counted, 6400 + 400);
  for (let ms = 40; ms <= 320; ms += 20) zones.count(ms);
  assertEquals(dirty.counted, 2 * 6400);
});
