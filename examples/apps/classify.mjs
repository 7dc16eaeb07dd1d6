/**
 * The five most likely classes of PNG pictures: node classify.mjs BUNDLE PICTURE… [--json]
 *
 * Needs onnxruntime-node, and the modules of the web page that prepare pictures: they need no browser, and lie in
 * exporters/s2mlp_exporters/web/page here, and in every folder that --format web makes.
 */

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { openBundle } from "../../exporters/s2mlp_exporters/web/page/bundle.js";
import { argmax, ofEveryClass } from "../../exporters/s2mlp_exporters/web/page/golden.js";
import { orientationOf, upright } from "../../exporters/s2mlp_exporters/web/page/orientation.js";
import { decodePng, isPng, readHeader } from "../../exporters/s2mlp_exporters/web/page/png.js";
import { prepare } from "../../exporters/s2mlp_exporters/web/page/preprocess.js";
import { Refusal } from "../../exporters/s2mlp_exporters/web/page/refusal.js";

process.env.ORT_DISABLE_TELEMETRY ??= "1"; // before ONNX Runtime is loaded, or it reports to its maker
const { default: ort } = await import("onnxruntime-node");

async function read(file) {
  const bytes = new Uint8Array(await readFile(file));
  if (!isPng(bytes)) throw new Refusal(`${file} is no PNG file: this program reads no other.`);
  const { depth, colour } = readHeader(bytes);
  if (depth === 16 && colour === 0) throw new Refusal(`${file} has pixels of more than 8 bits: convert it to 8.`);
  const { pixels, exif } = await decodePng(bytes);
  return upright(pixels, orientationOf(exif));
}

/** The bundle in `directory`, of which not a byte has changed, and a session for its model. */
async function open(directory) {
  const folder = {
    name: directory,
    read: async (name) => {
      const content = await readFile(join(directory, name)).catch(() => null);
      return content ? content.buffer.slice(content.byteOffset, content.byteOffset + content.length) : null;
    },
  };
  const bundle = await openBundle(folder);
  const { format, artifact, input, interface: both } = bundle.manifest;
  if (!["onnx", "web"].includes(format) || input.dtype !== "float32") {
    throw new Refusal(`${directory} is a bundle of format ${format}: expected an ONNX bundle with float32 input.`);
  }
  if (both.input !== "float" || both.output !== "logits") {
    throw new Refusal(`${directory} prepares images itself, or gives no logits: leave out --input and --answer.`);
  }
  return { manifest: bundle.manifest, session: await ort.InferenceSession.create(await bundle.read(artifact)) };
}

async function main([directory, ...files], asJson) {
  if (!files.length) throw new Refusal("usage: node classify.mjs BUNDLE PICTURE… [--json]");
  const { manifest, session } = await open(directory);
  const { preprocessing, spec, input, output, labels } = manifest;
  for (const file of files) {
    const { tensor } = prepare(await read(file), preprocessing, spec.image_size);
    const shape = [1, spec.in_channels, ...spec.image_size];
    const results = await session.run({ [input.name]: new ort.Tensor("float32", tensor, shape) });
    const logits = results[output.name].data;
    const values = ofEveryClass(logits);
    const weights = Array.from(values, (value) => Math.exp(value - values[argmax(values)]));
    const sum = weights.reduce((total, weight) => total + weight, 0);
    const best = [...weights.keys()].sort((a, b) => weights[b] - weights[a]).slice(0, 5);
    const name = (index) => labels?.[index] ?? `class ${index}`;
    if (asJson) console.log(JSON.stringify({ file, classes: best.map(name), logits: [...logits] }));
    else
      console.log(
        [file, ...best.map((i) => `${((weights[i] / sum) * 100).toFixed(1).padStart(7)}%  ${name(i)}`)].join("\n"),
      );
  }
}

try {
  const given = process.argv.slice(2);
  await main(
    given.filter((argument) => argument !== "--json"),
    given.includes("--json"),
  );
} catch (error) {
  if (!(error instanceof Refusal)) throw error;
  console.error(error.message);
  process.exitCode = 1;
}
