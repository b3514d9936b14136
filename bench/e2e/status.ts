/**
 * Asks our server for its status over the control socket.
 *
 * @module
 */

import type { CacheStatus } from "../../src/cache/status.ts";
import { NbdboostError } from "../../src/errors.ts";

/** `GET /status` over HTTP/1.0 on the unix socket at `path`. */
export async function askStatus(path: string): Promise<CacheStatus> {
  using connection = await Deno.connect({ transport: "unix", path });
  const writer = connection.writable.getWriter();
  // 1.0, so that the answer ends with the connection and comes in one piece.
  await writer.write(
    new TextEncoder().encode("GET /status HTTP/1.0\r\nHost: localhost\r\nAccept: application/json\r\n\r\n"),
  );
  writer.releaseLock();
  let text = "";
  for await (const piece of connection.readable.pipeThrough(new TextDecoderStream())) text += piece;
  const [head = "", body = ""] = text.split(/\r\n\r\n(.*)/s);
  if (!/^HTTP\/1\.\d 200/.test(head)) {
    throw new NbdboostError(`The control socket answered "${head.split("\r\n")[0]}": expected 200.`);
  }
  return JSON.parse(body);
}
