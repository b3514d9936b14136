/**
 * Certificates for tests of TLS, made by openssl.
 *
 * @module
 */

async function openssl(...args: string[]): Promise<void> {
  const { success, stderr } = await new Deno.Command("openssl", { args, stdout: "null" }).output();
  if (!success) throw new Error(new TextDecoder().decode(stderr));
}

/** An authority, a server's certificate for localhost, and a client's, in the files that all these programs expect. */
export async function makeCertificates(directory: string): Promise<void> {
  const file = (name: string) => `${directory}/${name}.pem`;
  await openssl(
    "req",
    "-x509",
    "-newkey",
    "rsa:2048",
    "-nodes",
    "-days",
    "2",
    "-subj",
    "/CN=test authority",
    "-keyout",
    file("ca-key"),
    "-out",
    file("ca-cert"),
  );
  for (const [name, subject] of [["server", "localhost"], ["client", "a client"]]) {
    await openssl(
      "req",
      "-newkey",
      "rsa:2048",
      "-nodes",
      "-subj",
      `/CN=${subject}`,
      "-keyout",
      file(`${name}-key`),
      "-out",
      file(`${name}-csr`),
    );
    const extensions = `${directory}/${name}.ext`;
    await Deno.writeTextFile(
      extensions,
      "basicConstraints=CA:FALSE\nsubjectAltName=DNS:localhost,IP:127.0.0.1\n",
    );
    await openssl(
      "x509",
      "-req",
      "-days",
      "2",
      "-in",
      file(`${name}-csr`),
      "-CA",
      file("ca-cert"),
      "-CAkey",
      file("ca-key"),
      "-CAcreateserial",
      "-extfile",
      extensions,
      "-out",
      file(`${name}-cert`),
    );
  }
}
