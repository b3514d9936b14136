/**
 * The numbers of <linux/io_uring.h> and of the C library that the ring backend uses; the same on x86-64 and arm64,
 * the two that Deno runs on.
 *
 * @module
 */

/** System calls, by number. */
export const systemCall = { setup: 425, enter: 426, register: 427 } as const;

/** Operations. All of them are in Linux 5.6. */
export const operation = {
  nop: 0,
  fsync: 3,
  pollAdd: 6,
  timeout: 11,
  accept: 13,
  cancel: 14,
  connect: 16,
  fallocate: 17,
  read: 22,
  write: 23,
  send: 26,
  recv: 27,
} as const;

/** Flags of io_uring_setup, with the kernel that brought them. */
export const setupFlag = {
  /** The size of the completion queue is given (5.5). */
  cqSize: 0x8,
  /** An error in one submission does not hold up those behind it (5.18). */
  submitAll: 0x80,
  /** Nobody is interrupted for the sake of completions (5.19). */
  coopTaskrun: 0x100,
  /** One thread alone submits (6.0). */
  singleIssuer: 0x1000,
  /** Completions are worked off when that thread asks for them (6.1). */
  deferTaskrun: 0x2000,
} as const;

/** Flags of io_uring_enter. */
export const enterFlag = { getEvents: 1 } as const;

/** What the kernel tells of itself at set-up. */
export const feature = {
  /** Both queues are in one mapping (5.4). */
  singleMmap: 0x1,
  /** Completions are never dropped, but kept until the queue has room (5.5). */
  noDrop: 0x2,
} as const;

/** Byte offsets in `struct io_uring_params`. */
export const params = {
  bytes: 120,
  sqEntries: 0,
  cqEntries: 4,
  flags: 8,
  features: 20,
  sqHead: 40,
  sqTail: 44,
  sqMask: 48,
  sqFlags: 56,
  sqArray: 64,
  cqHead: 80,
  cqTail: 84,
  cqMask: 88,
  cqOverflow: 96,
  cqCqes: 100,
} as const;

/** Offsets for mmap of the ring's descriptor. */
export const mmapOffset = { sqRing: 0, cqRing: 0x8000000, sqes: 0x10000000 } as const;

/** Bytes of a submission and of a completion. */
export const sqeBytes = 64;
export const cqeBytes = 16;

/** A submission as 32-bit words. */
export const sqe = {
  words: sqeBytes / 4,
  /** Opcode, flags and priority. */
  operation: 0,
  descriptor: 1,
  offsetLow: 2,
  offsetHigh: 3,
  addressLow: 4,
  addressHigh: 5,
  length: 6,
  flags: 7,
  userDataLow: 8,
  userDataHigh: 9,
} as const;

/** IORING_REGISTER_PROBE. */
export const registerProbe = 8;
/** In `struct io_uring_probe_op`: the operation is supported. */
export const probeSupported = 1;

/** IORING_FSYNC_DATASYNC. */
export const fsyncDataSync = 1;

/** open(2). */
export const openFlag = {
  readOnly: 0,
  readWrite: 2,
  create: 0o100,
  exclusive: 0o200,
  /** The one flag here that differs between architectures. */
  direct: Deno.build.arch === "aarch64" ? 0o200000 : 0o40000,
  closeOnExec: 0o2000000,
} as const;

/** fallocate(2). */
export const fallocateMode = { keepSize: 1, punchHole: 2, zeroRange: 0x10 } as const;

/** flock(2). */
export const lockFlag = { shared: 1, exclusive: 2, nonBlocking: 4 } as const;

/** socket(2) and what goes with it. */
export const socketConstant = {
  familyUnix: 1,
  stream: 1,
  closeOnExec: 0o2000000,
  nonBlocking: 0o4000,
  levelSocket: 1,
  reuseAddress: 2,
  sendBuffer: 7,
  keepAlive: 9,
  levelTcp: 6,
  noDelay: 1,
  type: 3,
  acceptsConnections: 30,
  noSignal: 0x4000,
  shutdownBoth: 2,
  passive: 1,
} as const;

/** ioctl(2): closed in programs that are started, and whether calls wait. */
export const ioctlRequest = { closeOnExec: 0x5451, nonBlocking: 0x5421 } as const;

/** statx(2): the descriptor itself, and which facts are wanted. */
export const statxConstant = {
  emptyPath: 0x1000,
  basicStats: 0x7ff,
  /** Alignment that O_DIRECT wants (6.1). */
  directAlignment: 0x2000,
  bytes: 256,
} as const;

/** poll(2). */
export const pollIn = 1;

/** eventfd(2). */
export const eventCloseOnExec = 0o2000000;
export const eventNonBlocking = 0o4000;
