"""Ways to change the bundle of a repaired network that mean harm, or could. The network is that of helpers/looping.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file, save_file

from helpers.damaged_bundles import rehash
from helpers.formats import change_manifest, replace_file
from helpers.looping import FOR_EVER
from helpers.reliability.hostile_bundles import GRAPHS as OF_CLASSIFIERS
from helpers.reliability.hostile_bundles import Change

BATCH = ["batch", 32]


def _spec(**changed: Any) -> Change:
    return lambda bundle: change_manifest(bundle, lambda m: m["spec"].update(changed))


def _entry(**changed: Any) -> Change:
    """The one input, in all places where the manifest describes it."""

    def change(manifest: dict[str, Any]) -> None:
        for entry in (manifest["input"], manifest["spec"]["inputs"][0]):
            entry.update(changed)

    return lambda bundle: change_manifest(bundle, change)


def _entries(count: int) -> list[dict[str, Any]]:
    return [{"name": f"x{i}", "dtype": "float32", "shape": BATCH} for i in range(count)]


MANIFESTS: dict[str, Change] = {
    "no inputs": _spec(inputs=[]),
    "no outputs": _spec(outputs=[]),
    "2,000 outputs": _spec(outputs=_entries(2000)),
    "another input": _spec(inputs=_entries(1)),
    "an input twice": lambda bundle: change_manifest(
        bundle, lambda m: m["spec"].update(inputs=m["spec"]["inputs"] * 2)
    ),
    "an input of a negative size": _entry(shape=["batch", -32]),
    "an input of no size": _entry(shape=["batch", 1e400]),
    "an input beyond all memory": _entry(shape=["batch", 2**52]),
    "an input of many axes": _entry(shape=["batch", *[1] * 10_000]),
    "an input of objects": _entry(dtype="object"),
    "an input of text": _entry(dtype="str"),
    "an input with a path for a name": _entry(name="../bait"),
    "parameters that are none": _spec(parameters=-1),
    "more parameters than numbers": _spec(parameters=10**400),
    "golden outputs from elsewhere": _spec(golden="/etc/passwd"),
    "a shift that there is not": _spec(shift="naive"),
    "an unknown family": _spec(family="os"),
    "a family of classifiers": _spec(family="s2mlp"),
    "a field too many": _spec(custom_operators="libown.so"),
    "labels": lambda bundle: change_manifest(bundle, lambda m: m.update(labels=["cat", "dog"])),
    "a million golden images": lambda bundle: change_manifest(
        bundle, lambda m: m.update(golden_images=[{"file": "a"}] * 900_000)
    ),
}
"""Changed manifests, refused before anything else is loaded or, at the latest, by what the model declares."""


def _golden(change: Callable[[dict[str, Any]], object]) -> Change:
    def apply(bundle: Path) -> None:
        tensors = load_file(bundle / "golden.safetensors")
        change(tensors)
        save_file(tensors, bundle / "golden.safetensors")
        rehash(bundle)

    return apply


def _first(tensors: dict[str, Any], kind: str) -> str:
    return next(name for name in sorted(tensors) if name.startswith(f"{kind}/"))


GOLDEN: dict[str, Change] = {
    "none": _golden(lambda t: t.clear()),
    "no outputs": _golden(lambda t: [t.pop(name) for name in list(t) if name.startswith("output/")]),
    "no inputs": _golden(lambda t: [t.pop(name) for name in list(t) if name.startswith("input/")]),
    "of another shape": _golden(lambda t: t.update({_first(t, "input"): np.zeros((2, 33), np.float32)})),
    "of another type": _golden(lambda t: t.update({_first(t, "input"): np.zeros((2, 32), np.int64)})),
    "with unknown names": _golden(lambda t: t.update({"input/noise-0/other": np.zeros((1, 32), np.float32)})),
    "a little off": _golden(lambda t: t[_first(t, "output")].__iadd__(np.float32(1e-3))),
    "NaN": _golden(lambda t: t[_first(t, "output")].fill(np.nan)),
}
"""Golden tensors with hashes that are right, found at the latest by what the model computes."""

GRAPHS: dict[str, Change] = {
    what: change for what, change in OF_CLASSIFIERS.items() if not what.startswith(("a branch", "a loop", "a scan"))
}
"""ONNX files that could do more than compute; branches and loops are a network's own."""


def _loop(change: Callable[[onnx.GraphProto], object], trips: int | None = None) -> Change:
    """Change the body of the network's loop, and the number of trips."""

    def apply(bundle: Path) -> None:
        model = onnx.load(bundle / "model.onnx")
        loop = next(node for node in model.graph.node if node.op_type == "Loop")
        change(loop.attribute[0].g)
        if trips is not None:
            model.graph.initializer.append(numpy_helper.from_array(np.array(trips), "more_trips"))
            loop.input[0] = "more_trips"
        if len(loop.attribute[0].g.output) > len(loop.output) + 1:
            loop.output.append("collected")
        replace_file(bundle, "model.onnx", model.SerializeToString())

    return apply


def _own_operator(body: onnx.GraphProto) -> None:
    body.node.insert(0, helper.make_node("Own", ["carried"], ["more"], domain="com.example"))


def _elsewhere(body: onnx.GraphProto) -> None:
    tensor = TensorProto(name="more", data_type=TensorProto.FLOAT, dims=[32], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../bait")
    body.initializer.append(tensor)


def _collecting(body: onnx.GraphProto) -> None:
    """Every trip keeps a million numbers."""
    body.initializer.append(numpy_helper.from_array(np.array([1 << 20]), "million"))
    body.node.append(helper.make_node("ConstantOfShape", ["million"], ["numbers"]))
    body.output.append(helper.make_tensor_value_info("numbers", TensorProto.FLOAT, [1 << 20]))


def _within_itself(body: onnx.GraphProto) -> None:
    """A sequence operator that holds a graph, in the loop."""
    body.node.append(helper.make_node("SequenceMap", ["carried"], ["mapped"], body=onnx.GraphProto(name="inner")))


LOOPS: dict[str, Change] = {
    "an operator of a library in a loop": _loop(_own_operator),
    "weights from elsewhere in a loop": _loop(_elsewhere),
    "another operator that holds a graph in a loop": _loop(_within_itself),
}
"""Loops that could do more than compute, refused before ONNX Runtime loads them."""

COLLECTING: Change = _loop(_collecting, FOR_EVER)
"""A loop that fills all memory."""

ENDLESS: Change = _loop(lambda body: None, FOR_EVER)
"""A loop that does not end."""
