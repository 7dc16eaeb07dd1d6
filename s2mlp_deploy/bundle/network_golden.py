"""Golden tensors of a network with any inputs and outputs: what it must give for what, by case and name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from safetensors.numpy import save as to_bytes

from s2mlp_deploy.bundle.golden_tensors import read_tensors
from s2mlp_deploy.errors import BundleError
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.onnx_network import OnnxNetwork
from s2mlp_deploy.schema.tensor_entry import TensorEntry

Tensors: TypeAlias = Mapping[str, Array]
"""Arrays by the names of a network's inputs, or outputs."""


@dataclass(frozen=True)
class NetworkGolden:
    """Inputs and expected outputs by case. A case is one call: its arrays have one batch size."""

    inputs: Mapping[str, Tensors]
    outputs: Mapping[str, Tensors]


def save(golden: NetworkGolden, path: Path) -> None:
    """Write ``golden`` as safetensors: ``input/CASE/NAME`` and ``output/CASE/NAME``."""
    tensors = {
        f"{part}/{case}/{name}": np.ascontiguousarray(array)
        for part, cases in (("input", golden.inputs), ("output", golden.outputs))
        for case, arrays in cases.items()
        for name, array in arrays.items()
    }
    path.write_bytes(to_bytes(tensors))


def load(path: Path, network: OnnxNetwork) -> NetworkGolden:
    """Read golden tensors that :func:`save` wrote for ``network``.

    Raises:
        BundleError: where the file is damaged, or does not hold what :func:`save` writes.
    """
    found: dict[str, dict[str, dict[str, Array]]] = {"input": {}, "output": {}}
    for key, array in sorted(read_tensors(path).items()):
        part, _, rest = key.partition("/")
        case, _, name = rest.partition("/")
        if part not in found or not case or not name:
            raise BundleError(f"{path} holds {key!r}: expected inputs and outputs by case. Copy the bundle again")
        found[part].setdefault(case, {})[name] = array
    inputs, outputs = found["input"], found["output"]
    if not inputs or inputs.keys() != outputs.keys():
        raise BundleError(f"{path} must hold inputs and outputs for each case: copy the bundle again")
    for entries, cases in ((network.inputs, inputs), (network.outputs, outputs)):
        for case, arrays in cases.items():
            if misfit := next((entry for entry in entries if not fits(arrays.get(entry.name), entry)), None):
                raise BundleError(
                    f"{path} has no {misfit.name} {list(misfit.shape)} {misfit.dtype} in the case {case!r}: copy the bundle again"
                )
            if len(arrays) > len(entries):
                raise BundleError(f"{path} holds more in the case {case!r} than the network has: copy the bundle again")
    return NetworkGolden(inputs, outputs)


def fits(array: Array | None, entry: TensorEntry) -> bool:
    """Whether ``array`` has the type and the fixed sizes of ``entry``."""
    return (
        array is not None
        and array.dtype == entry.dtype
        and array.ndim == len(entry.shape)
        and all(isinstance(n, str) or n == m for n, m in zip(entry.shape, array.shape, strict=True))
    )
