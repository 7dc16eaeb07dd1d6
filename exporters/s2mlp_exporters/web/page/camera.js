/** The camera: shown while it is on, and one frame of it taken. */

import { Refusal } from "./refusal.js";

const REASONS = {
  NotAllowedError: "The camera is not allowed for this page: allow it in the browser's settings, or choose a file.",
  NotFoundError: "There is no camera here: choose a file instead.",
  NotReadableError: "The camera is used by another program.",
};

export class Camera {
  #video;
  #stream = null;

  /** @param {HTMLVideoElement} video */
  constructor(video) {
    this.#video = video;
  }

  get on() {
    return this.#stream !== null;
  }

  async start() {
    if (!navigator.mediaDevices?.getUserMedia) {
      throw new Refusal(
        "The browser gives the camera to pages over https or from localhost only: choose a file instead.",
      );
    }
    try {
      this.#stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    } catch (error) {
      throw new Refusal(REASONS[error.name] ?? `The camera cannot be used: ${error.message}`);
    }
    this.#video.srcObject = this.#stream;
    await this.#video.play();
  }

  /** The frame that is shown. @returns {Promise<ImageBitmap>} */
  take() {
    return createImageBitmap(this.#video, { colorSpaceConversion: "none" });
  }

  stop() {
    for (const track of this.#stream?.getTracks() ?? []) track.stop();
    this.#stream = null;
    this.#video.srcObject = null;
  }
}
