/** Which part of an image the model sees, and at what size: the arithmetic of s2mlp_deploy/data/preprocessing.py. */

/**
 * The image's `box` becomes an image of `scaled` (height, width), of which the model sees its size from `corner`
 * (top, left) on.
 *
 * @param {{resize: string, crop_fraction: number}} preprocessing
 * @param {[number, number]} image height and width
 * @param {[number, number]} size height and width of the model's input
 */
export function plan({ resize, crop_fraction: fraction }, [h, w], [height, width]) {
  if (resize === "shorter-then-crop") {
    const [leastH, leastW] = [Math.floor(height / fraction), Math.floor(width / fraction)];
    const scaled =
      w * leastH > h * leastW ? [leastH, Math.trunc((leastH * w) / h)] : [Math.trunc((leastW * h) / w), leastW];
    return { box: [0, 0, w, h], scaled, corner: [halfToEven(scaled[0] - height), halfToEven(scaled[1] - width)] };
  }
  let [boxW, boxH] = [w, h];
  if (resize === "shorter") {
    const shape = width / height;
    if (w / h >= shape) boxW = shape * h;
    else boxH = w / shape;
  }
  [boxW, boxH] = [boxW * fraction, boxH * fraction];
  const [left, top] = [(w - boxW) * 0.5, (h - boxH) * 0.5];
  return { box: [left, top, left + boxW, top + boxH], scaled: [height, width], corner: [0, 0] };
}

/** Half of a whole number, rounded as Python's round() does. */
function halfToEven(n) {
  const half = n / 2;
  const rounded = Math.round(half);
  return rounded - half === 0.5 && rounded % 2 ? rounded - 1 : rounded;
}
