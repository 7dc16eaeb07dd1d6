/** From decoded pixels to what the model takes: the same steps, in the same arithmetic, as s2mlp_deploy/data/images.py. */

import { plan } from "./plan.js";
import { resample } from "./resample.js";

/** The preprocessing that this page knows; a bundle with another is refused. */
export const KNOWN = {
  resize: ["shorter", "shorter-then-crop", "squash"],
  interpolation: ["bilinear", "bicubic", "lanczos", "hamming", "box", "nearest"],
  channel_order: ["RGB", "L"],
};

/**
 * @param {import("./resample.js").Pixels} image 1 (grey), 3 (RGB) or 4 (RGBA) channels; alpha is dropped
 * @param {object} preprocessing as in the manifest
 * @param {[number, number]} size height and width of the model's input
 * @returns {{tensor: Float32Array, seen: import("./resample.js").Pixels}} (channels, height, width), and its pixels
 */
export function prepare(image, preprocessing, size) {
  const seen = fit(inChannels(image, preprocessing.channel_order), preprocessing, size);
  return { tensor: normalize(seen, preprocessing), seen };
}

/** In words, for people. */
export function describe(preprocessing, [height, width]) {
  const { interpolation, channel_order: order, scale, mean, std, assumed } = preprocessing;
  const list = (values) => values.map((value) => +value.toPrecision(4)).join(", ");
  const steps = [
    "Turned upright",
    order === "L" ? "Made grey" : "Red, green and blue; transparency is dropped",
    describeResize(preprocessing, `${width} × ${height}`),
    `Filter: Pillow's ${interpolation}${interpolation === "nearest" ? "" : ", antialiased"}`,
    `Pixels × ${+scale.toPrecision(4)}, minus ${list(mean)}, divided by ${list(std)}`,
  ];
  if (assumed.length) steps.push(`Assumed, since nobody said: ${assumed.join(", ").replaceAll("_", " ")}`);
  return steps;
}

function describeResize({ resize, crop_fraction: fraction }, size) {
  const part = fraction < 1 ? `, keeping ${+(fraction * 100).toPrecision(3)} % of each side` : "";
  if (resize === "squash") return `Squashed to ${size}${part}`;
  if (resize === "shorter") return `Cut around the middle to the model's shape${part}, scaled to ${size}`;
  return `Shorter side scaled, then ${size} cut from the middle${part}`;
}

/** Pillow's convert("L") or convert("RGB"). */
export function inChannels(image, order) {
  const { width, height, channels, data } = image;
  const wanted = order === "L" ? 1 : 3;
  if (channels === wanted) return image;
  const out = new Uint8ClampedArray(width * height * wanted);
  for (let i = 0, at = 0; i < out.length; i += wanted, at += channels) {
    if (wanted === 1) out[i] = (data[at] * 19595 + data[at + 1] * 38470 + data[at + 2] * 7471 + 0x8000) >> 16;
    else for (let c = 0; c < 3; c++) out[i + c] = data[channels === 1 ? at : at + c];
  }
  return { width, height, channels: wanted, data: out };
}

function fit(image, preprocessing, [height, width]) {
  const { box, scaled, corner } = plan(preprocessing, [image.height, image.width], [height, width]);
  const whole = resample(image, scaled[1], scaled[0], box, preprocessing.interpolation);
  return crop(whole, corner, [height, width]);
}

function crop(image, [top, left], [height, width]) {
  const { channels } = image;
  const out = new Uint8ClampedArray(width * height * channels);
  for (let y = 0; y < height; y++) {
    const from = ((top + y) * image.width + left) * channels;
    out.set(image.data.subarray(from, from + width * channels), y * width * channels);
  }
  return { width, height, channels, data: out };
}

/** (pixel · scale − mean) / std, rounded to float32 after each step as NumPy does. */
function normalize({ width, height, channels, data }, { scale, mean, std }) {
  const out = new Float32Array(channels * height * width);
  const area = width * height;
  for (let c = 0; c < channels; c++) {
    for (let i = 0; i < area; i++) {
      const scaled = Math.fround(data[i * channels + c] * Math.fround(scale));
      out[c * area + i] = Math.fround(scaled - Math.fround(mean[c])) / Math.fround(std[c]);
    }
  }
  return out;
}
