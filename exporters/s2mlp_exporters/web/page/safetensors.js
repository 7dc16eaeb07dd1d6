/** Reads a safetensors file of float32 arrays, and believes nothing that the file says of itself. */

import { Refusal } from "./refusal.js";

const LARGEST_HEADER = 100e6;

/**
 * @param {ArrayBuffer} buffer
 * @param {string} name of the file, for messages
 * @returns {Map<string, {shape: number[], data: Float32Array}>}
 */
export function parse(buffer, name) {
  const damaged = (why) => new Refusal(`${name} is not a whole safetensors file (${why}): copy the bundle again.`);
  if (buffer.byteLength < 8) throw damaged("it is too short");
  const length = Number(new DataView(buffer).getBigUint64(0, true));
  if (length > LARGEST_HEADER || 8 + length > buffer.byteLength) throw damaged("its header is cut off");
  let header;
  try {
    header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(new Uint8Array(buffer, 8, length)));
  } catch {
    throw damaged("its header is not JSON");
  }
  if (header === null || typeof header !== "object" || Array.isArray(header)) throw damaged("its header is no table");
  const start = 8 + length;
  const size = buffer.byteLength - start;
  const tensors = new Map();
  for (const [key, entry] of Object.entries(header)) {
    if (key === "__metadata__") continue;
    const { dtype, shape, data_offsets: offsets } = entry ?? {};
    if (dtype !== "F32") throw damaged(`${key} is ${dtype}, expected F32`);
    if (!isCounts(shape) || !isCounts(offsets) || offsets.length !== 2) throw damaged(`${key} has no shape or place`);
    const [from, to] = offsets;
    const bytes = shape.reduce((product, n) => product * n, 4);
    if (from > to || to > size || to - from !== bytes) throw damaged(`${key} lies outside the file`);
    // Copied: a Float32Array on the file itself would have to be aligned, which the format does not promise.
    tensors.set(key, { shape, data: new Float32Array(buffer.slice(start + from, start + to)) });
  }
  return tensors;
}

function isCounts(value) {
  return Array.isArray(value) && value.every((n) => Number.isSafeInteger(n) && n >= 0);
}
