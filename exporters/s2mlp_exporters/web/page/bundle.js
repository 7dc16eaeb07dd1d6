/** A bundle: manifest.json and the files that it lists, each held to its SHA-256 before it is used. */

import { KNOWN } from "./preprocess.js";
import { Refusal } from "./refusal.js";

const SCHEMA_VERSION = 1;
/** A file of the bundle, or of one of its numbered directories. */
const PLACE = /^(?:[1-9][0-9]{0,8}\/)?[A-Za-z0-9][A-Za-z0-9._+-]{0,99}$/;
const EXPECTED = "Expected a folder as s2mlp-export makes it.";

/**
 * @typedef {object} Folder
 * @property {string} name
 * @property {(name: string, onBytes?: OnBytes) => Promise<ArrayBuffer | null>} read null where there is no such file
 */

/**
 * @callback OnBytes follows a file that is fetched
 * @param {number} loaded bytes so far
 * @param {number | null} total bytes in all, where the server says
 */

/**
 * The folder at `path`, from where this page comes.
 *
 * @param {string} path relative to `base`
 * @param {string} base
 * @returns {Folder}
 */
export function folderAt(path, base) {
  const url = new URL(path.endsWith("/") ? path : `${path}/`, base);
  if (url.origin !== new URL(base).origin) {
    throw new Refusal(`?bundle=${path} leads to ${url.origin}, and this page reads bundles from its own server only.`);
  }
  return {
    name: decodeURIComponent(url.pathname.split("/").at(-2) || url.host),
    async read(name, onBytes) {
      const unreachable = () => new Refusal(`${name} could not be fetched: the server does not answer.`);
      const answer = await fetch(new URL(name, url)).catch(() => {
        throw unreachable();
      });
      if (!answer.ok) return null;
      return (onBytes ? followed(answer, onBytes) : answer).arrayBuffer().catch(() => {
        throw unreachable();
      });
    },
  };
}

/** The same answer; `onBytes` follows its bytes as they arrive. */
function followed(answer, onBytes) {
  const length = Number(answer.headers.get("content-length"));
  const total = length && !answer.headers.get("content-encoding") ? length : null;
  let loaded = 0;
  onBytes(loaded, total);
  const counter = new TransformStream({
    transform(chunk, controller) {
      loaded += chunk.length;
      onBytes(loaded, total);
      controller.enqueue(chunk);
    },
  });
  return new Response(answer.body.pipeThrough(counter));
}

/**
 * The folder that was chosen or dropped: the one of its files' that holds the manifest.
 *
 * @param {{path: string, file: File}[]} files
 * @returns {Folder}
 */
export function folderOf(files) {
  const depth = ({ path }) => path.split("/").length;
  const [manifest] = files.filter(({ path }) => /(^|\/)manifest\.json$/.test(path)).sort((a, b) => depth(a) - depth(b));
  if (!manifest) throw new Refusal(`There is no manifest.json among the files. ${EXPECTED}`);
  const place = manifest.path.slice(0, -"manifest.json".length);
  const byPath = new Map(files.map(({ path, file }) => [path, file]));
  return {
    name: place.split("/").at(-2) || "the chosen files",
    read: async (name) => (await byPath.get(place + name)?.arrayBuffer()) ?? null,
  };
}

/**
 * The bundle in `folder`, with a manifest that this page understands.
 *
 * @param {Folder} folder
 */
export async function openBundle(folder) {
  if (!globalThis.crypto?.subtle) {
    throw new Refusal(
      "This page was opened from an address that the browser does not trust, so it cannot check the model's files. " +
        "Open it over https, or on this machine as http://localhost.",
    );
  }
  const content = await folder.read("manifest.json");
  if (!content) throw new Refusal(`${folder.name} has no manifest.json. ${EXPECTED}`);
  let manifest;
  try {
    manifest = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(content));
  } catch {
    throw new Refusal(`${folder.name}/manifest.json is not valid JSON: copy the bundle again.`);
  }
  const known = check(manifest, folder.name);
  return {
    name: folder.name,
    manifest: known,
    /** The bytes of a file, if they are those that the manifest lists. */
    async read(name, onBytes) {
      if (!Object.hasOwn(known.files, name)) throw new Refusal(`${folder.name} lists no file ${name}.`);
      const bytes = await folder.read(name, onBytes);
      if (!bytes) throw new Refusal(`${folder.name}/${name} is missing: copy the whole bundle again.`);
      if ((await sha256(bytes)) !== known.files[name]) {
        throw new Refusal(
          `${folder.name}/${name} is not the file that was exported (its SHA-256 differs from the manifest's): it was ` +
            "changed or damaged, so it is not used. Copy the bundle again.",
        );
      }
      return bytes;
    },
  };
}

async function sha256(bytes) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Everything that the page takes from the manifest; what it does not know it does not guess. */
function check(manifest, name) {
  const wrong = (what) =>
    new Refusal(`${name}/manifest.json ${what}: the bundle was changed or damaged; copy it again.`);
  const version = manifest?.schema_version;
  if (version !== SCHEMA_VERSION) {
    throw new Refusal(
      `${name}/manifest.json has schema version ${JSON.stringify(version) ?? "none"}, and this page reads ${SCHEMA_VERSION}. ${EXPECTED}`,
    );
  }
  const { files, preprocessing, spec, input, labels, artifact } = manifest;
  const isHash = (value) => typeof value === "string" && /^[0-9a-f]{64}$/.test(value);
  if (!Object.entries(files ?? {}).every(([file, hash]) => PLACE.test(file) && isHash(hash))) {
    throw wrong("lists files in a way that is not known");
  }
  if (!Object.hasOwn(files ?? {}, artifact)) throw wrong("lists no hash for the model");
  const channels = spec?.in_channels;
  const sizes = [channels, spec?.classes, ...(spec?.image_size ?? [])];
  if (sizes.length !== 4 || !sizes.every((n) => Number.isSafeInteger(n) && n > 0) || input?.shape?.length !== 4) {
    throw wrong("does not tell the size of input and output");
  }
  // A single logit tells two classes apart.
  if (labels && ![spec.classes, Math.max(spec.classes, 2)].includes(labels.length))
    throw wrong("has not one label for each class");
  for (const [key, values] of Object.entries(KNOWN)) {
    if (!values.includes(preprocessing?.[key])) {
      throw new Refusal(
        `${name} wants images prepared with ${key} “${preprocessing?.[key]}”, which this page cannot do. It knows: ${values.join(", ")}.`,
      );
    }
  }
  const { mean, std, scale, crop_fraction: fraction, channel_order: order } = preprocessing;
  const isNumbers = (list) => list?.length === channels && list.every(Number.isFinite);
  if (
    !isNumbers(mean) ||
    !isNumbers(std) ||
    !Number.isFinite(scale) ||
    !(fraction > 0 && fraction <= 1) ||
    channels !== (order === "L" ? 1 : 3)
  ) {
    throw wrong("has a preprocessing that does not fit the model's channels");
  }
  if (!Array.isArray(preprocessing.assumed) || !manifest.interface)
    throw wrong("does not describe its input and output");
  return manifest;
}
