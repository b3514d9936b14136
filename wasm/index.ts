/** What the compiled module exports. src/wasm/kernels.ts is the typed façade. */

export { crc32c, crc32cBlock } from "./crc32c";
export { indexClear, indexConfigure, indexGet, indexPut, indexRemove, indexWarm } from "./index_table";
export {
  bitmapClear,
  bitmapClearRange,
  bitmapCountRange,
  bitmapMoveInto,
  bitmapNext,
  bitmapNextClear,
  bitmapOrInto,
  bitmapSet,
  bitmapSetRange,
  bitmapTest,
} from "./bitmap";
export { sortPlan } from "./sort_plan";
export { recordAddData, recordAddRange, recordSeal, recordTakeBlock } from "./record";
