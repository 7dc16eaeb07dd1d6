/** Where the work is done, so that the page stays usable: each message names a task, each answer its result or why not. */

import { shipsWebGpu, whyNotWebGpu } from "./backends.js";
import { folderAt, folderOf, openBundle } from "./bundle.js";
import { decodeFile, readBitmap } from "./decode.js";
import { compare, readGolden, scaleOf } from "./golden.js";
import { loadModel } from "./model.js";
import { prepare } from "./preprocess.js";
import { Refusal } from "./refusal.js";

/** Of 255 levels, what a prepared pixel may be off: far below one, far above how float32 rounds. */
const SAME_LEVEL = 1e-3;

/** Between two messages about bytes, in ms. */
const BREATH_MS = 50;

let site;
let bundle;
let model;

const TASKS = {
  async open({ path, files }) {
    site = await openBundle(folderAt("./", import.meta.url));
    bundle = files
      ? await openBundle(folderOf(files))
      : path
        ? await openBundle(folderAt(path, import.meta.url))
        : site;
    const { name, manifest } = bundle;
    const whyNot = await whyNotWebGpu(bundle, site);
    return { name, manifest, runtime: site.manifest.engine, shipsWebGpu: shipsWebGpu(site), whyNotWebGpu: whyNot };
  },

  /** Loads the model of what was opened; on WebGPU, which is wrong in some browsers, only where its golden tensors come out right. */
  async load({ backend, threads }, onBytes) {
    model = await loadModel(bundle, site, { backend, threads }, onBytes);
    if (backend === "webgpu") {
      const off = (await replay()).filter(({ passed }) => !passed);
      const worst = Math.max(...off.map(({ relativeL2 }) => relativeL2));
      if (off.length) {
        model = null;
        throw new Refusal(
          `its answers are off in this browser, by ${worst.toExponential(1)} on the golden inputs (${off.map(({ name }) => name).join(", ")})`,
        );
      }
    }
    return { loadMs: model.loadMs };
  },

  async classify({ file, bitmap }) {
    const { preprocessing, spec } = bundle.manifest;
    const pixels = bitmap ? readBitmap(bitmap) : await decodeFile(file);
    const { tensor, seen } = prepare(pixels, preprocessing, spec.image_size);
    const shape = [1, spec.in_channels, ...spec.image_size];
    const started = performance.now();
    const logits = await model.run(tensor, shape);
    const firstMs = performance.now() - started;
    if (!logits.every(Number.isFinite)) throw new Refusal("The model's answer is not a number: this model is broken.");
    return { logits, seen, firstMs, width: pixels.width, height: pixels.height, ...(await model.time(tensor, shape)) };
  },

  async check() {
    const { tolerance, files } = bundle.manifest;
    if (!tolerance || !Object.hasOwn(files, "golden.safetensors")) {
      throw new Refusal(
        `${bundle.name} holds no golden tensors: it was exported with --no-gate, and nothing can be checked.`,
      );
    }
    const results = await replay();
    const images = await checkImages((await golden()).find(({ name }) => name === "images"));
    return { cases: results, images, passed: [...results, ...images].every(({ passed }) => passed) };
  },
};

const golden = async () => readGolden(await bundle.read("golden.safetensors"), bundle.manifest.spec.classes);

/** Runs the golden inputs, and holds the logits to the reference's. */
async function replay() {
  const { tolerance, spec } = bundle.manifest;
  const cases = await golden();
  const scale = scaleOf(cases);
  const results = [];
  for (const { name, shape, inputs, logits } of cases) {
    results.push({ name, ...compare(await model.run(inputs, shape), logits, spec.classes, tolerance, scale) });
  }
  return results;
}

/** Prepares the golden images as any other, and holds them to the tensors that s2mlp-export prepared. */
async function checkImages(images) {
  const { golden_images: entries, preprocessing, spec } = bundle.manifest;
  const results = [];
  for (const [row, { file }] of (images ? (entries ?? []) : []).entries()) {
    const pixels = await decodeFile(new Blob([await bundle.read(file)]));
    const { tensor } = prepare(pixels, preprocessing, spec.image_size);
    const expected = images.inputs.subarray(row * tensor.length, (row + 1) * tensor.length);
    const levels = mostLevels(tensor, expected, preprocessing);
    results.push({ file, levels, passed: levels <= SAME_LEVEL });
  }
  return results;
}

function mostLevels(actual, expected, { scale, std }) {
  const area = actual.length / std.length;
  let most = 0;
  for (let i = 0; i < actual.length; i++) {
    most = Math.max(most, (Math.abs(actual[i] - expected[i]) * std[Math.floor(i / area)]) / scale);
  }
  return most;
}

/** Passes on how many bytes were loaded, at most every BREATH_MS, and at the end. */
function reporter(id) {
  let last = 0;
  return (loaded, total) => {
    const now = performance.now();
    if (now - last < BREATH_MS && loaded !== total) return;
    last = now;
    self.postMessage({ id, progress: { loaded, total } });
  };
}

self.onmessage = async ({ data: { id, task, request } }) => {
  try {
    self.postMessage({ id, result: await TASKS[task](request, reporter(id)) });
  } catch (error) {
    const refused = error instanceof Refusal;
    self.postMessage({ id, problem: refused ? error.message : `This page has a fault: ${error?.message ?? error}` });
  }
};
