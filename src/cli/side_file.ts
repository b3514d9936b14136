/**
 * Files that a verb writes beside its real work: a picture, a process id, a token, figures.
 *
 * Invariant: nothing that anybody may miss is replaced. What is there already must be empty, or an earlier one of the same
 * kind: a slip of the hand that names a cache or a disk image here must not cost it.
 *
 * @module
 */

import { NbdboostError, RefusedError } from "../errors.ts";

/** What may be replaced. */
export interface SideFile {
  /** The option that names it, with its dashes. */
  option: string;
  /** What it is, for a person: "a picture". */
  kind: string;
  /** What the start of an earlier one looks like. */
  pattern: RegExp;
  /** Whether it may be something else than a file, as /dev/stdout is: it is only written to, and not taken away again. */
  stream?: boolean;
}

/** How much of what is there is looked at. */
const headBytes = 128;

/** Throws `RefusedError` when there is something at `path` that is neither empty nor an earlier `file`. */
export function refuseToReplace(path: string, { option, kind, pattern, stream = false }: SideFile): void {
  const refuse = (what: string) =>
    new RefusedError(
      `Cannot write ${kind} to ${option} ${path}: ${what}, and would be lost; name a file that does not exist yet`,
    );
  let facts: Deno.FileInfo;
  try {
    facts = Deno.statSync(path);
  } catch (cause) {
    if (cause instanceof Deno.errors.NotFound) return;
    throw new NbdboostError(
      `Cannot write ${kind} to ${option} ${path}: ${(cause as Error).message}; name another file`,
      { cause },
    );
  }
  if (!facts.isFile) {
    if (stream && !facts.isDirectory && !facts.isBlockDevice) return;
    throw refuse(facts.isDirectory ? "it is a directory" : "it is no regular file");
  }
  if (facts.size === 0) return;
  using file = Deno.openSync(path, { read: true });
  const bytes = new Uint8Array(headBytes);
  const head = new TextDecoder("latin1").decode(bytes.subarray(0, file.readSync(bytes) ?? 0));
  if (!pattern.test(head)) throw refuse(`something else is there (${facts.size} bytes)`);
}
