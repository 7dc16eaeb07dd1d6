/** What the page shows, as functions from results to elements. Text from files is text, never markup. */

import { ofEveryClass } from "./golden.js";
import { describe } from "./preprocess.js";

const TOP = 5;

/** An element with attributes and children. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** The classes in order of their probability, the first few. */
export function ranking(logits, labels) {
  const values = ofEveryClass(logits);
  const most = Math.max(...values);
  const weights = Array.from(values, (value) => Math.exp(value - most));
  const sum = weights.reduce((total, weight) => total + weight, 0);
  return weights
    .map((weight, index) => ({ label: labels?.[index] ?? `class ${index}`, share: weight / sum }))
    .sort((a, b) => b.share - a.share)
    .slice(0, TOP);
}

export function percent(share) {
  return `${(share * 100).toFixed(1)} %`;
}

export function milliseconds(ms) {
  return `${ms < 10 ? ms.toFixed(2) : ms < 100 ? ms.toFixed(1) : ms.toFixed(0)} ms`;
}

const megabytes = (bytes) => (bytes / 1e6).toFixed(1);

/** How much of model and runtime has arrived. */
export function loading(loaded, total) {
  return `${megabytes(loaded)} ${total ? `of ${megabytes(total)} ` : ""}MB of model and runtime`;
}

/** The items of the list of classes. */
export function bars(classes) {
  return classes.map(({ label, share }) => {
    const fill = element("span", { class: "fill" });
    fill.style.setProperty("--share", share);
    return element(
      "li",
      {},
      element("span", { class: "label" }, label),
      element("span", { class: "share" }, percent(share)),
      element("span", { class: "bar", "aria-hidden": "true" }, fill),
    );
  });
}

/** Draws what the model sees onto a canvas. */
export function drawSeen(canvas, { width, height, channels, data }) {
  const image = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) image.data[i * 4 + c] = data[i * channels + Math.min(c, channels - 1)];
    image.data[i * 4 + 3] = 255;
  }
  canvas.width = width;
  canvas.height = height;
  canvas.getContext("2d").putImageData(image, 0, 0);
}

const FAMILIES = { s2mlp: "S²-MLP", s2mlp_v2: "S²-MLPv2", mixer: "MLP-Mixer" };

/** The name of the network's family. */
export const family = ({ spec }) => FAMILIES[spec.family ?? "s2mlp"] ?? spec.family;

/** The terms and descriptions of what was opened. */
export function facts(name, manifest, runtime, running) {
  const { spec, precision, format, verdict, quantization } = manifest;
  const [height, width] = spec.image_size;
  const blocks = spec.depth ?? spec.stages.reduce((sum, { depth }) => sum + depth, 0);
  const semantics = spec.shift_semantics;
  const shift = semantics === "paper" ? "the paper's" : "as the in-place code computes it";
  const rows = [
    ["Bundle", name],
    [
      "Model",
      `${family(manifest)}, ${blocks} blocks, ${spec.classes > 1 ? `${spec.classes} classes` : "1 logit for 2 classes"}, input ${width} × ${height}`,
    ],
    ...(semantics ? [["Shift", shift]] : []),
    ["Precision", precision + (quantization ? `, calibrated on ${quantization.calibration_images} images` : "")],
    ["Format", format],
    ["When exported", verdict === "passed" ? "held to the float64 reference, passed" : verdict],
    ["Runs on", `${running}, ONNX Runtime Web ${runtime?.runtime_version ?? "of unknown version"}`],
  ];
  return rows.map(fact);
}

/** The fact that the page works without its server. */
export const keptOffline = (bytes) =>
  fact(["Without a network", `works, too: ${megabytes(bytes)} MB are kept on this device`]);

const fact = ([term, text]) => element("div", {}, element("dt", {}, term), element("dd", {}, text));

export function steps(manifest) {
  return describe(manifest.preprocessing, manifest.spec.image_size).map((step) => element("li", {}, step));
}

const mark = (passed) => element("td", { class: passed ? "ok" : "bad" }, passed ? "✓ ok" : "✗ off");
const scientific = (value) => (Number.isFinite(value) ? value.toExponential(1) : "not finite");

/** The rows of the table of golden cases. */
export function caseRows(cases) {
  return cases.map(({ name, samples, relativeL2, limit, sameClass, passed }) =>
    element(
      "tr",
      {},
      element("th", { scope: "row" }, name, element("span", { class: "count" }, ` × ${samples}`)),
      element("td", {}, scientific(relativeL2)),
      element("td", {}, limit.toExponential(0)),
      element("td", {}, `${(sameClass * 100).toFixed(0)} %`),
      mark(passed),
    ),
  );
}

/** In one sentence: the check's outcome. */
export function outcome({ cases, passed }) {
  const samples = cases.reduce((sum, { samples: n }) => sum + n, 0);
  return passed
    ? `Passed: on ${samples} golden inputs this browser computes what the model computes.`
    : "Failed: in this browser the model does not compute what it should. Do not trust its answers here.";
}

/** In one sentence: how the page's own preparation of images compares. */
export function preparation(images) {
  if (!images.length)
    return "This bundle holds no golden images, so the page's own preparation of images was not checked with it.";
  const many = images.length === 1 ? "1 golden image gives" : `${images.length} golden images give`;
  if (images.every(({ passed }) => passed))
    return `Prepared here, ${many} exactly the tensors that the exporter prepared.`;
  const most = Math.max(...images.map(({ levels }) => levels));
  return `Prepared here, ${many} tensors up to ${most.toFixed(1)} levels of 255 off: this page's preparation is not the model's.`;
}
