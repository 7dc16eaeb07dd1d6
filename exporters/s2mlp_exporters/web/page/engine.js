/** The page's end of the worker. A new one starts for each model and backend, since the runtime is set up only once. */

import { Refusal } from "./refusal.js";

export class Engine {
  #worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
  #waiting = new Map();
  #next = 0;

  constructor() {
    this.#worker.onmessage = ({ data: { id, progress, result, problem } }) => {
      const { resolve, reject, onProgress } = this.#waiting.get(id);
      if (progress) {
        onProgress?.(progress);
        return;
      }
      this.#waiting.delete(id);
      if (problem === undefined) resolve(result);
      else reject(new Refusal(problem));
    };
    this.#worker.onerror = (event) => {
      event.preventDefault();
      const reason = new Refusal(
        `The page's worker stopped${event.message ? `: ${event.message}` : ""}. Reload the page.`,
      );
      for (const { reject } of this.#waiting.values()) reject(reason);
      this.#waiting.clear();
    };
  }

  /**
   * @param {"open" | "load" | "classify" | "check"} task
   * @param {object} request
   * @param {Transferable[]} transfer
   * @param {(progress: {loaded: number, total: number | null}) => void} [onProgress] in bytes
   */
  call(task, request = {}, transfer = [], onProgress = undefined) {
    return new Promise((resolve, reject) => {
      const id = this.#next++;
      this.#waiting.set(id, { resolve, reject, onProgress });
      this.#worker.postMessage({ id, task, request }, transfer);
    });
  }

  stop() {
    this.#worker.terminate();
    for (const { reject } of this.#waiting.values()) reject(new Refusal("Stopped, since something else was chosen."));
    this.#waiting.clear();
  }
}
