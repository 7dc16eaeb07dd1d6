/** How a camera held the picture: the EXIF orientation, 1 to 8, and undoing it as Pillow's exif_transpose does. */

const ORIENTATION = 0x0112;
const SHORT = 3;

/** @param {Uint8Array | null} exif the TIFF structure of an EXIF block */
export function orientationOf(exif) {
  if (!exif || exif.length < 8) return 1;
  const view = new DataView(exif.buffer, exif.byteOffset, exif.byteLength);
  const little = view.getUint16(0) === 0x4949;
  const directory = view.getUint32(4, little);
  if (directory + 2 > exif.length) return 1;
  const entries = view.getUint16(directory, little);
  for (let i = 0, at = directory + 2; i < entries && at + 12 <= exif.length; i++, at += 12) {
    if (view.getUint16(at, little) === ORIENTATION && view.getUint16(at + 2, little) === SHORT) {
      return view.getUint16(at + 8, little);
    }
  }
  return 1;
}

/**
 * @param {import("./resample.js").Pixels} image as it is stored
 * @param {number} orientation
 * @returns {import("./resample.js").Pixels} as it is meant
 */
export function upright(image, orientation) {
  if (!(orientation >= 2 && orientation <= 8)) return image;
  const { channels, data } = image;
  const turned = orientation >= 5;
  const width = turned ? image.height : image.width;
  const height = turned ? image.width : image.height;
  const right = [2, 3, 7, 8].includes(orientation); // where the stored column counts from the other end
  const bottom = [3, 4, 6, 7].includes(orientation);
  const out = new Uint8ClampedArray(data.length);
  for (let y = 0, to = 0; y < height; y++) {
    for (let x = 0; x < width; x++, to += channels) {
      const [column, row] = turned ? [y, x] : [x, y];
      const from =
        ((bottom ? image.height - 1 - row : row) * image.width + (right ? image.width - 1 - column : column)) *
        channels;
      for (let c = 0; c < channels; c++) out[to + c] = data[from + c];
    }
  }
  return { width, height, channels, data: out };
}
