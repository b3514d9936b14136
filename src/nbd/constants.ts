/**
 * The numbers of the NBD protocol (fixed newstyle, compact and extended headers) and the limits that this server sets for
 * itself. Nothing here depends on anything else. Source of the numbers: NetworkBlockDevice/nbd, doc/proto.md.
 *
 * @module
 */

import { assert } from "../errors.ts";
import { kib, mib } from "../units.ts";

/** 64-bit magics, as their two big-endian halves, so that no BigInt is needed. */
export const magic = {
  /** "NBDMAGIC". */
  passwordHigh: 0x4e42444d,
  passwordLow: 0x41474943,
  /** "IHAVEOPT". */
  optionHigh: 0x49484156,
  optionLow: 0x454f5054,
  optionReplyHigh: 0x0003e889,
  optionReplyLow: 0x045565a9,
  request: 0x25609513,
  simpleReply: 0x67446698,
  structuredReply: 0x668e33ef,
  extendedRequest: 0x21e41c71,
  extendedReply: 0x6e8a278c,
} as const;

/** The TCP port that IANA has given to NBD. */
export const defaultPort = 10809;

/** Flags of the server's greeting. */
export const handshakeFlag = { fixedNewstyle: 1, noZeroes: 2 } as const;
/** Flags of the client's answer; the same bits. */
export const clientFlag = { fixedNewstyle: 1, noZeroes: 2 } as const;

/** Options of the haggling phase. */
export const option = {
  exportName: 1,
  abort: 2,
  list: 3,
  startTls: 5,
  info: 6,
  go: 7,
  structuredReply: 8,
  listMetaContext: 9,
  setMetaContext: 10,
  extendedHeaders: 11,
} as const;

/** Types of replies to options. */
export const optionReply = {
  ack: 1,
  server: 2,
  info: 3,
  metaContext: 4,
  unsupported: 0x80000001,
  policy: 0x80000002,
  invalid: 0x80000003,
  platform: 0x80000004,
  tlsRequired: 0x80000005,
  unknown: 0x80000006,
  shutdown: 0x80000007,
  tooBig: 0x80000009,
  extendedHeadersRequired: 0x8000000a,
} as const;

/** Kinds of information in replies to INFO and GO. */
export const info = { export: 0, name: 1, description: 2, blockSize: 3 } as const;

/** Transmission flags: what an export can do. */
export const transmissionFlag = {
  hasFlags: 0x0001,
  readOnly: 0x0002,
  sendFlush: 0x0004,
  sendFua: 0x0008,
  sendTrim: 0x0020,
  sendWriteZeroes: 0x0040,
  sendDf: 0x0080,
  canMultiConn: 0x0100,
  sendCache: 0x0400,
  sendFastZero: 0x0800,
  blockStatusPayload: 0x1000,
} as const;

/** Commands of the transmission phase. */
export const command = {
  read: 0,
  write: 1,
  disconnect: 2,
  flush: 3,
  trim: 4,
  cache: 5,
  writeZeroes: 6,
  blockStatus: 7,
} as const;

/** Flags of commands. */
export const commandFlag = {
  fua: 0x01,
  noHole: 0x02,
  doNotFragment: 0x04,
  requestOne: 0x08,
  fastZero: 0x10,
  payloadLength: 0x20,
} as const;

/** Types of structured reply chunks. */
export const chunk = {
  none: 0,
  offsetData: 1,
  offsetHole: 2,
  blockStatus: 5,
  blockStatusExtended: 6,
  error: 0x8001,
  errorOffset: 0x8002,
} as const;
/** The flag of the last chunk of a reply. */
export const chunkDone = 1;

/** Flags of an extent in the `base:allocation` context. */
export const allocation = { hole: 1, zero: 2 } as const;
/** The error values that may go on the wire. */
export const wireError = {
  none: 0,
  EPERM: 1,
  EIO: 5,
  EINVAL: 22,
  ENOSPC: 28,
  EOVERFLOW: 75,
  ESHUTDOWN: 108,
} as const;

