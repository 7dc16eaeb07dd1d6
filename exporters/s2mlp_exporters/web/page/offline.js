/** The page's end of its service worker, which keeps it usable without a network. */

/**
 * Keeps the page, its model, and the runtime's files of this name. Resolves to the bytes that are kept; null where the browser
 * keeps none for this page.
 *
 * @param {string[]} runtime
 * @returns {Promise<number | null>}
 */
export async function keepOffline(runtime) {
  if (!navigator.serviceWorker) return null;
  try {
    await navigator.serviceWorker.register("sw.js", { updateViaCache: "none" });
    const { active } = await navigator.serviceWorker.ready;
    const { port1, port2 } = new MessageChannel();
    const answer = new Promise((resolve) => {
      port1.onmessage = ({ data }) => resolve(data.bytes ?? null);
    });
    active.postMessage({ runtime }, [port2]);
    return await answer;
  } catch {
    return null; // a private window, or storage that is full or forbidden
  }
}
