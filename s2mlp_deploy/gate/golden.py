"""Golden tensors: inputs chosen to expose errors, and the reference logits of them.

The gate checks an export with them when it is made, and they travel in the bundle, so that a device without PyTorch
can check itself later.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file
from safetensors.numpy import save as to_bytes

from s2mlp_deploy.errors import BundleError
from s2mlp_deploy.graph.lowered import Axes
from s2mlp_deploy.schema.array import Array
from s2mlp_deploy.schema.report import Distance
from s2mlp_deploy.schema.size import Size, format_size
from s2mlp_deploy.schema.spec import Spec
from s2mlp_deploy.system.untrusted_input import check_safetensors

NOISE_SAMPLES = 8
"""Noise inputs of models with few classes: a rounding error seen in few logits says little."""

FEW_CLASSES = 100

LARGE = "large"
"""The case of a map with a thousand positions, where it is seen if values are added one after another: its name begins so."""

LARGE_MAP: Size = (31, 33)
"""That map, whose image is not large: 496 by 528 for a patch of 16."""

TRACE_POSITIONS = 16
"""Positions of each feature map whose values are kept, for finding the layer that diverges."""


@dataclass(frozen=True)
class Golden:
    """Inputs as the artifact takes them and reference logits (samples, classes) by case.

    Inputs are (samples, channels, height, width) float32, or (samples, height, width, channels) uint8.

    ``trace`` holds, for the first sample of :attr:`traced`, each layer's output at sampled positions:
    float32 (positions, channels), in the order of computation.

    ``quantized`` holds, where the graph is int8, the logits that it gave in ONNX Runtime when it was made: the reference's
    are too far away to tell a fault from rounding.
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
        """The same, less ``cases``; what is traced is none of them."""
        inputs, logits, quantized = (
            {case: array for case, array in arrays.items() if case not in cases}
            for arrays in (self.inputs, self.logits, self.quantized)
        )
        return Golden(inputs, logits, self.trace, quantized)


@dataclass(frozen=True)
class GoldenReference:
    """Golden tensors, and by case the distance of PyTorch's own logits from them at the artifact's precision."""

    golden: Golden
    pytorch_distances: Mapping[str, Distance]

    def for_artifact(self, inputs: Mapping[str, Array]) -> GoldenReference:
        """The same with ``inputs`` (by case) as the artifact takes them."""
        return replace(self, golden=replace(self.golden, inputs=inputs))


def make_inputs(spec: Spec, axes: Axes) -> dict[str, Array]:
    """The golden inputs for a model that serves ``axes``, by case.

    Noise at the scale of normalized images, nearly none, and far too much; images that are zero but
    for two of their borders; a constant one. Sizes other than ``spec.image_size`` are added where the model must serve them.
    """
    rng = np.random.default_rng(20210614)
    c, (h, w) = spec.in_channels, spec.image_size

    def noise(samples: int, height: int, width: int) -> Array:
        return rng.standard_normal((samples, c, height, width), dtype=np.float32)

    border = np.zeros((2, c, h, w), np.float32)
    ph, pw = spec.patch
    edges = noise(2, h, w)
    for i, where in ((0, np.s_[:, :ph]), (0, np.s_[:, :, :pw]), (1, np.s_[:, -ph:]), (1, np.s_[:, :, -pw:])):
        border[i][where] = edges[i][where]
    cases = {
        "noise": noise(NOISE_SAMPLES if spec.classes < FEW_CLASSES else 1, h, w),
        "faint": noise(1, h, w) * np.float32(0.02),
        "loud": noise(1, h, w) * np.float32(5),
        "border": border,
        "constant": np.ones((1, c, h, w), np.float32),
    }
    if axes.size is None:
        for size in _other_sizes(spec):
            cases[f"noise-{format_size(size)}"] = noise(1, *size)
        if large := _large_size(spec):
            cases[f"{LARGE}-{format_size(large)}"] = 1 + noise(1, *large) * np.float32(0.1)
    return cases


def _other_sizes(spec: Spec) -> Iterator[Size]:
    """A larger size that is not square, the smallest that gives a map of 1 by 2, and one as tall and as narrow as those."""
    sh, sw = spec.reduction
    h, w = spec.image_size
    yield h + sh, w + 2 * sw
    yield sh, 2 * sw
    yield h + sh, 2 * sw


def _large_size(spec: Spec) -> Size | None:
    """The size that gives a last map of LARGE_MAP; None where the model's own is no smaller."""
    (h, w), (own_h, own_w), (rows, columns) = LARGE_MAP, spec.map_sizes(spec.image_size)[-1], spec.reduction
    return None if own_h * own_w >= h * w else (h * rows, w * columns)


def trace_positions(size: Size) -> tuple[Array, Array]:
    """(rows, columns) of the sampled positions of a map of ``size``: corners, edges and interior."""
    height, width = size
    count = min(TRACE_POSITIONS, height * width)
    corners = [(0, 0), (0, width - 1), (height - 1, 0), (height - 1, width - 1)]
    rng = np.random.default_rng(height * 65536 + width)
    others = [divmod(int(i), width) for i in rng.permutation(height * width)]
    chosen = list(dict.fromkeys([*corners, *others]))[:count]
    rows, columns = zip(*chosen, strict=True)
    return np.array(rows), np.array(columns)


def sample_map(x: Array) -> Array:
    """The sampled positions of one feature map (height, width, channels): (positions, channels)."""
    rows, columns = trace_positions((x.shape[0], x.shape[1]))
    return np.ascontiguousarray(x[rows, columns])


def save(golden: Golden, path: Path) -> None:
    """Write ``golden`` as safetensors. Logits are rounded to float32, the reference's last step."""
    tensors = {f"input/{case}": array for case, array in golden.inputs.items()}
    tensors |= {f"logits/{case}": array.astype(np.float32) for case, array in golden.logits.items()}
    tensors |= {f"quantized/{case}": array.astype(np.float32) for case, array in golden.quantized.items()}
    tensors |= {f"trace/{i:04d}/{name}": array for i, (name, array) in enumerate(golden.trace.items())}
    # Written by Python, so that a full disk is an OSError, as everywhere else.
    path.write_bytes(to_bytes({name: np.ascontiguousarray(array) for name, array in tensors.items()}))


def load(path: Path) -> Golden:
    """Read what :func:`save` wrote.

    Raises:
        BundleError: where the file is damaged, or does not hold what :func:`save` writes.
    """
    try:
        check_safetensors(path)
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, AttributeError) as error:
        raise BundleError(f"{path} is not a whole safetensors file ({error}): copy the bundle again") from error
    for name, array in tensors.items():
        allowed = (np.float32, np.uint8) if name.startswith("input/") else (np.float32,)
        if not re.fullmatch(r"input/.+|logits/.+|quantized/.+|trace/\d{4}/.+", name) or array.dtype not in allowed:
            raise BundleError(
                f"{path} holds {name!r} ({array.dtype}): expected float32 inputs, logits and traces. Copy the bundle again"
            )
    inputs = {n.removeprefix("input/"): a for n, a in sorted(tensors.items()) if n.startswith("input/")}
    logits = {n.removeprefix("logits/"): a for n, a in sorted(tensors.items()) if n.startswith("logits/")}
    quantized = {n.removeprefix("quantized/"): a for n, a in sorted(tensors.items()) if n.startswith("quantized/")}
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
