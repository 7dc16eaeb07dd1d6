/**
 * Pillow's resampling to the last bit, as s2mlp_deploy/data/images.py uses it: along rows first, then along columns, each
 * rounded to 8 bits; the filter widens when shrinking, so that nothing is left out. From src/libImaging/Resample.c.
 *
 * A canvas does not do: browsers smooth differently from one another, and all of them from Pillow.
 */

import { FILTERS } from "./filters.js";

const PRECISION_BITS = 32 - 8 - 2;
const ROUND = 1 << (PRECISION_BITS - 1);

/**
 * @typedef {object} Pixels
 * @property {number} width
 * @property {number} height
 * @property {number} channels bytes a pixel
 * @property {Uint8Array | Uint8ClampedArray} data row by row, width · height · channels bytes
 */

/**
 * @param {Pixels} image
 * @param {number} width of the result
 * @param {number} height of the result
 * @param {[number, number, number, number]} box left, top, right, bottom, in pixels of the image
 * @param {string} filter its name in Pillow, in lower case
 * @returns {Pixels}
 */
export function resample(image, width, height, box, filter) {
  const [left, top, right, bottom] = box.map(Math.fround); // Pillow takes them as C floats
  if (filter === "nearest") return pick(image, width, height, [left, top, right, bottom]);
  const across = (from) =>
    width === from.width && left === 0 && right === width
      ? from
      : pass(from, coefficients(from.width, left, right, width, FILTERS[filter]), { horizontal: true });
  const down = (from) =>
    height === from.height && top === 0 && bottom === height
      ? from
      : pass(from, coefficients(from.height, top, bottom, height, FILTERS[filter]), { horizontal: false });
  return down(across(image));
}

/** Where each output's inputs start, how many there are, and their weights in units of 2^-22. */
function coefficients(inputs, from, to, outputs, { support: reach, weight: at }) {
  const scale = Math.fround(to - from) / outputs;
  const filterScale = Math.max(scale, 1);
  const support = reach * filterScale;
  const size = Math.ceil(support) * 2 + 1;
  const starts = new Int32Array(outputs);
  const counts = new Int32Array(outputs);
  const weights = new Int32Array(outputs * size);
  const exact = new Float64Array(size);
  for (let i = 0; i < outputs; i++) {
    const center = from + (i + 0.5) * scale;
    const start = Math.max(Math.trunc(center - support + 0.5), 0);
    const count = Math.min(Math.trunc(center + support + 0.5), inputs) - start;
    let sum = 0;
    for (let k = 0; k < count; k++) {
      exact[k] = at((k + start - center + 0.5) * (1 / filterScale));
      sum += exact[k];
    }
    for (let k = 0; k < count; k++) {
      const weight = (sum !== 0 ? exact[k] / sum : exact[k]) * (1 << PRECISION_BITS);
      weights[i * size + k] = Math.trunc(weight < 0 ? weight - 0.5 : weight + 0.5);
    }
    starts[i] = start;
    counts[i] = count;
  }
  return { starts, counts, weights, size };
}

/** One pass over all lines; `step` leads from sample to sample along a line, `line` from line to line, in bytes. */
function pass(image, { starts, counts, weights, size }, { horizontal }) {
  const { channels: bands, data } = image;
  const width = horizontal ? starts.length : image.width;
  const height = horizontal ? image.height : starts.length;
  const out = new Uint8ClampedArray(width * height * bands);
  const step = horizontal ? bands : image.width * bands;
  for (let y = 0, place = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const output = horizontal ? x : y;
      const start = starts[output] * step + (horizontal ? y * image.width : x) * bands;
      const count = counts[output];
      for (let band = 0; band < bands; band++, place++) {
        let sum = ROUND;
        for (let k = 0, at = start + band; k < count; k++, at += step) sum += data[at] * weights[output * size + k];
        out[place] = sum >> PRECISION_BITS;
      }
    }
  }
  return { width, height, channels: bands, data: out };
}

/** The pixel under the middle of each result's; the middles are summed up, as Pillow does. */
function pick({ width: wide, height: high, channels, data }, width, height, [left, top, right, bottom]) {
  const out = new Uint8ClampedArray(width * height * channels);
  const columns = middles(left, right, width, wide);
  const rows = middles(top, bottom, height, high);
  for (let y = 0, to = 0; y < height; y++) {
    for (let x = 0; x < width; x++, to += channels) {
      if (rows[y] < 0 || columns[x] < 0) continue; // beyond the image by a rounding error: black
      const from = (rows[y] * wide + columns[x]) * channels;
      for (let c = 0; c < channels; c++) out[to + c] = data[from + c];
    }
  }
  return { width, height, channels, data: out };
}

function middles(from, to, outputs, inputs) {
  const scale = Math.fround(to - from) / outputs;
  const found = new Int32Array(outputs);
  for (let i = 0, middle = from + scale * 0.5; i < outputs; i++, middle += scale) {
    found[i] = middle >= 0 && middle < inputs ? Math.trunc(middle) : -1;
  }
  return found;
}
