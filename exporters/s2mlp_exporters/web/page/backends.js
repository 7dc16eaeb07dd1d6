/** The backends of ONNX Runtime Web that a page may use, and the reasons why WebGPU cannot be one of them. */

/**
 * By name: ONNX Runtime's provider, its script, and its WebAssembly. WebGPU's is the native provider in the build that waits by
 * JSPI; the build that waits by Asyncify runs without JSPI, and is 10 MB larger.
 */
export const BACKENDS = {
  wasm: { provider: "wasm", script: "ort.wasm.min.mjs", core: "ort-wasm-simd-threaded" },
  webgpu: { provider: "webgpu", script: "ort.jspi.min.mjs", core: "ort-wasm-simd-threaded.jspi" },
};

/** The runtime's files that a backend loads. */
export const filesOf = (backend) => {
  const { script, core } = BACKENDS[backend];
  return [script, `${core}.mjs`, `${core}.wasm`];
};

/** Whether the page was exported with what WebGPU needs. */
export const shipsWebGpu = (site) => (site.manifest.engine?.runtime_files ?? []).includes(BACKENDS.webgpu.script);

/**
 * Why WebGPU cannot run the bundle here, as the end of a sentence; null where it may be tried.
 *
 * @param {{name: string, manifest: object}} bundle
 * @param {{manifest: object}} site where the runtime's files are
 */
export async function whyNotWebGpu(bundle, site) {
  const { precision, tolerance, files } = bundle.manifest;
  if (!shipsWebGpu(site)) return "this page was exported without --webgpu";
  if (precision === "int8") return "ONNX Runtime runs int8 on the processor alone";
  if (!tolerance || !Object.hasOwn(files, "golden.safetensors")) {
    return `${bundle.name} holds no golden tensors, so its answers there cannot be checked`;
  }
  if (!navigator.gpu) return "this browser has none";
  if (!("Suspending" in WebAssembly)) return "this browser lacks JavaScript Promise Integration, which it needs";
  if (!(await navigator.gpu.requestAdapter())) return "this browser finds no graphics processor for it";
  return null;
}
