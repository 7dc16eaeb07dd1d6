/** The bundle's golden tensors, and how far this browser's logits are from them: the measures of s2mlp_deploy/gate/distance.py. */

import { Refusal } from "./refusal.js";
import { parse } from "./safetensors.js";

/**
 * @typedef {object} Case inputs and the reference's logits of them
 * @property {string} name
 * @property {number[]} shape (samples, channels, height, width)
 * @property {Float32Array} inputs
 * @property {Float32Array} logits (samples, classes)
 */

/**
 * @param {ArrayBuffer} buffer golden.safetensors
 * @param {number} classes
 * @returns {Case[]}
 */
export function readGolden(buffer, classes) {
  const tensors = parse(buffer, "golden.safetensors");
  const cases = [];
  for (const [key, { shape, data }] of [...tensors].sort(([a], [b]) => (a < b ? -1 : 1))) {
    if (!key.startsWith("input/")) continue;
    const name = key.slice("input/".length);
    const logits = tensors.get(`logits/${name}`);
    if (shape.length !== 4 || !data.length || logits?.shape.join() !== [shape[0], classes].join()) {
      throw new Refusal(`golden.safetensors holds no logits that fit its case ${name}: copy the bundle again.`);
    }
    cases.push({ name, shape, inputs: data, logits: logits.data });
  }
  if (!cases.length) throw new Refusal("golden.safetensors holds no inputs: copy the bundle again.");
  return cases;
}

/**
 * Holds logits (samples, classes) to the expected ones, row by row; the worst row counts.
 * A row whose two leading classes are closer to each other than the limit may go either way. Distances from a single logit
 * are relative to `scale`.
 *
 * @param {Float32Array} actual
 * @param {Float32Array} expected
 * @param {number} classes
 * @param {{relative_l2: number, top1_agreement: number}} tolerance as in the manifest
 * @param {number} [scale] see scaleOf
 */
export function compare(actual, expected, classes, tolerance, scale = Number.MIN_VALUE) {
  const samples = expected.length / classes;
  let relativeL2 = 0;
  let agreeing = 0;
  let margin = 0;
  for (let from = 0; from < expected.length; from += classes) {
    const a = actual.subarray(from, from + classes);
    const e = expected.subarray(from, from + classes);
    const length = Math.max(classes === 1 ? scale : norm(e), Number.MIN_VALUE);
    const distance = norm(Float64Array.from(e, (value, i) => a[i] - value)) / length;
    relativeL2 = Math.max(relativeL2, Number.isFinite(distance) ? distance : Infinity);
    if (leading(a) === leading(e)) agreeing++;
    else margin = Math.max(margin, lead(e) / length);
  }
  const sameClass = agreeing / samples;
  const limit = tolerance.relative_l2;
  const keepsClass = sameClass >= tolerance.top1_agreement || margin <= limit;
  return { samples, relativeL2, sameClass, limit, passed: relativeL2 <= limit && keepsClass };
}

/** What distances from a single logit are relative to: its root mean square over all cases. */
export function scaleOf(cases) {
  const squares = cases.flatMap(({ logits }) => Array.from(logits, (value) => value * value));
  return Math.sqrt(squares.reduce((sum, square) => sum + square, 0) / squares.length);
}

/** Logits of every class: a single one tells two apart, 1 where it is positive and 0 elsewhere. */
export function ofEveryClass(logits) {
  return logits.length === 1 ? [0, logits[0]] : logits;
}

function leading(logits) {
  return argmax(ofEveryClass(logits));
}

/** The index of the largest value. */
export function argmax(values) {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i] > values[best]) best = i;
  return best;
}

function norm(values) {
  let sum = 0;
  for (const value of values) sum += value * value;
  return Math.sqrt(sum);
}

/** How far the largest value is ahead of the second. */
function lead(values) {
  const sorted = Float32Array.from(ofEveryClass(values)).sort();
  return sorted[sorted.length - 1] - (sorted[sorted.length - 2] ?? -Infinity);
}
