/** The page: what happens when somebody chooses, drops, presses. What is shown is made in view.js. */

import { filesOf } from "./backends.js";
import { Camera } from "./camera.js";
import { Engine } from "./engine.js";
import { chosenFiles, droppedFiles, isBundle } from "./files.js";
import { keepOffline } from "./offline.js";
import { Refusal } from "./refusal.js";
import * as view from "./view.js";

const MOST_THREADS = 8;
/** ONNX Runtime Web's own choice. */
const USUAL_THREADS = 4;

const $ = Object.fromEntries([...document.querySelectorAll("[id]")].map((found) => [found.id, found]));
const parameters = new URLSearchParams(location.search);
const camera = new Camera($.video);

let engine = null;
let opened = null;
let source = { path: parameters.get("bundle") };
let asked = null;
let doing = Promise.resolve();

// What is going on

function say(text, state) {
  $.status.textContent = text;
  $.status.dataset.state = state;
}

function complain(error) {
  $.problem.textContent = error instanceof Refusal ? error.message : `This page has a fault: ${error.message}`;
  $.problem.hidden = false;
}

/** Does one thing after the other, with its problems shown. Of what is asked for meanwhile, only the last is done. */
function busily(text, work) {
  asked = { text, work };
  doing = doing.then(async () => {
    if (!asked) return;
    const { text, work } = asked;
    asked = null;
    $.problem.hidden = true;
    say(text, "busy");
    try {
      await work();
    } catch (error) {
      complain(error);
    }
    enable(opened !== null);
    say(opened ? `Ready: ${running()}` : "No model", opened ? "ready" : "off");
  });
  return doing;
}

function enable(ready) {
  for (const control of [$.file, $.check, $["camera-button"], $.take]) control.disabled = !ready;
}

const threads = () => Number($.threads.value);
const running = () =>
  opened.backend === "webgpu" ? "WebGPU" : `WebAssembly, ${threads() === 1 ? "1 thread" : `${threads()} threads`}`;

// The model

async function open() {
  await busily("Loading the model …", async () => {
    opened = null;
    enable(false);
    forget();
    try {
      opened = await openOn($.backend.value);
    } finally {
      $.loading.hidden = true;
    }
    const { name, manifest, runtime, backend } = opened;
    $.heading.textContent = `${view.family(manifest)} in the browser`;
    document.title = `${name} · ${$.heading.textContent}`;
    $.facts.replaceChildren(...view.facts(name, manifest, runtime, running()));
    $.steps.replaceChildren(...view.steps(manifest));
    $.about.hidden = false;
    keepOffline(filesOf(backend)).then((bytes) => {
      if (bytes !== null) $.facts.append(view.keptOffline(bytes));
    });
  });
}

/**
 * Opens the bundle on "wasm", or "webgpu"; or with "auto" on WebGPU where that can be used and gives the right answers here, else on
 * WebAssembly, with the reason shown.
 */
async function openOn(choice) {
  engine?.stop();
  engine = new Engine();
  const found = await engine.call("open", source);
  offerWebGpu(found);
  let whyNot = found.whyNotWebGpu;
  const load = async (backend) => {
    await engine.call("load", { backend, threads: threads() }, [], showLoading);
    return { ...found, backend };
  };
  if (choice !== "wasm" && !whyNot) {
    try {
      return await load("webgpu");
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      whyNot = error.message;
    }
    engine.stop();
    engine = new Engine();
    await engine.call("open", source);
  }
  if (choice === "webgpu") throw new Refusal(`WebGPU is not used: ${whyNot}. Choose WebAssembly.`);
  if (choice === "auto" && found.shipsWebGpu) note(`WebAssembly, since WebGPU is not used: ${whyNot}.`);
  return await load("wasm");
}

function offerWebGpu({ shipsWebGpu, whyNotWebGpu }) {
  const option = $.backend.querySelector("[value=webgpu]");
  option.disabled = whyNotWebGpu !== null;
  option.textContent = !option.disabled ? "WebGPU" : shipsWebGpu ? "WebGPU (not here)" : "WebGPU (not in this page)";
  note("");
}

function note(text) {
  $["backend-note"].textContent = text;
  $["backend-note"].hidden = !text;
}

function showLoading({ loaded, total }) {
  $.loading.hidden = false;
  $.bytes.textContent = view.loading(loaded, total);
  if (total) $.progress.value = loaded / total;
  else $.progress.removeAttribute("value");
}

