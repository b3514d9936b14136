/**
 * A temporary directory and a URI of a unix socket in it.
 *
 * @module
 */

export interface TemporarySocket extends AsyncDisposable {
  directory: string;
  uri: string;
}

export async function temporarySocket(exportName = ""): Promise<TemporarySocket> {
  const directory = await Deno.makeTempDir({ prefix: "nbdboost-" });
  return {
    directory,
    uri: `nbd+unix:///${exportName}?socket=${directory}/s`,
    [Symbol.asyncDispose]: () => Deno.remove(directory, { recursive: true }),
  };
}
