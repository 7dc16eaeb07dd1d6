/** The model in ONNX Runtime Web: loaded from bytes that were checked, run, timed. */

import { BACKENDS } from "./backends.js";
import { Refusal } from "./refusal.js";

const MOST_RUNS = 50;
const FEWEST_RUNS = 5;
const TIMING_MS = 500;

/**
 * @param {{name: string, manifest: object, read: (name: string) => Promise<ArrayBuffer>}} bundle
 * @param {{read: (name: string) => Promise<ArrayBuffer>}} site where the runtime's files are
 * @param {{backend: "wasm" | "webgpu", threads: number}} options
 * @param {(loaded: number, total: number | null) => void} onBytes follows model and runtime together
 */
export async function loadModel(bundle, site, { backend, threads }, onBytes) {
  const { manifest } = bundle;
  refuseWhatCannotRun(manifest, bundle.name);
  if (manifest.input.dtype !== "float32") {
    throw new Refusal(`${bundle.name} takes ${manifest.input.dtype} input: export it again without --io-dtype.`);
  }
  const { provider, script, core } = BACKENDS[backend];
  const follow = together(onBytes);
  const [bytes, binary] = await Promise.all([
    bundle.read(manifest.artifact, follow()),
    site.read(`${core}.wasm`, follow()),
  ]);
  const ort = await import(`./${script}`);
  ort.env.logLevel = "error";
  ort.env.wasm.numThreads = threads;
  ort.env.wasm.wasmPaths = { mjs: new URL(`${core}.mjs`, import.meta.url).href };
  ort.env.wasm.wasmBinary = binary;
  const started = performance.now();
  let session;
  try {
    session = await ort.InferenceSession.create(bytes, { executionProviders: [provider] });
  } catch (error) {
    throw new Refusal(`ONNX Runtime Web cannot load this model here: ${error.message}`);
  }
  return new Model(ort, session, manifest, performance.now() - started);
}

/** Followers of files whose bytes are counted as one; the total is known once it is of each. */
function together(onBytes) {
  const parts = [];
  return () => {
    const at = parts.push([0, null]) - 1;
    return (loaded, total) => {
      parts[at] = [loaded, total];
      const known = parts.every(([, of]) => of !== null);
      onBytes(
        parts.reduce((sum, [done]) => sum + done, 0),
        known ? parts.reduce((sum, [, of]) => sum + of, 0) : null,
      );
    };
  };
}

function refuseWhatCannotRun({ format, precision, engine, artifact, files, interface: both }, name) {
  const refuse = (why) => new Refusal(`${name} ${why}`);
  const optimized = format === "ort" && engine?.provider === "cpu";
  if (!["web", "onnx"].includes(format) && !optimized) {
    throw refuse(`is a bundle of format “${format}”, which a browser cannot run: give its ONNX bundle instead.`);
  }
  if (!["fp32", "fp16", "int8"].includes(precision)) {
    throw refuse(`holds ${precision} numbers, which ONNX Runtime Web cannot run: export it as fp32, fp16 or int8.`);
  }
  if (both.input !== "float" || both.output !== "logits") {
    throw refuse(
      `takes ${both.input} and gives ${both.output}: this page feeds float and reads logits. Export it without --input and --answer.`,
    );
  }
  if (Object.keys(files).some((file) => file.startsWith(`${artifact}.`))) {
    throw refuse("keeps its weights in a file of their own, which is more than a browser can hold.");
  }
}

class Model {
  #ort;
  #session;

  constructor(ort, session, manifest, loadMs) {
    this.#ort = ort;
    this.#session = session;
    this.manifest = manifest;
    this.loadMs = loadMs;
    const [batch] = manifest.input.shape;
    this.batch = typeof batch === "number" ? batch : null;
  }

  /**
   * Logits of any number of images. Where the batch is fixed, the last one is filled up with copies of its last image.
   *
   * @param {Float32Array} images
   * @param {number[]} shape (samples, channels, height, width)
   * @returns {Promise<Float32Array>} (samples, classes)
   */
  async run(images, [samples, ...rest]) {
    const size = rest.reduce((product, n) => product * n, 1);
    const step = this.batch ?? samples;
    const logits = [];
    for (let start = 0; start < samples; start += step) {
      const filled = Math.min(step, samples - start);
      const part = new Float32Array(step * size);
      part.set(images.subarray(start * size, (start + filled) * size));
      for (let i = filled; i < step; i++) part.copyWithin(i * size, (filled - 1) * size, filled * size);
      const data = await this.#runBatch(part, [step, ...rest]);
      logits.push(data.subarray(0, (data.length / step) * filled));
    }
    return Float32Array.from(logits.flatMap((part) => [...part]));
  }

  async #runBatch(data, shape) {
    const { input, output } = this.manifest;
    try {
      const results = await this.#session.run({ [input.name]: new this.#ort.Tensor("float32", data, shape) });
      return results[output.name].data;
    } catch (error) {
      throw new Refusal(`ONNX Runtime Web cannot run this model here: ${error.message}`);
    }
  }

  /** How long one image takes, in ms: the median of some runs, and how many they were. */
  async time(image, shape) {
    const samples = [];
    const end = performance.now() + TIMING_MS;
    while (samples.length < FEWEST_RUNS || (samples.length < MOST_RUNS && performance.now() < end)) {
      const started = performance.now();
      await this.run(image, shape);
      samples.push(performance.now() - started);
    }
    samples.sort((a, b) => a - b);
    const middle = samples.length / 2;
    return {
      medianMs: (samples[Math.ceil(middle) - 1] + samples[Math.floor(middle)]) / 2,
      runs: samples.length,
    };
  }
}
