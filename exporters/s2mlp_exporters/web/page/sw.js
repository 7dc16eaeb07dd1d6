/**
 * Keeps the page usable without a network: its files, its model and the runtime that was used, each under its SHA-256.
 *
 * The page has them kept once it has a model. From then on each visit first fetches manifest.json: while it is the one that
 * was kept, or the server does not answer, all comes from what was kept; a changed one is loaded from the server, and kept in turn.
 * It takes over no page that is open: in Firefox 153, workers of several threads hang when a service worker claims them.
 */

const SCOPE = self.registration.scope;
const MANIFEST = new URL("manifest.json", SCOPE).href;
const STORE = `s2mlp-deploy ${SCOPE}`;
/** How long a server may take to answer before it counts as out of reach. */
const PATIENCE_MS = 5000;
/** Of a bundle's files, those that the page never loads. */
const NEVER_LOADED = ["serve.py"];

const place = (hash) => new URL(`sha256-${hash}`, SCOPE).href;
const nameOf = (url) => decodeURIComponent(url.slice(SCOPE.length).replace(/[?#].*$/s, "")) || "index.html";

/** A promise of the files, by name and hash, that this visit takes from the store; of null where it takes none. */
let kept = null;

async function decide() {
  const store = await caches.open(STORE);
  const known = await (await store.match(MANIFEST))?.text();
  if (known === undefined) return null;
  const signal = AbortSignal.timeout(PATIENCE_MS);
  const [status, text] = await fetch(MANIFEST, { cache: "no-cache", signal })
    .then(async (found) => [found.status, await found.text()])
    .catch(() => [0, ""]);
  if (status === 404) await forget();
  return status === 404 || (status === 200 && text !== known) ? null : JSON.parse(known).files;
}

/** Another site has moved in at this address. */
async function forget() {
  await caches.delete(STORE);
  await self.registration.unregister();
}

async function answer(request) {
  if (request.mode === "navigate" || !kept) kept = decide().catch(() => null);
  const files = await kept;
  const name = nameOf(request.url);
  const store = files && (await caches.open(STORE));
  const found =
    name === "manifest.json" ? await store?.match(MANIFEST) : files?.[name] && (await store.match(place(files[name])));
  return found ?? fetch(request);
}

/** Stores all that the page needs of the bundle as the server has it now, and forgets all else. Returns how many bytes these are. */
async function keep(runtime) {
  const store = await caches.open(STORE);
  const manifest = await fetched("manifest.json", "no-cache");
  const { files, engine } = JSON.parse(await manifest.clone().text());
  const unused = [...engine.runtime_files, ...NEVER_LOADED].filter((name) => !runtime.includes(name));
  const wanted = Object.entries(files).filter(([name]) => !unused.includes(name));
  let bytes = 0;
  for (const [name, hash] of wanted) {
    if (!(await store.match(place(hash)))) await store.put(place(hash), await exported(name, hash));
    bytes += (await (await store.match(place(hash))).blob()).size;
  }
  await store.put(MANIFEST, answerWith(await manifest.arrayBuffer(), manifest.headers));
  const places = new Set([MANIFEST, ...wanted.map(([, hash]) => place(hash))]);
  for (const { url } of await store.keys()) if (!places.has(url)) await store.delete(url);
  kept = null;
  return bytes;
}

/** The file as it was exported: from the browser's own cache, which the page has just filled, or from the server. */
async function exported(name, hash) {
  for (const cache of ["default", "reload"]) {
    const found = await fetched(name, cache);
    const content = await found.arrayBuffer();
    if ((await sha256(content)) === hash) return answerWith(content, found.headers);
  }
  throw new Error(`${name} is not the file that was exported`);
}

async function fetched(name, cache) {
  const found = await fetch(new URL(name, SCOPE), { cache });
  if (!found.ok) throw new Error(`${name} could not be fetched`);
  return found;
}

/** Without the headers that tell how the bytes once travelled. */
function answerWith(content, headers) {
  const lasting = new Headers(headers);
  for (const name of ["content-encoding", "content-length", "transfer-encoding", "vary"]) lasting.delete(name);
  return new Response(content, { headers: lasting });
}

async function sha256(content) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", content));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

self.addEventListener("fetch", (event) => {
  const { request } = event;
  if (request.method === "GET" && request.url.startsWith(SCOPE)) event.respondWith(answer(request));
});

self.addEventListener("message", (event) => {
  const [port] = event.ports;
  event.waitUntil(
    keep(event.data.runtime).then(
      (bytes) => port.postMessage({ bytes }),
      (error) => port.postMessage({ problem: error.message }),
    ),
  );
});
