/**
 * The statics region: the first 64 KiB of every memory (`reservedBytes` in src/wasm/memory_map.ts), which is the
 * kernels' own. Everything behind it belongs to the caller, who says where things lie.
 *
 * ```text
 * 0      nothing: a null pointer that is used by mistake harms no one
 * 1024   data segments of the compiler (fold tables)     --memoryBase
 * 4096   slicing tables of CRC-32C                       16 x 256 u32, computed at the start
 * 20480  moved bytes of CRC-32C                          4096 bytes at most, then 16 bytes that stay zero
 * 24592  folded bytes of CRC-32C                         32 bytes
 * 32768  digit counts of the radix sort                  8 x 256 u32
 * ```
 *
 * Kernels see numbers only: no managed object, no exception, no allocation.
 */

/** Slicing tables: table t holds the remainder of each byte followed by t zero bytes. */
export const slicingTables: usize = 4096;
/** One past the last moved byte. The 16 bytes here are read and never written: they must stay zero. */
export const movedEnd: usize = 24576;
/** Where the reduction leaves the 32 bytes that have the message's remainder. */
export const foldedPointer: usize = 24592;
/** Counts of the 8 digits of a key, 256 u32 each. */
export const digitCounts: usize = 32768;
