/**
 * How bytes move: files and sockets behind one interface, so that the portable backend (Deno's own APIs) and the
 * ring backend (io_uring) can stand in for each other.
 *
 * @module
 */

/** What a path leads to, or what an open file is. */
export interface PathFacts {
  /** What sort of thing it is. */
  kind: "file" | "directory" | "block" | "character" | "fifo" | "socket" | "other";
  /** Bytes of a regular file; means nothing for other kinds (see {@linkcode IoFile.size}). */
  sizeBytes: number;
  /** Bytes of storage that a file has, where the platform tells. */
  allocatedBytes: number | undefined;
  /** The number of the filesystem that holds it. */
  filesystem: number;
  /** The inode, 0 where the platform has none. */
  inode: number;
  /** The device number of a block device, `major:minor`; else empty. */
  deviceNumber: string;
  /** Milliseconds since 1970 of the last modification, 0 when unknown. */
  modifiedMs: number;
}

/**
 * An open file or block device with positional access. Any number of calls may be under way at once. Errors are
 * the platform's, with an errno name in `code`; a call after `close` rejects with `DeviceError` ESHUTDOWN.
 */
export interface IoFile {
  /** Reads up to `into.length` bytes at `offset`; 0 at the end. */
  read(offset: number, into: Uint8Array<ArrayBuffer>): Promise<number>;
  /** Writes at least one byte of `bytes` at `offset` and returns how many. */
  write(offset: number, bytes: Uint8Array<ArrayBuffer>): Promise<number>;
  /** fdatasync; covers what was written through any handle of this file. */
  sync(): Promise<void>;
  /** Asks the open file itself, so that a path that was replaced meanwhile does not mislead. */
  stat(): Promise<PathFacts>;
  /** The size in bytes, of block devices too. */
  size(): Promise<number>;
  /** Takes an advisory lock (flock) on the whole file without waiting; false when another opener holds it. */
  tryLock(exclusive: boolean): Promise<boolean>;
  /**
   * Claims a block device for this opener alone, so that it cannot be mounted meanwhile; false when it is mounted or
   * otherwise in use. True, without any effect, for other kinds and where the platform cannot.
   */
  claim(): Promise<boolean>;
  /**
   * Makes the range read as zeroes without sending them, where the platform can; else false, and then the range holds
   * old bytes or zeroes, mixed. `keepAllocated` leaves the range provisioned.
   */
  zeroFast(offset: number, length: number, keepAllocated: boolean): Promise<boolean>;
  /**
   * Gives the range storage without changing what it reads as; extends the file where it ends earlier. False where
   * the platform cannot.
   */
  allocate(offset: number, length: number): Promise<boolean>;
  /** Closes after the calls under way have finished. */
  close(): Promise<void>;
}

/** Is told of the end of a transfer that was started without a promise. */
export interface TransferEnd {
  /**
   * Called once, never within the call that started it. `result` is how many bytes were moved (fewer than asked for only
   * at the end of a file) or a negative errno, `tag` what was given at the start. Returns true when it has settled
   * promises, so that what follows from them is done in this turn.
   */
  transferred(result: number, tag: number): boolean;
}

/** What can move bytes without a promise, and allocates nothing for a transfer. */
export interface TransferStarter {
  /**
   * Starts to read `length` bytes at `offset` into `memory[at, at + length)`, which is not the caller's until `to` is told.
   * False, with nothing started, when `read` must be used instead.
   */
  startRead(
    offset: number,
    memory: Uint8Array<ArrayBuffer>,
    at: number,
    length: number,
    to: TransferEnd,
    tag: number,
  ): boolean;
  /** Starts to write; as `startRead`. */
  startWrite(
    offset: number,
    memory: Uint8Array<ArrayBuffer>,
    at: number,
    length: number,
    to: TransferEnd,
    tag: number,
  ): boolean;
}

/** An open file that can also move bytes without a promise. */
export interface EventFile extends IoFile, TransferStarter {
  /** The error of a transfer that ended with `result`, a negative errno. */
  transferError(operation: "read" | "write", result: number): Error;
}

/** Whether a file can move bytes without promises. */
export function startsTransfers(file: IoFile): file is EventFile {
  return "startRead" in file;
}

/** Where a listener or a connection is: TCP or a unix socket. */
export type SocketAddress =
  | { transport: "tcp"; hostname: string; port: number }
  | { transport: "unix"; path: string };

/** A stream connection. At most one `read` and one `write` are under way at once. */
export interface IoConnection {
  /** Reads up to `into.length` bytes; null when the peer has closed. */
  read(into: Uint8Array<ArrayBuffer>): Promise<number | null>;
  /** Writes at least one byte and returns how many. */
  write(bytes: Uint8Array<ArrayBuffer>): Promise<number>;
  /** Closes at once; calls under way end with an error or null. */
  close(): void;
  /**
   * Sends `lastWords` in the clear and goes on with TLS. Only on connections of `listenTls` and `connectTls`, while no `read`
   * and no `write` is under way; rejects when the handshake fails, or the peer is not who it should be.
   */
  startTls?(lastWords: Uint8Array<ArrayBuffer>): Promise<void>;
}

