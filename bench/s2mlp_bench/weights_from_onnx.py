"""The weights of a bundle, read back from its ONNX file, so that baselines run on the same ones without the checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from onnx.numpy_helper import to_array

from s2mlp_deploy.bundle.contents import Bundle
from s2mlp_deploy.errors import BundleError
from s2mlp_deploy.families.s2mlp.layers import initializer_name
from s2mlp_deploy.families.s2mlp.spec import LAYERS, S2MLPSpec, only_s2mlp
from s2mlp_deploy.formats.registry import ONNX
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.manifest import FLOAT_LOGITS
from s2mlp_deploy.schema.precision import precision

_NORMS = ("norm1", "norm2", "norm")


@dataclass(frozen=True)
class Model:
    """A spec and its weights by canonical name, float32. Where the export moved a LayerNorm's affine part into the
    matrix product behind it, it is there; the network is the same."""

    spec: S2MLPSpec
    weights: Mapping[str, Array]

    def save(self, directory: Path) -> Path:
        """Write ``spec.json`` and ``weights.pt`` into the new ``directory``, for PyTorch."""
        import torch

        directory.mkdir()
        (directory / "spec.json").write_text(json.dumps(self.spec.to_json()), "utf-8")
        state = {name: torch.from_numpy(np.array(weight)) for name, weight in self.weights.items()}
        torch.save(state, directory / "weights.pt")
        return directory


def readable(bundle: Bundle) -> bool:
    """Whether ``bundle`` holds the weights as they were trained: whether it is an ONNX file in float32, from
    prepared images to logits."""
    manifest = bundle.manifest
    rounds = precision(manifest.precision).rounds
    return manifest.format == ONNX and manifest.interface == FLOAT_LOGITS and not rounds


def read(bundle: Bundle) -> Model:
    """The model in ``bundle``, which is :func:`readable`.

    Raises:
        UsageError: where the bundle is not an S²-MLP's.
        BundleError: where the file does not hold the weights of the manifest's model.
    """
    path = bundle.artifact.path
    found = {i.name: i for i in onnx.load(path).graph.initializer}
    spec = only_s2mlp(bundle.manifest.spec, "baselines are other ways to run the weights of an S²-MLP")
    weights: dict[str, Array] = {}
    biased = set()
    for name, shape in replace(spec, biases=frozenset(LAYERS)).parameter_shapes().items():
        layer, kind = name.rsplit(".", 2)[-2:]
        stored = found.get(initializer_name(name))
        if stored is not None:
            weights[name] = to_array(stored)
        elif kind == "weight" and layer in _NORMS:
            weights[name] = np.ones(shape, np.float32)
        elif kind == "weight":
            raise BundleError(f"{path} holds no {name}, so baselines have no weights: export it with this release")
        if kind == "bias" and stored is not None:
            biased.add(layer)
        if name in weights and weights[name].shape != shape:
            raise BundleError(f"{path} holds {name} with the shape {weights[name].shape}: expected {shape}")
    return Model(replace(spec, biases=frozenset(biased)), weights)
