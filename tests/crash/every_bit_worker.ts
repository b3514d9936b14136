/**
 * One thread of `deno task every-bit`: makes the images, takes its share of the bits, and posts what came of them.
 *
 * @module
 */

import { allImages } from "./bit_images.ts";
import { bitsOf, emptyTally, tryFlipped, tryUndamaged } from "./every_bit.ts";

/** Bits between two reports. */
const reportEvery = 500;

const scope = self as unknown as Worker;
scope.onmessage = async (
  { data }: MessageEvent<{ first: number; stride: number; image: string | undefined }>,
) => {
  const post = (message: unknown) => scope.postMessage(message);
  try {
    for (const image of await allImages()) {
      if (data.image !== undefined && image.name !== data.image) continue;
      await tryUndamaged(image);
      let tally = emptyTally();
      let count = 0;
      for (const region of image.regions) {
        for (const bit of bitsOf(region, data.first, data.stride)) {
          tally[await tryFlipped(image, region, bit)]++;
          if (++count % reportEvery > 0) continue;
          post({ image: image.name, tally });
          tally = emptyTally();
        }
      }
      post({ image: image.name, tally });
    }
    post({ done: true });
  } catch (error) {
    post({ failure: (error as Error).message });
  }
};
