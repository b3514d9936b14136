/**
 * Errno numbers of Linux (x86-64 and arm64 alike) as errors in the shape of Deno's own: the name in `code`.
 *
 * @module
 */

/** The numbers that are asked for by name. */
export const errno = {
  EPERM: 1,
  ENOENT: 2,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  EBADF: 9,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EBUSY: 16,
  EEXIST: 17,
  ENODEV: 19,
  ENOTDIR: 20,
  EISDIR: 21,
  EINVAL: 22,
  ENFILE: 23,
  EMFILE: 24,
  ENOTTY: 25,
  EFBIG: 27,
  ENOSPC: 28,
  EROFS: 30,
  EPIPE: 32,
  ENAMETOOLONG: 36,
  ENOSYS: 38,
  ELOOP: 40,
  ETIME: 62,
  EPROTO: 71,
  EOPNOTSUPP: 95,
  EADDRINUSE: 98,
  EADDRNOTAVAIL: 99,
  ENETUNREACH: 101,
  ECONNABORTED: 103,
  ECONNRESET: 104,
  ENOBUFS: 105,
  ENOTCONN: 107,
  ETIMEDOUT: 110,
  ECONNREFUSED: 111,
  EHOSTUNREACH: 113,
  EDQUOT: 122,
  ENOMEDIUM: 123,
  ECANCELED: 125,
} as const;

const names = new Map<number, string>(Object.entries(errno).map(([name, number]) => [number, name]));

const texts: Record<string, string> = {
  EPERM: "Operation not permitted",
  ENOENT: "No such file or directory",
  EIO: "Input/output error",
  ENXIO: "No such device or address",
  ENOMEM: "Out of memory",
  EACCES: "Permission denied",
  EBUSY: "Device or resource busy",
  EEXIST: "File exists",
  ENODEV: "No such device",
  EISDIR: "Is a directory",
  EINVAL: "Invalid argument",
  ENFILE: "Too many open files in system",
  EMFILE: "Too many open files",
  EFBIG: "File too large",
  ENOSPC: "No space left on device",
  EROFS: "Read-only file system",
  EPIPE: "Broken pipe",
  ELOOP: "Too many levels of symbolic links",
  EADDRINUSE: "Address already in use",
  EADDRNOTAVAIL: "Cannot assign requested address",
  ECONNRESET: "Connection reset by peer",
  ENOTDIR: "Not a directory",
  ENAMETOOLONG: "File name too long",
};

/** The name of an errno, or "errno 999". */
export function errnoName(number: number): string {
  return names.get(number) ?? `errno ${number}`;
}

/** An error for a call that failed with `number`, with its name in `code`. */
export function errnoError(call: string, number: number): Error & { code: string } {
  const code = errnoName(number);
  const text = texts[code];
  return Object.assign(new Error(`${text ?? code} (os error ${number}), ${call}`), { code });
}

/** True when the errno says that this file or kernel cannot do such a thing at all. */
export function isUnsupported(number: number): boolean {
  return number === errno.EINVAL || number === errno.EOPNOTSUPP || number === errno.ENOSYS ||
    number === errno.ENOTTY || number === errno.ENODEV;
}
