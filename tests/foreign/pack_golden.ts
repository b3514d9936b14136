/**
 * `deno run -A tests/foreign/pack_golden.ts FOLDER`: packs unpacked cases, one folder each, as `golden.ts` reads them.
 *
 * @module
 */

import { brotliCompressSync, constants } from "node:zlib";
import { sectorBytes } from "../../src/units.ts";
import { fromTags, type GoldenHeader } from "./golden.ts";

const [folder] = Deno.args;
const target = new URL("../golden/dm_writeboost/", import.meta.url);

function tagsOf(image: Uint8Array<ArrayBuffer>): Uint32Array {
  const words = new BigUint64Array(image.buffer);
  const tags = new Uint32Array(image.length / sectorBytes);
  for (let sector = 0; sector < tags.length; sector++) {
    const tag = words[sector * 64 + 1]!;
    if (tag !== BigInt(sector)) tags[sector] = Number(tag);
  }
  const again = fromTags(tags);
  if (image.some((byte, i) => byte !== again[i])) {
    throw new Error("the image is not of the kind that can be packed");
  }
  return tags;
}

for (const { name } of Deno.readDirSync(folder!)) {
  const read = (file: string) => Deno.readFileSync(`${folder}/${name}/${file}`);
  const files = new Set([...Deno.readDirSync(`${folder}/${name}`)].map((entry) => entry.name));
  const how = JSON.parse(new TextDecoder().decode(read("how.json")));
  const header: GoldenHeader = { what: how.what, ...(how.base ? { base: how.base } : {}), parts: [] };
  const contents: Uint8Array[] = [];
  const add = (part: string, bytes: Uint8Array, sectors?: number) => {
    header.parts.push({ name: part, bytes: bytes.length, ...(sectors === undefined ? {} : { sectors }) });
    contents.push(bytes);
  };
  add("cache", read(files.has("cache.img") ? "cache.img" : "cache-after.img"));
  for (const part of ["backing-after", "expected", "expected-acked"]) {
    if (!files.has(`${part}.img`)) continue;
    const tags = tagsOf(read(`${part}.img`));
    add(part, new Uint8Array(tags.buffer), tags.length);
  }
  const line = new TextEncoder().encode(JSON.stringify(header) + "\n");
  const bytes = new Uint8Array(await new Blob([line, ...contents as BlobPart[]]).arrayBuffer());
  const packed = brotliCompressSync(bytes, {
    params: { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_LGWIN]: 24 },
  });
  Deno.writeFileSync(new URL(`${name}.br`, target), packed);
  console.log(name, bytes.length, packed.length);
}
