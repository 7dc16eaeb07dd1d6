"""The weights of a bundle, read back from its ONNX file, so that baselines run on the same ones without the checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx.numpy_helper import to_array

from s2mlp_bench.baselines.families import code_of
from s2mlp_deploy.bundle.contents import Bundle
from s2mlp_deploy.errors import BundleError
from s2mlp_deploy.formats.registry import ONNX
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.manifest import FLOAT_LOGITS, Manifest
from s2mlp_deploy.schema.precision import precision
from s2mlp_deploy.schema.spec import Spec

_FOLDED = ("norm1", "norm2", "norm")
"""The norms whose affine part an export may move into the matrix product behind them."""


@dataclass(frozen=True)
class Model:
    """A spec and its weights by canonical name, float32. Where the export moved a LayerNorm's affine part into the
    matrix product behind it, it is there; the network is the same."""

    spec: Spec
    weights: Mapping[str, Array]

    def save(self, directory: Path) -> Path:
        """Write ``spec.json`` and ``weights.pt`` into the new ``directory``, for PyTorch."""
        import torch

        directory.mkdir()
        (directory / "spec.json").write_text(json.dumps(self.spec.to_json()), "utf-8")
        state = {name: torch.from_numpy(np.array(weight)) for name, weight in self.weights.items()}
        torch.save(state, directory / "weights.pt")
        return directory


def readable(manifest: Manifest) -> bool:
    """Whether the bundle of ``manifest`` holds the weights as they were trained: whether it is an ONNX file in float32,
    from prepared images to logits."""
    rounds = precision(manifest.precision).rounds
    return manifest.format == ONNX and manifest.interface == FLOAT_LOGITS and not rounds


def read(bundle: Bundle) -> Model:
    """The model in ``bundle``, which is :func:`readable`.

    Raises:
        UsageError: where baselines do not know the bundle's family.
        BundleError: where the file does not hold the weights of the manifest's model.
    """
    path, code = bundle.artifact.path, code_of(bundle.manifest.classifier)
    stored = {i.name: i for i in onnx.load(path).graph.initializer}
    weights: dict[str, Array] = {}
    for name, shape in code.with_biases(bundle.manifest.classifier, None).parameter_shapes().items():
        if (found := stored.get(code.initializer_name(name))) is not None:
            weights[name] = _shaped(to_array(found), shape, f"{path} holds {name}")
    biased = {layer for layer, kind in map(_layer_and_kind, weights) if kind == "bias"}
    spec = code.with_biases(bundle.manifest.classifier, frozenset(biased))
    for name, shape in spec.parameter_shapes().items():
        layer, kind = _layer_and_kind(name)
        if name not in weights and layer not in _FOLDED:
            raise BundleError(f"{path} holds no {name}, so baselines have no weights: export it with this release")
        weights.setdefault(name, np.full(shape, 1 if kind == "weight" else 0, np.float32))
    return Model(spec, weights)


def _layer_and_kind(parameter: str) -> tuple[str, str]:
    layer, kind = parameter.rsplit(".", 2)[-2:]
    return layer, kind


def _shaped(array: Array, shape: tuple[int, ...], what: str) -> Array:
    """``array`` in ``shape``, from which it may differ by axes of length 1, as the bias of a product over positions does."""
    if [n for n in array.shape if n != 1] != [n for n in shape if n != 1]:
        raise BundleError(f"{what} with the shape {array.shape}: expected {shape}")
    return array.reshape(shape)
