/**
 * PNG to pixels, exactly. A canvas gives back what it was drawn only where that is opaque: it stores colours multiplied
 * by their alpha, and rounds. The inflating is the browser's own.
 */

import { Refusal } from "./refusal.js";

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
const GREY = 0,
  RGB = 2,
  PALETTE = 3,
  GREY_ALPHA = 4,
  RGBA = 6;
const SAMPLES = { [GREY]: 1, [RGB]: 3, [PALETTE]: 1, [GREY_ALPHA]: 2, [RGBA]: 4 };
const DEPTHS = {
  [GREY]: [1, 2, 4, 8, 16],
  [RGB]: [8, 16],
  [PALETTE]: [1, 2, 4, 8],
  [GREY_ALPHA]: [8, 16],
  [RGBA]: [8, 16],
};
/** Adam7: first column, first row, step across, step down. */
const PASSES = [
  [0, 0, 8, 8],
  [4, 0, 8, 8],
  [0, 4, 4, 8],
  [2, 0, 4, 4],
  [0, 2, 2, 4],
  [1, 0, 2, 2],
  [0, 1, 1, 2],
];

const damaged = (why) => new Refusal(`This PNG file cannot be read: ${why}.`);

/** @param {Uint8Array} bytes */
export function isPng(bytes) {
  return SIGNATURE.every((byte, i) => bytes[i] === byte);
}

/** What stands at the start of the file: width, height, depth in bits, colour type, interlaced or not. */
export function readHeader(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < 33 || view.getUint32(12) !== 0x49484452) throw damaged("it has no header");
  const [width, height] = [view.getUint32(16), view.getUint32(20)];
  const [depth, colour, , , interlace] = bytes.subarray(24, 29);
  if (!width || !height || !DEPTHS[colour]?.includes(depth) || interlace > 1)
    throw damaged("its header makes no sense");
  return { width, height, depth, colour, interlaced: interlace === 1 };
}

/**
 * @param {Uint8Array} bytes
 * @returns {Promise<{pixels: import("./resample.js").Pixels, exif: Uint8Array | null}>} grey, or RGB without alpha
 */
export async function decodePng(bytes) {
  const header = readHeader(bytes);
  const { data, palette, exif } = chunks(bytes);
  if (header.colour === PALETTE && !palette) throw damaged("its palette is missing");
  const passes = layout(header);
  const raw = await inflate(
    data,
    passes.reduce((sum, pass) => sum + pass.height * (1 + pass.line), 0),
  );
  const channels = header.colour === GREY || header.colour === GREY_ALPHA ? 1 : 3;
  const pixels = {
    width: header.width,
    height: header.height,
    channels,
    data: new Uint8ClampedArray(header.width * header.height * channels),
  };
  let start = 0;
  for (const pass of passes) {
    unfilter(raw, start, pass, Math.max(1, (SAMPLES[header.colour] * header.depth) >> 3));
    place(raw, start, pass, header, palette, pixels);
    start += pass.height * (1 + pass.line);
  }
  return { pixels, exif };
}

function chunks(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const data = [];
  let palette = null;
  let exif = null;
  for (let at = 8; at + 12 <= bytes.length; ) {
    const length = view.getUint32(at);
    const kind = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    const content = bytes.subarray(at + 8, at + 8 + length); // or what is left of it, if the file was cut off
    if (kind === "IDAT") data.push(content);
    else if (kind === "PLTE") palette = content;
    else if (kind === "eXIf") exif = content;
    else if (kind === "IEND") break;
    at += 12 + length;
  }
  if (!data.length) throw damaged("it holds no pixels");
  return { data, palette, exif };
}

/** The image, or the seven of an interlaced one: size, bytes a line, and where their pixels go. */
function layout({ width, height, depth, colour, interlaced }) {
  const bits = SAMPLES[colour] * depth;
  return (interlaced ? PASSES : [[0, 0, 1, 1]])
    .map(([left, top, across, down]) => {
      const w = Math.ceil((width - left) / across);
      const h = Math.ceil((height - top) / down);
      return { left, top, across, down, width: w, height: h, line: Math.ceil((w * bits) / 8) };
    })
    .filter((pass) => pass.width > 0 && pass.height > 0);
}

async function inflate(parts, size) {
  const out = new Uint8Array(size);
  let filled = 0;
  const reader = new Blob(parts).stream().pipeThrough(new DecompressionStream("deflate")).getReader();
  try {
    while (filled < size) {
      const { done, value } = await reader.read();
      if (done) break;
      const fits = value.subarray(0, size - filled);
      out.set(fits, filled);
      filled += fits.length;
    }
  } catch {
    throw damaged("its pixels are damaged or cut off");
  }
  reader.cancel().catch(() => {});
  if (filled < size) throw damaged("its pixels are cut off");
  return out;
}

/** Undoes the filter of each line, in place; `back` is the distance to the pixel on the left, in bytes. */
function unfilter(raw, start, { height, line }, back) {
  for (let y = 0; y < height; y++) {
    const at = start + y * (line + 1) + 1;
    const filter = raw[at - 1];
    if (filter > 4) throw damaged("a line has a filter that there is not");
    const above = at - line - 1;
    for (let i = 0; i < line; i++) {
      const left = i >= back ? raw[at + i - back] : 0;
      const up = y ? raw[above + i] : 0;
      if (filter === 1) raw[at + i] += left;
      else if (filter === 2) raw[at + i] += up;
      else if (filter === 3) raw[at + i] += (left + up) >> 1;
      else if (filter === 4) raw[at + i] += paeth(left, up, y && i >= back ? raw[above + i - back] : 0);
    }
  }
}

function paeth(left, up, corner) {
  const p = left + up - corner;
  const [a, b, c] = [Math.abs(p - left), Math.abs(p - up), Math.abs(p - corner)];
  return a <= b && a <= c ? left : b <= c ? up : corner;
}

/** Puts the samples of one pass where they belong; of 16 bits, the upper 8. */
function place(raw, start, pass, { width, depth, colour }, palette, { channels, data }) {
  const samples = SAMPLES[colour];
  const unit = depth < 8 && colour === GREY ? 255 / ((1 << depth) - 1) : 1;
  for (let y = 0; y < pass.height; y++) {
    const line = start + y * (pass.line + 1) + 1;
    for (let x = 0; x < pass.width; x++) {
      const to = ((pass.top + y * pass.down) * width + pass.left + x * pass.across) * channels;
      for (let c = 0; c < channels; c++) {
        const bit = (x * samples + (colour === PALETTE ? 0 : c)) * depth;
        const byte = raw[line + (bit >> 3)];
        const value = depth < 8 ? (byte >> (8 - depth - (bit & 7))) & ((1 << depth) - 1) : byte;
        data[to + c] = colour === PALETTE ? (palette[value * 3 + c] ?? 0) : value * unit;
      }
    }
  }
}
