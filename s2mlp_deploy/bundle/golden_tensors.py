"""Golden tensors: inputs and reference logits in a bundle, with which a device without PyTorch checks an artifact."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file
from safetensors.numpy import save as to_bytes

from s2mlp_deploy.errors import BundleError
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.system.untrusted_input import check_safetensors

LARGE = "large"
"""Prefix of the case of a map with a thousand positions, which shows whether values are added one after another."""


@dataclass(frozen=True)
class Golden:
    """Inputs as the artifact takes them and reference logits (samples, classes) by case.

    Inputs are (samples, channels, height, width) float32, or (samples, height, width, channels) uint8.

    ``trace`` holds, for the first sample of :attr:`traced`, each layer's output at sampled positions:
    float32 (positions, channels), in the order of computation.

    ``quantized`` holds, where the graph is int8, the logits that it gave in ONNX Runtime when it was made: the
    reference's are too far away to distinguish a fault from rounding.
    """

    inputs: Mapping[str, Array]
    logits: Mapping[str, Array]
    trace: Mapping[str, Array]
    quantized: Mapping[str, Array] = field(default_factory=dict)

    @property
    def traced(self) -> str:
        """The case whose first sample is traced: ``noise``, or the first of images where there is no noise."""
        return "noise" if "noise" in self.inputs else "images" if "images" in self.inputs else "image-00"

    def without(self, cases: Collection[str]) -> Golden:
        """The golden tensors without ``cases``; the traced case is not among those."""
        inputs, logits, quantized = (
            {case: array for case, array in arrays.items() if case not in cases}
            for arrays in (self.inputs, self.logits, self.quantized)
        )
        return Golden(inputs, logits, self.trace, quantized)


def save(golden: Golden, path: Path) -> None:
    """Write ``golden`` as safetensors. Logits are rounded to float32, the reference's last step."""
    tensors = {f"input/{case}": array for case, array in golden.inputs.items()}
    tensors |= {f"logits/{case}": array.astype(np.float32) for case, array in golden.logits.items()}
    tensors |= {f"quantized/{case}": array.astype(np.float32) for case, array in golden.quantized.items()}
    tensors |= {f"trace/{i:04d}/{name}": array for i, (name, array) in enumerate(golden.trace.items())}
    # Written by Python, so that a full disk is an OSError, as everywhere else.
    path.write_bytes(to_bytes({name: np.ascontiguousarray(array) for name, array in tensors.items()}))


def load(path: Path) -> Golden:
    """Read golden tensors that :func:`save` wrote.

    Raises:
        BundleError: where the file is damaged, or does not hold what :func:`save` writes.
    """
    tensors = read_tensors(path)
    for name, array in tensors.items():
        allowed = (np.float32, np.uint8) if name.startswith("input/") else (np.float32,)
        if not re.fullmatch(r"input/.+|logits/.+|quantized/.+|trace/\d{4}/.+", name) or array.dtype not in allowed:
            raise BundleError(
                f"{path} holds {name!r} ({array.dtype}): expected float32 inputs, logits and traces. Copy the bundle again"
            )
    inputs, logits, quantized = (
        {n.removeprefix(part): a for n, a in sorted(tensors.items()) if n.startswith(part)}
        for part in ("input/", "logits/", "quantized/")
    )
    trace = {n.split("/", 2)[2]: a for n, a in sorted(tensors.items()) if n.startswith("trace/")}
    if not inputs or inputs.keys() != logits.keys():
        raise BundleError(f"{path} must hold an input and logits for each case: copy the bundle again")
    for case, images in inputs.items():
        if images.ndim != 4 or images.size == 0 or logits[case].shape[:1] != images.shape[:1]:
            raise BundleError(
                f"{path} has inputs {list(images.shape)} and logits {list(logits[case].shape)} in the case {case!r}: expected "
                "(samples, channels, height, width) and (samples, classes). Copy the bundle again"
            )
    if any(case not in logits or quantized[case].shape != logits[case].shape for case in quantized):
        raise BundleError(f"{path} must hold quantized logits like the reference's, or none: copy the bundle again")
    return Golden(inputs, logits, trace, quantized)


def read_tensors(path: Path) -> dict[str, Array]:
    """The tensors of a bundle's safetensors file, by name.

    Raises:
        BundleError: where the file is damaged.
    """
    try:
        check_safetensors(path)
        return dict(load_file(path))
    except (SafetensorError, OSError, ValueError, KeyError, AttributeError) as error:
        raise BundleError(f"{path} is not a whole safetensors file ({error}): copy the bundle again") from error
