/**
 * Plain twin of the bitmap kernels: an array of booleans, looked at one by one.
 *
 * @module
 */

/** What a {@linkcode Bitmap} should answer. */
export class BitmapTwin {
  readonly bits: boolean[];
  constructor(length: number) {
    this.bits = new Array<boolean>(length).fill(false);
  }
  get length(): number {
    return this.bits.length;
  }
  get count(): number {
    return this.countRange(0, this.length);
  }
  test(index: number): boolean {
    return this.bits[index]!;
  }
  set(index: number): boolean {
    return this.setRange(index, index + 1) === 1;
  }
  clear(index: number): boolean {
    return this.clearRange(index, index + 1) === 1;
  }
  setRange(start: number, end: number): number {
    const before = this.countRange(start, end);
    for (let i = start; i < end; i++) this.bits[i] = true;
    return Math.max(0, end - start) - before;
  }
  clearRange(start: number, end: number): number {
    const before = this.countRange(start, end);
    for (let i = start; i < end; i++) this.bits[i] = false;
    return before;
  }
  next(from: number, end: number): number {
    for (let i = from; i < Math.min(end, this.length); i++) if (this.bits[i]) return i;
    return -1;
  }
  nextClear(from: number, end: number): number {
    for (let i = from; i < Math.min(end, this.length); i++) if (!this.bits[i]) return i;
    return -1;
  }
  countRange(start: number, end: number): number {
    let count = 0;
    for (let i = start; i < Math.min(end, this.length); i++) if (this.bits[i]) count++;
    return count;
  }
  any(start: number, end: number): boolean {
    return this.next(start, end) !== -1;
  }
  orInto(other: BitmapTwin): void {
    this.bits.forEach((bit, i) => other.bits[i] ||= bit);
  }
  moveInto(other: BitmapTwin): void {
    this.bits.forEach((bit, i) => other.bits[i] = bit);
    this.bits.fill(false);
  }
}
