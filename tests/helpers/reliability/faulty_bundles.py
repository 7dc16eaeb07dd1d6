"""Faults of finished bundles: of model files, manifests, golden tensors and golden images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from PIL import Image

from helpers.reliability.faulty_graphs import FC1
from helpers.reliability.injections import (
    in_nodes,
    in_tensor,
)
from s2mlp_deploy.bundle.read import read_bundle
from s2mlp_deploy.schema.array import Array


def in_graph_file(name: str) -> Callable[[Path], None]:
    """A fault of the float32 graph's catalogue in a finished file: of constants by their own names, where it can be."""
    return {
        "one sign flipped": in_tensor(f"{FC1}.weight", lambda w: np.where(w == w.max(), -w, w)),
        "bias dropped": in_tensor(f"{FC1}.bias", np.zeros_like),
        "weight transposed": in_tensor(f"{FC1}.weight", np.transpose),
        "classes permuted": in_tensor("head.fc.weight", lambda w: np.roll(w, 1, axis=0)),
        "patches in BGR": in_tensor("stage0.embedding.weight", lambda w: w[:, ::-1]),
        "GELU replaced": in_nodes(lambda n: n.CopyFrom(_relu(n)) if n.op_type == "Gelu" else None),
        "epsilon lost": in_nodes(lambda n: _set(n, "epsilon", 1e-2) if n.op_type == "LayerNormalization" else None),
        "positions shifted once more": in_tensor("stage0/sources", lambda t: np.roll(t, 4)),
    }[name]


def _relu(node: onnx.NodeProto) -> onnx.NodeProto:
    return onnx.helper.make_node("Relu", node.input, node.output, node.name)


def _set(node: onnx.NodeProto, name: str, value: float) -> None:
    next(a for a in node.attribute if a.name == name).f = value


IN_FILE = (
    "one sign flipped",
    "bias dropped",
    "weight transposed",
    "classes permuted",
    "patches in BGR",
    "GELU replaced",
    "epsilon lost",
    "positions shifted once more",
)


def spec_change(**changes: Any) -> Callable[[Path, dict[str, Any]], object]:
    return lambda place, m: m["spec"].update(changes)


def contract_change(**changes: Any) -> Callable[[Path, dict[str, Any]], object]:
    return lambda place, m: m["preprocessing"].update(changes)


def golden_change(change: Callable[[dict[str, Array]], object]) -> Callable[[Path, dict[str, Any]], object]:
    from safetensors.numpy import load_file, save_file

    def changed_file(place: Path, _: object) -> None:
        tensors = load_file(place / "golden.safetensors")
        change(tensors)
        save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, place / "golden.safetensors")

    return changed_file


def golden_of(bundle: Path) -> Callable[[Path, dict[str, Any]], object]:
    """The logits of another model, for every case that both have; the golden images stay."""
    from safetensors.numpy import load_file

    stale = {n: array for n, array in load_file(bundle / "golden.safetensors").items() if n.startswith("logits/")}
    return golden_change(lambda tensors: tensors.update(stale))


def redrawn(change: Callable[[Image.Image], Image.Image]) -> Callable[[Path, dict[str, Any]], object]:
    def changed_image(place: Path, _: object) -> None:
        with Image.open(place / "image-01.png") as image:
            change(image).save(place / "image-01.png")

    return changed_image


def exchanged_images(place: Path, _: object) -> None:
    first, second = (place / f"image-0{i}.png" for i in (0, 1))
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)


def one_level(image: Image.Image) -> Image.Image:
    pixels = np.asarray(image).copy()
    pixels[pixels.shape[0] // 2] ^= 1
    return Image.fromarray(pixels)


RECORDED: dict[str, Callable[[Path, dict[str, Any]], object]] = {
    "labels permuted": lambda place, m: m.update(labels=m["labels"][::-1]),
    "one label too few": lambda place, m: m.update(labels=m["labels"][:-1]),
    "labels lost": lambda place, m: m.update(labels=None),
    "mean and std exchanged": lambda place, m: m["preprocessing"].update(
        mean=m["preprocessing"]["std"], std=m["preprocessing"]["mean"]
    ),
    "mean 1% off": contract_change(mean=[0.505, 0.505, 0.505]),
    "not divided by 255": contract_change(scale=1.0),
    "another filter": contract_change(interpolation="bilinear"),
    "another way to resize": contract_change(resize="squash"),
    "another crop": contract_change(crop_fraction=0.9),
    "grey for RGB": contract_change(channel_order="L"),
    "one channel's mean missing": contract_change(mean=[0.5, 0.5]),
    "NHWC for NCHW": lambda place, m: m["input"].update(layout="NHWC"),
    "axes in another order": lambda place, m: m["input"].update(shape=["batch", 20, 28, 3]),
    "height and width exchanged": lambda place, m: m["input"].update(shape=["batch", 3, 28, 20]),
    "another image size": spec_change(image_size=[24, 28]),
    "input in float16": lambda place, m: m["input"].update(dtype="float16"),
    "answers in float16": lambda place, m: m["output"].update(dtype="float16"),
    "one class too many": lambda place, m: m["output"].update(shape=["batch", 8]),
    "another number of classes": spec_change(classes=8),
    "a fixed batch": lambda place, m: (m["input"]["shape"].__setitem__(0, 4), m["output"]["shape"].__setitem__(0, 4)),
    "probabilities for logits": lambda place, m: m["interface"].update(output="probabilities"),
    "bytes for float": lambda place, m: m["interface"].update(input="uint8"),
    "another name of the input": lambda place, m: m["input"].update(name="images"),
    "another shift": spec_change(shift_semantics="inplace"),
    "another epsilon": spec_change(norm_epsilon=1e-6),
    "another checkpoint's hash": lambda place, m: m["source"].update(sha256="0" * 64),
    "a golden image of a class beyond": lambda place, m: m["golden_images"][0].update(label=99),
}


def read_main(bundle: Path) -> str:
    return read_bundle(bundle).manifest.artifact if (bundle / "manifest.json").exists() else "model.onnx"


def flipped(content: bytes) -> bytes:
    changed_bytes = bytearray(content)
    changed_bytes[len(content) // 2] ^= 1
    return bytes(changed_bytes)