/** Takes away what another model said. */
function forget() {
  $.classes.replaceChildren();
  $.timing.hidden = $.checked.hidden = $.about.hidden = true;
  $.said.textContent = "No picture yet.";
  $.said.classList.remove("found");
}

// A picture

async function classify(request, picture, transfer = []) {
  await busily("Looking …", async () => {
    $.said.textContent = "";
    $.classes.replaceChildren();
    $.timing.hidden = true;
    show(picture);
    const answer = await engine.call("classify", request, transfer);
    const classes = view.ranking(answer.logits, opened.manifest.labels);
    $.said.textContent = `${classes[0].label}, ${view.percent(classes[0].share)}`;
    $.said.classList.add("found");
    $.classes.replaceChildren(...view.bars(classes));
    view.drawSeen($.seen, answer.seen);
    $.latency.textContent = `${view.milliseconds(answer.medianMs)}, median of ${answer.runs} runs`;
    $.first.textContent = view.milliseconds(answer.firstMs);
    $.sees.textContent = `${answer.seen.width} × ${answer.seen.height}, from ${answer.width} × ${answer.height} pixels`;
    $.timing.hidden = false;
  });
}

/** Shows a file, or what was taken with the camera, where the browser can; the invitation to choose another stays below. */
function show(picture) {
  URL.revokeObjectURL($.preview.src);
  $.preview.src = URL.createObjectURL(picture);
  $.preview.onerror = () => ($.preview.hidden = true);
  $.preview.alt = picture.name ? `The chosen picture, ${picture.name}` : "The picture taken";
  $.preview.hidden = false;
  $.choose.textContent = "Choose another picture";
}

async function toggleCamera() {
  if (camera.on) camera.stop();
  else await busily("Starting the camera …", () => camera.start());
  showCamera();
}

function showCamera() {
  $.camera.hidden = $.take.hidden = !camera.on;
  $.drop.hidden = camera.on;
  $["camera-button"].textContent = camera.on ? "Turn the camera off" : "Use the camera";
  $["camera-button"].setAttribute("aria-expanded", String(camera.on));
}

async function take() {
  const frame = await camera.take();
  const canvas = new OffscreenCanvas(frame.width, frame.height);
  canvas.getContext("2d").drawImage(frame, 0, 0);
  const picture = await canvas.convertToBlob();
  camera.stop();
  showCamera();
  await classify({ bitmap: frame }, picture, [frame]);
}

// The check

async function check() {
  await busily("Checking …", async () => {
    $.checked.hidden = true;
    const found = await engine.call("check");
    $.checked.hidden = false;
    $.outcome.textContent = view.outcome(found);
    $.outcome.dataset.passed = found.passed;
    $.cases.replaceChildren(...view.caseRows(found.cases));
    $.preparation.textContent = view.preparation(found.images);
  });
}

// What was chosen

async function receive(files) {
  if (isBundle(files)) {
    source = { files };
    await open();
  } else if (files.length && opened) {
    await classify({ file: files[0].file }, files[0].file);
  }
}

function offerThreads() {
  const isolated = globalThis.crossOriginIsolated === true;
  const most = isolated ? Math.min(navigator.hardwareConcurrency || 1, MOST_THREADS) : 1;
  $.threads.replaceChildren(...Array.from({ length: most }, (_, i) => view.element("option", {}, String(i + 1))));
  const asked = Number(parameters.get("threads"));
  $.threads.value = String(asked >= 1 && asked <= most ? asked : Math.min(most, USUAL_THREADS));
  $["threads-note"].hidden = isolated;
  $["threads-note"].textContent =
    "One thread only: the server does not isolate this page (Cross-Origin-Opener-Policy and " +
    "Cross-Origin-Embedder-Policy), so the browser allows it no more. serve.py beside this page does.";
}

$.file.addEventListener("change", () => {
  const files = chosenFiles($.file.files);
  $.file.value = ""; // so that choosing the same file again is a change, too
  receive(files);
});
$.bundle.addEventListener("change", () => {
  const files = chosenFiles($.bundle.files);
  $.bundle.value = "";
  receive(files);
});
$.check.addEventListener("click", check);
$.take.addEventListener("click", take);
$["camera-button"].addEventListener("click", toggleCamera);
$.backend.addEventListener("change", open);
$.threads.addEventListener("change", open);

document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dragging");
});
document.addEventListener("drop", async (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  receive(await droppedFiles(event.dataTransfer));
});

offerThreads();
$.backend.value = parameters.get("backend");
if (!$.backend.value) $.backend.value = "auto";
await open();