/** What a server shows of itself in TLS, and wants to see of clients; PEM texts. */
export interface TlsIdentity {
  /** The server's certificate, with the chain to its authority. */
  readonly certificate: string;
  /** Its private key. */
  readonly key: string;
  /** The authority of clients' certificates. */
  readonly authority?: string | undefined;
  /** Clients without a certificate of that authority are refused. */
  readonly verifyClients: boolean;
}

/** What a client shows of itself in TLS, and wants to see of the server; PEM texts. */
export interface TlsTrust {
  /** The name, or the address, that must stand in the server's certificate. */
  readonly serverName: string;
  /** False takes any certificate: then nothing tells who answers there. */
  readonly verify: boolean;
  /** The authority of the server's certificate; by default those that the runtime knows. */
  readonly authority?: string | undefined;
  /** The client's certificate, for servers that want one. */
  readonly certificate?: string | undefined;
  /** Its private key. */
  readonly key?: string | undefined;
}

/** What an {@linkcode EventConnection} tells. Counts are bytes, or a negative errno. */
export interface ConnectionEvents {
  /** A receive ended; 0 when the peer has closed. */
  received(count: number): void;
  /** A send ended. */
  sent(count: number): void;
  /** Everything that came in this turn is here: the time to start the next receive and send. */
  turn(): void;
  /** After `close`: no memory of a receive or send is in the kernel's hands any more. Nothing is told after this. */
  closed(): void;
}

/**
 * A connection that can tell by events instead of promises, for which nothing is allocated per receive or send. After
 * `useEvents`, `read` and `write` are not to be called any more.
 */
export interface EventConnection extends IoConnection {
  /** Tells `events` from now on. */
  useEvents(events: ConnectionEvents): void;
  /** Starts a receive into `memory[at, at + length)`, which is the connection's until `received`; one at a time. */
  receive(memory: Uint8Array<ArrayBuffer>, at: number, length: number): void;
  /** Starts a send of `memory[at, at + length)`, which is the connection's until `sent`; one at a time. */
  send(memory: Uint8Array<ArrayBuffer>, at: number, length: number): void;
  /** Asks for one `turn` at the end of this turn, however often it is called until then. */
  askTurn(): void;
  /** Tells that promises are at work, so that what they do at once still belongs to this turn. */
  promised(): void;
}

/** Whether a connection can tell by events. */
export function tellsByEvents(connection: IoConnection): connection is EventConnection {
  return "useEvents" in connection;
}

/** A listening socket. */
export interface IoListener {
  /** The address as bound (the real port when 0 was asked for). */
  readonly address: SocketAddress;
  /**
   * The next connection, or null when the listener was closed. TCP_NODELAY is set. Rejects with what the platform
   * says when it cannot accept just now (for example too many open files); a later call may succeed.
   */
  accept(): Promise<IoConnection | null>;
  /** Stops listening; removes a unix socket's path. A second call does nothing. */
  close(): void;
}

/** A backend. */
export interface Io {
  /** Its name, as `status` shows it. */
  readonly name: "portable" | "ring";
  /**
   * Opens a file or block device for positional access. With `create` a new regular file is made, which must not
   * exist, readable and writable by its owner only. With `direct` writes
   * bypass the page cache where that can be had, so that a sync has less to do.
   */
  openFile(path: string, options: { write: boolean; create?: boolean; direct?: boolean }): Promise<IoFile>;
  /** What `path` leads to; symbolic links are followed. Undefined when there is nothing. */
  stat(path: string): Promise<PathFacts | undefined>;
  /** The absolute path without symbolic links. */
  realPath(path: string): Promise<string>;
  /** The text of a small file, such as one of sysfs; undefined when it cannot be read, without asking anybody. */
  readText(path: string): Promise<string | undefined>;
  /** Removes a file. */
  remove(path: string): Promise<void>;
  /** Makes a file's name durable: syncs the directory that holds it. False where that is not possible. */
  syncName(path: string): Promise<boolean>;
  /**
   * Listens. A unix socket's path that nothing answers on any more is replaced; one that is answered on, and a path
   * of another kind, are refused.
   */
  listen(address: SocketAddress): Promise<IoListener>;
  /** Listens for connections that can change to TLS (`startTls`); absent where that is not possible. */
  listenTls?(address: SocketAddress, identity: TlsIdentity): Promise<IoListener>;
  /**
   * Takes over a socket on which another process, such as a service manager, listens and which it passed as `descriptor`;
   * that one's is left as it is afterwards. With `identity` connections can change to TLS, where that is possible.
   */
  listenPassed(descriptor: number, identity?: TlsIdentity): Promise<IoListener>;
  /**
   * Standard input and output as one connection, of which there is one in a process; absent where that is not possible. Closing
   * it leaves both open.
   */
  standardStreams?(): IoConnection;
  /**
   * Connects to a server. TCP_NODELAY and keepalive are set. Rejects with what the platform says, with an errno name in
   * `code` where there is one; how long it may take is the caller's business.
   */
  connect(address: SocketAddress): Promise<IoConnection>;
  /** The same with a connection that can change to TLS (`startTls`) as a client; absent where that is not possible. */
  connectTls?(address: SocketAddress, trust: TlsTrust): Promise<IoConnection>;
}
