/**
 * An image file, or a frame of the camera, as pixels: what Pillow makes of it, or a refusal.
 *
 * PNG is exact. What a browser decodes (JPEG, WebP, …) is exact as far as its decoder is Pillow's: JPEG decoders may
 * differ by a level or two. Colour profiles are ignored, as Pillow ignores them.
 */

import { isJpeg, readFrame } from "./jpeg.js";
import { orientationOf, upright } from "./orientation.js";
import { decodePng, isPng, readHeader } from "./png.js";
import { Refusal } from "./refusal.js";

/** Pillow's limit, and the exporter's. */
export const MOST_PIXELS = Math.trunc(2 ** 30 / 4 / 3);
const STRIP = 256;
const ADVICE = "Save it as PNG or JPEG with 8 bits a channel, and try again.";

/**
 * @param {Blob} file
 * @returns {Promise<import("./resample.js").Pixels>} upright; 1, 3 or 4 channels
 */
export async function decodeFile(file) {
  if (!file.size) throw new Refusal("This file is empty.");
  const bytes = new Uint8Array(await file.arrayBuffer());
  if (isPng(bytes)) {
    const { width, height, depth, colour } = readHeader(bytes);
    checkSize(width, height);
    if (depth === 16 && colour === 0) {
      throw new Refusal(`This image has pixels of more than 8 bits, which would be clipped. ${ADVICE}`);
    }
    const { pixels, exif } = await decodePng(bytes);
    return upright(pixels, orientationOf(exif));
  }
  if (isJpeg(bytes)) checkFrame(readFrame(bytes));
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, {
      colorSpaceConversion: "none",
      premultiplyAlpha: "none",
      imageOrientation: "from-image",
    });
  } catch {
    throw new Refusal(`This file is not an image that this browser can read. ${ADVICE}`);
  }
  return readBitmap(bitmap);
}

/**
 * The bitmap's pixels, RGBA; it is closed. Read in strips, since phones have no room for large canvases.
 *
 * @param {ImageBitmap} bitmap
 * @returns {import("./resample.js").Pixels}
 */
export function readBitmap(bitmap) {
  const { width, height } = bitmap;
  try {
    checkSize(width, height);
    const data = new Uint8ClampedArray(width * height * 4);
    const canvas = new OffscreenCanvas(width, Math.min(height, STRIP));
    const context = canvas.getContext("2d", { willReadFrequently: true });
    for (let y = 0; y < height; y += STRIP) {
      const rows = Math.min(STRIP, height - y);
      context.clearRect(0, 0, width, STRIP);
      context.drawImage(bitmap, 0, y, width, rows, 0, 0, width, rows);
      data.set(context.getImageData(0, 0, width, rows).data, y * width * 4);
    }
    for (let i = 3; i < data.length; i += 4) {
      if (data[i] !== 255) {
        throw new Refusal(
          "This image has transparent parts, and a browser does not give back the colours behind them exactly. " +
            "Save it as PNG, which this page reads itself, or without transparency.",
        );
      }
    }
    return { width, height, channels: 4, data };
  } finally {
    bitmap.close();
  }
}

function checkSize(width, height) {
  if (width * height > MOST_PIXELS) {
    throw new Refusal(
      `This image has ${Math.round((width * height) / 1e6)} megapixels (${width} × ${height}), and this page reads up to ` +
        `${Math.floor(MOST_PIXELS / 1e6)}. Make it smaller, and try again.`,
    );
  }
}

function checkFrame(frame) {
  if (!frame) throw new Refusal("This JPEG file is damaged or cut off.");
  checkSize(frame.width, frame.height);
  if (frame.depth > 8)
    throw new Refusal(`This image has pixels of more than 8 bits, which would be clipped. ${ADVICE}`);
  if (frame.components === 4) {
    throw new Refusal(
      `This JPEG file is in CMYK, for print, and browsers do not agree on its colours. Save it as RGB.`,
    );
  }
}