/** Header sizes in bytes. */
export const greetingBytes = 18;
/** The client's flags. */
export const clientFlagsBytes = 4;
/** The header of an option. */
export const optionHeaderBytes = 16;
/** The header of a reply to an option. */
export const optionReplyHeaderBytes = 20;
/** The header of a request. */
export const requestHeaderBytes = 28;
/** The header of a request, once extended headers were negotiated. */
export const extendedRequestHeaderBytes = 32;
/** The header of a simple reply. */
export const simpleReplyHeaderBytes = 16;
/** The header of a structured reply chunk. */
export const chunkHeaderBytes = 20;
/** The header of an extended reply chunk. */
export const extendedChunkHeaderBytes = 32;
/** What precedes the data in an extended READ chunk, the longest that there is: the chunk's header and a u64 offset. */
export const dataChunkHeaderBytesMax = 40;
/** What precedes the ids in the payload of a BLOCK_STATUS: the length of its range. */
export const statusPayloadHeadBytes = 8;
/** The unused zeroes after the reply to EXPORT_NAME. */
export const exportNamePaddingBytes = 124;

/** The smallest request unit that we advertise: any byte can be addressed. */
export const blockMinBytes = 1;
/** The request unit that we advertise as fast. */
export const blockPreferredBytes = 4096;
/** The largest payload that we advertise; the protocol never lets this be called an attack. */
export const payloadAdvertisedBytesMax = 32 * mib;
/** The largest payload that we accept: some clients never ask for the limit (nbd-tester-client sends 48 MiB). */
export const payloadAcceptedBytesMax = 64 * mib;

/** Strings of the protocol: export names, descriptions, queries. */
export const stringBytesMax = 4096;
/** Option data that is looked at; more is read, thrown away and answered with an error. */
export const optionDataBytesMax = 1 * mib;
/** Option data beyond this is taken for an attack. */
export const optionDataDrainedBytesMax = 64 * mib;
/** Options in one handshake; a real client needs fewer than ten. */
export const optionsPerHandshakeMax = 64;
/** READs shorter than this are sent as they are; longer ones leave their zeroes out where the client can take that. */
export const holeReadBytesMin = 16 * kib;
/** Zeroes shorter than this are sent as data. */
export const holeBytesMin = 4 * kib;
/** Runs of a READ that are looked at for holes; what follows the last one is data. */
export const extentsPerReadMax = 256;
/** Extents of one context in one BLOCK_STATUS reply; clients ask again for the rest. */
export const extentsPerReplyMax = 4096;

/** Both buffers of a connection during the handshake, so that strangers cost little: the longest reply to an option fits. */
export const handshakeBufferBytes = 16 * kib;
/** The receive buffer of a connection: one request of 256 KiB (what nbdcopy sends) fits as a whole. */
export const inputBufferBytes = 260 * kib;
/** One send buffer of a connection: one reply of 256 KiB fits as a whole. */
export const outputBufferBytes = 260 * kib;

/** Time that a connection, which is to end, gets to take its last replies. */
export const closingMsMax = 10_000;
/** Time in which a server that closes still answers ESHUTDOWN on a connection that is quiet otherwise. */
export const shutdownLingerMs = 50;

assert(payloadAdvertisedBytesMax <= payloadAcceptedBytesMax);
assert(inputBufferBytes >= 256 * kib + extendedRequestHeaderBytes);
assert(outputBufferBytes >= 256 * kib + dataChunkHeaderBytesMax);
assert(handshakeBufferBytes >= 2 * stringBytesMax + optionReplyHeaderBytes + 8);
assert(handshakeBufferBytes <= Math.min(inputBufferBytes, outputBufferBytes));
assert(optionDataBytesMax <= optionDataDrainedBytesMax);
