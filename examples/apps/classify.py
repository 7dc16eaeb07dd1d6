"""The five most likely classes of pictures: python classify.py BUNDLE PICTURE… [--json]

Needs numpy, pillow and onnxruntime, and nothing of this project: take it as a start for your own.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from math import floor
from pathlib import Path
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before ONNX Runtime is loaded, or it reports to its maker

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

DEEP = {"I", "F", "I;16", "I;16L", "I;16B", "I;16N"}
"""Pillow's modes for more than 8 bits, which its conversion to RGB clips without a word."""


def open_bundle(directory: Path) -> tuple[dict[str, Any], onnxruntime.InferenceSession]:
    """The manifest and the model, of which not a byte has changed."""
    manifest = json.loads((directory / "manifest.json").read_bytes())
    if manifest["format"] not in ("onnx", "web") or manifest["input"]["dtype"] == "float16":
        sys.exit(
            f"{directory} is no ONNX bundle that takes bytes or float32: export it with --format onnx, without --io-dtype"
        )
    if manifest["interface"]["output"] != "logits":
        sys.exit(f"{directory} gives no logits: leave out --answer for this program")
    model = directory / manifest["artifact"]
    if hashlib.sha256(model.read_bytes()).hexdigest() != manifest["files"][model.name]:
        sys.exit(f"{model} is not the file that was exported: copy the bundle again")
    return manifest, onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


def decode(file: Path, steps: dict[str, Any]) -> Image.Image:
    """A picture, upright and in the model's channels: steps 1 to 3 of docs/preprocessing.md."""
    with Image.open(file) as opened:
        image = ImageOps.exif_transpose(opened)
    if image.mode in DEEP:
        sys.exit(f"{file} has pixels of more than 8 bits: convert it to 8")
    if image.mode == "P":
        image = image.convert("RGBA")
    return image.convert(steps["channel_order"])


def fit(image: Image.Image, steps: dict[str, Any], size: tuple[int, int]) -> Image.Image:
    """The picture at the model's size, (height, width): steps 4 and 5."""
    (height, width), (w, h) = size, image.size
    fraction, filter = steps["crop_fraction"], Image.Resampling[steps["interpolation"].upper()]
    if steps["resize"] == "shorter-then-crop":
        least_h, least_w = floor(height / fraction), floor(width / fraction)
        by_height = w * least_h > h * least_w
        scaled_h, scaled_w = (least_h, int(least_h * w / h)) if by_height else (int(least_w * h / w), least_w)
        box = (0, 0, w, h)
    else:
        scaled_h, scaled_w, box_w, box_h = height, width, float(w), float(h)
        if steps["resize"] == "shorter" and w / h >= width / height:
            box_w = width / height * h
        elif steps["resize"] == "shorter":
            box_h = w / (width / height)
        left, top = (w - box_w * fraction) * 0.5, (h - box_h * fraction) * 0.5
        box = (left, top, left + box_w * fraction, top + box_h * fraction)
    # One direction at a time: which Pillow takes first depends on its release, and shows in the rounding.
    image = image.resize((scaled_w, h), filter, box=(box[0], 0, box[2], h))
    image = image.resize((scaled_w, scaled_h), filter, box=(0, box[1], scaled_w, box[3]))
    top, left = round((scaled_h - height) / 2), round((scaled_w - width) / 2)
    return image.crop((left, top, left + width, top + height))


def normalize(image: Image.Image, steps: dict[str, Any]) -> np.ndarray:
    """The pixels as the model sees them, (channels, height, width) float32: steps 6 and 7."""
    pixels = np.asarray(image, np.float32).reshape(image.height, image.width, -1)
    mean, std = np.array(steps["mean"], np.float32), np.array(steps["std"], np.float32)
    return ((pixels * np.float32(steps["scale"]) - mean) / std).transpose(2, 0, 1)


def prepare(file: Path, manifest: dict[str, Any]) -> np.ndarray:
    """What the model takes of a picture; of --input image and uint8 it does the rest itself."""
    steps, kind = manifest["preprocessing"], manifest["interface"]["input"]
    image = decode(file, steps)
    if kind != "image":
        image = fit(image, steps, tuple(manifest["spec"]["image_size"]))
    return normalize(image, steps) if kind == "float" else np.asarray(image).reshape(image.height, image.width, -1)


def main() -> None:
    arguments = [a for a in sys.argv[1:] if a != "--json"]
    if len(arguments) < 2:
        sys.exit(__doc__)
    manifest, session = open_bundle(Path(arguments[0]))
    labels = manifest["labels"] or [f"class {i}" for i in range(max(manifest["spec"]["classes"], 2))]
    for file in arguments[1:]:
        image = prepare(Path(file), manifest)
        (logits,) = session.run([manifest["output"]["name"]], {manifest["input"]["name"]: image[None]})[0]
        values = np.append(np.float32(0), logits) if len(logits) == 1 else logits  # one logit tells two classes apart
        shares = np.exp(values - values.max()) / np.exp(values - values.max()).sum()
        best = [int(i) for i in shares.argsort()[::-1][:5]]
        if "--json" in sys.argv:
            print(json.dumps({"file": file, "classes": [labels[i] for i in best], "logits": logits.tolist()}))
        else:
            print(file, *(f"{shares[i]:8.1%}  {labels[i]}" for i in best), sep="\n")


if __name__ == "__main__":
    main()
